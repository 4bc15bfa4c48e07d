"""The quality of a picture of a face: whether it can be measured, in named reasons."""

from __future__ import annotations

import cv2
import numpy as np

from hardware.arrays import Float32Array, UInt8Array
from models.analysis.face import Face
from models.analysis.refusal import Refused

# Median luminance of skin, as reflectance: 0.03 for very dark skin (ITA −60°), below 0.005 without light.
DARKEST_SKIN = 0.012
DARKEST_PICTURE = 0.02
CLIPPED_SHARE = 0.05
# See `sharpness`: 0.40 is a blur of about 3 mm on the face, 0.50 one of 1.5 mm.
LEAST_SHARPNESS = 0.40
SOFT = 0.50
MIN_FACE_PX = 56
COARSE_MM_PER_PX = 0.25

# Flags of a picture in which spots may be there that it does not show.
HIDE_SPOTS = frozenset(("soft_focus", "overexposed"))

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


def require_light(light: Float32Array) -> None:
    """Raises Refused("too_dark") where even the brightest parts of the picture (linear light) are dark."""
    luminance = light[:: max(1, light.shape[0] // 256), :: max(1, light.shape[1] // 256)] @ _LUMINANCE
    if float(np.percentile(luminance, 98)) < DARKEST_PICTURE:
        raise Refused("too_dark")


def require_quality(light: Float32Array, skin: UInt8Array, face: Face) -> list[str]:
    """The flags of a close-up that can be measured, best an empty list; raises Refused.

    `light` is H×W×3 linear light, `skin` H×W uint8 (255 = skin), `face` in their pixels.
    """
    flags = []
    # In a dark or blurred face little skin is found: what is wrong with the picture is said first.
    value = sharpness(light, face)
    inside = light[skin > 0] if skin.any() else light.reshape(-1, 3)
    if float(np.median(inside @ _LUMINANCE)) < DARKEST_SKIN:
        raise Refused("too_dark")
    if value < LEAST_SHARPNESS:
        raise Refused("too_blurred")
    if cv2.countNonZero(skin) < 0.12 * face.width**2:
        # Blur hides skin from the parsing network long before it hides the face.
        if value < SOFT:
            raise Refused("too_blurred")
        raise Refused("no_face", "Too little skin can be seen in this face. Take off what covers it.")
    if value < SOFT:
        flags.append("soft_focus")
    if float(np.mean(inside.max(axis=1) >= 0.995)) > CLIPPED_SHARE:
        flags.append("overexposed")
    return flags


def sharpness(light: Float32Array, face: Face) -> float:
    """Contrast between the features of a face at its finest needed octave, relative to the next coarser one.

    The picture is brought to 128 pixels across the face first, so that the value does not depend on its size:
    what counts is detail relative to the face. The worse of the two directions counts: 0.55…0.75 if sharp.
    """
    luminance = np.log(light @ _LUMINANCE + 0.01)
    factor = 128.0 / face.width
    size = (max(8, round(luminance.shape[1] * factor)), max(8, round(luminance.shape[0] * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    small = cv2.resize(luminance.astype(np.float32), size, interpolation=method)
    x0, y0 = np.maximum(0, np.floor(face.points.min(0) * factor).astype(int))
    x1, y1 = np.ceil(face.points.max(0) * factor).astype(int)
    small = small[y0:y1, x0:x1]
    return min(_octave_ratio(small), _octave_ratio(small.T))


def _octave_ratio(values: Float32Array) -> float:
    """Contrast along the rows, between Gaussians of 1 and 2 pixels relative to between 2 and 4.

    The finest octave is left out: noise would call itself sharp there.
    """
    rows = np.ascontiguousarray(values)
    fine, middle, coarse = (
        np.asarray(cv2.GaussianBlur(rows, (4 * round(2 * sigma) + 1, 1), sigma), np.float32)
        for sigma in (1.0, 2.0, 4.0)
    )
    contrast = float(np.std(middle - coarse))
    return float(np.std(fine - middle)) / contrast if contrast > 1e-4 else 0.0
