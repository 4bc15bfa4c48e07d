"""`make sbom`: what a kiosk and a clinic's servers are made of, in CycloneDX, from their locks.

Packages come with the hashes by which set-up takes them, networks with those of the manifest. The programs
of Debian come by name only, which no lock has: `dpkg-query --show` tells their versions on the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import click
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalContact
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from tests.release import locks
from tests.release.programs import RUNS_ALL, debian_packages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = ("kiosk", "clinic", "machines")
PYTHON = "3.11"  # of Debian 12 and Raspberry Pi OS Bookworm


def make_sbom(extra: str) -> Bom:
    """The bill of an installation with `extra`, on either processor."""
    bom = Bom()
    root = Component(
        name=locks.OURS,
        version=locks.version(),
        type=ComponentType.APPLICATION,
        bom_ref=locks.OURS,
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
    )
    bom.metadata.component = root
    bom.metadata.tools.components.add(Component(name="make sbom", version=locks.version()))
    places = [locks.environment(PYTHON, machine) for machine in locks.MACHINES]
    pins = [pin for pin in locks.read_lock(locks.FOLDER / f"{extra}.txt") if any(map(pin.is_for, places))]
    packages = {pin.name: _package(pin) for pin in pins}
    known = packages | {locks.OURS: root}
    for pin in pins:
        # What only our own build needs is wanted by nobody that is installed.
        for parent in pin.wanted_by & known.keys() or {locks.OURS}:
            bom.register_dependency(known[parent], [packages[pin.name]])
    networks = [_network(name, entry) for name, entry in _manifest().items()] if extra == "kiosk" else []
    programs = [_program(name) for name in sorted(RUNS_ALL | debian_packages(extra))]
    bom.register_dependency(root, [*networks, *programs])
    bom.components.update(packages.values(), networks, programs)
    return bom


def _package(pin: locks.Pin) -> Component:
    address = PackageURL("pypi", None, pin.name, pin.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(address)),
        comment="each file of this version, for any system",
        hashes=_sha256(pin.hashes),
    )
    return Component(
        name=pin.name,
        version=pin.version,
        bom_ref=str(address),
        purl=address,
        licenses=[
            LicenseFactory().make_from_string(text, license_acknowledgement=LicenseAcknowledgement.DECLARED)
            for text in _licence(pin)
        ],
        external_references=[files],
    )


def _network(name: str, entry: dict[str, str]) -> Component:
    return Component(
        name=name,
        version=entry["sha256"][:12],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"network/{name}",
        description=entry["does"],
        authors=[OrganizationalContact(name=entry["author"])],
        hashes=_sha256([entry["sha256"]]),
        licenses=[LicenseFactory().make_from_string(entry["licence"])],
    )


def _program(name: str) -> Component:
    address = PackageURL("deb", "debian", name)
    return Component(name=name, type=ComponentType.APPLICATION, bom_ref=str(address), purl=address)


def _sha256(hashes: Iterable[str]) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in hashes]


def _licence(pin: locks.Pin) -> list[str]:
    """What the package says of its licence; nothing where it is not installed here in this version."""
    try:
        said = metadata.metadata(pin.name)
    except metadata.PackageNotFoundError:
        return []
    if said["Version"] != pin.version:
        return []
    if expression := said.get("License-Expression"):
        return [expression]
    names = [
        line.split(" :: ")[-1] for line in said.get_all("Classifier", []) if line.startswith("License ::")
    ]
    words = (said.get("License") or "").strip()
    # Some write the whole text there.
    return [words] if words and "\n" not in words else names[:1]


def _manifest() -> dict[str, dict[str, str]]:
    networks: dict[str, dict[str, str]] = tomllib.loads(
        (locks.CHECKOUT / "models" / "manifest.toml").read_text()
    )["networks"]
    return networks


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/sbom"), show_default=True)
def main(out: Path) -> None:
    """Write the bills of materials of a kiosk, of a clinic's server, and of several that share the work."""
    out.mkdir(parents=True, exist_ok=True)
    for extra in SHIPPED:
        bom = make_sbom(extra)
        path = out / f"{locks.OURS}-{locks.version()}-{extra}.cdx.json"
        path.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n")
        packages = [each for each in bom.components if each.type is ComponentType.LIBRARY]
        unknown = sum(not package.licenses for package in packages)
        said = f", {unknown} of them not installed here and so without a licence" if unknown else ""
        click.echo(f"{path}: {len(bom.components)} components{said}")


if __name__ == "__main__":
    main()
