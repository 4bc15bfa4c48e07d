"""What a picture's own tags say of its colours, where it has no profile: PNG's chunks, EXIF, TIFF, BMP."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

from hardware.picture_file.directory import Directory
from hardware.picture_file.encoding import (
    ADOBE,
    BT709,
    C_WHITE,
    D65,
    DCI_WHITE,
    SRGB,
    Curve,
    Encoding,
    Places,
    bt709_curve,
    gamma,
    of_primaries,
    same,
    table,
)
from hardware.picture_file.unreadable import Unreadable, broken_profile
from hardware.srgb import srgb_linear

# ITU-T H.273, tables 2 and 3, by code point.
_BT601: Places = ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07))
_P3: Places = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
_H273_PLACES: Mapping[int, tuple[Places, tuple[float, float]]] = {
    1: (BT709, D65),
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), C_WHITE),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65),
    6: (_BT601, D65),
    7: (_BT601, D65),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),
    11: (_P3, DCI_WHITE),
    12: (_P3, D65),
}
_H273_CURVES: Mapping[int, Curve] = {
    **dict.fromkeys((1, 6, 14, 15), bt709_curve),
    4: gamma(2.2),
    5: gamma(2.8),
    8: same,
    13: srgb_linear,
}
# Writers of sRGB pictures put 1/2.2 into gAMA, and PNG says so: it stands for sRGB's curve.
_GAMMA_OF_SRGB = range(45450, 45461)
_EXIF, _INTEROPERABILITY, _COLOUR_SPACE, _INDEX = 0x8769, 0xA005, 0xA001, 1
_WHITE_POINT, _PRIMARIES, _TRANSFER = 318, 319, 301


def of_cicp(points: bytes) -> Encoding:
    """What PNG's cICP says. Raises Unreadable for what has no meaning for a measurement."""
    primaries, transfer, matrix, full = points[:4]
    if transfer in (16, 18):
        raise Unreadable(
            "This picture is in high dynamic range, whose numbers say nothing of reflectance: save it as "
            "sRGB.",
            "colour_unknown",
        )
    if matrix or full != 1 or primaries not in _H273_PLACES or transfer not in _H273_CURVES:
        raise broken_profile("its code points mean nothing here")
    places, white = _H273_PLACES[primaries]
    return of_primaries(places, white, [_H273_CURVES[transfer]])


def of_gama_and_chrm(gama: bytes | None, chrm: bytes | None) -> Encoding | None:
    """What PNG's gAMA and cHRM say together; either may be absent, or 0, which says nothing."""
    exponent = int.from_bytes(gama[:4], "big") if gama else 0
    places, white = BT709, D65
    if chrm is not None and len(chrm) >= 32:
        numbers = [n / 100_000 for n in struct.unpack(">8I", chrm[:32])]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        white, places = pairs[0], pairs[1:]
    elif not exponent:
        return None
    near = np.allclose(np.array([white, *places]), np.array([D65, *BT709]), atol=2e-4)
    if near and (not exponent or exponent in _GAMMA_OF_SRGB):
        return SRGB
    try:
        return of_primaries(places, white, [gamma(100_000 / exponent) if exponent else srgb_linear])
    except (ValueError, np.linalg.LinAlgError) as error:
        raise broken_profile("its cHRM chunk is damaged") from error


def of_exif(first: Directory | None) -> Encoding | None:
    """What EXIF's ColorSpace says, with the interoperability index: R03 is Adobe RGB."""
    exif = None if first is None else first.below(_EXIF)
    if exif is None:
        return None
    space = exif.number(_COLOUR_SPACE, 0)
    interoperability = exif.below(_INTEROPERABILITY)
    index = b"" if interoperability is None else interoperability.bytes(_INDEX)
    if space == 2 or (space != 1 and index[:3] == b"R03"):
        return ADOBE
    return SRGB if space == 1 else None


def of_tiff(page: Directory, bits: int) -> Encoding | None:
    """What TIFF's TransferFunction, PrimaryChromaticities and WhitePoint say; None without them."""
    places, white = page.fractions(_PRIMARIES), page.fractions(_WHITE_POINT)
    transfer, levels = page.numbers(_TRANSFER), 1 << bits
    if len(places) != 6 and len(transfer) not in (levels, 3 * levels):
        return None
    curves: list[Curve] = [srgb_linear]
    if len(transfer) in (levels, 3 * levels):
        curves = [table(points / 65535) for points in np.reshape(transfer, (-1, levels))]
    pairs = list(zip(map(float, places[::2]), map(float, places[1::2]), strict=True))
    middle = (float(white[0]), float(white[1])) if len(white) == 2 else D65
    try:
        return of_primaries(pairs if len(pairs) == 3 else BT709, middle, curves)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise broken_profile("its tags are damaged") from error


def of_bmp(header: bytes) -> Encoding | None:
    """What the endpoints and gammas of a BMP's header (version 4 and later) say; None where they are 0.

    The endpoints are XYZ, whose sum is the white, or, as others write them, chromaticities of D65.
    """
    numbers = struct.unpack_from("<12i", header, 60)
    ends = np.reshape(numbers[:9], (3, 3)) / 2**30
    if not any(numbers[:9]):
        return None
    curves = [gamma(n / 65536) if n > 0 else srgb_linear for n in numbers[9:]]
    try:
        sums = ends.sum(axis=1)
        white = ends.sum(axis=0)
        with np.errstate(all="raise"):
            pairs = [(float(end[0] / s), float(end[1] / s)) for end, s in zip(ends, sums, strict=True)]
            middle = (float(white[0] / white.sum()), float(white[1] / white.sum()))
        if np.allclose(sums, 1, atol=0.01):
            middle = D65
        return of_primaries(pairs, middle, curves)
    except (ValueError, FloatingPointError, np.linalg.LinAlgError) as error:
        raise broken_profile("its header is damaged") from error
