"""The commands `dermakiosk serve` (the kiosk's pages), `scans` (what is kept) and `shred` (one destroyed)."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import structlog

from firmware.capture.client import CaptureClient
from hardware.board import Board, DriverMissing, load_board
from hardware.capture import MAX_SPOTS
from hardware.counts import counted
from hardware.host.clock import vouched_by
from hardware.host.errors import PlainError
from hardware.host.existing_path import ExistingPath
from hardware.host.notify import Notifier
from hardware.host.output_file import OutputFile, opened_output, require_apart
from hardware.host.peers import USER
from hardware.host.secrecy import keep_memory_to_ourselves
from hardware.host.sockets import check_folder
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsUnusable, RowDamaged, StateUnknown
from kiosk_app.kept.states import GONE
from kiosk_app.kept.storage import StateRefused, has_records, only_server, open_storage, unknown_scans
from kiosk_app.patient.app import create_app
from kiosk_app.patient.kiosk import KioskParts
from kiosk_app.scanning.analyst import Analyst
from kiosk_app.scanning.close_ups import CloseUps
from kiosk_app.scanning.courier import Courier, vouch
from kiosk_app.scanning.delivery import Delivery
from kiosk_app.scanning.engine_check import require_right_engine
from kiosk_app.scanning.identity import Identity, NotEnrolled
from kiosk_app.scanning.licence import why_not_licensed
from kiosk_app.scanning.scan_work import ScanWork
from kiosk_app.scanning.sealer import Sealer
from kiosk_app.scanning.shred import Shredded
from kiosk_app.scanning.shred import shred as destroy
from kiosk_app.web.door import Door
from models.analysis.lights import lights_read
from models.networks.signature import check_signature
from sync.kiosk.client import OutboxClient, OutboxUnavailable
from sync.web.server import WebServer, make_web_server

log = structlog.get_logger()
# Beyond all deadlines of what they wait for: that of a page; scans that are measured once more.
LONGEST_PAGE_S, LONGEST_ROUND_S = 60.0, 600.0
STATE = click.option(
    "--state",
    envvar="DERMAKIOSK_STATE",
    required=True,
    type=ExistingPath(file_okay=False),
    help="The kiosk's state folder (or DERMAKIOSK_STATE).",
)
BOARD = click.option(
    "--board",
    required=True,
    type=ExistingPath(dir_okay=False),
    help="Board profile (TOML), as those in hardware/boards.",
)
_SERVER = "User (name or id) whose process may be the"
_ELSE = "(default: our own, or who owns its state)."

# What `shred` says of the clinic: what is known at that moment. The same command, later, says it anew.
CLINIC_KNOWS = {
    Delivery.NOT_MEASURED: "It could not be measured, and nothing of it had been sent to the clinic.",
    Delivery.NOTHING_SENT: "Nothing of it had been sent to the clinic.",
    Delivery.UNTOLD: "Its result may have been sent, and the clinic could not be told yet to erase it: the"
    " kiosk does that once 'dermakiosk serve' and 'dermakiosk sync run' are running and connected.",
    Delivery.TELLING: "Its result may have reached the clinic; the word to erase it there is on its way.",
    Delivery.TOLD: "Its result may have reached the clinic, which has confirmed the word to erase it.",
    Delivery.TOLD_HELD: "The clinic has the word to erase it, but in quarantine: a person must see to it.",
}

_KEY_GONE = "Flash may keep old blocks for a while; without the destroyed key nobody can read them."
_KEY_LEFT = (
    "Its old key is not destroyed yet, for another process uses the records: 'dermakiosk serve' does that by"
    " itself; where that does not run, end what uses them and run this again."
)
_UNKNOWN = (
    "What is 'unknown' is in the vault, and these records know nothing of it: put back the records that do,"
    " or destroy it with 'dermakiosk shred'."
)
_KEY_ELSEWHERE = (
    "Its key stands in the records that know it: destroy those too. If the kiosk was enrolled anew after"
    " that scan, it cannot have the clinic erase it: ask the clinic to do so."
)


class PortTaken(PlainError):
    """Something else listens on the address."""


def scan_size_mb(board: Board, lights: Collection[str]) -> int:
    """What one Capture under `lights` takes in the vault, rounded up: three 16-bit colours a pixel.

    Beside them there is the dark frame, and white is taken even where no measure reads it; and as many
    close-ups as a visit takes, of three 8-bit colours a pixel.
    """
    still, close_up = board.camera.still, board.close_up
    size = (len({"white", *lights}) + 1) * still.width * still.height * 6
    size += MAX_SPOTS * close_up.width * close_up.height * 3 if close_up else 0
    return size // (1 << 20) + 16


def references(board: Board) -> Callable[[], str | None]:
    """Until there is a check-in: a simulated patient for each session, on a real board a walk-in (no UV)."""
    return (lambda: f"demo-{secrets.token_hex(8)}") if board.simulated else (lambda: None)


def licence(board: Board, state: Path, kiosk: UUID) -> Callable[[], str | None]:
    """Why the networks may measure no patient; before a simulated camera there is none."""
    nobody = board.simulated and board.camera.driver == "simulated"
    return (lambda: None) if nobody else partial(why_not_licensed, state, kiosk)


def knows_the_time(board: Board) -> Callable[[], bool]:
    """Whether something vouches for the clock; of a simulated board it is taken on trust."""
    return lambda: board.simulated or vouched_by(time.time()) is not None


def refuse_missing_key_store(board: Board) -> None:
    """Raise DriverMissing for a board whose promise about the vault's key this version cannot keep."""
    if board.key_store != "file":
        raise DriverMissing(
            f"key_store = '{board.key_store}' in board '{board.name}' has no driver in this version:"
            " write key_store = 'file' if staff accept the vault's key in a file."
        )


