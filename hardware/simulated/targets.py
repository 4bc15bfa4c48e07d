"""Calibration targets in front of a simulated camera, lit by the pins as a patient is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array, UInt8Array
from hardware.board import Board
from hardware.face_mesh import FACE_WIDTH_MM
from hardware.spectra import camera_rgb, linear_srgb
from hardware.targets import (
    GREY_REFLECTANCE,
    WHITE_REFLECTANCE,
    Chart,
    Sphere,
    chart_spectra,
    reference_chart,
)

# A face is 140 mm broad and fills this share of the picture's width: see hardware.simulated.patient.
_FACE_SHARE = 0.52
_STRIP_ROWS = 128
_BLACK_CLOTH = 0.03
# Paint does not glow: what the camera sees is the lamp's violet leaking through. Copy paper does.
_LEAK, _GLOW = np.array([0.03, 0.02, 0.09], np.float32), np.array([0.2, 0.35, 0.6], np.float32)
# What comes back from the hood's walls of a lamp at the side.
_HOOD = 0.06


class TargetScene:
    """What one camera mode sees of a target whose every pixel has one of a few reflectance spectra."""

    in_sensor_colours = True

    def __init__(
        self,
        board: Board,
        index: UInt8Array,
        spectra: Float64Array,
        mm_per_px: float,
        radius_mm: float = 0.0,
        glow: Float32Array = _LEAK,
    ) -> None:
        """`index` H×W uint8 into `spectra` (N×31); a ball of `radius_mm` in the middle stands out of it.
        `glow` is what the camera sees of it under UV, beside white light.
        """
        self.height, self.width = index.shape
        self._index, self._mm = index, mm_per_px
        white, sensor = board.lights["white"].led, board.camera.sensor
        self._colours = {
            name: (
                linear_srgb(spectra)
                if sensor is None or white is None
                else camera_rgb(spectra, light.led or white, sensor)
            ).astype(np.float32)
            for name, light in board.lights.items()
        }
        self._radius, self._glow = radius_mm, glow

    def strips(
        self,
        levels: Mapping[str, float],
        positions_mm: Mapping[str, tuple[float, float, float]],
        eyes_closed: bool = False,
    ) -> Iterator[tuple[slice, dict[str, Float32Array]]]:
        """As `hardware.simulated.scene.Scene.strips`, but in the sensor's colours; a target has no eyes."""
        del eyes_closed
        for top in range(0, self.height, _STRIP_ROWS):
            rows = slice(top, min(self.height, top + _STRIP_ROWS))
            parts = {}
            for name, level in levels.items():
                part = self._colours[name][self._index[rows]] * np.float32(level)
                if name in positions_mm:
                    part *= self._lambert(rows, positions_mm[name])[:, :, None]
                elif name in ("parallel", "cross"):
                    part *= np.float32(0.5)
                elif name.startswith("uv"):
                    part *= self._glow
                parts[name] = part
            yield rows, parts

    def _lambert(self, rows: slice, position_mm: tuple[float, float, float]) -> Float32Array:
        """Light of a small lamp on a matte surface, 1 for a plane facing the camera in the middle."""
        lamp = np.asarray(position_mm, np.float32)
        xs = (np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) * self._mm
        ys = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - self.height / 2) * self._mm
        x, y = np.meshgrid(xs, ys)
        z = np.sqrt(np.maximum(self._radius**2 - x**2 - y**2, 0))
        points = np.dstack([x, y, z])
        normals = np.where(
            z[:, :, None] > 0, points / max(self._radius, 1.0), np.array([0, 0, 1], np.float32)
        )
        to_lamp = lamp - points
        distance = np.linalg.norm(to_lamp, axis=2)
        facing = np.clip((normals * to_lamp).sum(axis=2), 0, None)
        light = facing / distance**3 * float(np.linalg.norm(lamp) ** 3 / lamp[2])
        return np.asarray((1 - _HOOD) * light + _HOOD, np.float32)


class Target:
    """A target where a patient is: `white`, `grey`, `paper`, `black` (a lens cap), `chart`, `sphere`."""

    def __init__(self, board: Board, name: str) -> None:
        still, preview = board.camera.still, board.camera.preview
        self.still = _scene(board, name, still.width, still.height)
        self.preview = _scene(board, name, preview.width, preview.height)


def mm_per_px(width: int) -> float:
    """The scale of a picture `width` pixels wide, in the plane of the face."""
    return FACE_WIDTH_MM / (_FACE_SHARE * width)


def _scene(board: Board, name: str, width: int, height: int) -> TargetScene:
    scale = mm_per_px(width)
    index = np.zeros((height, width), np.uint8)
    grey = np.ones((1, 31))
    if name == "chart":
        return TargetScene(board, *_draw_chart(reference_chart(), width, height, scale), scale)
    if name == "sphere":
        sphere = Sphere()
        ys, xs = np.mgrid[0:height, 0:width]
        square = ((xs + 0.5 - width / 2) ** 2 + (ys + 0.5 - height / 2) ** 2) * scale**2
        index[square < sphere.radius_mm**2] = 1
        spectra = np.vstack([grey * _BLACK_CLOTH, grey * sphere.reflectance])
        return TargetScene(board, index, spectra, scale, sphere.radius_mm)
    if name == "paper":
        return TargetScene(board, index, grey * WHITE_REFLECTANCE, scale, glow=_GLOW)
    plain = {"white": WHITE_REFLECTANCE, "grey": GREY_REFLECTANCE, "black": 0.0}[name]
    return TargetScene(board, index, grey * plain, scale)


def _draw_chart(chart: Chart, width: int, height: int, scale: float) -> tuple[UInt8Array, Float64Array]:
    """(index, spectra): 24 patches on white card, with markers in black."""
    paper, ink = 24, 25
    index = np.full((height, width), paper, np.uint8)
    middle = np.array([width, height]) / 2

    def corners(at_mm: Float64Array, size_mm: float) -> tuple[int, int, int, int]:
        low = np.round(middle + (at_mm - size_mm / 2) / scale).astype(int)
        high = np.round(middle + (at_mm + size_mm / 2) / scale).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    for number, at in enumerate(chart.patches_mm()):
        x0, y0, x1, y1 = corners(at, chart.patch_mm)
        index[y0:y1, x0:x1] = number
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    for number, at in enumerate(chart.markers_mm()):
        x0, y0, x1, y1 = corners(at, chart.marker_mm)
        marker = cv2.resize(
            cv2.aruco.generateImageMarker(dictionary, number, 60),
            (x1 - x0, y1 - y0),
            interpolation=cv2.INTER_NEAREST,
        )
        index[y0:y1, x0:x1] = np.where(marker > 127, paper, ink)
    even = np.ones((1, 31))
    return index, np.vstack([chart_spectra(), even * 0.85, even * 0.03])
