"""One document of each kind that the wire has, with everything in it that one can have."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

from hardware.capture import Spot
from sync.wire import cose
from sync.wire.clinic_keys import TYPE as KEY_SET
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.findings import Findings, Geometry, Mark
from sync.wire.keys import generate_opening_key, generate_signing_key, public_bytes, signing_kid
from sync.wire.messages import (
    InvalidMessage,
    Message,
    ReminderDue,
    Result,
    ResultWithFlags,
    ResultWithSpots,
    Withdraw,
    WithdrawMessages,
    dump_message,
    parse_message,
)
from sync.wire.receipt import TYPE as RECEIPT
from sync.wire.receipt import Receipt
from sync.wire.statement import StatementError
from sync.wire.status import TYPE as STATUS
from sync.wire.status import Status
from sync.wire.waiver import TYPE as WAIVER
from sync.wire.waiver import ResearchWaiver
from tests.support.kiosk_bench import marked
from tests.support.wire import NOON, Party, a_result

PARTY, KEY = Party(), generate_signing_key()
Place = tuple[str | int, ...]


class Document(NamedTuple):
    """One document as plain data, and the type that its statement or its message has."""

    type: str
    data: dict[str, Any]

    def is_read(self, data: dict[str, Any] | str | None = None) -> bool:
        """Whether it is believed, well signed, with this (or this text) instead of its own data."""
        text = (data if isinstance(data, str) else json.dumps(data or self.data)).encode()
        signed = cose.sign(cose.encode_header(self.type, signing_kid(KEY)), text, KEY)
        try:
            if self.type == KEY_SET:
                ClinicKeys.verify(signed, KEY.public_key())
            elif self.type == WAIVER:
                ResearchWaiver.verify(signed, KEY.public_key())
            elif self.type in (RECEIPT, STATUS):
                {RECEIPT: Receipt, STATUS: Status}[self.type].verify(signed, lambda _: KEY.public_key())
            else:
                parse_message(self.type, self.data["schema"], text)
        except (InvalidMessage, StatementError):
            return False
        return True


def full_result(kind: type[Result]) -> Message:
    """A result of this kind that has everything which one can have."""
    scan, plain = uuid4(), a_result()
    spots = [marked(name, Spot(zone="nose", x=0.1, y=0.2)) for name in ("closeup0", "closeup1")]
    if kind is ResultWithFlags:
        for spot in spots:
            spot["lesion"]["flags"] = ["unusual", "artefact:hair"]
    spots.append({"frame": "closeup", "zone": "chin", "refused": "too_dark"})
    facts = plain.findings.model_dump() | {
        "scan": scan,
        "schema": kind.VERSION,
        "models": {"face": "0" * 64},
        "calibration": "nominal",
        "quality": ["soft_focus", "overexposed"],
        "geometry": Geometry(
            marks=(Mark(kind="spot", zone="nose", x=0.5, y=0.25, radius=0.1, area_mm2=1.5),)
        ),
        "spots": spots,
    }
    changes = {"scan": scan, "findings": Findings(**facts), "supersedes": uuid4()}
    return kind(**{**dict(plain), "schema_version": kind.VERSION, **changes})


def documents() -> Iterator[Document]:
    """One of each kind that the wire has."""
    messages: list[Message] = [
        a_result(supersedes=uuid4()),
        full_result(ResultWithSpots),
        full_result(ResultWithFlags),
        Withdraw(scan=uuid4(), at=NOON, reason="staff"),
        WithdrawMessages(scan=uuid4(), at=NOON, reason="patient", messages=(uuid4(), uuid4())),
        ReminderDue(reminder=uuid4(), patient_reference="p", rule="yearly", due_on=NOON.date(), scan=uuid4()),
    ]
    for message in messages:
        yield Document(message.KIND, json.loads(dump_message(message)))
    opening = tuple(generate_opening_key(suite).public for suite in ("X-Wing", "X25519"))
    receipt = tuple(public_bytes(generate_signing_key()) for _ in range(2))
    status = Status(
        kiosk=uuid4(), epoch=1, counter=9, at=NOON, started_at=NOON, online=True, software="0.1.0",
        clinic_keys=3, waiting=2, sent=1, quarantined=4, reseal=5, fill=0.25,
    )  # fmt: skip
    waiver = ResearchWaiver(
        kiosk=uuid4(), networks={"face": bytes(32)}, by="staff", reason="study", at=NOON, until=NOON.date()
    )
    signed = {
        RECEIPT: PARTY.receipt(uuid4(), b"").sign(KEY),
        STATUS: status.sign(KEY),
        KEY_SET: ClinicKeys(3, NOON, opening, receipt).sign(KEY),
        WAIVER: waiver.sign(KEY),
    }
    for kind, data in signed.items():
        yield Document(kind, json.loads(cose.parse(data, kind).payload))


def with_other(data: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    part: Any = changed
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    return changed


DOCUMENTS = list(documents())


def spotted(**changes: Any) -> dict[str, Any]:
    """A result with one marked spot, as plain data."""
    spot = marked("closeup0", Spot(zone="nose", x=0.1, y=0.2)) | changes
    result = a_result().model_dump(mode="json")
    return result | {"schema": 2, "findings": result["findings"] | {"schema": 2, "spots": [spot]}}
