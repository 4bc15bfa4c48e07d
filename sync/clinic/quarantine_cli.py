"""The `clinic quarantine` command."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import click

from sync.clinic.cli_options import db_option, ready, state_option, who
from sync.clinic.store.errors import ClinicUsageError

json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
kiosk_option = click.option(
    "--kiosk", type=click.UUID, help="The kiosk that sent it, where several sent a message of this id."
)


@click.group()
def quarantine() -> None:
    """Messages that could not be stored or opened, for a person.

    Each with its reason: to be looked at, taken in again or given up.
    """


@quarantine.command("list")
@state_option
@db_option
@json_option
def list_(state: Path, db: str | None, as_json: bool) -> None:
    """Everything in quarantine, oldest first."""
    from sync.clinic.receiving import quarantine as messages

    with ready(state, db).reading() as session:
        found = messages.held(session)
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found]))
    else:
        click.echo(messages.as_table(found) if found else "Nothing is in quarantine.")


@quarantine.command()
@click.argument("message")
@kiosk_option
@state_option
@db_option
@json_option
def show(message: str, kiosk: UUID | None, state: Path, db: str | None, as_json: bool) -> None:
    """What is known of one MESSAGE, but never what is in it.

    MESSAGE is its id in the list.
    """
    from sync.clinic.receiving import quarantine as messages

    with ready(state, db).reading() as session:
        one = messages.find(session, message, kiosk)
    click.echo(json.dumps(one.as_json()) if as_json else messages.as_text(one))


@quarantine.command()
@click.argument("message")
@kiosk_option
@click.option(
    "--wait",
    type=click.IntRange(0, 600),
    default=15,
    show_default=True,
    help="Seconds to wait for what 'clinic open' makes of it.",
)
@state_option
@db_option
@json_option
def retry(message: str, kiosk: UUID | None, wait: int, state: Path, db: str | None, as_json: bool) -> None:
    """Take in and open one MESSAGE again, once the cause is mended.

    Says what becomes of it.
    """
    from sync.clinic.receiving import quarantine as messages

    database = ready(state, db)
    with database.reading() as session:
        one = messages.find(session, message, kiosk)
    out, sentence = messages.retry(database, one, who(), wait)
    click.echo(json.dumps({"id": one.id, "out": out, "became": sentence}) if as_json else sentence)
    if not out:
        click.get_current_context().exit(1)


@quarantine.command()
@click.argument("message")
@kiosk_option
@click.option("--reason", required=True, help="Why, for the audit log. Name no patient.")
@click.option("--yes", is_flag=True, help="Really: what the message holds is erased for good.")
@state_option
@db_option
@json_option
def discard(
    message: str, kiosk: UUID | None, reason: str, yes: bool, state: Path, db: str | None, as_json: bool
) -> None:
    """Give up one MESSAGE, whose ciphertext is then erased.

    Its ids and hash stay. No copy at the kiosk is to be counted on: the clinic only knows of some that there
    is none any more.
    """
    from sync.clinic.receiving import quarantine as messages

    if not 0 < len(reason.strip()) <= 200 or not reason.isprintable():
        raise ClinicUsageError("--reason takes 1 to 200 printable characters: say in a few words why.")
    database = ready(state, db)
    with database.reading() as session:
        one = messages.find(session, message, kiosk)
    if not yes:
        what = f"Message {one.id}, of which its kiosk may have no copy any more,"
        if one.only_here:
            what = f"This is the only copy of message {one.id}: its kiosk let go of its own. It"
        scan = ", and a scan that a patient took back would stay" if one.type == "withdraw" else ""
        raise ClinicUsageError(
            f"{what} would be erased here for good{scan}: give --yes to do so, "
            "or try it again with 'quarantine retry'."
        )
    messages.discard(database, one, who(), reason.strip())
    kept = "It was the only copy." if one.only_here else "Its kiosk may have a copy still."
    sentence = f"It was discarded. {kept}"
    click.echo(json.dumps({"id": one.id, "became": sentence}) if as_json else sentence)
