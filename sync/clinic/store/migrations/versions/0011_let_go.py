"""Receipts: whether the kiosk was ever told to let its copy go, whatever it was told later."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

RECEIPTS = sa.table("receipts", sa.column("status", sa.String(16)), sa.column("let_go", sa.Boolean()))


def upgrade() -> None:
    op.add_column("receipts", sa.Column("let_go", sa.Boolean(), nullable=True))
    let_go = RECEIPTS.c.status.in_(("stored", "duplicate"))
    op.get_bind().execute(sa.update(RECEIPTS).values(let_go=let_go))
    with op.batch_alter_table("receipts") as batch:
        batch.alter_column("let_go", existing_type=sa.Boolean(), nullable=False)
