"""The command `dermakiosk phantom`: a simulated face capture, with the truth about the face beside it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from hardware.board import BOARDS, Board, load_board
from hardware.capture import Capture, Frame
from hardware.capture_folder import write_capture_folder
from hardware.counts import counted
from hardware.host.errors import PlainError
from hardware.host.one_line import one_line
from hardware.simulated.patient_options import SEED, TONE
from kiosk_app.demo.progress_line import show_progress

if TYPE_CHECKING:
    from hardware.simulated.phantom.face import Phantom

DARK = "dark"
# Frames are this far apart, on a clock that starts with the first; their noise follows from it and the seed.
_APART_NS = 10_000_000_000


class PhantomFolderRefused(PlainError):
    """The folder given with --out cannot take a phantom."""

    exit_status = 2


def _lights(ctx: click.Context, param: click.Parameter, names: str | None) -> tuple[str, ...]:
    """The lights of a comma-separated list, in the order of the simulated board; all of them without one."""
    known = (DARK, *load_board(BOARDS / "simulated.toml").lights)
    if names is None:
        return known
    wanted = [name.strip() for name in names.split(",")]
    wrong = next((name for name in wanted if name not in known), None)
    if wrong is not None:
        raise click.BadParameter(
            f"the simulated board has no light {wrong!r}: choose from {', '.join(known)}.", ctx, param
        )
    return tuple(name for name in known if name in wanted)


@click.command()
@click.option("--seed", required=True, type=SEED, help="The same seed makes the same files.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for capture and truth; one that holds anything is refused.",
)
@click.option("--tone", type=TONE, metavar="ITA", help="Mean ITA° of the cheeks (default: by the seed).")
@click.option(
    "--lights",
    callback=_lights,
    metavar="NAME,…",
    help="Lights to take a frame under (default: all of the simulated board's, and dark).",
)
@click.pass_context
def phantom(ctx: click.Context, seed: int, out: Path, tone: float | None, lights: tuple[str, ...]) -> None:
    """Make a simulated face capture with known truth.

    Writes a capture folder (`dermakiosk analyse capture` reads it), truth.npz with maps of melanin,
    haemoglobin, depth, normals and zones, and truth.json with everything that was planted in the skin.
    """
    from hardware.simulated.phantom.face import Phantom

    if _holds_something(out):
        raise PhantomFolderRefused(f"{out} holds something already: name another folder for --out.")
    board = load_board(BOARDS / "simulated.toml")
    face = Phantom(board, ctx.obj["anatomy"](), seed, tone)
    capture = take(board, face, lights, show_progress)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=out) as name:
            part = Path(name)
            write_capture_folder(capture, part)
            np.savez_compressed(part / "truth.npz", **face.maps())  # type: ignore[arg-type, unused-ignore]
            (part / "truth.json").write_text(json.dumps(face.truth(), indent=1) + "\n", encoding="utf-8")
            for made in sorted(part.iterdir()):
                made.rename(out / made.name)
    except OSError as error:
        raise _cannot_be_written(out, error) from error
    planted = ", ".join(counted(len(found), name.removesuffix("s")) for name, found in face.marks.items())
    frames = counted(len(capture.frames), "frame")
    click.echo(one_line(f"{out}: SIMULATED, {frames} of a face at ITA {face.tone:.1f}°; {planted}."))


def _holds_something(out: Path) -> bool:
    try:
        return any(out.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _cannot_be_written(out, error) from error


def _cannot_be_written(out: Path, error: OSError) -> PhantomFolderRefused:
    reason = error.strerror or error
    return PhantomFolderRefused(f"{out} cannot be written ({reason}): name another folder for --out.")


def take(
    board: Board, face: Phantom, lights: tuple[str, ...], on_progress: Callable[[str, int, int], Any]
) -> Capture:
    """The Capture of `face` under `lights`, as `board`'s camera and sensor have it; eyes closed under UV."""
    from firmware.cameras.reflectance import reflectance
    from hardware.simulated.camera import SimulatedExposure
    from hardware.simulated.optics import Optics
    from hardware.simulated.pose import View

    optics = Optics(board)
    frames = []
    for done, name in enumerate(lights):
        on_progress(name, done, len(lights))
        light = board.lights["white" if name == DARK else name]
        exposure = SimulatedExposure(
            board,
            optics,
            View(face.scene, eyes_closed=light.is_uv),
            {} if name == DARK else {name: 1.0},
            light.exposure_us,
            light.gain,
            (done + 1) * _APART_NS + face.seed,
        )
        frames.append(
            Frame(
                name,
                reflectance(board, name, exposure.counts(), exposure),
                exposure.exposure_us,
                exposure.gain,
                exposure.timestamp_ns,
            )
        )
    on_progress("done", len(lights), len(lights))
    return Capture(board.name, tuple(frames), board.calibration, face.mm_per_px, simulated=True)
