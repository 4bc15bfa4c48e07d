"""The `demo` command: the whole system until Ctrl-C, or one headless scan through it."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import click

from .patient import Patient
from .scan_record import wait_for_record
from .supervisor import PartFailed, Supervisor
from .system import ACCOUNT, System, open_system, parts

WATCH_SECONDS = 0.25


@click.command()
@click.option("--once", is_flag=True, help="One headless scan through everything, then stop.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="With --once: where all of it goes."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="DERMAKIOSK_STATE",
    help="Without --once: the folder that the demo lives in; kept, and taken up again the next time.",
)
@click.option(
    "--portrait",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The simulated patient's face (default: a public-domain portrait).",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated patient's skin.")
@click.option("--kiosk-port", type=int, default=0, help="Port of the kiosk's pages (default: a free one).")
@click.option("--clinic-port", type=int, default=0, help="Port of the clinic's pages (default: a free one).")
def demo(
    once: bool,
    out: Path | None,
    state: Path | None,
    portrait: Path | None,
    seed: int,
    kiosk_port: int,
    clinic_port: int,
) -> None:
    """The whole system on simulated hardware: kiosk, broker and clinic, each part its own process."""
    folder = out if once else state
    if folder is None:
        raise click.UsageError("Name the folder: --out DIR with --once, --state DIR without.")
    if portrait is not None:
        _check_portrait(portrait)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())

    click.echo("Setting up the clinic authority, the broker and the kiosk…", err=True)
    started = time.monotonic()
    system, password = open_system(folder, kiosk_port, clinic_port)
    supervisor = Supervisor(system.root / "logs")
    try:
        broker, *others = parts(system, portrait, seed)
        supervisor.start(broker)
        supervisor.start(*others)
        if once:
            ready_after = time.monotonic() - started
            click.echo(json.dumps(_scan_once(system, supervisor, ready_after)))
        else:
            _announce(system, password)
            while not stopping.wait(WATCH_SECONDS):
                supervisor.check()
            click.echo("Stopping.", err=True)
    finally:
        supervisor.stop()


def _check_portrait(portrait: Path) -> None:
    from models.picture import read_picture

    read_picture(portrait)


def _announce(system: System, password: str | None) -> None:
    click.echo(f"kiosk={system.kiosk_url}")
    click.echo(f"clinic={system.clinic_url}")
    if password:
        click.echo(f"The clinic's account: {ACCOUNT}, password {password} (shown this once).")
    click.echo("Everything is simulated. Ctrl-C stops all of it.", err=True)


def _scan_once(system: System, supervisor: Supervisor, ready_after: float) -> dict[str, Any]:
    walking = time.monotonic()
    try:
        Patient(system.kiosk_url).walk()
    except OSError as error:
        raise PartFailed(f"The kiosk's pages cannot be reached: {error}.") from error
    walked = time.monotonic() - walking
    record = wait_for_record(system)
    supervisor.check()
    peaks = supervisor.peak_rss_mb() | record.pop("peak_rss_mb")
    seconds = {"start": ready_after} | record.pop("seconds") | {"journey": walked}
    return record | {
        "seconds": {stage: round(s, 3) for stage, s in seconds.items()},
        "peak_rss_mb": round(sum(peaks.values()), 1),
        "peak_rss_mb_by_part": peaks,
    }
