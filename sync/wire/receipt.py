"""Receipts: the clinic's signed word about one envelope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from sync.wire.bounds import Id, Moment
from sync.wire.statement import Statement, StatementError, sign_statement, verify_statement

TYPE = "dermakiosk-receipt"

# stored: the ciphertext is durable at the clinic. duplicate: it was so before. quarantined: it is kept for a
# person to look at. reseal: it was sealed to a retired key; seal again, with a new id and `supersedes`.
ReceiptStatus = Literal["stored", "duplicate", "quarantined", "reseal"]


class Receipt(Statement):
    """What the clinic did with the envelope `message_id` of `kiosk` whose SHA-256 is `sha256`."""

    kiosk: Id
    message_id: Id
    sha256: Annotated[bytes, Field(min_length=32, max_length=32)]
    status: ReceiptStatus
    at: Moment

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """The receipt as it is published to the kiosk."""
        return sign_statement(self, TYPE, key)

    @classmethod
    def verify(cls, data: bytes, find_key: Callable[[bytes], Ed25519PublicKey | None]) -> Receipt:
        """The receipt in `data`, signed by a key that `find_key` knows; raises ReceiptError."""
        try:
            return verify_statement(data, TYPE, cls, find_key)
        except StatementError as error:
            raise ReceiptError(str(error)) from error


class ReceiptError(StatementError):
    """Bytes that are no receipt of this clinic: nothing may be deleted because of them."""
