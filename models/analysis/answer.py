"""The answer about one picture of a batch: a JSON object, whatever becomes of the picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardware.picture_colours import Colour
from hardware.picture_file import Picture, PictureError, read_picture_file
from models.analysis.refusal import Refused


def answer(path: Path, colour: Colour, describe: Callable[[Picture], dict[str, Any]]) -> dict[str, Any]:
    """What `describe` says of the picture at `path`, whose numbers mean `colour`, or why it says nothing:
    "error", "refused".
    """
    row: dict[str, Any] = {"picture": str(path)}
    try:
        return row | describe(read_picture_file(path, colour))
    except PictureError as error:
        return row | {"error": error.reason, "sentence": error.sentence}
    except Refused as refused:
        return row | {"refused": refused.reason, "sentence": refused.sentence}
