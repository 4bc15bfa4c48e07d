"""The pictures given for a simulated patient, looked at before anything is started for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hardware.board import Board
from hardware.host.errors import PlainError
from hardware.middle import middle_level
from hardware.simulated.patient import in_white_light
from hardware.simulated.patient_options import SimulatedPatient
from models.analysis.face import find_faces, only_face
from models.analysis.lesion import find_lesion
from models.analysis.refusal import Refused
from models.analysis.upright import require_upright


class PictureRefused(PlainError):
    """A picture that cannot stand for a patient's skin; str() names its file, and says why and what to do."""

    exit_status = 2


def check_portrait(patient: SimulatedPatient, board: Board) -> None:
    """Raises PictureRefused where the face in --portrait is upside down or lies on its side, or where the
    camera of `board` would take the picture for a lamp that is off, or far too bright.

    Any other portrait without a face may be shown to the camera: it is refused as it would be in life.
    """
    portrait = patient.portrait_picture()
    if portrait is None:
        return
    faces = find_faces(portrait, board.engine)
    with _named(patient.portrait):
        require_upright(portrait, faces, board.engine)
    landmarks = None
    with contextlib.suppress(Refused):
        landmarks = only_face(faces).landmarks
    darkest, brightest = board.lights["white"].expect
    level = middle_level(in_white_light(board, portrait, landmarks))
    if not darkest <= level <= brightest:
        how = "dark" if level < darkest else "bright"
        raise PictureRefused(
            f"{patient.portrait} is too {how} to measure: use a picture of a face in good light."
        )


def check_close_up(patient: SimulatedPatient, engine: str) -> None:
    """Raises PictureRefused where nothing can be said of the picture in --close-up."""
    close_up = patient.close_up_picture()
    if close_up is not None:
        with _named(patient.close_up):
            find_lesion(close_up, engine)


@contextlib.contextmanager
def _named(path: Path | None) -> Iterator[None]:
    """Let a refusal within this say which file it is about."""
    try:
        yield
    except Refused as refused:
        raise PictureRefused(f"{path}: {refused.sentence}") from refused
