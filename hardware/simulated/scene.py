"""Scene: what one camera mode sees of the simulated patient, light by light."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np

from hardware.arrays import Float16Array, Float32Array
from hardware.simulated.lids import Lid
from hardware.simulated.shape import Shape

_STRIP_ROWS = 128
_LEAK = 0.01
# Under no lamp, light still creeps in under the shroud, and the room's comes in where it is open: shares of
# what a white diffuser sends back of the white lamp.
AMBIENT, ROOM = 0.0002, 0.03


class Scene:
    """What one camera mode sees of the patient: maps of its size, and light by light what they send back."""

    in_sensor_colours = False

    def __init__(
        self,
        diffuse: Float16Array,
        shine: Float16Array,
        skin: Float16Array,
        uv: Float16Array,
        shape: Shape,
        lids: Sequence[Lid] = (),
        frontal: Float16Array | None = None,
    ) -> None:
        """`diffuse` and `uv` H×W×3, `shine` and `skin` H×W, all float16; `shape` on any grid.

        `lids` are what shows in place of the eyes when these are closed. `frontal` (H×W float16) is the light
        that the lamps around the lens throw on each place; a portrait, which has none, holds its own shading.
        """
        self._frontal = frontal
        self._lids = tuple(lids)
        self.height, self.width = shine.shape
        self._diffuse, self._shine, self._skin, self._uv, self._shape = diffuse, shine, skin, uv, shape
        rng = np.random.default_rng(5)
        noise = rng.standard_normal((512 + _STRIP_ROWS, self.width), dtype=np.float32)
        fine, coarse = cv2.GaussianBlur(noise, (0, 0), 1.3), cv2.GaussianBlur(noise, (0, 0), 4.0)
        grain = np.asarray(fine - coarse, np.float32)
        self._slope_x = cv2.Sobel(grain, cv2.CV_32F, 1, 0)
        self._slope_y = cv2.Sobel(grain, cv2.CV_32F, 0, 1)

    def scaled(self, width: int, height: int) -> Scene:
        """The same scene for another mode."""

        def shrink(values: Float16Array) -> Float16Array:
            small = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            return small.astype(np.float16)

        maps = (self._diffuse, self._shine, self._skin, self._uv)
        factor = width / self.width
        frontal = None if self._frontal is None else shrink(self._frontal)
        diffuse, shine, skin, uv = map(shrink, maps)
        lids = [lid.scaled(factor) for lid in self._lids]
        return Scene(diffuse, shine, skin, uv, self._shape, lids, frontal)

    def strips(
        self,
        levels: Mapping[str, float],
        positions_mm: Mapping[str, tuple[float, float, float]],
        eyes_closed: bool = False,
    ) -> Iterator[tuple[slice, dict[str, Float32Array]]]:
        """(rows, light → reflectance float32 rows×W×3) from top to bottom, for each light with a level."""
        lit = {
            name: np.asarray(
                cv2.resize(shading(self._shape, positions_mm[name]), (self.width, self.height)), np.float32
            )
            for name in levels
            if name in positions_mm
        }
        for top in range(0, self.height, _STRIP_ROWS):
            rows = slice(top, min(self.height, top + _STRIP_ROWS))
            diffuse, gloss, skin, uv = self._maps(rows, eyes_closed)
            parts = {}
            for name, level in levels.items():
                if name in lit:
                    parts[name] = diffuse * (
                        level * self._roughened(lit[name], positions_mm[name], rows, skin)
                    )
                elif name == "uv365":
                    parts[name] = uv * np.float32(level)
                else:
                    glossy, half = _polarised(name)
                    shine = gloss * np.float32(glossy * level)
                    part = diffuse * np.float32(half * level)
                    part += shine[:, :, None]
                    if self._frontal is not None:
                        part *= self._frontal[rows].astype(np.float32)[:, :, None]
                    parts[name] = part
            yield rows, parts

    def _maps(
        self, rows: slice, eyes_closed: bool
    ) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
        """(diffuse, shine, skin, uv) of these rows, float32; with the lids over the eyes if `eyes_closed`."""
        diffuse, shine, skin, uv = (
            values[rows].astype(np.float32) for values in (self._diffuse, self._shine, self._skin, self._uv)
        )
        for lid in self._lids if eyes_closed else ():
            lid.cover(rows, diffuse, shine, skin, uv)
        return diffuse, shine, skin, uv

    def _roughened(
        self,
        lit: Float32Array,
        position_mm: tuple[float, float, float],
        rows: slice,
        skin: Float32Array,
    ) -> Float32Array:
        """Shading with the grain of skin in it, which a light from the side brings out.

        A shape as fine as the picture has its own.
        """
        if self._shape.skin.shape[0] >= self.height:
            return np.asarray(lit[rows][:, :, None])
        x, y, z = position_mm
        side = np.float32(0.05 / (x * x + y * y + z * z) ** 0.5)
        first = rows.start % 512
        here = slice(first, first + rows.stop - rows.start)
        grain = (self._slope_x[here] * np.float32(-x) + self._slope_y[here] * np.float32(-y)) * side
        grain *= skin
        grain += 1.0
        return np.asarray((lit[rows] * grain)[:, :, None])


def _polarised(name: str) -> tuple[float, float]:
    """(share of gloss, share of diffuse light) that a light without direction sends to the camera.

    Through parallel polarisers pass half the diffuse light and all the gloss, through crossed ones the other
    half with what the polarisers leak; without polarisers all of both, in the same unit.
    """
    return {"parallel": (1.0, 0.5), "cross": (_LEAK, 0.5)}.get(name, (1.0, 1.0))


def shading(shape: Shape, position_mm: tuple[float, float, float]) -> Float32Array:
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
