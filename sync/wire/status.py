"""The kiosk's signed heartbeat: counts of what waits, never anything of a patient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AwareDatetime, Field

from .statement import Statement, sign_statement, verify_statement

TYPE = "dermakiosk-status"

Count = Annotated[int, Field(ge=0)]


class Status(Statement):
    """How one kiosk was at `at`. `online` is false in the last word of an agent that is stopped."""

    kind: Literal["status"] = "status"
    schema_version: Literal[1] = 1
    kiosk: UUID
    at: AwareDatetime
    started_at: AwareDatetime
    online: bool
    software: Annotated[str, Field(max_length=64)]
    clinic_keys: Count
    waiting: Count
    sent: Count
    quarantined: Count
    reseal: Count
    fill: Annotated[float, Field(ge=0)]

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """The heartbeat as it is published, retained."""
        return sign_statement(self, TYPE, key)

    @classmethod
    def verify(cls, data: bytes, find_key: Callable[[bytes], Ed25519PublicKey | None]) -> Status:
        """The heartbeat in `data`, signed by a key that `find_key` knows; raises StatementError."""
        return verify_statement(data, TYPE, cls, find_key)
