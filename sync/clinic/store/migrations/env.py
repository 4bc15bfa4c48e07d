"""What Alembic runs: each migration, in the transaction of the connection that it was handed."""

from __future__ import annotations

from alembic import context

from sync.clinic.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
