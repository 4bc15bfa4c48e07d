"""A kiosk and its clinic as far as the wire knows them: keys, messages, envelopes, receipts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sync.wire.envelope import Header, seal
from sync.wire.findings import Finding, Findings
from sync.wire.keys import OpeningKey, generate_opening_key, generate_signing_key, signing_kid
from sync.wire.messages import Consent, Message, Result
from sync.wire.receipt import Receipt, ReceiptStatus

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=timezone.utc)


def a_result(scan: UUID | None = None, findings: int = 3, **changes: Any) -> Result:
    """A result with so many findings."""
    scan = scan or uuid4()
    measured = tuple(
        Finding(measure=f"measure_{n}", zone="nose", value=n, unit="1", low=n, high=n, model="0" * 64)
        for n in range(findings)
    )
    return Result(
        **{
            "scan": scan,
            "patient_reference": "demo-7f3a",
            "captured_at": NOON,
            "board": "simulated",
            "simulated": True,
            "consent": Consent(text_version="1", language="en", at=NOON),
            "findings": Findings(
                scan=scan, measured_at=NOON, models={}, calibration=None, software="0", findings=measured
            ),
            **changes,
        }
    )


@dataclass
class Party:
    """One kiosk with its clinic: every key of both, and a counter of messages."""

    kiosk: UUID = field(default_factory=uuid4)
    signing: Ed25519PrivateKey = field(default_factory=generate_signing_key)
    opening: OpeningKey = field(default_factory=generate_opening_key)
    receipts: Ed25519PrivateKey = field(default_factory=generate_signing_key)
    sequence: count[int] = field(default_factory=lambda: count(1))

    def header(self, message: Message, **changes: Any) -> Header:
        made_for: dict[str, Any] = {
            "kiosk": self.kiosk,
            "epoch": 1,
            "sequence": next(self.sequence),
            "signer": self.signing,
            "recipient": self.opening.public,
            **changes,
        }
        return Header.of(message, **made_for)

    def envelope(self, message: Message | None = None, **changes: Any) -> tuple[UUID, bytes]:
        """The id and the bytes of a sealed message."""
        message = message or a_result()
        header = self.header(message, **changes)
        return header.message_id, seal(message, header, self.signing, self.opening.public)

    def find_key(self, kiosk: UUID, kid: bytes) -> Ed25519PublicKey | None:
        known = (kiosk, kid) == (self.kiosk, signing_kid(self.signing))
        return self.signing.public_key() if known else None

    def find_receipt_key(self, kid: bytes) -> Ed25519PublicKey | None:
        return self.receipts.public_key() if kid == signing_kid(self.receipts) else None

    def receipt(
        self, message_id: UUID, envelope: bytes, status: ReceiptStatus = "stored", **changes: Any
    ) -> Receipt:
        said: dict[str, Any] = {
            "kiosk": self.kiosk,
            "message_id": message_id,
            "sha256": hashlib.sha256(envelope).digest(),
            "status": status,
            "at": NOON,
            **changes,
        }
        return Receipt(**said)
