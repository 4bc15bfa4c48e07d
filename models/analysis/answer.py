"""The answer about one picture of a batch: a JSON object, whatever becomes of the picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2

from hardware.picture_colours import Colour
from hardware.picture_file import Picture, PictureError, read_picture_file
from models.analysis.batch import Row
from models.analysis.refusal import Refused

_NO_MEMORY = "There is not enough memory to measure this. Use smaller pictures."
_NOT_MEASURED = "This cannot be measured: it is of a kind not foreseen. Take the pictures again."


def answer(path: Path, colour: Colour, describe: Callable[[Picture], Row]) -> Row:
    """What `describe` says of the picture at `path`, whose numbers mean `colour`, or why it says nothing:
    "error", "refused".
    """
    row: Row = {"picture": str(path)}
    try:
        return row | describe(read_picture_file(path, colour))
    except PictureError as error:
        return row | {"error": error.code, "sentence": error.sentence}
    except Refused as refused:
        return row | {"refused": refused.code, "sentence": refused.sentence}
    except (MemoryError, cv2.error) as error:
        return row | not_measured(error)


def not_measured(error: MemoryError | cv2.error) -> Row:
    """The answer where measuring ended with `error`."""
    no_memory = isinstance(error, MemoryError) or error.code == cv2.Error.StsNoMem
    return {"error": "not_measured", "sentence": _NO_MEMORY if no_memory else _NOT_MEASURED}