def _open_door(folder: Path) -> Door:
    try:
        return Door(folder)
    except OSError as error:
        raise StateRefused(
            f"{folder} cannot be used ({error.strerror}): name a --screen that this user can write."
        ) from error


@contextlib.contextmanager
def open_kiosk(
    board: Board,
    state: Path,
    lights: Collection[str],
    capture_user: int | None = None,
    outbox_user: int | None = None,
) -> Iterator[KioskParts]:
    """The kiosk over `state`, with its parts put together; it takes its pictures under `lights`.

    The two users are those whose processes may be the capture daemon and the outbox.

    Raises NotEnrolled, ModelsError, PathTooLong, StateRefused, RecordsLost.
    """
    check_folder(state / "run", "--state")
    identity = Identity.read(state)
    check_signature(state)
    records, vault = open_storage(state / "app")
    sealer = Sealer(state, board.name, board.simulated)
    outbox = OutboxClient(state / "run" / "outbox.sock", server=outbox_user)
    camera = CaptureClient(state / "run" / "capture.sock", server=capture_user)
    courier = Courier(records, outbox, sealer)
    analyst = Analyst(board.engine, state)
    try:
        yield KioskParts(
            clinic=identity.clinic,
            simulated=board.simulated,
            has_uv=board.uv_among(lights),
            records=records,
            vault=vault,
            camera=camera,
            outbox=outbox,
            courier=courier,
            work=ScanWork(records, vault, camera, analyst, sealer, courier, lights, knows_the_time(board)),
            reference=references(board),
            why_not_licensed=licence(board, state, identity.kiosk),
            room_for_a_scan_mb=scan_size_mb(board, lights),
            close_ups=None if board.close_up is None else CloseUps(camera, analyst),
        )
    finally:
        analyst.close()


@click.command()
@BOARD
@STATE
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="On 127.0.0.1; 0 takes any that is free.",
)
@click.option(
    "--screen",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the kiosk's own browser finds what lets it in (default: run/screen of the state folder).",
)
@click.option("--capture-user", type=USER, help=f"{_SERVER} capture daemon {_ELSE}")
@click.option("--outbox-user", type=USER, help=f"{_SERVER} outbox {_ELSE}")
def serve(
    board: Path,
    state: Path,
    port: int,
    screen: Path | None,
    capture_user: int | None,
    outbox_user: int | None,
) -> None:
    """Serve the patient's pages on loopback, until SIGTERM."""
    keep_memory_to_ourselves()
    with only_server(state / "app"):
        if has_records(state / "app"):
            # Brought up whatever is refused: staff may have to delete a scan, and what waits is to be sent.
            records, _ = open_storage(state / "app")
            with contextlib.suppress(OutboxUnavailable, RecordsUnusable):  # the house-keeping tries it again
                vouch(records, OutboxClient(state / "run" / "outbox.sock", server=outbox_user))
        profile = load_board(board)
        refuse_missing_key_store(profile)
        with open_kiosk(profile, state, lights_read(), capture_user, outbox_user) as kiosk:
            _serve(kiosk, profile, state, port, screen)


def _serve(kiosk: KioskParts, profile: Board, state: Path, port: int, screen: Path | None) -> None:
    require_right_engine(profile.engine, state / "app")
    kiosk.work.recover()
    door, app = _open_door(screen or state / "run" / "screen"), create_app(kiosk)
    door.guard(app)
    try:
        server = make_web_server(app, "127.0.0.1", port, threads=8)
    except OSError as error:
        raise PortTaken(
            f"Nothing can listen on 127.0.0.1:{port} ({error.strerror}). Choose another --port."
        ) from error
    stop = threading.Event()
    keeper = threading.Thread(target=kiosk.keep_house, args=(stop,), name="house-keeping", daemon=True)
    keeper.start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # waitress ends on KeyboardInterrupt
    start = door.write_start(int(server.effective_port))
    # The address lets anyone in: it is said to a person at a terminal, never to a log.
    shown = door.address(int(server.effective_port)) if sys.stdout.isatty() else start.absolute().as_uri()
    click.echo(f"kiosk={shown}")
    log.info("ready", board=profile.name, simulated=profile.simulated, key_store=profile.key_store)
    notifier = Notifier()
    notifier.ready()
    server.on_turn = lambda: _say_alive(notifier, server, kiosk)
    server.run()
    notifier.stopping()
    stop.set()
    server.close()
    notifier.close()
    log.info("stopped")


