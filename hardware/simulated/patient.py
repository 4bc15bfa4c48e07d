"""The simulated patient: a portrait lifted to maps of skin and shape, so that it can be lit anew.

The portrait stays in memory; nothing here writes a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from hardware.board import Board
from hardware.picture_file import PictureError, read_picture_file
from hardware.simulated.shape import Shape, shape_from_landmarks
from hardware.simulated.skin import fluorescence, melanin_map, porphyrin_spots, split_shine

# Where the face stands in the picture: its width as a share of the picture's, its middle from the top.
_FACE_SHARE, _FACE_MIDDLE = 0.52, 0.47
_HOOD = 0.02
_MOST_PIXELS = 8_000_000
_STRIP_ROWS = 128
_LEAK = 0.01
# Under no lamp, light still creeps in under the shroud.
AMBIENT = 0.0002


class PortraitError(ValueError):
    """A portrait that cannot be used; the message says why."""

    exit_status = 2


def read_portrait(path: Path) -> np.ndarray:
    """The picture at `path`, upright, H×W×3 RGB uint8, of at most 8 megapixels. Raises PortraitError."""
    try:
        picture = read_picture_file(Path(path))
    except PictureError as error:
        raise PortraitError(str(error)) from error
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    if picture.shape[0] * picture.shape[1] > _MOST_PIXELS:
        scale = (_MOST_PIXELS / (picture.shape[0] * picture.shape[1])) ** 0.5
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return picture


def default_portrait() -> np.ndarray:
    """scikit-image's public-domain portrait of an astronaut, H×W×3 RGB uint8. Raises PortraitError."""
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise PortraitError(
            "The default portrait comes with scikit-image, which is not installed: name one with --portrait."
        ) from error
    picture: np.ndarray = astronaut()
    return picture


class Scene:
    """What one camera mode sees of the patient: maps of its size, and light by light what they send back."""

    def __init__(
        self, diffuse: np.ndarray, shine: np.ndarray, skin: np.ndarray, uv: np.ndarray, shape: Shape
    ):
        """`diffuse` and `uv` H×W×3, `shine` and `skin` H×W, all float16; `shape` on any grid."""
        self.height, self.width = shine.shape
        self._diffuse, self._shine, self._skin, self._uv, self._shape = diffuse, shine, skin, uv, shape
        rng = np.random.default_rng(5)
        grain = rng.standard_normal((512 + _STRIP_ROWS, self.width), dtype=np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), 1.3) - cv2.GaussianBlur(grain, (0, 0), 4.0)
        self._slope_x = cv2.Sobel(grain, cv2.CV_32F, 1, 0)
        self._slope_y = cv2.Sobel(grain, cv2.CV_32F, 0, 1)

    def scaled(self, width: int, height: int) -> Scene:
        """The same scene for another mode."""

        def shrink(values: np.ndarray) -> np.ndarray:
            small = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            return small.astype(np.float16)

        maps = (self._diffuse, self._shine, self._skin, self._uv)
        return Scene(*map(shrink, maps), self._shape)

    def strips(
        self, levels: Mapping[str, float], positions_mm: Mapping[str, tuple[float, float, float]]
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """(rows, light → reflectance float32 rows×W×3) from top to bottom, for each light with a level."""
        shading = {
            name: cv2.resize(_shading(self._shape, positions_mm[name]), (self.width, self.height))
            for name in levels
            if name in positions_mm
        }
        for top in range(0, self.height, _STRIP_ROWS):
            rows = slice(top, min(self.height, top + _STRIP_ROWS))
            diffuse = self._diffuse[rows].astype(np.float32)
            parts = {}
            for name, level in levels.items():
                if name in shading:
                    parts[name] = diffuse * (level * self._roughened(shading, positions_mm, name, rows))
                elif name == "uv365":
                    parts[name] = self._uv[rows].astype(np.float32) * np.float32(level)
                else:
                    gloss, half = _polarised(name)
                    shine = self._shine[rows].astype(np.float32) * np.float32(gloss * level)
                    part = diffuse * np.float32(half * level)
                    part += shine[:, :, None]
                    parts[name] = part
            yield rows, parts

    def _roughened(
        self,
        shading: Mapping[str, np.ndarray],
        positions_mm: Mapping[str, tuple[float, float, float]],
        name: str,
        rows: slice,
    ) -> np.ndarray:
        """Shading with the grain of skin in it, which a light from the side brings out."""
        x, y, z = positions_mm[name]
        side = np.float32(0.05 / (x * x + y * y + z * z) ** 0.5)
        first = rows.start % 512
        here = slice(first, first + rows.stop - rows.start)
        grain = (self._slope_x[here] * np.float32(-x) + self._slope_y[here] * np.float32(-y)) * side
        grain *= self._skin[rows]
        grain += 1.0
        return np.asarray((shading[name][rows] * grain)[:, :, None])


class Patient:
    """One simulated patient in front of one board's camera.

    `portrait` is H×W×3 RGB uint8; `landmarks` are its face's 468×3 in pixels, or None where no (or more than
    one) face was found: then what stands in front of the camera is the flat picture itself.
    """

    def __init__(
        self, board: Board, portrait: np.ndarray, landmarks: np.ndarray | None, seed: int = 1
    ) -> None:
        still, preview = board.camera.still, board.camera.preview
        self.still = _scene(portrait, landmarks, still.width, still.height, np.random.default_rng(seed))
        self.preview = self.still.scaled(preview.width, preview.height)


def _polarised(name: str) -> tuple[float, float]:
    """(share of gloss, share of diffuse light) that a light without direction sends to the camera.

    Through parallel polarisers pass half the diffuse light and all the gloss, through crossed ones the other
    half with what the polarisers leak; without polarisers all of both, in the same unit.
    """
    return {"parallel": (1.0, 0.5), "cross": (_LEAK, 0.5)}.get(name, (1.0, 1.0))


def _shading(shape: Shape, position_mm: tuple[float, float, float]) -> np.ndarray:
    """Light of a lamp near the face, h×w float32: ρ n·(s−x)/|s−x|³, about 1 for a plane facing the camera at
    the middle of the face.
    """
    source = np.asarray(position_mm, np.float32)
    to_lamp = source - shape.points_mm
    distance = np.linalg.norm(to_lamp, axis=2)
    facing = (shape.normals * to_lamp).sum(axis=2) / distance
    # Skin scatters light around an edge: the shadow's border is soft, and the hood sends a little back.
    lit = 0.5 * (facing + np.sqrt(facing**2 + 0.02))
    light = 0.94 * lit / distance**2
    light *= float(np.linalg.norm(source) ** 3 / source[2])
    return np.asarray(light + 0.06, np.float32)


def _scene(
    portrait: np.ndarray, landmarks: np.ndarray | None, width: int, height: int, rng: np.random.Generator
) -> Scene:
    picture, placed = _place(_linear(portrait), landmarks, width, height)
    if placed is None:
        flat = np.zeros((height, width), np.float16)
        uv = (0.2 * picture.mean(axis=2, keepdims=True) * np.array([0.3, 0.6, 1.0])).astype(np.float16)
        return Scene(picture.astype(np.float16), flat, flat, uv, _flat_shape(width, height))
    shape = shape_from_landmarks(placed, width, height)
    face_px = float(np.linalg.norm(placed[454, :2] - placed[234, :2]))
    skin = cv2.resize(shape.skin, (width, height))
    diffuse, shine = split_shine(picture, skin, face_px)
    del picture
    # Skin has a grain finer than a portrait shows; without it an enlarged one looks like wax.
    grain = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), 1.1)
    diffuse *= (1 + 0.06 * grain * skin)[:, :, None]
    shine += skin * 0.05 * cv2.resize(_gloss(shape), (width, height)) * (1 + 0.5 * grain)
    melanin = melanin_map(diffuse)
    uv = fluorescence(diffuse, melanin, skin, face_px)
    spots = porphyrin_spots(placed, (height, width), face_px, rng) * skin
    uv += spots[:, :, None] * np.array([0.55, 0.16, 0.06], np.float32)
    half = np.float16
    return Scene(
        diffuse.astype(half), np.maximum(shine, 0).astype(half), skin.astype(half), uv.astype(half), shape
    )


