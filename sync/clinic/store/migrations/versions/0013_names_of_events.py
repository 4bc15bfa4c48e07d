"""Audit events: named as those of the log are, `scan_read` and no longer `scan-read`."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

EVENT = sa.column("event", sa.String(64))


def upgrade() -> None:
    renamed = {EVENT: sa.func.replace(EVENT, "-", "_")}
    op.execute(sa.update(sa.table("audit", EVENT)).where(EVENT.contains("-")).values(renamed))
