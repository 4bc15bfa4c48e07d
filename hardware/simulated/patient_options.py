"""The options that say who stands in front of a simulated camera, the same for every command that has one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hardware.arrays import UInt8Array
from hardware.board import Board
from hardware.capture import MAX_SPOTS
from hardware.host.existing_path import ExistingPath
from hardware.host.finite import FiniteRange
from hardware.picture_colours import Colour, colour_option
from hardware.picture_file import read_picture_file
from hardware.simulation import PHANTOM_SEEDS, PHANTOM_TONES

SPOT_ZONES = (
    *("face", "forehead", "left_cheek", "right_cheek", "nose", "chin"),
    *("left_periorbital", "right_periorbital"),
)
SEED = click.IntRange(*PHANTOM_SEEDS)
TONE = FiniteRange(*PHANTOM_TONES)


@dataclass(frozen=True)
class SimulatedPatient:
    """A portrait (None: the default one) with skin by `seed`, or the phantom of a seed in a `tone` (ITA°)."""

    portrait: Path | None = None
    seed: int = 1
    phantom: int | None = None
    tone: float | None = None
    close_up: Path | None = None
    colour: Colour = "auto"

    @property
    def is_named(self) -> bool:
        return any(value is not None for value in (self.portrait, self.phantom, self.tone, self.close_up))

    def check(self, board: Board) -> None:
        """Raises click.UsageError or PortraitError, before anything is started."""
        if self.is_named and not board.simulated:
            raise click.UsageError(
                "--portrait, --phantom and --close-up are for simulated boards; this board has a real camera."
            )
        if self.portrait is not None and self.phantom is not None:
            raise click.UsageError("--portrait and --phantom are two patients: name one of them.")
        if self.tone is not None and self.phantom is None:
            raise click.UsageError("--tone is for a phantom: name its seed with --phantom.")
        if self.close_up is not None and board.close_up is None:
            raise click.UsageError("--close-up needs a board with [close_up], a close-up camera.")
        self.portrait_picture()
        self.close_up_picture()

    def portrait_picture(self) -> UInt8Array | None:
        """H×W×3 uint8 sRGB of --portrait, None without one. Raises PortraitError."""
        from hardware.simulated.patient import read_portrait

        return None if self.portrait is None else read_portrait(self.portrait, self.colour)

    def close_up_picture(self) -> UInt8Array | None:
        """H×W×3 uint8 sRGB of --close-up, None without one. Raises PictureError."""
        return None if self.close_up is None else read_picture_file(self.close_up, self.colour).srgb8()

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the capture daemon is told."""
        close_up: tuple[Any, ...] = () if self.close_up is None else ("--close-up", self.close_up)
        close_up += () if self.colour == "auto" else ("--colour", self.colour)
        if self.phantom is not None:
            tone = () if self.tone is None else ("--tone", self.tone)
            return ("--phantom", self.phantom, *tone, *close_up)
        portrait = () if self.portrait is None else ("--portrait", self.portrait)
        return ("--seed", self.seed, *portrait, *close_up)


def spot_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--spot, which reaches `command` as `spots`: the zones of which a close-up is taken."""
    return click.option(
        "--spot",
        "spots",
        multiple=True,
        metavar="ZONE",
        callback=_spots,
        help=f"Have a close-up taken of a spot in this zone (nose, left_cheek, …); up to {MAX_SPOTS} times.",
    )(command)


def _spots(context: click.Context, option: click.Parameter, zones: tuple[str, ...]) -> tuple[str, ...]:
    if len(zones) > MAX_SPOTS:
        raise click.BadParameter(f"one visit takes {MAX_SPOTS} spots at most.", context, option)
    for zone in zones:
        if zone not in SPOT_ZONES:
            raise click.BadParameter(f"{zone!r} is no zone: name one of {', '.join(SPOT_ZONES)}.")
    return zones


def check_spots(board: Board, spots: tuple[str, ...]) -> None:
    """Raises click.UsageError where `board` has no close-up camera to look at `spots` with."""
    if spots and board.close_up is None:
        raise click.UsageError("--spot needs a board with [close_up], a close-up camera.")


def check_is_shown(patient: SimulatedPatient, spots: tuple[str, ...]) -> None:
    """Raises click.UsageError where nothing would look at the close-up of `patient`: no spot is marked."""
    if patient.close_up is not None and not spots:
        raise click.UsageError("--close-up is of a spot: name the zone that it is in with --spot.")


def patient_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--portrait, --seed, --phantom, --tone, --close-up, --colour, which reach `command` as its `patient`."""

    @click.option(
        "--portrait",
        type=ExistingPath(dir_okay=False),
        help="The simulated patient's face (default: a public-domain portrait).",
    )
    @click.option(
        "--seed", type=int, default=1, show_default=True, help="Seed of the simulated patient's skin."
    )
    @click.option(
        "--phantom",
        type=SEED,
        metavar="SEED",
        help="A phantom, made from this seed, instead of a portrait.",
    )
    @click.option("--tone", type=TONE, metavar="ITA", help="The phantom's skin tone, ITA°.")
    @click.option(
        "--close-up",
        type=ExistingPath(dir_okay=False),
        help="What the simulated close-up camera sees (default: a drawn mole).",
    )
    @colour_option
    @functools.wraps(command)
    def with_patient(
        *args: Any,
        portrait: Path | None,
        seed: int,
        phantom: int | None,
        tone: float | None,
        close_up: Path | None,
        colour: Colour,
        **others: Any,
    ) -> Any:
        patient = SimulatedPatient(portrait, seed, phantom, tone, close_up, colour)
        return command(*args, patient=patient, **others)

    return with_patient
