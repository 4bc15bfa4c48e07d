"""Locks: which version of every package an installation gets, as provisioning/locks names them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "provisioning" / "locks"
OURS = "dermakiosk"
# As setup.cfg and setup.sh let them.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One package of a lock: its version, the SHA-256 of each of its files, which packages want it."""

    requirement: Requirement
    hashes: frozenset[str]
    wanted_by: frozenset[str]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        [specifier] = self.requirement.specifier
        return specifier.version

    def is_for(self, environment: dict[str, str]) -> bool:
        marker = self.requirement.marker
        return marker is None or marker.evaluate(environment)


def environment(python: str, machine: str) -> dict[str, str]:
    """The markers of a Linux with this Python and processor."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "extra": "",
    }


def read_lock(path: Path) -> list[Pin]:
    """The packages of a lock; where Pythons need different versions, each of them."""
    pins = []
    for entry in re.split(r"\n(?=[a-z0-9])", path.read_text()):
        if entry.startswith("#"):
            continue
        requirement, _, rest = entry.partition("\\\n")
        _, _, wanted_by = rest.partition("# via ")
        names = (name.split(" ")[0].partition("[")[0] for name in wanted_by.strip().split(", "))
        pins.append(
            Pin(
                Requirement(requirement),
                frozenset(_HASH.findall(rest)),
                frozenset(canonicalize_name(name) for name in names if name[:1].isalnum()),
            )
        )
    return pins


def extras() -> dict[str, list[str]]:
    """By extra of setup.cfg what it names itself."""
    return {name: text.split("\n") for name, text in _setup()["options.extras_require"].items()}


def asked_for(extra: str) -> Iterator[Requirement]:
    """What setup.cfg asks for in an installation with `extra`, the extras within it and the base included."""
    lines = _setup()["options"]["install_requires"].split("\n") if extra else []
    for line in (*lines, *extras().get(extra, ())):
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) != OURS:
            yield requirement
            continue
        for inner in requirement.extras:
            yield from asked_for(inner)


def version() -> str:
    return _setup()["metadata"]["version"]


def _setup() -> ConfigParser:
    setup = ConfigParser(interpolation=None)
    setup.read(CHECKOUT / "setup.cfg")
    return setup