def _gloss(shape: Shape) -> np.ndarray:
    """Highlights of a lamp beside the lens: where the skin faces the camera."""
    facing = np.clip(shape.normals[:, :, 2], 0, 1)
    return np.asarray(facing**24, np.float32)


def _flat_shape(width: int, height: int, step: int = 8) -> Shape:
    rows, columns = height // step, width // step
    xs, ys = np.meshgrid(np.linspace(-130, 130, columns), np.linspace(-170, 170, rows))
    points = np.dstack([xs, ys, np.zeros_like(xs)]).astype(np.float32)
    normals = np.zeros((rows, columns, 3), np.float32)
    normals[:, :, 2] = 1
    return Shape(points, normals, np.zeros((rows, columns), np.float32), 260 / width)


def _linear(portrait: np.ndarray) -> np.ndarray:
    """sRGB uint8 to linear float32 in 0…1 (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    table = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.asarray(table.astype(np.float32)[portrait])


def _place(
    picture: np.ndarray, landmarks: np.ndarray | None, width: int, height: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """`picture` as the camera sees it, with its landmarks there: a face stands where guidance wants it,
    anything else is shown whole.
    """
    rows, columns = picture.shape[:2]
    if landmarks is None:
        scale = min(width / columns, height / rows)
        shift = np.array([(width - scale * columns) / 2, (height - scale * rows) / 2])
    else:
        points = np.asarray(landmarks, np.float64)
        scale = _FACE_SHARE * width / float(np.linalg.norm(points[454, :2] - points[234, :2]))
        middle = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
        shift = np.array([width / 2, _FACE_MIDDLE * height]) - scale * middle
    if scale < 0.5:
        small = cv2.resize(picture, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        inner = np.array([scale * columns / small.shape[1], scale * rows / small.shape[0]])
        picture = small
    else:
        inner = np.array([scale, scale])
    matrix = np.array([[inner[0], 0, shift[0]], [0, inner[1], shift[1]]])
    placed = cv2.warpAffine(
        picture,
        matrix,
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(_HOOD, _HOOD, _HOOD),
    )
    placed = np.clip(placed, 0, 1)
    if landmarks is None:
        return placed, None
    moved = np.asarray(landmarks, np.float64) * scale
    moved[:, :2] += shift
    return placed, moved
