"""The `demo` command: the whole system until Ctrl-C, or one headless scan through it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from hardware.board import load_board
from hardware.host.existing_path import ExistingPath
from hardware.host.output_file import require_outside
from hardware.simulated.patient_options import (
    SimulatedPatient,
    check_is_shown,
    check_spots,
    patient_options,
    spot_options,
)
from kiosk_app.demo.given_pictures import check_close_up, check_portrait
from kiosk_app.demo.patient import DemoPatient, JourneyBroken
from kiosk_app.demo.scan_record import wait_for_record
from kiosk_app.demo.supervisor import Part, Stopped, Supervisor, stop_on_signals
from kiosk_app.demo.system import (
    ACCOUNT,
    BOARD,
    KEPT_SCANS,
    OURS,
    System,
    fail_power,
    let_old_go,
    open_system,
    parts,
    start_all,
)

WATCH_S = 0.25
LET_GO_S = 600.0
PORT = click.IntRange(0, 65535)
WHAT_TO_TRY = """
Everything is simulated. Ctrl-C stops it; the next start takes it up again, with the newest {kept} scans.
What to try:
  - At the kiosk, in a tall window: a scan, as a walk-in, in a language of yours. Then sign in at the clinic:
    it is there.
  - Mark a spot when you are asked; see at the clinic what a close-up of it says.
  - "Delete my scan" on the result page: at the clinic it is withdrawn.
  - Open the kiosk in a second browser while the first is in the middle of a scan.
  - A power cut, in another terminal: kill -USR1 {pid}
  - A broken lamp, a camera that freezes: "A kiosk with a fault" in kiosk_app/docs/commands.md.\
"""


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
    "--board",
    type=ExistingPath(dir_okay=False),
    default=BOARD,
    help="A simulated board's profile, for one whose [simulation] names a fault (default: nothing is wrong).",
)
@patient_options
@spot_options
@click.option(
    "--kiosk-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the kiosk's pages (default: that of the start before, else a free one).",
)
@click.option(
    "--clinic-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the clinic's pages (default: that of the start before, else a free one).",
)
def demo(
    once: bool,
    out: Path | None,
    state: Path | None,
    board: Path,
    patient: SimulatedPatient,
    spots: tuple[str, ...],
    kiosk_port: int,
    clinic_port: int,
) -> None:
    """The whole system on simulated hardware: kiosk, broker and clinic, each part its own process.

    Without --once, a part that ends or hangs is started again, and SIGUSR1 is a power cut: every part ends
    at once, then all of them start anew.
    """
    folder = out if once else state
    if folder is None:
        raise click.UsageError("Name the folder: --out DIR with --once, --state DIR without.")
    require_outside([folder / name for name in OURS], board, patient.portrait, patient.close_up)
    profile = load_board(board)
    patient.check(profile)
    if not profile.simulated:
        raise click.UsageError(f"{board} is not a simulated board: a demo has no real hardware.")
    check_spots(profile, spots)
    check_portrait(patient, profile)
    if once:
        check_close_up(patient, profile.engine)
        check_is_shown(patient, spots)
    if spots and not once:
        raise click.UsageError("--spot is for --once: at the kiosk's pages the patient marks spots.")
    stop_on_signals()
    power_cuts: list[int] = []
    if not once:
        # Before anything is made: a cut that comes while the system starts is made up for once it is there.
        signal.signal(signal.SIGUSR1, lambda number, _: power_cuts.append(number))
    started = time.monotonic()
    try:
        with open_system(folder, kiosk_port, clinic_port, board, _say, not once) as (system, password):
            if not once:
                _announce_account(system, password)
            _say("Starting the broker, the clinic and the kiosk…")
            supervisor = Supervisor(system.root / "logs")
            try:
                all_parts = parts(system, patient, lasting=not once)
                start_all(supervisor, all_parts)
                if once:
                    ready_after = time.monotonic() - started
                    click.echo(json.dumps(_scan_once(system, supervisor, ready_after, spots)))
                else:
                    _announce(system)
                    _keep_going(system, supervisor, all_parts, power_cuts)
            finally:
                supervisor.stop()
    except Stopped as stopped:
        click.echo("Stopped; every part has ended.", err=True)
        # Until told to stop is what `demo` is for; a scan that was cut short is not done.
        sys.exit(stopped.exit_status if once else 0)


def _keep_going(system: System, supervisor: Supervisor, all_parts: list[Part], power_cuts: list[int]) -> None:
    """Mend what breaks until a signal ends it; the power fails when `power_cuts` has an entry.

    What a demo keeps is bounded while it runs too, which may be for weeks.
    """
    let_go_at = time.monotonic() + LET_GO_S
    while True:
        time.sleep(WATCH_S)
        if time.monotonic() >= let_go_at:
            let_old_go(system)
            let_go_at = time.monotonic() + LET_GO_S
        if power_cuts:
            power_cuts.clear()
            fail_power(system, supervisor)
            click.echo("The power failed; everything starts anew.", err=True)
            start_all(supervisor, all_parts)
        supervisor.mend()


def _say(step: str) -> None:
    click.echo(step, err=True)


def _announce_account(system: System, password: str | None) -> None:
    if password:
        click.echo(f"The clinic's account: {ACCOUNT}, password {password}")
    else:
        add = f"'.venv/bin/dermakiosk clinic add-account NAME --state {system.clinic}'"
        click.echo(f"The clinic's account is the one of the first start; {add} makes another.", err=True)


def _announce(system: System) -> None:
    click.echo(f"kiosk={system.kiosk_url}")
    click.echo(f"clinic={system.clinic_url}")
    click.echo(WHAT_TO_TRY.format(pid=os.getpid(), kept=KEPT_SCANS), err=True)


def _scan_once(
    system: System, supervisor: Supervisor, ready_after: float, spots: tuple[str, ...]
) -> dict[str, Any]:
    walking = time.monotonic()
    try:
        DemoPatient(system.kiosk_url, watch=supervisor.check, spots=spots).walk()
    except JourneyBroken:
        # If a part died, its last word says more than the page that could not be reached.
        supervisor.check()
        raise
    walked = time.monotonic() - walking
    record = wait_for_record(system, watch=supervisor.check)
    peaks = supervisor.peak_rss_mb() | record.pop("peak_rss_mb")
    seconds = {"start": ready_after} | record.pop("seconds") | {"journey": walked}
    return record | {
        "seconds": {stage: round(s, 3) for stage, s in seconds.items()},
        "peak_rss_mb": round(sum(peaks.values()), 1),
        "peak_rss_mb_by_part": peaks,
    }
