"""Opening keys: a state of each, the missing ones too, and when an opener last said that it holds it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
KEYS = sa.table(
    "opening_keys",
    sa.column("kid", sa.LargeBinary(64)),
    sa.column("held", sa.Boolean()),
    sa.column("since", MOMENT),
    sa.column("state", sa.String(16)),
    sa.column("seen", MOMENT),
)
AUDIT = sa.table(
    "audit", sa.column("event", sa.Text()), sa.column("subject", sa.Text()), sa.column("at", MOMENT)
)


def upgrade() -> None:
    op.add_column("opening_keys", sa.Column("state", sa.String(length=16), nullable=True))
    op.add_column("opening_keys", sa.Column("seen", MOMENT, nullable=True))
    connection = op.get_bind()
    state = sa.case((KEYS.c.held, "held"), else_="retired")
    connection.execute(sa.update(KEYS).values(state=state, seen=KEYS.c.since))
    # A missing one had no row: only the audit log knew it.
    known = set(connection.scalars(sa.select(KEYS.c.kid)))
    lost = sa.select(AUDIT.c.subject, sa.func.max(AUDIT.c.at)).where(AUDIT.c.event == "opening-key-missing")
    for name, at in connection.execute(lost.group_by(AUDIT.c.subject)).all():
        if (kid := bytes.fromhex(name)) not in known:
            row = {"kid": kid, "held": False, "since": at, "state": "missing", "seen": at}
            connection.execute(sa.insert(KEYS).values(row))
    with op.batch_alter_table("opening_keys") as batch:
        batch.drop_column("held")
        batch.alter_column("state", existing_type=sa.String(length=16), nullable=False)
        batch.alter_column("seen", existing_type=MOMENT, nullable=False)
