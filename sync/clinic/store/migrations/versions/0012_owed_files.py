"""Withdrawals that were acted on while no export could be written: their own files are owed."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "owed_files",
        sa.Column("kiosk", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("kiosk", "message_id", name=op.f("pk_owed_files")),
        sa.ForeignKeyConstraint(
            ["kiosk", "message_id"],
            ["envelopes.kiosk", "envelopes.message_id"],
            name=op.f("fk_owed_files_kiosk_message_id"),
        ),
    )
