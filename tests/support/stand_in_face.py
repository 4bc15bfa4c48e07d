"""A drawn face with known landmarks, so that hardware and firmware can be tested without a network."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.face_mesh import EYES, LEFT_EAR, OVAL, RIGHT_EAR
from hardware.host.errors import Fault


class NoFace(Fault):
    """The stand-in's refusal, in the shape of the real one."""

    def __init__(self) -> None:
        super().__init__("no_face", "No face can be seen.")


@dataclass(frozen=True)
class StandInFace:
    box: tuple[float, float, float, float]
    landmarks: np.ndarray


def landmarks(centre: tuple[float, float], width: float) -> np.ndarray:
    """468×3: the outline on an ellipse, the rest inside it, z from an ellipsoid with a nose."""
    rng = np.random.default_rng(3)
    radius, angle = np.sqrt(rng.uniform(0, 0.8, 468)), rng.uniform(0, 2 * np.pi, 468)
    unit = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    for place, index in enumerate(OVAL):
        turn = 2 * np.pi * place / len(OVAL) - np.pi / 2
        unit[index] = np.cos(turn), np.sin(turn)
    unit[RIGHT_EAR], unit[LEFT_EAR] = (-1, 0), (1, 0)
    unit[1] = unit[4] = (0, 0.1)
    # Both rings begin at the outer corner and go along the lower lid first.
    for side, eye in zip((-1, 1), EYES, strict=True):
        for place, index in enumerate(eye):
            turn = 2 * np.pi * place / len(eye)
            unit[index] = side * (0.4 + 0.13 * np.cos(turn)), -0.25 + 0.045 * np.sin(turn)
    bulge = np.sqrt(np.clip(1 - (unit**2).sum(axis=1), 0, None))
    nose = 0.4 * np.exp(-((unit[:, 0] / 0.2) ** 2) - ((unit[:, 1] - 0.1) / 0.3) ** 2)
    half = width / 2
    points = np.column_stack([unit[:, 0] * half, unit[:, 1] * half * 1.35, -(0.5 * bulge + nose) * half])
    points[:, :2] += centre
    return points


def find_stand_in(picture: np.ndarray, engine: str) -> StandInFace:
    """A face finder that always sees the stand-in's face where `portrait` and the simulated camera put it."""
    del engine
    height, width = picture.shape[:2]
    if picture.mean() < 5:
        raise NoFace
    points = landmarks((width / 2, 0.47 * height), 0.52 * width)
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return StandInFace((low[0], low[1], high[0], high[1]), points)


def portrait(width: int = 600, height: int = 800) -> np.ndarray:
    """The stand-in's portrait, H×W×3 RGB uint8: a face of skin colour with a shiny forehead, on grey."""
    picture = np.full((height, width, 3), 110, np.uint8)
    centre = (width // 2, round(0.47 * height))
    half = 0.26 * width
    cv2.ellipse(picture, centre, (round(half), round(1.35 * half)), 0, 0, 360, (205, 150, 125), -1)
    for side in (-1, 1):
        eye = (round(centre[0] + side * 0.4 * half), round(centre[1] - 0.34 * half))
        cv2.ellipse(picture, eye, (round(0.13 * half), round(0.06 * half)), 0, 0, 360, (60, 40, 30), -1)
    shine = np.zeros((height, width), np.float32)
    cv2.circle(shine, (centre[0], round(centre[1] - 0.8 * half)), round(0.15 * half), 1.0, -1)
    shine = cv2.GaussianBlur(shine, (0, 0), 0.06 * half)[:, :, None]
    return np.clip(picture + 60 * shine, 0, 255).astype(np.uint8)
