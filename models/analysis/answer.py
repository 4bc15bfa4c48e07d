"""The answer about one picture of a batch: a JSON object, whatever becomes of the picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hardware.picture_file import PictureError
from models.analysis.refusal import Refused
from models.picture import read_picture


def answer(path: Path, describe: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, Any]:
    """What `describe` says of the picture at `path`, or why it says nothing: "error", "refused"."""
    row: dict[str, Any] = {"picture": str(path)}
    try:
        return row | describe(read_picture(path))
    except PictureError as error:
        return row | {"error": error.reason, "sentence": error.sentence}
    except Refused as refused:
        return row | {"refused": refused.reason, "sentence": refused.sentence}
