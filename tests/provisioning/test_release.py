"""What goes with a release: a bill of materials that names everything, an audit that did ask somebody."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion

from models.networks.manifest import load_manifest
from tests.release import audit, locks, sbom
from tests.release.programs import RUNS_ALL, debian_packages
from tests.support.documents import document, in_code

# What is installed where patients are: not the demonstration, not the tests.
SHIPPED = sorted(locks.extras().keys() - {"demo", "test"})
SOUP = document("provisioning/docs/file/soup.md")
KNOWN = {"id": "PYSEC-1", "fix_versions": ["2.0", "1.9.1"]}


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By extra what `make sbom` writes."""
    folder = tmp_path_factory.mktemp("sbom")
    said = CliRunner().invoke(sbom.main, ["--out", str(folder)], catch_exceptions=False)
    assert said.exit_code == 0
    name = f"dermakiosk-{locks.version()}-{{}}.cdx.json"
    return {extra: (folder / name.format(extra)).read_text() for extra in SHIPPED}


@pytest.mark.parametrize("extra", SHIPPED)
def test_a_bill_of_materials_is_cyclonedx(bills: dict[str, str], extra: str) -> None:
    # Imported here: it makes 38 parsers at its import, which every worker of a test run would wait for.
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bills[extra]) is None


@pytest.mark.parametrize("extra", SHIPPED)
def test_a_bill_names_each_package_of_the_lock_with_its_hashes_and_licence(
    bills: dict[str, str], extra: str
) -> None:
    named = {part["name"]: part for part in parts(bills[extra], "library")}
    places = [locks.environment("3.11", machine) for machine in locks.MACHINES]
    pins = [pin for pin in locks.read_lock(locks.FOLDER / f"{extra}.txt") if any(map(pin.is_for, places))]
    assert {name: part["version"] for name, part in named.items()} == {pin.name: pin.version for pin in pins}
    for pin in pins:
        [files] = named[pin.name]["externalReferences"]
        assert {entry["content"] for entry in files["hashes"]} == pin.hashes
    assert {name for name, part in named.items() if "licenses" not in part} <= {"gpiod", "lgpio"}


def test_the_kiosks_bill_names_each_network_with_its_hash_and_licence(bills: dict[str, str]) -> None:
    named = {part["name"]: part for part in parts(bills["kiosk"], "machine-learning-model")}
    networks = load_manifest().networks
    assert named.keys() == networks.keys()
    for name, network in networks.items():
        assert [entry["content"] for entry in named[name]["hashes"]] == [network.sha256]
        assert named[name]["licenses"]
    for extra in ("clinic", "machines"):
        assert parts(bills[extra], "machine-learning-model") == []


@pytest.mark.parametrize("extra", SHIPPED)
def test_a_bill_names_each_program_that_set_up_installs_and_what_runs_them_all(
    bills: dict[str, str], extra: str
) -> None:
    named = {part["name"] for part in parts(bills[extra], "application")}
    assert named == {"python3", "libsqlite3-0"} | debian_packages(extra)
    assert ("chromium" in named, "mosquitto" in named) == (extra == "kiosk", extra != "kiosk")


def test_the_page_on_software_of_others_has_all_that_is_in_a_bill_and_nothing_else(
    bills: dict[str, str],
) -> None:
    """But the networks, which have cards; and PostgreSQL, which the clinic chooses and no set-up installs."""
    told = [name for row in SOUP.table("part") for name in in_code(row["part"])]
    in_bills = {
        part["name"]
        for bill in bills.values()
        for kind in ("library", "application")
        for part in parts(bill, kind)
    }
    locked = {pin.name for extra in SHIPPED for pin in locks.read_lock(locks.FOLDER / f"{extra}.txt")}
    assert len(told) == len(set(told)), "one stands in two rows"
    assert in_bills | locked | {"postgresql"} == set(told)


def test_each_row_of_software_of_others_says_what_is_known_of_it_and_what_would_show_more() -> None:
    for row in SOUP.table("part"):
        assert row["known anomalies"], row["part"]
        assert "::" in row["we would notice by"], row["part"]


def test_the_page_on_software_of_others_asks_a_machine_for_every_program() -> None:
    [line] = [line for line in SOUP.code_lines if line.startswith("dpkg-query --show ")]
    wanted = RUNS_ALL | {"postgresql"} | {name for extra in SHIPPED for name in debian_packages(extra)}
    asked = [word.strip("'") for word in line.split()[2:]]
    # Whose versions are those of packages with a number in their names, such as python3.11.
    assert {"python3*", "postgresql*"} < set(asked)
    assert {name for name in wanted if not any(fnmatch(name, pattern) for pattern in asked)} == set()
    assert {pattern for pattern in asked if not any(fnmatch(name, pattern) for name in wanted)} == set()


def test_each_anomaly_that_is_said_to_stand_below_does() -> None:
    parts_of, anomalies = SOUP.tables("part")
    named = {word for row in anomalies for word in re.findall(r"[\w-]+", row["part"].lower())}
    for row in parts_of:
        names = [name.removeprefix("lib").removesuffix("3-0") for name in in_code(row["part"])]
        assert (row["known anomalies"] == "below") == any(name in named for name in names), row["part"]


@pytest.mark.parametrize("extra", SHIPPED)
def test_everything_in_a_bill_is_there_because_of_something(bills: dict[str, str], extra: str) -> None:
    wanted = {
        inner for entry in json.loads(bills[extra])["dependencies"] for inner in entry.get("dependsOn", ())
    }
    assert {part["bom-ref"] for part in json.loads(bills[extra])["components"]} == wanted


def parts(bill: str, kind: str) -> list[dict[str, Any]]:
    return [part for part in json.loads(bill)["components"] if part["type"] == kind]


def test_the_newest_version_of_the_changelog_is_the_one_that_is_built() -> None:
    headings = re.findall(r"^## (\S+), ", (locks.CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == locks.version()


def pip_audit(folder: Path, answer: str) -> Path:
    """A program in pip-audit's place that says `answer`, on stdout where it is JSON."""
    program = folder / "pip-audit"
    program.write_text(f"#!/bin/sh\ncat {'' if answer.startswith('{') else '>&2'} <<'END'\n{answer}\nEND\n")
    program.chmod(0o755)
    return program


def test_a_vulnerable_package_is_named_with_the_versions_that_mend_it(tmp_path: Path) -> None:
    packages = [{"name": "a", "version": "1.0", "vulns": [KNOWN]}, {"name": "b", "version": "3", "vulns": []}]
    program = pip_audit(tmp_path, json.dumps({"dependencies": packages}))
    assert audit.audit(tmp_path / "lock.txt", program) == (2, ["a 1.0: PYSEC-1, mended in 2.0 or 1.9.1"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            json.dumps({"dependencies": [{"name": "a", "skip_reason": "not found"}]}),
            "says nothing, a for one",
        ),
        ("Traceback\nConnectionError: no such host", "ConnectionError: no such host"),
        ("{}", "said nothing"),
    ],
)
def test_an_audit_that_could_ask_nobody_is_no_clean_result(tmp_path: Path, answer: str, said: str) -> None:
    with pytest.raises(audit.NotAudited, match=said):
        audit.audit(tmp_path / "lock.txt", pip_audit(tmp_path, answer))
