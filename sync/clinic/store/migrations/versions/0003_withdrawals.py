"""Withdrawals that erase: envelopes know their scan, tombstones stand without the message that made them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("envelopes", sa.Column("scan", sa.Uuid(), nullable=True))
    op.create_index(op.f("ix_envelopes_scan"), "envelopes", ["scan"])
    op.execute(
        "UPDATE envelopes SET scan = (SELECT id FROM scans WHERE scans.message_id = envelopes.message_id)"
    )
    # What a later result replaced, and reminders about a scan, go with it too.
    for of_scan in (
        "scans.id FROM scans WHERE scans.supersedes = envelopes.message_id AND scans.kiosk = envelopes.kiosk",
        "reminders.scan FROM reminders WHERE reminders.message_id = envelopes.message_id",
    ):
        op.execute(f"UPDATE envelopes SET scan = {of_scan}")
    connection = op.get_bind()
    known = connection.execute(
        sa.text("SELECT scan, kiosk, message_id, at, reason FROM withdrawals")
    ).mappings()
    rows = [dict(row) for row in known]
    op.drop_table("withdrawals")
    op.create_table(
        "withdrawals",
        sa.Column("scan", sa.Uuid(), nullable=False),
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("scan", "kiosk", name=op.f("pk_withdrawals")),
    )
    if rows:
        # As the driver gave them, so that each database gets back its own form of ids and moments.
        columns = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        connection.execute(sa.text(f"INSERT INTO withdrawals ({columns}) VALUES ({values})"), rows)
    op.create_table(
        "withdrawn_messages",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("scan", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", "kiosk", name=op.f("pk_withdrawn_messages")),
    )
