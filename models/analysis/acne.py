"""Acne in a photograph: boxes with class and score, their number, and the severity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array, FloatArray, PixelArray, UInt8Array
from models.analysis.acne_views import VIEWS, fused, returned, view_matrix, viewed
from models.analysis.detector import detect
from models.analysis.face import SECOND_FACE_SHARE, Face, find_faces
from models.analysis.lesion import is_close_up, look
from models.analysis.picture import MIN_PIXELS_A_SIDE
from models.analysis.refusal import NO_ROOM_FOR_A_FACE, Refused
from models.analysis.upright import quarter_turns
from models.networks.acne_maps import CENTRES, HAYASHI, LEAST_SCORE, SIDES, boxes_of
from models.networks.manifest import load_manifest
from models.networks.runtime import DEFAULT_ENGINE, network

NETWORK = "acne"
THRESHOLD = 0.5
"""Scores are shifted by picture so that the lesions counted are those above this, whatever the picture."""
# Both chosen on the validation pictures, on either half alike: best F1, a count's error of one costing 0.02.
_PEAK = 0.22
_COUNT_SHARE = 0.5
# Pictures of training's kind hold one face of 0.35 to 1.16, median 0.74, of the picture's side.
_FACE_SHARE_LEAST, _FACE_SHARE = 0.45, 0.74
# The same by the landmarks' extent, in the 241 of 283 validation pictures where landmarks fit.
_LANDMARKS_SHARE = 0.71
# Where no landmarks fit, as in half faces, a picture needs a lesion this sure, or a less sure one and to look
# unlike a dermoscope's. By training pictures: this refuses 0.8 % of 250 of acne, and passes 2 % of 200
# dermoscopic close-ups.
_SURE, _LIKELY = 0.38, 0.34
# A frame whose mean is darker than this shows nothing.
_DARK = 8.0

Window = tuple[int, int, int, int]
Develop = Callable[[PixelArray], UInt8Array]


@dataclass(frozen=True)
class Acne:
    """`boxes` (k, 6): x0, y0, x1, y1 in pixels of the picture, score, class; best first, above LEAST_SCORE.

    `severity` 0…3 as ACNE04's annotators grade, who follow Hayashi's counts of a half face; None where it is
    of more than the boxes are.
    """

    boxes: Float64Array
    severity: int | None

    @property
    def counted(self) -> Float64Array:
        """The boxes above THRESHOLD."""
        return self.boxes[self.boxes[:, 4] > THRESHOLD]


@dataclass(frozen=True)
class _Seen:
    """What the network said of one square: raw boxes in its pixels, count's and severity's probabilities."""

    boxes: Float64Array
    counts: FloatArray
    severity: FloatArray


def find_acne(picture: UInt8Array, engine: str = DEFAULT_ENGINE) -> Acne:
    """The acne in `picture` (H×W×3 uint8 RGB) of a face, of all of it or about its largest face.

    A face that is upside down or lies on its side is looked at upright; the boxes are the picture's own.

    Raises Refused("no_face", "two_faces", "too_dark" or "too_small"), ModelsError.
    """
    if min(picture.shape[:2]) < MIN_PIXELS_A_SIDE:
        raise Refused("too_small", NO_ROOM_FOR_A_FACE)
    if picture[::4, ::4].mean() < _DARK:
        raise Refused("too_dark")
    faces = find_faces(picture, engine)
    turns = quarter_turns(picture, faces, engine)
    if turns:
        upright = np.ascontiguousarray(np.rot90(picture, turns))
        acne = _find(upright, find_faces(upright, engine), engine)
        return replace(acne, boxes=_turned_back(acne.boxes, turns, upright.shape))
    return _find(picture, faces, engine)


def _turned_back(boxes: Float64Array, turns: int, shape: tuple[int, ...]) -> Float64Array:
    """Boxes of a picture of `shape` that was turned by so many quarters anticlockwise, in the one before."""
    for _ in range(turns):
        x0, y0, x1, y1 = boxes[:, :4].T
        boxes = np.column_stack([shape[0] - y1, x0, shape[0] - y0, x1, boxes[:, 4:]])
        shape = (shape[1], shape[0])
    return boxes


def _find(picture: UInt8Array, faces: list[Face], engine: str) -> Acne:
    if len(faces) > 1 and faces[1].width > SECOND_FACE_SHARE * faces[0].width:
        raise Refused("two_faces")
    # The detector sees half faces, in which no landmarks can be found, and faces where there are none.
    likely = max((d.box for d in detect(picture, engine)), key=lambda box: box[2] - box[0], default=None)
    if likely is None:
        raise Refused("no_face")
    window = _window(picture, likely)
    square = _square(picture, window, as_it_is, engine)
    first = _look(square, engine)
    if not faces and not _convincing(picture, first.boxes, engine):
        raise Refused("no_face")
    return _placed(_look_again(square, first, engine), window, picture.shape)


def acne_of_face(face: Face, pixels: PixelArray, develop: Develop, engine: str = DEFAULT_ENGINE) -> Acne:
    """The acne of `face` in `pixels` (H×W×3), whose coordinates both have: in the square about it, in which
    it is as large as in training. Raises ModelsError.
    """
    side = face_extent(face) / _LANDMARKS_SHARE
    return acne_in(
        _square_about((face.points.min(0) + face.points.max(0)) / 2, side), pixels, develop, engine
    )


def face_extent(face: Face) -> float:
    """The geometric mean of width and height of what the landmarks span."""
    return float(np.sqrt(np.ptp(face.points, axis=0).prod()))


def acne_in(window: Window, pixels: PixelArray, develop: Develop, engine: str = DEFAULT_ENGINE) -> Acne:
    """The acne in the `window` (x0, y0, x1, y1) of `pixels` (H×W×3, of any numbers).

    `develop` makes uint8 sRGB of them, once the window has the network's size. Raises ModelsError.
    """
    square = _square(pixels, window, develop, engine)
    return _placed(_look_again(square, _look(square, engine), engine), window, pixels.shape)


def _window(picture: UInt8Array, face: Float64Array) -> Window:
    """The part to look at: all of the picture, as in training, unless the face in it is small."""
    height, width = picture.shape[:2]
    side = float(np.sqrt((face[2] - face[0]) * (face[3] - face[1])))
    if side >= _FACE_SHARE_LEAST * np.sqrt(width * height):
        return 0, 0, width, height
    return _square_about((face[:2] + face[2:]) / 2, side / _FACE_SHARE)


def _square_about(centre: Float64Array, side: float) -> Window:
    x0, y0 = (round(float(place) - side / 2) for place in centre)
    side = max(1, round(side))
    return x0, y0, x0 + side, y0 + side


def _convincing(picture: UInt8Array, boxes: Float64Array, engine: str) -> bool:
    """Whether lesions, best first, are those of a face in which no landmarks were found."""
    best = boxes[0, 4] if len(boxes) else 0.0
    return bool(best >= _SURE or (best >= _LIKELY and not is_close_up(look(picture, engine))))


def as_it_is(square: PixelArray) -> UInt8Array:
    """The Develop of pixels that are uint8 sRGB."""
    return np.asarray(square, np.uint8)


def _square(pixels: PixelArray, window: Window, develop: Develop, engine: str) -> Float32Array:
    """The network's input, size×size×3 float32 in [-1, 1]: the window, stretched; black where it leaves the
    picture."""
    size = network(NETWORK, engine).input_shape[1]
    x0, y0, x1, y1 = window
    height, width = pixels.shape[:2]
    part = pixels[max(0, y0) : min(height, y1), max(0, x0) : min(width, x1)]
    above, below, left, right = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    if above or below or left or right:
        black = cv2.copyMakeBorder(part, above, below, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        part = np.asarray(black, pixels.dtype)
    if part.shape[:2] != (size, size):
        smaller = part.shape[0] > size or part.shape[1] > size
        method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        part = np.asarray(cv2.resize(part, (size, size), interpolation=method), pixels.dtype)
    return np.asarray(develop(part), np.float32) / np.float32(127.5) - np.float32(1)


def _placed(seen: _Seen, window: Window, shape: tuple[int, ...]) -> Acne:
    """What was seen of the window, in pixels of the picture of `shape`, with comparable scores."""
    x0, y0, x1, y1 = window
    height, width = shape[:2]
    size = load_manifest().entry(NETWORK).input.shape[1]
    boxes = seen.boxes.copy()
    boxes[:, 4] = _comparable(boxes[:, 4], seen.counts)
    boxes[:, :4] = boxes[:, :4] * np.tile([(x1 - x0) / size, (y1 - y0) / size], 2) + np.tile([x0, y0], 2)
    boxes[:, :4] = np.clip(boxes[:, :4], 0, np.tile([width, height], 2))
    real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > LEAST_SCORE)
    return Acne(boxes[real], _severity(seen))


def _look(square: Float32Array, engine: str) -> _Seen:
    """The mean of what the network says of the square and of its mirror image, which is steadier."""
    net = network(NETWORK, engine)
    plain = [output[0] for output in net.run(square[None])]
    turned = [output[0] for output in net.run(np.ascontiguousarray(square[None, :, ::-1]))]
    # Left and right change places in the mirror.
    turned[1] = turned[1][..., [2, 1, 0, 3]]
    centres, sides, classes = ((a + b[:, ::-1]) / 2 for a, b in zip(plain[:3], turned[:3], strict=True))
    boxes = boxes_of(centres[..., 0] / CENTRES[1] - CENTRES[0], sides / SIDES[1] - SIDES[0], classes)
    counts, severity = ((_softmax(a) + _softmax(b)) / 2 for a, b in zip(plain[3:], turned[3:], strict=True))
    return _Seen(boxes, counts, severity)


def _look_again(square: Float32Array, first: _Seen, engine: str) -> _Seen:
    """What the network says of all VIEWS together: it finds more, and places it better, than at first."""
    seen, boxes = [first], [first.boxes]
    for view in VIEWS:
        matrix = view_matrix(len(square), view)
        seen.append(_look(viewed(square, matrix), engine))
        boxes.append(returned(seen[-1].boxes, matrix))
    counts, severity = np.mean([s.counts for s in seen], 0), np.mean([s.severity for s in seen], 0)
    return _Seen(fused(boxes), counts, severity)


def _comparable(scores: Float64Array, counts: FloatArray) -> Float64Array:
    """The scores, best first, their logits shifted so that as many as there are lesions are above THRESHOLD.

    That number is the mean of the peaks above _PEAK and the median of the count's distribution; on validation
    pictures each alone errs more than both.
    """
    if not len(scores):
        return scores
    median = int(np.searchsorted(np.cumsum(counts), 0.5))
    wanted = min(len(scores), round((1 - _COUNT_SHARE) * (scores > _PEAK).sum() + _COUNT_SHARE * median))
    logits = np.log(scores) - np.log1p(-np.minimum(scores, 1 - 1e-6))
    edges = np.concatenate([[logits[0] + 0.2], (logits[1:] + logits[:-1]) / 2, [logits[-1] - 0.2]])
    # Whole numbers tie: between scores that are equal there is no edge, so the nearest one is taken.
    places = np.flatnonzero(np.concatenate([[True], logits[:-1] - logits[1:] > 1e-3, [True]]))
    cut = edges[places[np.abs(places - wanted).argmin()]]
    return np.asarray(1 / (1 + np.exp(cut - logits)))


def _severity(seen: _Seen) -> int:
    """The likeliest of 0…3, by the mean of the network's own grade and its count's chances of each band."""
    bands = np.searchsorted(HAYASHI, np.arange(len(seen.counts)))
    of_count = np.bincount(bands, seen.counts, len(HAYASHI) + 1)
    return int((seen.severity + of_count).argmax())


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())
