"""The waiver: a clinic's signed word that one kiosk may measure patients with networks meant for research."""

from __future__ import annotations

import hashlib
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from sync.wire.bounds import Day, Id, Line, Moment, ShortLine
from sync.wire.keys import signing_kid
from sync.wire.statement import Statement, sign_statement, verify_statement

TYPE = "dermakiosk-research-waiver"
# In the kiosk's state; they cross no wire. The newest one, and beside it one for each other set of networks.
FILE = "research-waiver.cose"
OTHERS = "research-waiver-*.cose"

Sha256 = Annotated[bytes, Field(min_length=32, max_length=32)]


class ResearchWaiver(Statement):
    """`by` answers for it, because of `reason`, from `at` to the end of `until` (UTC).

    `networks` has the SHA-256 of each network that it is about: another file needs another waiver.
    """

    kiosk: Id
    networks: Annotated[dict[ShortLine, Sha256], Field(min_length=1, max_length=64)]
    by: Annotated[Line, Field(min_length=1)]
    reason: Annotated[Line, Field(min_length=1)]
    at: Moment
    until: Day

    @property
    def name_beside(self) -> str:
        """Its name among OTHERS: one for each set of networks."""
        networks = b"".join(name.encode() + sha256 for name, sha256 in sorted(self.networks.items()))
        return OTHERS.replace("*", hashlib.sha256(networks).hexdigest()[:12])

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """The waiver as the clinic's manifest key signs it: the content of its file."""
        return sign_statement(self, TYPE, key)

    @classmethod
    def verify(cls, data: bytes, key: Ed25519PublicKey) -> ResearchWaiver:
        """The waiver in `data`, if `key` signed it; raises StatementError."""
        expected = signing_kid(key)
        return verify_statement(data, TYPE, cls, lambda kid: key if kid == expected else None)
