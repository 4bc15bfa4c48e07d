"""The clinic's database schema."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sync.wire.findings import Geometry, MarkedSpot
from sync.wire.messages import Consent

# The newest step in migrations/versions.
REVISION = "0013"

# What became of an envelope. A stored one waits for the opener, a quarantined one for a person. Of an erased
# one, whose scan was withdrawn, of a discarded one, of one that its kiosk was asked to seal again, and of an
# opened withdrawal that repeats another only the ids and the SHA-256 are left.
STORED, OPENED, QUARANTINED, ERASED = "stored", "opened", "quarantined", "erased"
DISCARDED, RESEAL = "discarded", "reseal"

# What is known of an opening key. A missing one was held, and no opener that runs holds it now; a retired one
# staff gave up.
HELD, MISSING, RETIRED = "held", "missing", "retired"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, aware in Python; SQLite keeps it without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A moment without a time zone cannot be stored.")
        utc = value.astimezone(timezone.utc)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


_Json = JSON().with_variant(JSONB(), "postgresql")
_RowId = BigInteger().with_variant(Integer(), "sqlite")
Sealed = TypeVar("Sealed")


class AsSealed(TypeDecorator[Sealed], Generic[Sealed]):
    """A part of a message, of the type `kind`, as the JSON in which it was sealed."""

    impl = _Json
    cache_ok = True

    def __init__(self, kind: type[Sealed]) -> None:
        super().__init__()
        self.kind = kind
        self._adapter = TypeAdapter(kind)

    def process_bind_param(self, value: Sealed | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return self._adapter.dump_python(self._adapter.validate_python(value), mode="json")

    def process_result_value(self, value: Any, dialect: Dialect) -> Sealed | None:
        return None if value is None else self._adapter.validate_python(value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime(),
        dict[str, Any]: _Json,
        dict[str, str]: _Json,
        list[str]: _Json,
        int: BigInteger(),
    }


def _of_an_envelope() -> ForeignKeyConstraint:
    """An id is the kiosk's that made it: another kiosk may use the same one."""
    return ForeignKeyConstraint(["kiosk", "message_id"], ["envelopes.kiosk", "envelopes.message_id"])


class Kiosk(Base):
    """One kiosk that the clinic knows."""

    __tablename__ = "kiosks"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    registered_at: Mapped[datetime]
    # What it was enrolled with, and counts its heartbeats in. Empty where an earlier version registered it,
    # until it is registered again or heard.
    epoch: Mapped[int | None]
    last_seen_at: Mapped[datetime | None]
    # The newest signed heartbeat, as counts; see sync.wire.status.
    heartbeat: Mapped[dict[str, Any] | None]
    # Its place among the kiosk's heartbeats; what does not come after it is old, or said again.
    heartbeat_epoch: Mapped[int] = mapped_column(server_default="0")
    heartbeat_counter: Mapped[int] = mapped_column(server_default="0")


