"""What every `clinic` command has: the clinic's state folder and database, and a sentence when that fails."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import click
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sync.clinic.store.database import Database
from sync.clinic.store.durable import TAKES_NOTHING
from sync.clinic.store.errors import ClinicError
from sync.clinic.store.failure import failed_itself, unusable

FOLDER = click.Path(file_okay=False, path_type=Path)
_DATABASE = f"{__name__}.database"

state_option = click.option(
    "--state", type=FOLDER, envvar="DERMAKIOSK_STATE", required=True, help="The clinic's state folder."
)
db_option = click.option(
    "--db",
    metavar="URL",
    envvar="DERMAKIOSK_CLINIC_DB",
    help="SQLite or PostgreSQL (default: clinic.sqlite in the state folder).",
)


class ClinicGroup(click.Group):
    """A group whose commands, and those of the groups in it, end in a sentence where the database fails."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DBAPIError, PoolTimeout) as error:
            if _DATABASE not in ctx.meta or not failed_itself(error):
                raise
            raise unusable(error, ctx.meta[_DATABASE].engine.url) from error
        except OSError as error:
            if error.errno not in TAKES_NOTHING:
                raise
            raise ClinicError(
                f"{error.filename or 'A file'} cannot be written ({error.strerror}): make room on its disk, "
                "or have it take writing, then run the command again."
            ) from error


def named(database: Database) -> Database:
    """The same database, once the command that runs knows which one it speaks of when it fails."""
    click.get_current_context().meta[_DATABASE] = database
    return database


def ready(state: Path, db: str | None) -> Database:
    """The clinic's database, at this software's schema. Raises ClinicError."""
    from sync.clinic.receiving import erasing

    database = named(Database.existing(state, db))
    database.require_current()
    # It may be an old copy, brought back: what was withdrawn since goes before anything looks at it.
    erasing.reapply(database)
    return database


def who() -> str:
    """Whoever runs this, as the operating system knows them."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"command:{name}"[:80]
