"""The simulated patient: a portrait lifted to maps of skin and shape, so that it can be lit anew.

The portrait stays in memory; nothing here writes a file.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hardware.arrays import Float16Array, Float32Array, Float64Array, UInt8Array
from hardware.board import Board
from hardware.face_mesh import FACE_WIDTH_MM, face_width
from hardware.host.errors import PlainError
from hardware.picture_colours import Colour
from hardware.picture_file import PictureError, read_picture_file
from hardware.simulated.lids import closed_lids
from hardware.simulated.pose import View
from hardware.simulated.scene import Scene
from hardware.simulated.shape import Shape, shape_from_landmarks
from hardware.simulated.skin import fluorescence, melanin_map, porphyrin_spots, split_shine
from hardware.simulation import Simulation
from hardware.srgb import srgb_linear

# Where the face stands in the picture: its width as a share of the picture's, its middle from the top.
_FACE_SHARE, _FACE_MIDDLE = 0.52, 0.47
_HOOD = 0.02
_MOST_PIXELS = 8_000_000


class PortraitError(PlainError, ValueError):
    """A portrait that cannot be used; the message says why."""

    exit_status = 2


def read_portrait(path: Path, colour: Colour = "auto") -> UInt8Array:
    """The picture at `path`, upright, H×W×3 uint8 sRGB, of at most 8 megapixels. Raises PortraitError."""
    try:
        picture = read_picture_file(path, colour).srgb8()
    except PictureError as error:
        raise PortraitError(str(error)) from error
    if picture.shape[0] * picture.shape[1] > _MOST_PIXELS:
        scale = (_MOST_PIXELS / (picture.shape[0] * picture.shape[1])) ** 0.5
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)
    return picture


def in_white_light(board: Board, portrait: UInt8Array, landmarks: Float64Array | None) -> Float32Array:
    """H×W×3 reflectance: what the preview of `board` shows of the portrait under its white light."""
    preview = board.camera.preview
    scene = _scene(portrait, landmarks, preview.width, preview.height, np.random.default_rng(0))
    return np.concatenate([parts["white"] for _, parts in scene.strips({"white": 1.0}, {})])


def default_portrait() -> UInt8Array:
    """scikit-image's public-domain portrait of an astronaut, H×W×3 RGB uint8. Raises PortraitError."""
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise PortraitError(
            "The default portrait comes with scikit-image, which is not installed: name one with --portrait."
        ) from error
    return np.asarray(astronaut(), np.uint8)  # type: ignore[no-untyped-call]


class Patient:
    """One simulated patient in front of one board's camera.

    `portrait` is H×W×3 RGB uint8; `landmarks` are its face's 468×3 in pixels, or None where no (or more than
    one) face was found: then what stands in front of the camera is the flat picture itself.
    """

    def __init__(
        self, board: Board, portrait: UInt8Array, landmarks: Float64Array | None, seed: int = 1
    ) -> None:
        still = board.camera.still
        scene = _scene(portrait, landmarks, still.width, still.height, np.random.default_rng(seed))
        self._stand_before(board, scene)

    def _stand_before(self, board: Board, scene: Scene) -> None:
        """Be what `scene` shows to the still camera of `board`."""
        preview = board.camera.preview
        self.still = scene
        self.preview = self.still.scaled(preview.width, preview.height)
        self._empty = Scene(*_hood(preview.width, preview.height))
        self._mm_per_share = FACE_WIDTH_MM / _FACE_SHARE
        self.eyes_closed = False

    def view(self, mode: str, number: int, behaviour: Simulation) -> View:
        """How the patient stands there in exposure `number`; `mode` is "still" or "preview"."""
        scene = self.still if mode == "still" else self.preview
        gone = behaviour.patient_leaves_at
        if gone is not None and number >= gone:
            return View(self._empty.scaled(scene.width, scene.height))
        px_per_mm = scene.width / self._mm_per_share
        moves = behaviour.patient_moves_at
        shift = behaviour.patient_moves_mm if moves is not None and number >= moves else 0.0
        sway = round(behaviour.patient_sways_mm * px_per_mm)
        return View(scene, self.eyes_closed, round(shift * px_per_mm), sway)


