"""The epoch that a kiosk was enrolled with; alarms and withdrawals are looked up by their kiosk."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("kiosks", sa.Column("epoch", sa.BigInteger(), nullable=True))
    op.create_index("ix_audit_event_subject_at", "audit", ["event", "subject", "at"])
    op.create_index("ix_withdrawals_kiosk_message_id", "withdrawals", ["kiosk", "message_id"])
