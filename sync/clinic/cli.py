"""The `clinic` command."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

from sync.clinic.cli_options import FOLDER, ClinicGroup, db_option, named, ready, state_option, who
from sync.clinic.quarantine_cli import quarantine
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.output_file import OutputFile, opened_output, require_apart
from sync.clinic.store.place import files_of, place_of

if TYPE_CHECKING:
    from sync.clinic.work.machines import MachinesWorker

# Of a processor's time a third of what a page gets: a backlog can wait, who has asked for a page should not.
# It counts among the processes of one session or container only; of services their units say it (CPUWeight).
_BEHIND_PAGES = 5
# A stop takes no longer, whatever the step at hand waits for; shorter than systemd waits for a service.
STOP_S, _LAST_WORD_S = 6.5, 0.5

log = structlog.get_logger()


@click.group(cls=ClinicGroup)
def clinic() -> None:
    """The clinic's side: what comes from kiosks is stored, receipted, opened, shown.

    'migrate' makes the database, 'register-kiosk' lets a kiosk in, then 'ingest', 'open', 'serve' and 'work'
    run, each as its own process.
    """


clinic.add_command(quarantine)


@clinic.command()
@state_option
@db_option
def migrate(state: Path, db: str | None) -> None:
    """Make the database, or bring it to this version's schema."""
    revision = named(Database.at(state, db)).migrate()
    click.echo(f"The clinic's database is at revision {revision}.")


@clinic.command("register-kiosk")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@state_option
@db_option
def register_kiosk(file: Path, state: Path, db: str | None) -> None:
    """Let a kiosk in.

    FILE is what the authority wrote when it enrolled it.
    """
    from sync.clinic.receiving import registry

    kiosk = registry.register_kiosk(ready(state, db), file)
    click.echo(f"Registered kiosk {kiosk}.")


@clinic.command("add-account")
@click.argument("name")
@state_option
@db_option
def add_account(name: str, state: Path, db: str | None) -> None:
    """Make an account for a member of staff.

    Its password is shown this once, and kept nowhere.
    """
    from sync.clinic.people import accounts

    # As Ctrl-C does: an account whose password has not been shown goes again.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    accounts.add_account(
        ready(state, db), name, lambda password: click.echo(f"account={name}\npassword={password}")
    )


@clinic.command()
@state_option
@db_option
def ingest(state: Path, db: str | None) -> None:
    """Take in what kiosks send, still sealed, and send receipts.

    Any number of workers may run, each by a role of its own.
    """
    from sync.clinic.receiving.broker import Address, Role
    from sync.clinic.receiving.ingest import IngestWorker

    folder = state / "ingest"
    worker = IngestWorker(ready(state, db), folder, Address.read(folder))
    with Role(folder).alone():
        _settle()
        _let_pages_go_first()
        worker.run(_stop_on_signal())


@clinic.command("open")
@state_option
@db_option
@click.option("--export", type=FOLDER, help="Also write each opened message as JSON into this folder.")
@click.option("--again", is_flag=True, help="Try quarantined envelopes once more, after an update.")
def open_(state: Path, db: str | None, export: Path | None, again: bool) -> None:
    """Open what ingest has stored. Only this process holds the key that reads results."""
    from sync.clinic.receiving.opener import Opener
    from sync.clinic.receiving.sealed import read_opening_keys

    opener = Opener(ready(state, db), read_opening_keys(state / "opener" / "opening.key"), export)
    stop = _stop_on_signal()
    opener.begin(again=again)
    _settle()
    _let_pages_go_first()
    log.info("ready")
    opener.run(stop)


@clinic.command("retire-key")
@click.argument("key")
@state_option
@db_option
def retire_key(key: str, state: Path, db: str | None) -> None:
    """Give up an opening KEY that 'status' calls missing.

    Kiosks seal anew what they still have, which is whatever they have sent since the key was missing.
    """
    from sync.clinic.receiving import opening_keys

    opening_keys.retire(ready(state, db), key.lower(), who())
    click.echo(f"Retired opening key {key.lower()}.")


