"""What kind of lesion a close-up shows: seven chances, a melanoma score, or why nothing is said."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from models.analysis.lesion_view import framed
from models.analysis.outline import Outline, find_outline
from models.analysis.refusal import Refused
from models.manifest import verified_constants
from models.picture import MIN_PIXELS_A_SIDE
from models.runtime import DEFAULT_ENGINE, network
from models.training.lesion_views import CLASSES, NATIVE, VIEWS

NETWORK = "lesion-class"
_DARK = 12.0
# A picture with more grain than this is smoothed first, by this share of its longer side: grain makes skin
# look strange. With a noise of 10 of 255 HAM10000's pictures have 6.4 or more.
_GRAINY, _SMOOTHED = 3.0, 0.004


@dataclass(frozen=True)
class Look:
    """What was seen of a picture before any constant is applied: the outline, logits (7,), `traits`."""

    outline: Outline
    logits: np.ndarray
    traits: np.ndarray


@dataclass(frozen=True)
class Lesion:
    """`chances` (7,) in the order of CLASSES, summing to 1."""

    mask: np.ndarray
    chances: np.ndarray
    melanoma_like: bool

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


def find_lesion(picture: np.ndarray, engine: str = DEFAULT_ENGINE) -> Lesion:
    """The lesion in a dermoscopic close-up (H×W×3 uint8 sRGB, upright).

    Raises Refused("too_small", "too_dark", "not_skin", "no_lesion"), ModelsError.
    """
    if min(picture.shape[:2]) < MIN_PIXELS_A_SIDE:
        raise Refused("too_small", "This picture is too small to hold a lesion. Use a larger one.")
    if picture[::4, ::4].mean() < _DARK:
        raise Refused("too_dark")
    seen = look(_smoothed(picture) if _grain(picture) > _GRAINY else picture, engine)
    known = constants()
    if not is_close_up(seen):
        raise Refused("not_skin")
    if not seen.outline.mask.any():
        raise Refused("no_lesion")
    found = chances(seen.logits, known["classes"])
    return Lesion(
        seen.outline.mask, found, bool(found[CLASSES.index("mel")] >= known["melanoma"]["never_benign"])
    )


def _grain(picture: np.ndarray) -> float:
    """The standard deviation of the noise, of 255, at the networks' scale.

    John Immerkær: Fast noise variance estimation (CVIU 1996), with the median for the mean, which hairs do
    not raise.
    """
    small = cv2.resize(picture, NATIVE[::-1], interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rough = cv2.filter2D(grey, -1, np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32))
    return float(np.median(np.abs(rough)) / 0.6745 / 6)


def _smoothed(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), _SMOOTHED * max(picture.shape[:2]))


def look(picture: np.ndarray, engine: str = DEFAULT_ENGINE) -> Look:
    """What the networks see of `picture` (H×W×3 uint8 sRGB). Raises ModelsError."""
    outline = find_outline(picture, engine)
    logits = view_logits(picture, outline.mask, engine)
    return Look(outline, logits.mean(axis=0), _traits(picture, outline, logits))


def chances(logits: np.ndarray, known: dict[str, Any]) -> np.ndarray:
    """(…, 7) probabilities: softmax((logits + share · log prior) / temperature)."""
    warm = (logits + known["share"] * np.log(known["prior"])) / known["temperature"]
    powers = np.exp(warm - warm.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def is_close_up(seen: Look) -> bool:
    """Whether a picture looks like a dermoscopic close-up of skin. Raises ModelsError."""
    return bool(strangeness(seen.traits) <= constants()["refusal"]["limit"])


def strangeness(traits: np.ndarray) -> float:
    """How unlike a skin close-up: the logit of a logistic regression on `traits` and their squares."""
    known = constants()["refusal"]
    return float(
        np.dot(known["weights"], spread(traits, known["means"], known["deviations"])) + known["offset"]
    )


def spread(traits: np.ndarray, means: list[float], deviations: list[float]) -> np.ndarray:
    """(…, n) traits as (…, 2n) standard scores and their squares, none beyond five deviations."""
    scores = np.clip((traits - np.asarray(means)) / np.asarray(deviations), -5, 5)
    return np.concatenate([scores, scores**2], axis=-1)


def view_logits(picture: np.ndarray, mask: np.ndarray, engine: str) -> np.ndarray:
    """(views, 7) without a prior: square views about the lesion and their mirror images."""
    lesion, net = framed(picture, mask), network(NETWORK, engine)
    rows = []
    for times in VIEWS:
        view = lesion.view(times, net.input_shape[1])
        for turned in (view, view[:, ::-1], view[::-1], view[::-1, ::-1]):
            [logits] = net.run(np.ascontiguousarray(turned)[None])
            rows.append(logits[0])
    return np.stack(rows)


def _traits(picture: np.ndarray, outline: Outline, logits: np.ndarray) -> np.ndarray:
    """(18,) numbers by which a skin close-up differs from others: colours, contours, the networks' doubts."""
    small = cv2.resize(picture, NATIVE[::-1], interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    inside = cv2.resize(outline.mask, NATIVE[::-1], interpolation=cv2.INTER_NEAREST) > 0
    # The border of the lesion and dark corners belong to neither side.
    around = (cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0) & (lab[..., 0] > 15)
    skin = lab[around] if around.sum() > 50 else lab.reshape(-1, 3)
    lesion = lab[inside] if inside.sum() > 20 else lab.reshape(-1, 3)
    across = cv2.Sobel(lab[..., 0], cv2.CV_32F, 1, 0)
    down = cv2.Sobel(lab[..., 0], cv2.CV_32F, 0, 1)
    steep = np.log1p(np.hypot(across, down))
    single = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    mean = logits.mean(axis=0)
    return np.array(
        [
            *np.median(skin, axis=0),
            *np.log1p(skin.std(axis=0)),
            *(np.median(lesion, axis=0) - np.median(skin, axis=0)),
            np.log1p(lesion[:, 1:].std()),
            steep.mean(),
            np.log1p(np.abs(cv2.Laplacian(lab[..., 0], cv2.CV_32F)).mean()),
            outline.sureness,
            np.log(outline.doubt + 0.01),
            np.log((outline.mask > 0).mean() + 0.01),
            np.logaddexp.reduce(mean),
            mean.max(),
            single.std(axis=0).mean(),
        ],
        np.float64,
    )