class KioskKey(Base):
    """One public key of a kiosk: `purpose` is `result` or `status`."""

    __tablename__ = "kiosk_keys"

    kiosk: Mapped[UUID] = mapped_column(ForeignKey("kiosks.id"), primary_key=True)
    kid: Mapped[bytes] = mapped_column(LargeBinary(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    public: Mapped[bytes] = mapped_column(LargeBinary(64))
    registered_at: Mapped[datetime]


class HeldKey(Base):
    """An opening key that an opener holds, or has held once."""

    __tablename__ = "opening_keys"

    kid: Mapped[bytes] = mapped_column(LargeBinary(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    # It has been in this state since then.
    since: Mapped[datetime]
    # When an opener last said that it holds it.
    seen: Mapped[datetime]


class Envelope(Base):
    """One sealed message whose signature was good, as it came."""

    __tablename__ = "envelopes"
    __table_args__ = (
        UniqueConstraint("kiosk", "epoch", "sequence"),
        Index(None, "state", "received_at"),
    )

    kiosk: Mapped[UUID] = mapped_column(ForeignKey("kiosks.id"), primary_key=True)
    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    sequence: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    schema_version: Mapped[int] = mapped_column(Integer())
    recipient: Mapped[bytes] = mapped_column(LargeBinary(64))
    created_at: Mapped[datetime]
    received_at: Mapped[datetime]
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    data: Mapped[bytes]
    # What it is about, known once it was opened.
    scan: Mapped[UUID | None] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64))
    opened_at: Mapped[datetime | None]


class Poison(Base):
    """One payload that is no good envelope, kept for a person to look at."""

    __tablename__ = "quarantine"
    __table_args__ = (UniqueConstraint("kiosk", "sha256"),)

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    kiosk: Mapped[UUID]
    # The kind of topic that it came on ("result", …); empty in what came before this was noted.
    topic: Mapped[str | None] = mapped_column(String(16))
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    data: Mapped[bytes]
    reason: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime]


class ReceiptRow(Base):
    """One word that the clinic owes a kiosk; `sent_at` is empty until the broker has taken it.

    `let_go` says that any word about this payload had the kiosk let its own copy go, the last one or not.
    """

    __tablename__ = "receipts"
    __table_args__ = (Index(None, "sent_at", "at"),)

    kiosk: Mapped[UUID] = mapped_column(primary_key=True)
    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    worker: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    let_go: Mapped[bool]
    at: Mapped[datetime]
    sent_at: Mapped[datetime | None]


class Scan(Base):
    """One opened result."""

    __tablename__ = "scans"
    __table_args__ = (
        _of_an_envelope(),
        UniqueConstraint("kiosk", "message_id"),
        Index(None, "captured_at", "id"),
        Index(None, "patient_reference"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    message_id: Mapped[UUID]
    kiosk: Mapped[UUID] = mapped_column(ForeignKey("kiosks.id"))
    patient_reference: Mapped[str | None] = mapped_column(String(128))
    # The message that this one replaced, when the kiosk had to seal the scan again.
    supersedes: Mapped[UUID | None]
    captured_at: Mapped[datetime]
    opened_at: Mapped[datetime]
    board: Mapped[str] = mapped_column(String(120))
    simulated: Mapped[bool]
    software: Mapped[str] = mapped_column(Text())
    calibration: Mapped[str | None] = mapped_column(Text())
    models: Mapped[dict[str, str]]
    quality: Mapped[list[str]]
    consent: Mapped[Consent] = mapped_column(AsSealed(Consent))
    # Some hundred marks, which only the scan's own page draws.
    geometry: Mapped[Geometry] = mapped_column(AsSealed(Geometry), deferred=True)
    # What was marked for the clinician.
    spots: Mapped[tuple[MarkedSpot, ...]] = mapped_column(
        AsSealed(tuple[MarkedSpot, ...]), server_default="[]"
    )


class FindingRow(Base):
    """One measurement in one zone; `low` and `high` bound its 95 % confidence interval."""

    __tablename__ = "findings"

    scan: Mapped[UUID] = mapped_column(ForeignKey("scans.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer(), primary_key=True)
    measure: Mapped[str] = mapped_column(String(64))
    zone: Mapped[str] = mapped_column(String(32))
    value: Mapped[float] = mapped_column(Float(53))
    unit: Mapped[str] = mapped_column(String(32))
    low: Mapped[float] = mapped_column(Float(53))
    high: Mapped[float] = mapped_column(Float(53))
    model: Mapped[str] = mapped_column(String(128))


class Withdrawal(Base):
    """What stays of a scan that its kiosk withdrew; it may be there before the scan."""

    __tablename__ = "withdrawals"
    __table_args__ = (Index(None, "kiosk", "message_id"),)

    scan: Mapped[UUID] = mapped_column(primary_key=True)
    kiosk: Mapped[UUID] = mapped_column(primary_key=True)
    message_id: Mapped[UUID]
    at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(String(64))


class WithdrawnMessage(Base):
    """A message that carried a withdrawn scan, as the withdrawal says; it may never have come."""

    __tablename__ = "withdrawn_messages"

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    kiosk: Mapped[UUID] = mapped_column(primary_key=True)
    scan: Mapped[UUID]


class OwedFile(Base):
    """A withdrawal that was acted on while no file could be written among the exports: its own is to come.

    `data` is its envelope as it came, for of one that repeats another the envelope's own row keeps nothing.
    """

    __tablename__ = "owed_files"
    __table_args__ = (_of_an_envelope(),)

    kiosk: Mapped[UUID] = mapped_column(primary_key=True)
    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class ReminderRow(Base):
    """One follow-up that has come due."""

    __tablename__ = "reminders"
    __table_args__ = (_of_an_envelope(),)

    kiosk: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    message_id: Mapped[UUID]
    patient_reference: Mapped[str] = mapped_column(String(128))
    rule: Mapped[str] = mapped_column(String(64))
    due_on: Mapped[date]
    scan: Mapped[UUID | None]


class Job(Base):
    """One thing that has to be done, by one worker of any number: see sync.clinic.work.jobs."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "due_at", "id"),)

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    # The same however often it is tried: whoever is told of it twice knows that it is one thing.
    key: Mapped[str] = mapped_column(String(128), unique=True)
    # Ids only: what they are about is in the tables of whoever does it.
    detail: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    # From when on a worker may take it, or take it over from one that is gone; empty once it is over.
    due_at: Mapped[datetime | None]
    lease: Mapped[UUID | None]
    tries: Mapped[int] = mapped_column(Integer(), server_default="0")
    reason: Mapped[str | None] = mapped_column(String(64))
    made_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class ScheduleRun(Base):
    """A schedule that has fired on a day of the clinic's calendar, whoever was first to see it."""

    __tablename__ = "schedules_run"

    schedule: Mapped[str] = mapped_column(String(32), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class Account(Base):
    """A member of staff who may read the clinic's pages."""

    __tablename__ = "accounts"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    password_hash: Mapped[str] = mapped_column(String(200))
    # By it the right password is told from a guess before it is checked. Empty where an earlier version made
    # the account, until that signs in.
    mark: Mapped[bytes | None] = mapped_column(LargeBinary(8))
    created_at: Mapped[datetime]


class WebSession(Base):
    """One signed-in browser, known by the hash of its token."""

    __tablename__ = "web_sessions"

    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name", ondelete="CASCADE"))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class SignInTries(Base):
    """Wrong passwords of late, by the hash of what they count under."""

    __tablename__ = "sign_in_tries"
    __table_args__ = (Index(None, "at"),)

    key_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    tries: Mapped[int] = mapped_column(Integer())
    at: Mapped[datetime]
    until: Mapped[datetime]


class AuditEvent(Base):
    """Who did what, when; rows are only ever added."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "event", "subject", "at"),)

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(80))
    event: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str | None] = mapped_column(String(80))
    detail: Mapped[dict[str, Any]]
