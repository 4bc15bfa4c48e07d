"""Why a file is not read as a picture: a code for machines with one sentence for people."""

from __future__ import annotations

from pathlib import Path

from hardware.host.errors import Fault

NOT_A_PICTURE = "This is not a picture that can be read. Use a whole JPEG, PNG, TIFF, WebP or BMP file."
TOO_BIG = "This picture is too big. At most 64 million pixels can be read: make it smaller."
CUT_SHORT = "This picture file is cut short. Copy it again."
NO_MEMORY = "There is not enough memory for this picture. Make it smaller."
SEVERAL = (
    "This file holds several pictures, pages or frames of an animation: save the one to measure as a file "
    "of its own."
)
UNKNOWN_KIND = (
    "The numbers in this {kind} are of a kind that cannot be read: save it with 8 or 16 bits a channel, "
    "red, green and blue together."
)
BROKEN_PROFILE = (
    "The colour profile in this picture cannot be used ({why}), so its colours are not known: save it as "
    "sRGB, or say what its numbers are with --colour."
)


class Unreadable(Fault, ValueError):
    """Bytes that cannot be read as a picture.

    `code` is "not_a_file", "not_a_picture", "too_big", "several_pictures" or "colour_unknown".
    """

    exit_status = 2

    def __init__(self, sentence: str = NOT_A_PICTURE, code: str = "not_a_picture") -> None:
        super().__init__(code, sentence)


def broken_profile(why: str) -> Unreadable:
    """The Unreadable of a picture whose profile says nothing, because `why`."""
    return Unreadable(BROKEN_PROFILE.format(why=why), "colour_unknown")


class PictureError(Fault, ValueError):
    """A file that cannot be read as a picture; the text names the file, `sentence` is the rest of it.

    `code` is one of Unreadable's.
    """

    exit_status = 2

    def __init__(self, path: Path, code: str, sentence: str) -> None:
        super().__init__(code, sentence)
        self._path = path

    def __str__(self) -> str:
        return f"{self._path}: {self.sentence}"
