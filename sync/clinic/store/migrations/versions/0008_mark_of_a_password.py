"""An account knows the mark of its password, and old tries are found by when they were made."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("mark", sa.LargeBinary(length=8), nullable=True))
    op.create_index(op.f("ix_sign_in_tries_at"), "sign_in_tries", ["at"])