def _say_alive(notifier: Notifier, server: WebServer, kiosk: KioskParts) -> None:
    """Tell the watchdog that the pages are served, unless a page or the house-keeping hangs."""
    since = kiosk.round_since
    house_hangs = since is not None and time.monotonic() - since > LONGEST_ROUND_S
    if not house_hangs and server.longest_service() < LONGEST_PAGE_S:
        notifier.alive()


@click.command()
@click.argument("scan", type=click.UUID)
@STATE
@click.pass_context
def shred(context: click.Context, scan: UUID, state: Path) -> None:
    """Destroy the pictures, findings, overlays and unsent envelopes of SCAN; withdraw it if it was sent."""
    if not context.obj["debug"]:
        # The sentences below say what an event would; only what they cannot say is still logged.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    records, vault = open_storage(state / "app", as_it_is=True)
    unknown = scan in unknown_scans(records, vault)
    outbox = OutboxClient(state / "run" / "outbox.sock")

    def tell(scan: UUID) -> None:
        try:
            Courier(records, outbox, Sealer(state, board="unused", simulated=False)).run_once(scan)
        except NotEnrolled as error:
            log.error("not_told", why=str(error))

    gone = destroy(scan, records, vault, tell, outbox, by="staff", unknown=unknown)
    click.echo(_what_is_gone(scan, gone, unknown))
    click.echo(CLINIC_KNOWS[gone.clinic])
    if gone.key_left and not gone.key_elsewhere:
        click.echo(_KEY_LEFT)
    if unknown or gone.key_elsewhere:
        click.echo(_KEY_ELSEWHERE)
    elif not gone.key_left:
        click.echo(_KEY_GONE)


def _what_is_gone(scan: UUID, gone: Shredded, unknown: bool) -> str:
    items = counted(len(gone.items), "encrypted item")
    if unknown:
        return f"Scan {scan}, which these records do not know: gone with it: {items}."
    if gone.before:
        left = (
            f"what was left of it here is gone now ({items})" if gone.items else "no item of it was left here"
        )
        return f"Scan {scan} was deleted before; {left}."
    findings = "" if gone.findings is None else f" and {counted(gone.findings, 'finding')}"
    done = "it is deleted" if gone.key_left else "its key is destroyed"
    return f"Scan {scan}: {done}; gone with it: {items}{findings}."


@click.group()
def scans() -> None:
    """The scans that this kiosk keeps, by the ids that 'dermakiosk shred' takes."""


def _consented_at(scan: UUID, records: Records) -> str | None:
    try:
        return records.scan(scan).created.isoformat(timespec="seconds")
    except (RowDamaged, StateUnknown):
        return None


@scans.command("list")
@STATE
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    type=OutputFile(),
    help="Write JSON lines to this file instead of a table; - or nothing means stdout.",
)
def list_scans(state: Path, json_file: str | None) -> None:
    """List the scans that are kept, the newest last.

    Of each its id, the time of the consent (UTC), its bytes and its state; nobody is named. Last come those
    in the vault that the records do not know: their state is "unknown", and so is their time, as it is where
    the records are damaged.
    """
    require_apart(json_file, state)
    records, vault = open_storage(state / "app", as_it_is=True)
    strangers = unknown_scans(records, vault)
    entries: list[dict[str, Any]] = [
        {
            "scan": str(scan),
            "at": _consented_at(scan, records),
            "bytes": vault.size(scan),
            "state": state,
        }
        for scan, state in records.states().items()
        if state not in GONE and scan not in strangers
    ]
    unknown = [
        {"scan": str(scan), "at": None, "bytes": vault.size(scan), "state": "unknown"} for scan in strangers
    ]
    entries += unknown
    if json_file is not None:
        with opened_output(json_file) as file:
            file.write("".join(f"{json.dumps(entry)}\n" for entry in entries))
        return
    click.echo(f"{'scan':<36}  {'at':<25}  {'bytes':>11}  state")
    for entry in entries:
        click.echo(f"{entry['scan']}  {entry['at'] or '-':<25}  {entry['bytes']:>11}  {entry['state']}")
    if unknown:
        click.echo(_UNKNOWN)