def _hood(width: int, height: int) -> tuple[Float16Array, Float16Array, Float16Array, Float16Array, Shape]:
    """The maps of a Scene where nobody stands: the dark inside of the hood."""
    dark = np.full((height, width, 3), _HOOD, np.float16)
    none = np.zeros((height, width), np.float16)
    return dark, none, none, (dark * np.float16(0.02)).astype(np.float16), _flat_shape(width, height)


def _scene(
    portrait: UInt8Array, landmarks: Float64Array | None, width: int, height: int, rng: np.random.Generator
) -> Scene:
    picture, placed = _place(_linear(portrait), landmarks, width, height)
    if placed is None:
        flat = np.zeros((height, width), np.float16)
        uv = (0.2 * picture.mean(axis=2, keepdims=True) * np.array([0.3, 0.6, 1.0])).astype(np.float16)
        return Scene(picture.astype(np.float16), flat, flat, uv, _flat_shape(width, height))
    shape = shape_from_landmarks(placed, width, height)
    face_px = face_width(placed)
    skin = np.asarray(cv2.resize(shape.skin, (width, height)), np.float32)
    diffuse, shine = split_shine(picture, skin, face_px)
    del picture
    # Skin has a grain finer than a portrait shows; without it an enlarged one looks like wax.
    noise = rng.standard_normal((height, width), dtype=np.float32)
    grain = np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.1), np.float32)
    diffuse *= (1 + 0.06 * grain * skin)[:, :, None]
    gloss = np.asarray(cv2.resize(_gloss(shape), (width, height)), np.float32)
    shine += skin * 0.05 * gloss * (1 + 0.5 * grain)
    melanin = melanin_map(diffuse)
    uv = fluorescence(diffuse, melanin, skin, face_px)
    spots = porphyrin_spots(placed, (height, width), face_px, rng) * skin
    uv += spots[:, :, None] * np.array([0.55, 0.16, 0.06], np.float32)
    half = np.float16
    maps = (diffuse.astype(half), np.maximum(shine, 0).astype(half), skin.astype(half), uv.astype(half))
    return Scene(*maps, shape, closed_lids(*maps, placed))


def _gloss(shape: Shape) -> Float32Array:
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


def _linear(portrait: UInt8Array) -> Float32Array:
    """sRGB uint8 to linear float32 in 0…1 (IEC 61966-2-1)."""
    return np.asarray(srgb_linear(np.arange(256) / 255).astype(np.float32)[portrait])


def _place(
    picture: Float32Array, landmarks: Float64Array | None, width: int, height: int
) -> tuple[Float32Array, Float64Array | None]:
    """`picture` as the camera sees it, with its landmarks there: a face stands where guidance wants it,
    anything else is shown whole.
    """
    rows, columns = picture.shape[:2]
    if landmarks is None:
        scale = min(width / columns, height / rows)
        shift = np.array([(width - scale * columns) / 2, (height - scale * rows) / 2])
    else:
        points = np.asarray(landmarks, np.float64)
        scale = _FACE_SHARE * width / face_width(points)
        middle = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
        shift = np.array([width / 2, _FACE_MIDDLE * height]) - scale * middle
    if scale < 0.5:
        small = cv2.resize(picture, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        inner = np.array([scale * columns / small.shape[1], scale * rows / small.shape[0]])
        picture = np.asarray(small, np.float32)
    else:
        inner = np.array([scale, scale])
    matrix = np.array([[inner[0], 0, shift[0]], [0, inner[1], shift[1]]])
    warped = cv2.warpAffine(
        picture,
        matrix,
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(_HOOD, _HOOD, _HOOD),
    )
    placed = np.asarray(np.clip(warped, 0, 1), np.float32)
    if landmarks is None:
        return placed, None
    moved = np.asarray(landmarks, np.float64) * scale
    moved[:, :2] += shift
    return placed, moved
