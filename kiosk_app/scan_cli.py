"""The command `dermakiosk scan`: one capture with its analysis, as files, without any network."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import click

from firmware.capture_client import CaptureClient
from firmware.stamps import ConsentStamp, UvAllowance
from hardware.board import Board, load_board
from hardware.capture import Capture, write_capture_folder
from kiosk_app.analyst import Analyst, Outcome
from kiosk_app.demo.supervisor import Part, Supervisor, dermakiosk, logged_ready


class ScanRefused(Exception):
    """The pictures were taken but cannot be measured; str() says why and what to do."""

    exit_status = 2


@click.command()
@click.option(
    "--board", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Board profile."
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for what was made."
)
@click.option(
    "--portrait",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The simulated patient's face (default: a public-domain portrait).",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated patient's skin.")
def scan(board: Path, out: Path, portrait: Path | None, seed: int) -> None:
    """Take one capture, measure it, and write capture/, findings.json and overlays/ into --out.

    The files are in the clear: this is for setting up and checking a board, not for patients. On a real
    board no UV is used.
    """
    profile = load_board(board)
    if portrait is not None and not profile.simulated:
        raise click.UsageError("--portrait is for simulated boards; this board has a real camera.")
    out.mkdir(parents=True, exist_ok=True)
    capture = _capture(profile, board, out, portrait, seed)
    write_capture_folder(capture, out / "capture")
    outcome = Analyst(profile.engine).measure(capture, uuid4())
    if outcome.findings is None:
        raise ScanRefused(outcome.sentence or "These pictures cannot be measured.")
    _write(outcome, out)
    for light, reason in capture.missing.items():
        click.echo(f"There is no {light} frame: {reason}", err=True)
    click.echo(
        f"{out}: {len(capture.frames)} frames, {len(outcome.findings['findings'])} findings, "
        f"{len(outcome.overlays)} overlays."
    )


def _capture(profile: Board, board: Path, out: Path, portrait: Path | None, seed: int) -> Capture:
    """The Capture from daemons of our own, which live in a folder inside `out` until it is taken."""
    state = out / ".run"
    shutil.rmtree(state, ignore_errors=True)
    supervisor = Supervisor(state / "logs")
    common = ("--board", board, "--state", state)
    patient = ("--portrait", portrait) if portrait else ()
    simulated = (*patient, "--seed", seed) if profile.simulated else ()
    session, consent = str(uuid4()), ConsentStamp("operator", "en", datetime.now(timezone.utc))
    uv = UvAllowance(f"demo-{secrets.token_hex(8)}", True, time.time()) if profile.simulated else None
    try:
        supervisor.start(Part("lightd", dermakiosk("lightd", *common), logged_ready))
        supervisor.start(Part("captured", dermakiosk("captured", *common, *simulated), logged_ready))
        # The daemons' memory is mapped, so the pictures outlive them.
        return CaptureClient(state / "run" / "capture.sock", timeout=60.0).capture(
            session, consent, uv, _show_progress
        )
    finally:
        supervisor.stop()
        shutil.rmtree(state, ignore_errors=True)


def _show_progress(light: str, done: int, of: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done}/{of} {light:<10}", err=True, nl=done == of)


def _write(outcome: Outcome, out: Path) -> None:
    (out / "findings.json").write_text(json.dumps(outcome.findings, indent=2) + "\n")
    overlays = out / "overlays"
    overlays.mkdir(exist_ok=True)
    for name, picture in outcome.overlays.items():
        (overlays / f"{name}.png").write_bytes(picture)
