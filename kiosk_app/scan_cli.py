"""The command `dermakiosk scan`: one capture with its analysis, as files, without any network."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import click

from firmware.capture.client import CaptureClient, CaptureFault
from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.board import Board, load_board
from hardware.capture import Capture, Frame, Spot
from hardware.capture_folder import write_capture_folder
from hardware.counts import counted
from hardware.host.durable import folder_if_used
from hardware.host.errors import PlainError
from hardware.host.one_line import one_line
from hardware.host.output_file import require_outside
from hardware.host.sockets import check_folder
from hardware.simulated.patient_options import (
    SimulatedPatient,
    check_is_shown,
    check_spots,
    patient_options,
    spot_options,
)
from kiosk_app.demo.given_pictures import PictureRefused, check_close_up, check_portrait
from kiosk_app.demo.progress_line import show_progress
from kiosk_app.demo.supervisor import Part, Stopped, Supervisor, dermakiosk, logged_ready, stop_on_signals
from kiosk_app.scanning.analyst import Analyst
from kiosk_app.scanning.close_ups import ABOUT_THE_PICTURE
from kiosk_app.scanning.phases import take_pictures
from models.analysis.lights import lights_read
from models.analysis.refusal import SENTENCES
from sync.wire.findings import Findings

ANSWER_S = 60.0  # of the daemons, which share this computer with the analysis
RUN = ".run"  # in the folder of --out while a scan is at work: its daemons, then its unfinished results
MARK = ".scan"  # beside that one for as long as it is there: a scan has made it
ABOUT_THE_PATIENT = frozenset(("moved", "shroud_open"))
RESULTS = ("capture", "overlays", "findings.json")  # the last one is there when all of them are


class ScanFolderRefused(PlainError):
    """The folder given with --out cannot take a scan's results."""

    exit_status = 2


@click.command()
@click.option(
    "--board",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Board profile (TOML), as those in hardware/boards.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for what was made; one that holds a scan already is refused.",
)
@click.option(
    "--lights",
    "named",
    metavar="NAME,…",
    help="Lights to take a picture under, as the board names them; white always is one of them"
    " (default: those that the measures read).",
)
@patient_options
@spot_options
def scan(
    board: Path, out: Path, named: str | None, patient: SimulatedPatient, spots: tuple[str, ...]
) -> None:
    """Take one capture, measure it, and write capture/, findings.json and overlays/ into --out.

    Only a scan that succeeds leaves anything, and each needs a folder of its own, so that one person's
    results never stand beside another's. The files are in the clear, for your user only: this is for
    setting up and checking a board, not for patients. On a real board no UV is used.
    """
    require_outside([out / RUN], board, patient.portrait, patient.close_up)
    profile = load_board(board)
    lights = _lights(profile, named)
    patient.check(profile)
    check_spots(profile, spots)
    check_portrait(patient, profile)
    check_close_up(patient, profile.engine)
    check_is_shown(patient, spots)
    check_folder(out / RUN / "run", "--out")
    stop_on_signals()
    os.umask(0o077)  # whatever is written, by the daemons as well, is a face
    try:
        with _claimed(out) as run:
            capture = _capture(profile, board, lights, run, patient, spots)
            outcome = Analyst(profile.engine).measure(capture, uuid4())
            if outcome.findings is None:
                raise _refused(patient.portrait, outcome.sentence or "These pictures cannot be measured.")
            findings = len(outcome.findings.findings)
            try:
                _write(capture, outcome.findings, outcome.overlays, run / "results", out)
            except OSError as error:
                raise _unusable(out, error) from error
    except Stopped as stopped:
        click.echo("Stopped; nothing of this scan was kept.", err=True)
        sys.exit(stopped.exit_status)
    for spot in outcome.findings.spots:
        if spot.refused is not None:
            click.echo(f"Close-up ({spot.zone}): {SENTENCES[spot.refused]}", err=True)
    for light, reason in capture.missing.items():
        click.echo(f"There is no {light} frame: {reason}", err=True)
    if profile.room_lit:
        click.echo("There are no lamps: white-light measures only, in the light of the room.", err=True)
    made = {"frame": len(capture.frames), "finding": findings, "overlay": len(outcome.overlays)}
    click.echo(one_line(f"{out}: {', '.join(counted(count, thing) for thing, count in made.items())}."))


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[Path]:
    """A private folder inside `out`, which is ours alone until the end; then the private one is gone."""
    run = out / RUN
    with contextlib.ExitStack() as tidy:
        try:
            tidy.enter_context(folder_if_used(out))
            handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            tidy.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = [name for name in RESULTS if os.path.lexists(out / name)]
            if known:
                raise ScanFolderRefused(
                    f"{out} holds a scan already ({', '.join(known)}): name another folder."
                )
            if os.path.lexists(run) and any(run.iterdir()) and not (out / MARK).exists():
                raise ScanFolderRefused(f"{run} is not empty and no scan made it: name another folder.")
            tidy.callback(_remove, run)
            (out / MARK).touch()
            shutil.rmtree(run, ignore_errors=True)  # of a scan that was killed
            run.mkdir()
        except BlockingIOError as error:
            raise ScanFolderRefused(f"Another scan is at work in {out}: name another folder.") from error
        except OSError as error:
            raise _unusable(out, error) from error
        yield run


