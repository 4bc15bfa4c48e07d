"""The meaning of a file's numbers: what --colour says, else what the file states, else sRGB."""

from __future__ import annotations

from hardware.arrays import Float32Array
from hardware.picture_colours import Colour
from hardware.picture_file.encoding import LINEAR_SRGB, SRGB, Encoding, as_grey, same
from hardware.picture_file.header import PictureHeader
from hardware.picture_file.unreadable import Unreadable, broken_profile
from hardware.srgb import srgb_linear

_INK = (
    "This picture is in printing inks (CMYK) and has no profile that says which: save it as sRGB, or take "
    "their complement with --colour srgb."
)
_FRACTIONS = (
    "This picture has floating-point numbers, and does not say whether they are linear light: say it with "
    "--colour linear-srgb or --colour srgb."
)


def meaning(header: PictureHeader, colour: Colour) -> Encoding:
    """What the numbers of the file mean. Raises Unreadable where nobody says."""
    inks = header.channels == 4
    if header.lab:
        # Whatever is said of the other pictures of a batch: L*, a* and b* are no red, green and blue.
        colour = "auto"
    if colour != "auto" and not (inks and colour == "linear-srgb"):
        said = SRGB if colour == "srgb" else LINEAR_SRGB
        return _COMPLEMENT if inks else said if header.channels == 3 else as_grey(said)
    stated = header.stated()
    if stated is None:
        if inks:
            raise Unreadable(_INK, "colour_unknown")
        if header.levels == "floating":
            raise Unreadable(_FRACTIONS, "colour_unknown")
        stated = SRGB
    if stated.channels == 3 and header.channels == 1:
        return as_grey(stated)
    if stated.channels != header.channels:
        raise broken_profile("it is of another kind of picture")
    return stated


def _inked(cmyk: Float32Array) -> Float32Array:
    return srgb_linear((1 - cmyk[:, :3]) * (1 - cmyk[:, 3:]))


# What a program without profiles makes of inks.
_COMPLEMENT = Encoding(4, (same,) * 4, _inked)
