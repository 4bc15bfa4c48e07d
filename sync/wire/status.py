"""The kiosk's signed heartbeat: counts of what waits, never anything of a patient."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, model_validator

from sync.wire.bounds import FIRST_MOMENT, WHOLE, Count, Counter, Id, Moment, ShortLine
from sync.wire.statement import Statement, sign_statement, verify_statement

TYPE = "dermakiosk-status"
# The numbers that order heartbeats begin at a clock and go slower than it. One from further ahead than this
# is no kiosk's count: the clinic refuses it, for taking it would silence the kiosk until then.
CLOCK_AHEAD = timedelta(days=1)


class Status(Statement):
    """How one kiosk was at `at`. `online` is false in the last word of an agent that is stopped.

    `epoch` and `counter` say which heartbeat is the newer one, whatever the kiosk's clock says; schema 1 had
    neither. They begin at a clock, the one in seconds, the other in milliseconds, and go slower than it until
    a receipt of the clinic's tells the time: so a number from the future is known for what it is.
    """

    kind: Literal["status"] = "status"
    schema_version: Annotated[Literal[1, 2], WHOLE] = 2
    kiosk: Id
    epoch: Counter = 0
    counter: Annotated[Counter, Field(ge=1)] | None = None
    at: Moment
    started_at: Moment
    online: bool
    software: ShortLine
    clinic_keys: Count
    waiting: Count
    sent: Count
    quarantined: Count
    reseal: Count
    fill: Annotated[float, Field(ge=0, le=1e6)]

    @model_validator(mode="after")
    def _is_counted(self) -> Status:
        if (self.schema_version == 1) != (self.counter is None):
            raise ValueError("a heartbeat is counted since schema 2")
        return self

    @property
    def order(self) -> tuple[int, int]:
        """Greater in every later heartbeat of a kiosk; one that is not counted comes before all that are."""
        if self.counter is None:
            return 0, (self.at - FIRST_MOMENT) // timedelta(milliseconds=1)
        return self.epoch, self.counter

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """The heartbeat as it is published, retained."""
        return sign_statement(self, TYPE, key)

    @classmethod
    def verify(cls, data: bytes, find_key: Callable[[bytes], Ed25519PublicKey | None]) -> Status:
        """The heartbeat in `data`, signed by a key that `find_key` knows; raises StatementError."""
        return verify_statement(data, TYPE, cls, find_key)