@clinic.command()
@state_option
@db_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="Port to listen on; 0 takes any that is free.",
)
@click.option("--behind-tls", is_flag=True, help="People come through a TLS proxy on this machine.")
@click.option(
    "--trusted-proxy",
    "proxy",
    default="127.0.0.1",
    show_default=True,
    help="With --behind-tls: the proxy's address, whose X-Forwarded-For is believed.",
)
@click.option(
    "--allow-host",
    "names",
    metavar="NAME",
    multiple=True,
    help="A name that people reach the pages by, such as the proxy's; give it once for each. Loopback and "
    "--host are always answered, any other name is refused.",
)
def serve(
    state: Path, db: str | None, host: str, port: int, behind_tls: bool, proxy: str, names: tuple[str, ...]
) -> None:
    """The clinic's pages. Without TLS they are served on loopback only."""
    from sync.clinic.server import serve_pages

    database, stop = ready(state, db), _stop_on_signal()
    serve_pages(database, state, host, port, behind_tls=behind_tls, proxy=proxy, names=names, stop=stop)


@clinic.command()
@state_option
@db_option
@click.option(
    "--zone",
    default="UTC",
    show_default=True,
    envvar="DERMAKIOSK_CLINIC_ZONE",
    help="The clinic's time zone.",
)
@click.option(
    "--many-machines", is_flag=True, help="Share the work with other machines, through PostgreSQL's messages."
)
def work(state: Path, db: str | None, zone: str, many_machines: bool) -> None:
    """Do what is due by itself, such as house-keeping at night.

    Any number of workers may run.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from sync.clinic.housekeeping import HANDLERS, SCHEDULES
    from sync.clinic.work.worker import Worker

    try:
        known = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        # It is looked for as a file: a folder of them is none, nor has a file a name of any length.
        raise ClinicUsageError(
            f"--zone {zone!r:.60} is no time zone that this computer knows: name one such as Europe/Berlin."
        ) from error
    kind = _of_many_machines() if many_machines else Worker
    worker = kind(ready(state, db), HANDLERS, SCHEDULES, known)
    stop = _stop_on_signal()
    _settle()
    log.info("ready")
    worker.run(stop)


@clinic.command()
@state_option
@db_option
@click.option("--json", "json_file", type=OutputFile(), help="Write it as JSON ('-' is stdout).")
def status(state: Path, db: str | None, json_file: str | None) -> None:
    """What has come, what waits, what needs a person."""
    from sync.clinic.summary import as_text, summary

    require_apart(json_file, state, *files_of(place_of(state, db)))
    with ready(state, db).reading() as session:
        counts = summary(session)
    if json_file is not None:
        with opened_output(json_file) as file:
            click.echo(json.dumps(counts), file=file)
    else:
        click.echo(as_text(counts))


@clinic.command()
@state_option
@click.option("--out", type=FOLDER, required=True, help="Where each payload becomes a file.")
def tap(state: Path, out: Path) -> None:
    """Write down what crosses the broker, as an auditor sees it."""
    from sync.clinic.receiving.broker import Address, Role
    from sync.clinic.receiving.tap import Tap

    role = state / "auditor"
    written = Tap(role, Address.read(role), out)
    with Role(role).alone():
        written.run(_stop_on_signal())


def _of_many_machines() -> type[MachinesWorker]:
    try:
        from sync.clinic.work.machines import MachinesWorker
    except ModuleNotFoundError as error:
        raise ClinicError(
            f"Several machines need a package that is not installed ({error.name}): install dermakiosk with "
            "its extra, dermakiosk[machines]."
        ) from error
    return MachinesWorker


def _settle() -> None:
    """Have the collector of garbage look no more at what was imported: that is a tenth of a worker's time."""
    gc.collect()
    gc.freeze()


def _let_pages_go_first() -> None:
    """Have this thread, and those begun in it from now on, wait for a processor as a backlog can."""
    with contextlib.suppress(PermissionError):  # a hardened unit may forbid it
        os.nice(_BEHIND_PAGES)


def _stop_on_signal() -> threading.Event:
    """What is set once the process is told to stop; a while after that the process ends, whatever it does.

    A handler in Python would wait until the main thread comes back from a disk, or from a lock of SQLite. The
    number of a signal goes through a pipe at once, whichever thread the signal comes to.
    """
    stop = threading.Event()
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_stop, args=(told, stop), name="stop", daemon=True).start()
    return stop


def _stop(told: int, stop: threading.Event) -> None:
    """Have the process stop by itself, or end it: as after a power cut, what was not done is done later."""
    os.read(told, 1)
    stop.set()
    time.sleep(STOP_S)
    # In a thread of its own: what is waited for may be whoever takes the log.
    saying = threading.Thread(target=_say_unstopped, daemon=True)
    saying.start()
    saying.join(_LAST_WORD_S)
    os._exit(0)


def _say_unstopped() -> None:
    log.warning("ended_before_it_had_stopped", after_s=STOP_S)
