"""Messages by kiosk and id, heartbeats by their counter, the topic of what is quarantined."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OF_AN_ENVELOPE = ("scans", "reminders")
ENVELOPE = ["kiosk", "message_id"]


def upgrade() -> None:
    # PostgreSQL lets no primary key go while another table refers to it.
    for table in OF_AN_ENVELOPE:
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"fk_{table}_message_id", type_="foreignkey")
            if table == "scans":
                batch.drop_constraint("uq_scans_message_id", type_="unique")
                batch.create_unique_constraint("uq_scans_kiosk_message_id", ENVELOPE)
            if table == "reminders":
                batch.drop_constraint("pk_reminders", type_="primary")
                batch.create_primary_key("pk_reminders", ["kiosk", "id"])
    with op.batch_alter_table("envelopes") as batch:
        batch.drop_constraint("pk_envelopes", type_="primary")
        batch.create_primary_key("pk_envelopes", ENVELOPE)
    for table in OF_AN_ENVELOPE:
        with op.batch_alter_table(table) as batch:
            batch.create_foreign_key(f"fk_{table}_kiosk_message_id", "envelopes", ENVELOPE, ENVELOPE)

    for column in ("heartbeat_epoch", "heartbeat_counter"):
        op.add_column("kiosks", sa.Column(column, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("quarantine", sa.Column("topic", sa.String(length=16), nullable=True))