def _remove(run: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
    if not os.path.lexists(run):  # else the next scan removes the rest
        with contextlib.suppress(OSError):
            run.with_name(MARK).unlink()


def _unusable(out: Path, error: OSError) -> ScanFolderRefused:
    return ScanFolderRefused(
        f"{out} cannot be written ({error.strerror or error}): name another folder for --out."
    )


def _lights(board: Board, named: str | None) -> frozenset[str]:
    """The lights that were named, or those that the measures read."""
    if named is None:
        return lights_read()
    lights = frozenset(filter(None, (name.strip() for name in named.split(","))))
    unknown = sorted(lights - set(board.lights))
    if unknown:
        raise click.BadParameter(
            f"board '{board.name}' has no light {', '.join(unknown)}: it has {', '.join(board.lights)}.",
            param_hint="--lights",
        )
    return lights


def _capture(
    profile: Board,
    board: Path,
    lights: Collection[str],
    run: Path,
    patient: SimulatedPatient,
    spots: tuple[str, ...],
) -> Capture:
    """The Capture from daemons of our own, whose state folder is `run`."""
    supervisor = Supervisor(run / "logs")
    common = ("--board", board, "--state", run)
    simulated = patient.arguments if profile.simulated else ()
    session, consent = str(uuid4()), ConsentStamp("operator", "en", datetime.now(timezone.utc))
    patient_reference = f"demo-{secrets.token_hex(8)}"

    def ask(_why: str | None) -> UvAllowance:
        """A simulated patient closes the eyes when told."""
        return UvAllowance(patient_reference, True, time.time())

    try:
        supervisor.start(Part("lightd", dermakiosk("lightd", *common), logged_ready))
        supervisor.start(Part("captured", dermakiosk("captured", *common, *simulated), logged_ready))
        # The daemons' memory is mapped, so the pictures outlive them.
        camera = CaptureClient(run / "run" / "capture.sock", timeout=ANSWER_S)
        asks = ask if profile.simulated and profile.uv_among(lights) else None
        try:
            taken = take_pictures(camera, session, consent, lights, asks, show_progress)
        except CaptureFault as fault:
            if fault.code in ABOUT_THE_PATIENT:
                raise PictureRefused(str(fault)) from fault
            raise
        capture = replace(taken, captured_at=datetime.now(timezone.utc))
        close_ups = [_spot(camera, session, consent, zone, patient.close_up) for zone in spots]
        return capture.with_close_ups(close_ups)
    finally:
        supervisor.stop()


def _spot(
    camera: CaptureClient, session: str, consent: ConsentStamp, zone: str, file: Path | None
) -> tuple[Spot, Frame]:
    """One close-up of a spot in `zone`, which a simulated camera has of `file`."""
    try:
        taken = camera.close_up(session, consent)
    except CaptureFault as fault:
        if fault.code in ABOUT_THE_PICTURE:
            raise _refused(file or f"Close-up ({zone})", SENTENCES[fault.code]) from fault
        raise
    [frame] = taken.close_ups
    return Spot(zone=zone, mm_per_px=taken.spots[frame.light].mm_per_px), frame


def _refused(what: Path | str | None, sentence: str) -> PictureRefused:
    return PictureRefused(sentence if what is None else f"{what}: {sentence}")


def _write(
    capture: Capture, findings: Findings, pictures: Mapping[str, bytes], folder: Path, out: Path
) -> None:
    """Write everything into `folder`, then move it into `out`, all of it or nothing."""
    write_capture_folder(capture, folder / "capture")
    overlays = folder / "overlays"
    overlays.mkdir()
    for name, picture in pictures.items():
        (overlays / f"{name}.png").write_bytes(picture)
    (folder / "findings.json").write_text(
        json.dumps(findings.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8"
    )
    try:
        for name in RESULTS:
            os.rename(folder / name, out / name)
    except BaseException:
        for name in RESULTS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(out / name, folder / name)
        raise
