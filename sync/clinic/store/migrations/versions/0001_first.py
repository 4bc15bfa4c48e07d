"""The first schema: kiosks, envelopes, receipts, scans, accounts, audit."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_accounts")),
    )
    op.create_table(
        "audit",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=80), nullable=True),
        sa.Column("detail", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "kiosks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("registered_at", MOMENT, nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=True),
        sa.Column("heartbeat", JSON, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kiosks")),
    )
    op.create_table(
        "opening_keys",
        sa.Column("kid", sa.LargeBinary(length=64), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_opening_keys")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
        sa.UniqueConstraint("kiosk", "sha256", name=op.f("uq_quarantine_kiosk_sha256")),
    )
    op.create_table(
        "receipts",
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("worker", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("sent_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("kiosk", "message_id", "sha256", name=op.f("pk_receipts")),
    )
    op.create_index(op.f("ix_receipts_sent_at_at"), "receipts", ["sent_at", "at"])

    op.create_table(
        "envelopes",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("recipient", sa.LargeBinary(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("opened_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["kiosk"], ["kiosks.id"], name=op.f("fk_envelopes_kiosk")),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_envelopes")),
        sa.UniqueConstraint("kiosk", "epoch", "sequence", name=op.f("uq_envelopes_kiosk_epoch_sequence")),
    )
    op.create_index(op.f("ix_envelopes_state_received_at"), "envelopes", ["state", "received_at"])

    op.create_table(
        "kiosk_keys",
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("kid", sa.LargeBinary(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("public", sa.LargeBinary(length=64), nullable=False),
        sa.Column("registered_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["kiosk"], ["kiosks.id"], name=op.f("fk_kiosk_keys_kiosk")),
        sa.PrimaryKeyConstraint("kiosk", "kid", name=op.f("pk_kiosk_keys")),
    )
    op.create_table(
        "web_sessions",
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["account"], ["accounts.name"], name=op.f("fk_web_sessions_account"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_web_sessions")),
    )
    op.create_table(
        "reminders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("patient_reference", sa.String(length=128), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("scan", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["message_id"], ["envelopes.message_id"], name=op.f("fk_reminders_message_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reminders")),
    )
    op.create_table(
        "scans",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("patient_reference", sa.String(length=128), nullable=True),
        sa.Column("supersedes", sa.Uuid(), nullable=True),
        sa.Column("captured_at", MOMENT, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("board", sa.String(length=120), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("software", sa.Text(), nullable=False),
        sa.Column("calibration", sa.Text(), nullable=True),
        sa.Column("models", JSON, nullable=False),
        sa.Column("quality", JSON, nullable=False),
        sa.Column("consent", JSON, nullable=False),
        sa.Column("geometry", JSON, nullable=False),
        sa.ForeignKeyConstraint(["kiosk"], ["kiosks.id"], name=op.f("fk_scans_kiosk")),
        sa.ForeignKeyConstraint(["message_id"], ["envelopes.message_id"], name=op.f("fk_scans_message_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scans")),
        sa.UniqueConstraint("message_id", name=op.f("uq_scans_message_id")),
    )
    op.create_index(op.f("ix_scans_captured_at_id"), "scans", ["captured_at", "id"])
    op.create_index(op.f("ix_scans_patient_reference"), "scans", ["patient_reference"])

    op.create_table(
        "withdrawals",
        sa.Column("scan", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"], ["envelopes.message_id"], name=op.f("fk_withdrawals_message_id")
        ),
        sa.PrimaryKeyConstraint("scan", name=op.f("pk_withdrawals")),
    )
    op.create_table(
        "findings",
        sa.Column("scan", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("measure", sa.String(length=64), nullable=False),
        sa.Column("zone", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("low", sa.Float(precision=53), nullable=False),
        sa.Column("high", sa.Float(precision=53), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["scan"], ["scans.id"], name=op.f("fk_findings_scan"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("scan", "position", name=op.f("pk_findings")),
    )
