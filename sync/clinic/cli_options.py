"""What every `clinic` command asks for: the clinic's state folder and its database."""

from __future__ import annotations

from pathlib import Path

import click

from .database import Database

FOLDER = click.Path(file_okay=False, path_type=Path)

state_option = click.option(
    "--state", type=FOLDER, envvar="DERMAKIOSK_STATE", required=True, help="The clinic's state folder."
)
db_option = click.option(
    "--db",
    metavar="URL",
    envvar="DERMAKIOSK_CLINIC_DB",
    help="SQLite or PostgreSQL (default: clinic.sqlite in the state folder).",
)


def ready(state: Path, db: str | None) -> Database:
    """The clinic's database, at this software's schema. Raises ClinicError."""
    from . import withdrawals

    database = Database.existing(state, db)
    database.require_current()
    # It may be an old copy, brought back: what was withdrawn since goes before anything looks at it.
    withdrawals.reapply(database)
    return database
