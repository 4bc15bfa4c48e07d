"""Paint: what of a phantom's head is no bare skin: eyes, brows, nostrils, mouth line, hair, cloth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array
from hardware.face_mesh import EYES
from hardware.simulated.phantom.plan import Plan, rounded

# Breadth of what is seen of the iris: 11.7 mm (Rüfer et al. 2005), of a pupil in bright light.
_IRIS_MM, _PUPIL_MM = 11.7, 3.4
_HOOD = np.array([0.02, 0.02, 0.02], np.float32)
_CLOTH = np.array([0.10, 0.13, 0.17], np.float32)
_DARK = np.array([0.018, 0.010, 0.008], np.float32)
# Linear sRGB: hair and irises from light to dark; darker skins have the darker ones.
_HAIR = np.array([[0.30, 0.19, 0.10], [0.12, 0.065, 0.035], [0.045, 0.026, 0.017], [0.018, 0.013, 0.011]])
_IRIS = np.array([[0.13, 0.19, 0.23], [0.11, 0.11, 0.07], [0.10, 0.052, 0.020], [0.045, 0.020, 0.010]])
_SKULL = (0.0, -0.26, 1.07, 1.20)
_HAIR_OUTSIDE = (0.0, -0.33, 1.19, 1.27)
_HAIRLINE = (
    (-1.30, 0.18), (-1.04, 0.16), (-1.02, -0.10), (-1.005, -0.30), (-0.96, -0.50), (-0.86, -0.66),
    (-0.66, -0.78), (-0.36, -0.83), (0.0, -0.85), (0.36, -0.83), (0.66, -0.78), (0.86, -0.66),
    (0.96, -0.50), (1.005, -0.30), (1.02, -0.10), (1.04, 0.16), (1.30, 0.18), (1.30, -2.2), (-1.30, -2.2),
)  # fmt: skip
_NECK = (
    (-0.66, 1.0), (-0.64, 1.6), (-0.67, 1.95), (-0.85, 2.2), (-1.5, 2.42), (-2.3, 2.62), (-2.4, 4.2),
    (2.4, 4.2), (2.3, 2.62), (1.5, 2.42), (0.85, 2.2), (0.67, 1.95), (0.64, 1.6), (0.66, 1.0),
)  # fmt: skip
_COLLAR = (
    (-2.6, 2.5),
    (-0.86, 2.12),
    (-0.5, 2.5),
    (0.0, 2.68),
    (0.5, 2.5),
    (0.86, 2.12),
    (2.6, 2.5),
    (2.6, 4.4),
    (-2.6, 4.4),
)


@dataclass(frozen=True)
class Parts:
    """Where what is, each H×W float32 in 0…1: the `body` and its `head`, and what is no bare skin there."""

    body: Float32Array
    head: Float64Array
    hair: Float32Array
    cloth: Float32Array
    eyes: Float32Array
    brows: Float32Array
    lips: Float32Array
    nostrils: Float32Array
    mouth: Float32Array
    lashes: Float32Array
    ears: Float32Array

    def bare(self, face: Float32Array) -> Float32Array:
        """Bare skin of the `face`, H×W float32."""
        no_skin = [self.hair, self.eyes, self.brows, self.lips, self.nostrils, self.mouth, self.lashes]
        return np.asarray(face * (1 - np.maximum.reduce(no_skin)), np.float32)


def parts_of(plan: Plan, rng: np.random.Generator) -> Parts:
    """The parts of one phantom's head."""
    px = 1 / plan.mm_per_px
    oval = plan.outline("face_oval")
    grown = oval + 0.02 * (oval - oval.mean(axis=0))
    face = plan.fill(grown, 1.2 * px)
    head = np.maximum(face, _ellipse(plan, *_SKULL, 1.0 * px))
    ears = np.maximum(*(_ellipse(plan, side * 1.045, 0.26, 0.105, 0.34, 1.2 * px) for side in (-1, 1)))
    neck = plan.fill(rounded(plan.picture(_NECK)), 0.8 * px)
    hair = plan.fill(rounded(plan.picture(_HAIRLINE), rounds=2), 1.8 * px)
    fringe = (hair > 0.02) * (hair < 0.98)
    hair = np.clip(1.25 * hair + 0.6 * fringe * (_strands(plan, rng) - 0.5), 0, 1)
    hair *= _ellipse(plan, *_HAIR_OUTSIDE, 1.5 * px)
    cloth = plan.fill(rounded(plan.picture(_COLLAR)), 0.5 * px)
    eyes = np.maximum(plan.fill(plan.outline("right_eye"), 0.4), plan.fill(plan.outline("left_eye"), 0.4))
    lips = plan.fill(plan.outline("lips_outer"), 0.5 * px)
    return Parts(
        body=np.maximum.reduce([head, neck, ears]),
        head=np.maximum(head, hair),
        hair=hair.astype(np.float32),
        cloth=cloth,
        eyes=eyes,
        brows=_brows(plan, rng),
        lips=lips,
        nostrils=_nostrils(plan, px),
        mouth=_mouth_line(plan, px),
        lashes=_lashes(plan, px, rng),
        ears=ears,
    )


