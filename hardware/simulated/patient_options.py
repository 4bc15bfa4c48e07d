"""The options that say who stands in front of a simulated camera, the same for every command that has one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hardware.board import Board
from hardware.simulation import PHANTOM_SEEDS, PHANTOM_TONES

SEED = click.IntRange(*PHANTOM_SEEDS)
TONE = click.FloatRange(*PHANTOM_TONES)


@dataclass(frozen=True)
class SimulatedPatient:
    """A portrait (None: the default one) with skin by `seed`, or the phantom of a seed in a `tone` (ITA°)."""

    portrait: Path | None = None
    seed: int = 1
    phantom: int | None = None
    tone: float | None = None

    @property
    def is_named(self) -> bool:
        return self.portrait is not None or self.phantom is not None or self.tone is not None

    def check(self, board: Board) -> None:
        """Raises click.UsageError or PortraitError, before anything is started."""
        if self.is_named and not board.simulated:
            raise click.UsageError(
                "--portrait and --phantom are for simulated boards; this board has a real camera."
            )
        if self.portrait is not None and self.phantom is not None:
            raise click.UsageError("--portrait and --phantom are two patients: name one of them.")
        if self.tone is not None and self.phantom is None:
            raise click.UsageError("--tone is for a phantom: name its seed with --phantom.")
        if self.portrait is not None:
            from hardware.simulated.patient import read_portrait

            read_portrait(self.portrait)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the capture daemon is told."""
        if self.phantom is not None:
            return ("--phantom", self.phantom, *(() if self.tone is None else ("--tone", self.tone)))
        return ("--seed", self.seed, *(() if self.portrait is None else ("--portrait", self.portrait)))


def patient_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--portrait, --seed, --phantom and --tone, which reach `command` as one SimulatedPatient, `patient`."""

    @click.option(
        "--portrait",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
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
    @functools.wraps(command)
    def with_patient(
        *args: Any, portrait: Path | None, seed: int, phantom: int | None, tone: float | None, **others: Any
    ) -> Any:
        return command(*args, patient=SimulatedPatient(portrait, seed, phantom, tone), **others)

    return with_patient
