"""Where a directional lamp stands, from the light it throws on a matte ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from firmware.cameras.calibration import CalibrationError
from hardware.targets import Sphere

Array = npt.NDArray[np.float64]

# Points on the ball's rim and in its own shadow say little.
_RIM, _LEAST_FACING = 0.9, 0.25


@dataclass(frozen=True)
class Ball:
    """The ball in a picture: its middle and its radius, in pixels."""

    x: float
    y: float
    radius: float


def find_ball(picture: npt.NDArray[np.uint16], sphere: Sphere, mm_per_px: float) -> Ball:
    """The ball in a picture taken under white light (H×W×3 linear). Raises CalibrationError."""
    grey = cv2.GaussianBlur(picture.mean(axis=2).astype(np.float32), (0, 0), 1.0)
    # Halfway between ball and cloth, where a blurred edge keeps its place.
    mask = (grey > np.percentile(grey, (2, 98)).mean()).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea, default=None)
    if largest is None:
        raise CalibrationError("The ball is not seen: put it in the middle, before black cloth.")
    filled = cv2.drawContours(np.zeros_like(mask), [largest], -1, (1,), -1)
    moments = cv2.moments(filled, binaryImage=True)
    radius = float(np.sqrt(moments["m00"] / np.pi))
    wanted = sphere.radius_mm / mm_per_px
    (_, _), enclosing = cv2.minEnclosingCircle(largest)
    if abs(radius / wanted - 1) > 0.05 or enclosing > 1.1 * radius:
        raise CalibrationError(
            f"What is seen is not the ball of {2 * sphere.radius_mm:g} mm: it looks"
            f" {2 * radius * mm_per_px:.0f} mm wide. Put the ball alone in the"
            " middle, in the plane of the face, before black cloth."
        )
    return Ball(moments["m10"] / moments["m00"], moments["m01"] / moments["m00"], radius)


@dataclass(frozen=True)
class Lamp:
    """A lamp as fitted: position in mm from the picture's middle (x right, y down, z to the camera), and the
    reflectance that a white facing the camera there would seem to have, as shining (in the sensor's colours).
    `misfit` is the fit's relative r.m.s. error.
    """

    position_mm: tuple[float, float, float]
    strength: Array
    misfit: float


def locate_lamp(
    picture: npt.NDArray[np.floating[Any]],
    ball: Ball,
    sphere: Sphere,
    mm_per_px: float,
    start_mm: tuple[float, ...],
) -> Lamp:
    """Fit a lamp to the shading of `ball` in `picture` (H×W×3 counts above black, lens corrected).

    Light of a near lamp on a matte surface: k n·(s − x)/|s − x|³ + c, c being what the hood sends back.
    Orthographic: the camera is far against the ball's size. Raises CalibrationError.
    """
    height, width = picture.shape[:2]
    ys, xs = np.mgrid[0:height, 0:width]
    step = max(1, round(ball.radius / 40))
    east, south = (xs - ball.x) / ball.radius, (ys - ball.y) / ball.radius
    inside = (east**2 + south**2 < _RIM**2) & (xs % step == 0) & (ys % step == 0)
    normals = np.stack([east[inside], south[inside], np.sqrt(1 - east[inside] ** 2 - south[inside] ** 2)], 1)
    middle = np.array([(ball.x + 0.5 - width / 2) * mm_per_px, (ball.y + 0.5 - height / 2) * mm_per_px, 0.0])
    points = middle + normals * sphere.radius_mm
    light = picture[inside].astype(np.float64)
    grey = light.mean(axis=1)
    grey /= grey.max()

    def shade(position: Array) -> Array:
        to_lamp = position - points
        distance = np.linalg.norm(to_lamp, axis=1)
        unit = np.linalg.norm(position) ** 3 / position[2]
        return np.asarray((normals * to_lamp).sum(axis=1) / distance**3 * unit)

    def solve(position: Array, use: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
        """(k and c, errors) of the best straight line from the shading at `position` to the picture."""
        basis = np.stack([shade(position)[use], np.ones(use.sum())], axis=1)
        line = np.linalg.lstsq(basis, grey[use], rcond=None)[0]
        return line, basis @ line - grey[use]

    position = np.asarray(start_mm, np.float64)
    for _ in range(3):
        facing = shade(position) / shade(position).max()
        use = facing > _LEAST_FACING
        position = _descend(position, lambda at, lit=use: solve(at, lit)[1])  # type: ignore[misc]
    line, errors = solve(position, use)
    misfit = float(np.sqrt((errors**2).mean()) / line[0])
    if not np.isfinite(position).all() or position[2] <= 0 or line[0] <= 0:
        raise CalibrationError("A lamp's place cannot be told from the light on the ball: is it lit at all?")
    basis = np.stack([shade(position)[use], np.ones(use.sum())], axis=1)
    strength = np.linalg.lstsq(basis, light[use], rcond=None)[0].sum(axis=0) / sphere.reflectance
    x, y, z = (float(value) for value in position)
    return Lamp((x, y, z), strength, misfit)


def _descend(start: Array, errors: Callable[[Array], Array]) -> Array:
    """The place with the least squared errors near `start`, by Levenberg and Marquardt's method."""
    place, now, damping, step = start, errors(start), 1e-3, 0.1
    for _ in range(50):
        slope = np.stack([(errors(place + step * unit) - now) / step for unit in np.eye(3)], axis=1)
        square = slope.T @ slope
        change = np.linalg.solve(square + damping * np.diag(np.diag(square)), -slope.T @ now)
        tried = errors(place + change)
        if tried @ tried < now @ now:
            place, now, damping = place + change, tried, damping / 5
            if np.linalg.norm(change) < 0.01:
                break
        else:
            damping *= 5
            if damping > 1e8:
                break
    return np.asarray(place)