def paint(
    plan: Plan,
    parts: Parts,
    diffuse: Float32Array,
    shine: Float32Array,
    darkness: float,
    rng: np.random.Generator,
) -> None:
    """Paint `parts` over skin's `diffuse` (H×W×3) and `shine` (H×W), in place.

    `darkness` of hair and irises goes from 0 (fair) to 1 (black).
    """
    hair_colour, iris_colour = _mixed(_HAIR, darkness), _mixed(_IRIS, darkness)
    strands = _strands(plan, rng)
    _lay(diffuse, parts.mouth * 0.8, _DARK * 2)
    for side in (-1, 1):
        diffuse *= 1 - 0.55 * _ellipse(plan, side * 1.06, 0.27, 0.035, 0.16, 2.5 / plan.mm_per_px)[:, :, None]
    _lay(diffuse, parts.nostrils * 0.92, _DARK)
    _lay(diffuse, parts.brows * 0.88, hair_colour * 0.8)
    _eyes(plan, parts, diffuse, shine, iris_colour, rng)
    _lay(diffuse, parts.lashes, _DARK)
    shine *= 1 - np.maximum.reduce([parts.nostrils, parts.mouth, 0.7 * parts.brows, parts.lashes])
    weave = rng.standard_normal(parts.cloth.shape).astype(np.float32)
    _lay(diffuse, parts.cloth, _CLOTH * (1 + 0.12 * cv2.GaussianBlur(weave, (0, 0), 1.2))[:, :, None])
    _lay(diffuse, 1 - parts.body, _HOOD)
    _lay(diffuse, parts.hair, hair_colour * (0.45 + 1.1 * strands[:, :, None]))
    shine *= (1 - parts.cloth) * parts.body * (1 - parts.hair)
    shine += 0.04 * parts.hair * np.clip(strands - 0.62, 0, 1)


def _lay(target: Float32Array, mask: Float32Array, colour: Float32Array) -> None:
    target += mask[:, :, None] * (colour - target)


def _mixed(colours: Float64Array, share: float) -> Float32Array:
    at = np.clip(share, 0, 1) * (len(colours) - 1)
    rows = np.arange(len(colours))
    return np.array([np.interp(at, rows, colours[:, band]) for band in range(3)], np.float32)


def _ellipse(plan: Plan, u: float, v: float, breadth: float, height: float, blur_px: float) -> Float32Array:
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    ring = np.column_stack([u + breadth * np.cos(turn), v + height * np.sin(turn)])
    return plan.fill(plan.picture(ring), blur_px)


