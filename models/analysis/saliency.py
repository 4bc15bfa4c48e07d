"""Saliency: the places of a close-up on which the class of its lesion rests, by covering them in turn."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array, UInt8Array
from models.analysis.lesion import NETWORK, chances, constants
from models.analysis.lesion_view import Framed, framed
from models.networks.lesion_views import CLASSES, VIEWS
from models.networks.runtime import DEFAULT_ENGINE, network

# The nearer view is covered by squares of SPAN × SPAN cells of a GRID × GRID grid, each a cell further, with
# the skin's colour and with a blur. Each of the four covers on a cell is seen in another of MIRRORS, for the
# class is the mean over them.
GRID, SPAN = 7, 2
MIRRORS = (np.s_[:, :], np.s_[:, ::-1], np.s_[::-1, :], np.s_[::-1, ::-1])
# As blurred as this share of the view: a place's own colours, none of its structure.
_BLUR = 1 / 8
_LEAST_AROUND = 50
_TINY = 1e-6


@dataclass(frozen=True)
class Saliency:
    """`falls` (7, GRID, GRID): by class and cell, how far the class's log-odds fall under the covers on it.

    The cells divide the square `window` (x0, y0, x1, y1), in the picture's pixels; may reach past its edge.
    A negative fall is a rise. Smaller structures than a cell are not resolved.
    """

    falls: Float64Array
    window: tuple[float, float, float, float]

    def over(self, kind: str, shape: tuple[int, int]) -> Float32Array:
        """(height, width) float32: the falls of class `kind` over a picture of `shape`; beyond it 0."""
        x0, y0, x1, y1 = self.window
        cell = np.array([(x1 - x0) / GRID, (y1 - y0) / GRID])
        # Cells' centres: the picture's x + .5 is x0 + (column + .5) · cell.
        offset = np.array([x0, y0]) + cell / 2 - 0.5
        matrix = np.array([[cell[0], 0, offset[0]], [0, cell[1], offset[1]]])
        grid = self.falls[CLASSES.index(kind)].astype(np.float32)
        # One more cell each way, so that the outermost half cells are as their neighbours.
        wide = cv2.copyMakeBorder(grid, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        matrix[:, 2] -= cell
        spread = cv2.warpAffine(wide, matrix, shape[::-1], flags=cv2.INTER_CUBIC)
        inside = np.zeros(shape, np.uint8)
        corner, end = np.floor([x0, y0]).astype(int), np.ceil([x1, y1]).astype(int) - 1
        cv2.rectangle(inside, corner.tolist(), end.tolist(), 1, -1)
        return np.where(inside > 0, spread, np.float32(0))


def saliency(picture: UInt8Array, mask: UInt8Array, engine: str = DEFAULT_ENGINE) -> Saliency:
    """Where the class of a lesion rests: `picture` H×W×3 uint8 sRGB, `mask` its lesion as of find_lesion.

    Occlusion (Zeiler & Fergus 2014): a cell's fall is the mean over the covers that lie on it. Two runs of
    the class network for each place of a cover, one for each mirror image without. Raises ModelsError.
    """
    lesion, net = framed(picture, mask), network(NETWORK, engine)
    size = net.input_shape[1]
    to_picture = lesion.to_picture(VIEWS[0], size)
    sharp = lesion.picture.astype(np.float32)
    fills = [_skin(lesion.picture, mask), cv2.GaussianBlur(sharp, (0, 0), _BLUR * size * to_picture[0, 0])]

    def log_odds(seen: Float32Array, mirror: int) -> Float64Array:
        view = lesion.view(VIEWS[0], size, seen)[MIRRORS[mirror]]
        [logits] = net.run(np.ascontiguousarray(view)[None])
        found = chances(logits[0], constants()["classes"])
        return np.asarray(np.log(found + _TINY) - np.log(1 - found + _TINY))

    whole = [log_odds(sharp, mirror) for mirror in range(len(MIRRORS))]
    falls, covers = np.zeros((len(CLASSES), GRID, GRID)), np.zeros((GRID, GRID))
    for row, column in np.ndindex(GRID + SPAN - 1, GRID + SPAN - 1):
        cells = np.s_[max(0, row - SPAN + 1) : row + 1, max(0, column - SPAN + 1) : column + 1]
        cover = np.zeros((GRID, GRID), np.float32)
        cover[cells] = 1
        weight = _spread(cover, to_picture, size, sharp.shape[:2])[..., None]
        mirror = row % 2 * 2 + column % 2
        for fill in fills:
            fall = whole[mirror] - log_odds(sharp + (fill - sharp) * weight, mirror)
            falls[(slice(None), *cells)] += fall[:, None, None]
            covers[cells] += 1
    return Saliency(falls / covers, _window(lesion, to_picture, size))


def _skin(reduced: UInt8Array, mask: UInt8Array) -> Float32Array:
    """(3,) float32: the median colour around the lesion; of the whole picture where there is no around."""
    inside = cv2.resize(mask, reduced.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    around = reduced[inside == 0]
    some = around if len(around) >= _LEAST_AROUND else reduced.reshape(-1, 3)
    return np.asarray(np.median(some, axis=0), np.float32)


def _spread(cover: Float32Array, to_picture: Float64Array, size: int, shape: tuple[int, ...]) -> Float32Array:
    """(h, w) float32: the covered cells, soft at their edges, over the reduced picture."""
    view = cv2.resize(cover, (size, size), interpolation=cv2.INTER_LINEAR)
    spread = cv2.warpAffine(view, to_picture, (shape[1], shape[0]), flags=cv2.INTER_LINEAR)
    return np.asarray(spread, np.float32)


def _window(lesion: Framed, to_picture: Float64Array, size: int) -> tuple[float, float, float, float]:
    """The view's square in pixels of the whole picture."""
    scale = to_picture[0, 0]
    x0, y0 = (to_picture[:, 2] + 0.5 - scale / 2) / lesion.step
    side = scale * size / lesion.step
    return float(x0), float(y0), float(x0 + side), float(y0 + side)
