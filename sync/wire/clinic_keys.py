"""The clinic's signed key set: what kiosks seal to, whose receipts they believe."""

from __future__ import annotations

from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from sync.wire.bounds import Counter, Moment, unique
from sync.wire.keys import KeyRefused, OpeningPublicKey, SuiteName, load_public_key, signing_kid
from sync.wire.statement import Statement, StatementError, sign_statement, verify_statement

TYPE = "dermakiosk-clinic-keys"
# Of each purpose: a kiosk refuses a set with more.
MOST_KEYS = 16

RawKey = Annotated[bytes, Field(min_length=32, max_length=2048)]


class _ListedKey(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="hex", val_json_bytes="hex")

    suite: SuiteName
    public: RawKey


class _KeySet(Statement):
    version: Annotated[Counter, Field(ge=1)]
    issued_at: Moment
    opening: Annotated[tuple[_ListedKey, ...], Field(min_length=1, max_length=MOST_KEYS), unique()]
    receipt: Annotated[tuple[RawKey, ...], Field(min_length=1, max_length=MOST_KEYS), unique()]


class ClinicKeys:
    """One version of the key set. A key that is not listed is retired: nobody seals to it any more.

    `opening` is ordered, the last one is the key to seal to; `receipt` are raw Ed25519 public keys. Which
    key is current is said by order, not by dates: a kiosk may boot without a clock.
    """

    def __init__(
        self,
        version: int,
        issued_at: AwareDatetime,
        opening: tuple[OpeningPublicKey, ...],
        receipt: tuple[bytes, ...],
    ) -> None:
        self.version = version
        self.issued_at = issued_at
        self.opening = opening
        self.receipt = receipt
        self._receipt_keys = {signing_kid(key): key for key in map(load_public_key, receipt)}

    @property
    def seal_to(self) -> OpeningPublicKey:
        """The opening key that new results are sealed to."""
        return self.opening[-1]

    def opening_key(self, kid: bytes) -> OpeningPublicKey | None:
        """The listed opening key of this id; None if it is retired or was never listed."""
        return next((key for key in self.opening if key.kid == kid), None)

    def receipt_key(self, kid: bytes) -> Ed25519PublicKey | None:
        """The listed receipt key of this id."""
        return self._receipt_keys.get(kid)

    @property
    def receipt_kids(self) -> tuple[bytes, ...]:
        """The ids of the listed receipt keys, in their order."""
        return tuple(self._receipt_keys)

    def sign(self, root: Ed25519PrivateKey) -> bytes:
        """The key set as the clinic's root signs it: the content of `clinic-keys.cose`."""
        listed = tuple(_ListedKey(suite=key.suite, public=key.public) for key in self.opening)
        key_set = _KeySet(
            version=self.version, issued_at=self.issued_at, opening=listed, receipt=self.receipt
        )
        return sign_statement(key_set, TYPE, root)

    @classmethod
    def verify(cls, data: bytes, root: Ed25519PublicKey, newer_than: int = 0) -> ClinicKeys:
        """The key set in `data`, if `root` signed it and its version is above `newer_than`.

        Raises StatementError. Give `newer_than` when a set replaces another, so that an old one that still is
        well signed cannot bring a retired key back.
        """
        expected = signing_kid(root)
        key_set = verify_statement(data, TYPE, _KeySet, lambda kid: root if kid == expected else None)
        if key_set.version <= newer_than:
            raise StatementError(
                f"The clinic's key set is version {key_set.version}; version {newer_than} is here already."
            )
        try:
            opening = tuple(OpeningPublicKey(key.suite, key.public) for key in key_set.opening)
            return cls(key_set.version, key_set.issued_at, opening, key_set.receipt)
        except KeyRefused as error:
            raise StatementError(f"The clinic's key set holds a key that is refused: {error}") from error