def _strands(plan: Plan, rng: np.random.Generator) -> Float32Array:
    """Hair combed away from the parting: H×W float32 about 0.5, in 0…1."""
    across, along = 1600, 48
    noise = rng.standard_normal((along, across)).astype(np.float32)
    locks = cv2.GaussianBlur(noise, (0, 0), 1.4) + 1.5 * cv2.GaussianBlur(noise, (0, 0), 7.0)
    locks = locks / (3 * locks.std()) + 0.5
    ys, xs = np.mgrid[0 : plan.height, 0 : plan.width].astype(np.float32)
    x, y = plan.picture([(0.0, -0.35)])[0]
    angle = np.arctan2(ys - y, xs - x)
    radius = np.hypot(xs - x, ys - y) / plan.unit_px
    sway = 0.05 * np.sin(5 * radius)
    columns = ((angle + sway + np.pi) / (2 * np.pi) * (across - 1)).astype(np.float32)
    rows = np.clip(radius * 16, 0, along - 1).astype(np.float32)
    combed = cv2.remap(locks, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(np.clip(combed, 0, 1), np.float32)


def _brows(plan: Plan, rng: np.random.Generator) -> Float32Array:
    """Hairs, each a stroke from its root up and outwards."""
    canvas = np.zeros((plan.height, plan.width), np.uint8)
    full = np.zeros((plan.height, plan.width), np.float32)
    for side, name in ((-1, "right_brow"), (1, "left_brow")):
        outline = plan.outline(name)
        inside = plan.fill(outline)
        np.maximum(full, inside, out=full)
        rows, columns = np.nonzero(inside > 0.5)
        low, high = columns.min(), columns.max()
        for at in rng.integers(0, len(rows), 620):
            x, y = float(columns[at]), float(rows[at])
            outwards = (x - low) / (high - low) if side > 0 else (high - x) / (high - low)
            angle = np.radians(72 - 78 * outwards + rng.normal(0, 9))
            length = rng.uniform(3.0, 6.0) / plan.mm_per_px * (1 - 0.35 * outwards)
            end = (x + side * length * np.cos(angle), y - length * np.sin(angle) * 0.8)
            start = (round((x - 0.3 * (end[0] - x)) * 16), round((y - 0.3 * (end[1] - y)) * 16))
            cv2.line(canvas, start, (round(end[0] * 16), round(end[1] * 16)), (150,), 1, cv2.LINE_AA, 4)
    hairs = cv2.GaussianBlur(canvas.astype(np.float32) / 150, (0, 0), 0.7)
    root = cv2.GaussianBlur(full, (0, 0), 1.6 / plan.mm_per_px)
    return np.clip(0.9 * hairs * np.clip(2 * root, 0, 1) + 0.5 * root, 0, 0.97)


def _nostrils(plan: Plan, px: float) -> Float32Array:
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    found = np.zeros((plan.height, plan.width), np.float32)
    for side in (-1, 1):
        along, across = 0.058 * np.cos(turn), 0.021 * np.sin(turn)
        lean = 0.30
        us = side * (0.118 + along * np.cos(lean) - across * np.sin(lean))
        vs = 0.668 - along * np.sin(lean) * 0.35 + across * np.cos(lean)
        inside = plan.fill(plan.picture(np.column_stack([us, vs])), 0.65 * px)
        np.maximum(found, inside, out=found)
    return found


def _mouth_line(plan: Plan, px: float) -> Float32Array:
    inner = plan.outline("lips_inner")
    return np.clip(1.3 * plan.fill(inner, 0.55 * px), 0, 1)


def _lids(plan: Plan) -> list[tuple[int, Float64Array, Float64Array]]:
    """(side, upper lid, lower lid) of both eyes, each from the outer corner to the inner, in pixels."""
    found = []
    for side, ring in zip((-1, 1), EYES, strict=True):
        points = plan.landmarks[list(ring)]
        lower, upper = points[:9], np.vstack([points[:1], points[:7:-1]])
        found.append((side, rounded(upper, closed=False), rounded(lower, closed=False)))
    return found


def _lashes(plan: Plan, px: float, rng: np.random.Generator) -> Float32Array:
    canvas = np.zeros((plan.height, plan.width), np.uint8)

    def line(points: Float64Array, strength: int, breadth: int) -> None:
        path = [np.round(points * 16).astype(np.int32)]
        cv2.polylines(canvas, path, False, (strength,), breadth, cv2.LINE_AA, 4)

    for side, upper, lower in _lids(plan):
        line(upper, 235, max(2, round(0.75 * px)))
        line(lower[2:-4], 90, max(1, round(0.35 * px)))
        for share in np.linspace(0.02, 0.92, 42):
            x, y = upper[int(share * (len(upper) - 1))]
            angle = np.radians(115 - 75 * (1 - share)) + rng.normal(0, 0.12)
            length = px * rng.uniform(2.0, 4.2) * (1.1 - 0.45 * share)
            tip = np.array([x + side * length * np.cos(angle), y - length * np.sin(angle) * 0.75])
            line(np.array([[x, y], tip]), 190, 1)
    return np.asarray(cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.6), np.float32)


