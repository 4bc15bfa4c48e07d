"""What kind of lesion a close-up shows: seven chances, a melanoma score, or why nothing is said."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array, FloatArray, UInt8Array
from models.analysis.artefacts import artefacts
from models.analysis.lesion_view import framed
from models.analysis.outline import LesionOutline, find_outline
from models.analysis.picture import MIN_PIXELS_A_SIDE
from models.analysis.refusal import Refused
from models.analysis.unlike_skin import strangeness, traits, unusualness
from models.networks.lesion_views import CLASSES, NATIVE, VIEWS
from models.networks.manifest import verified_constants
from models.networks.runtime import DEFAULT_ENGINE, network

NETWORK = "lesion-class"
_DARK = 12.0
# A picture with more grain than this is smoothed first, by this share of its longer side: grain makes skin
# look strange. With a noise of 10 of 255 HAM10000's pictures have 6.4 or more.
_GRAINY, _SMOOTHED = 3.0, 0.004


@dataclass(frozen=True)
class Look:
    """What was seen of a picture before any constant is applied: the outline, logits (7,), `traits`."""

    outline: LesionOutline
    logits: Float32Array
    traits: Float64Array


@dataclass(frozen=True)
class FoundLesion:
    """`chances` (7,) in the order of CLASSES, summing to 1.

    `flags`: "unusual" for a picture like few of those that the scores were tested on, "artefact:hair" and the
    like for what lies over the skin.
    """

    mask: UInt8Array
    chances: Float64Array
    melanoma_like: bool
    flags: tuple[str, ...] = ()

    @property
    def melanoma(self) -> float:
        """The chance of melanoma, 0…1."""
        return float(self.chances[CLASSES.index("mel")])


@lru_cache(maxsize=1)
def constants() -> dict[str, Any]:
    """The numbers beside the network: prior, temperature, melanoma's threshold, refusal; says whence.

    Raises ModelsError if they are not the manifest's, or are another network's.
    """
    return verified_constants(NETWORK)


def find_lesion(picture: UInt8Array, engine: str = DEFAULT_ENGINE) -> FoundLesion:
    """The lesion in a dermoscopic close-up (H×W×3 uint8 sRGB, upright).

    Raises Refused("too_small", "too_dark", "not_skin", "no_lesion"), ModelsError.
    """
    if min(picture.shape[:2]) < MIN_PIXELS_A_SIDE:
        raise Refused("too_small", "This picture is too small to hold a lesion. Use a larger one.")
    if picture[::4, ::4].mean() < _DARK:
        raise Refused("too_dark")
    seen = look(without_grain(picture), engine)
    known = constants()
    if not is_close_up(seen):
        raise Refused("not_skin")
    if not seen.outline.mask.any():
        raise Refused("no_lesion")
    found = chances(seen.logits, known["classes"])
    return FoundLesion(
        seen.outline.mask,
        found,
        bool(found[CLASSES.index("mel")] >= known["melanoma"]["never_benign"]),
        _flags(picture, seen),
    )


def _flags(picture: UInt8Array, seen: Look) -> tuple[str, ...]:
    known = constants()["refusal"]
    unusual = ("unusual",) if unusualness(seen.traits, known) > known["unusual"] else ()
    return (*unusual, *(f"artefact:{name}" for name in artefacts(picture, seen.outline.mask)))


def _grain(picture: UInt8Array) -> float:
    """The standard deviation of the noise, of 255, at the networks' scale.

    John Immerkær: Fast noise variance estimation (CVIU 1996), with the median for the mean, which hairs do
    not raise.
    """
    small = cv2.resize(picture, NATIVE[::-1], interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rough = cv2.filter2D(grey, -1, np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32))
    return float(np.median(np.abs(rough)) / 0.6745 / 6)


def without_grain(picture: UInt8Array) -> UInt8Array:
    """The picture, smoothed if it is grainy."""
    if _grain(picture) <= _GRAINY:
        return picture
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), _SMOOTHED * max(picture.shape[:2])), np.uint8)


def look(picture: UInt8Array, engine: str = DEFAULT_ENGINE) -> Look:
    """What the networks see of `picture` (H×W×3 uint8 sRGB). Raises ModelsError."""
    outline = find_outline(picture, engine)
    logits = view_logits(picture, outline.mask, engine)
    return Look(outline, logits.mean(axis=0), traits(picture, outline, logits))


def chances(logits: FloatArray, known: dict[str, Any]) -> Float64Array:
    """(…, 7) probabilities: softmax((logits + share · log prior) / temperature)."""
    warm = (logits + known["share"] * np.log(known["prior"])) / known["temperature"]
    powers = np.exp(warm - warm.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def is_close_up(seen: Look) -> bool:
    """Whether a picture could be a dermoscopic close-up of skin, a usual one or not. Raises ModelsError."""
    known = constants()["refusal"]
    return bool(strangeness(seen.traits, known) <= known["limit"])


def view_logits(picture: UInt8Array, mask: UInt8Array, engine: str) -> Float32Array:
    """(views, 7) without a prior: square views about the lesion and their mirror images."""
    lesion, net = framed(picture, mask), network(NETWORK, engine)
    rows = []
    for times in VIEWS:
        view = lesion.view(times, net.input_shape[1])
        for turned in (view, view[:, ::-1], view[::-1], view[::-1, ::-1]):
            [logits] = net.run(np.ascontiguousarray(turned)[None])
            rows.append(logits[0])
    return np.stack(rows)