def crease(plan: Plan) -> Float32Array:
    """The fold of the upper lids, as a soft line H×W float32 in 0…1."""
    canvas = np.zeros((plan.height, plan.width), np.uint8)
    for _, upper, _ in _lids(plan):
        raised = upper[3:-5].copy()
        bow = np.sin(np.linspace(0.12, 1, len(raised)) * np.pi) ** 0.6
        raised[:, 1] -= (1.2 + 2.4 * bow) / plan.mm_per_px
        path = [np.round(raised * 16).astype(np.int32)]
        cv2.polylines(canvas, path, False, (255,), 3, cv2.LINE_AA, 4)
    line = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.45 / plan.mm_per_px)
    return np.asarray(line, np.float32)


def _eyes(
    plan: Plan,
    parts: Parts,
    diffuse: Float32Array,
    shine: Float32Array,
    iris_colour: Float32Array,
    rng: np.random.Generator,
) -> None:
    px = 1 / plan.mm_per_px
    for side, (_, upper, lower) in zip(("right", "left"), _lids(plan), strict=True):
        middle, breadth = plan.eye(side)
        half = round(0.75 * breadth)
        left, top = int(middle[0]) - half, int(middle[1]) - half
        here = (slice(top, top + 2 * half), slice(left, left + 2 * half))
        ys, xs = np.mgrid[here].astype(np.float32)
        mask = parts.eyes[here]
        opening = (upper[len(upper) // 2, 1] + lower[len(lower) // 2, 1]) / 2
        centre = np.array([middle[0], opening - 0.4 * px])
        distance = np.hypot(xs - centre[0], ys - centre[1]) * plan.mm_per_px
        angle = np.arctan2(ys - centre[1], xs - centre[0])
        # The ball turns away to its corners, and the upper lid shades it.
        ball = 1 - 0.35 * np.clip(np.abs(xs - middle[0]) / (0.55 * breadth), 0, 1.2) ** 2
        lid = np.interp(xs[0], np.sort(upper[:, 0]), upper[np.argsort(upper[:, 0]), 1])
        ball *= 1 - 0.5 * np.exp(-np.clip(ys - lid, 0, None) / (1.5 * px))
        colour = np.array([0.50, 0.45, 0.42], np.float32) * ball[:, :, None]
        near_inner = np.exp(
            -(((xs - (middle[0] + (1 if side == "right" else -1) * breadth / 2)) / (2.2 * px)) ** 2)
        )
        colour += (0.6 * near_inner)[:, :, None] * (np.array([0.42, 0.18, 0.15]) * ball[:, :, None] - colour)
        rays = np.interp(angle, np.linspace(-np.pi, np.pi, 181), _ring_noise(rng, 181))
        edge = np.clip(0.5 - (distance - _IRIS_MM / 2) / 0.6, 0, 1)
        within = np.clip(distance / (_IRIS_MM / 2), 0, 1)
        iris = (
            iris_colour
            * (1.15 + 0.35 * rays - 0.75 * within**6 + 0.35 * np.exp(-(((within - 0.42) / 0.12) ** 2)))[
                :, :, None
            ]
        )
        colour += edge[:, :, None] * (iris * (0.4 + 0.6 * ball)[:, :, None] - colour)
        pupil = np.clip(0.5 - (distance - _PUPIL_MM / 2) / 0.4, 0, 1)
        colour += pupil[:, :, None] * (0.006 - colour)
        diffuse[here] += mask[:, :, None] * (colour.astype(np.float32) - diffuse[here])
        shine[here] *= 1 - mask
        # Two lamps beside the lens are seen in the cornea.
        for shift in (-1.1, 1.1):
            glint = np.hypot(xs - centre[0] - shift * px, ys - centre[1] + 1.3 * px) * plan.mm_per_px
            shine[here] += mask * (0.5 * np.exp(-((glint / 0.42) ** 2))).astype(np.float32)


def _ring_noise(rng: np.random.Generator, count: int) -> Float64Array:
    values = rng.standard_normal(count)
    values = np.convolve(np.concatenate([values, values, values]), [0.25, 0.5, 0.25], "same")[
        count : 2 * count
    ]
    values[-1] = values[0]
    return np.asarray(values)
