"""The skin of a phantom at rest: how melanin, blood, gloss and its finest relief vary over a face."""

from __future__ import annotations

import cv2
import numpy as np

from hardware.arrays import Float32Array
from hardware.simulated.phantom.plan import Plan
from hardware.simulated.scene import shading
from hardware.simulated.shape import Shape

# Sites of one face differ by 5 to 10° of ITA, which is a tenth to a third of their melanin.
# Where a face has more or less of a pigment than elsewhere: u (both sides where not 0), v, factor less 1,
# half breadth, half height on the mean face. Cheeks, nose and lips are redder, around the eyes it is
# darker.
_MELANIN_AT = (
    (0.0, -0.5, 0.14, 0.7, 0.3),
    (0.46, 0.08, 0.28, 0.22, 0.13),
    (0.24, 0.02, 0.16, 0.08, 0.10),
    (0.0, 1.02, 0.22, 0.5, 0.20),
    (0.62, 0.5, -0.10, 0.3, 0.3),
    (0.9, 0.9, 0.20, 0.25, 0.5),
    (0.0, 2.0, 0.12, 2.0, 0.4),
)
_BLOOD_AT = (
    (0.58, 0.52, 0.55, 0.28, 0.24),
    (0.0, 0.6, 0.60, 0.20, 0.14),
    (0.28, 0.62, 0.50, 0.06, 0.10),
    (0.46, 0.12, 0.25, 0.20, 0.06),
    (0.0, 1.4, 0.22, 0.25, 0.15),
    (1.05, 0.26, 0.50, 0.10, 0.35),
    (0.0, -0.5, -0.08, 0.7, 0.25),
)
# Blood's volume fraction in the skin of a face at rest, of the range in hardware.skin_spectra.
_BLOOD = (0.007, 0.014)
_LIP_BLOOD = 0.075
_COARSE = 8
# Lamps around the lens whose light together is that of the white, the polarised and the UV channels.
_RING_MM = ((150.0, 0.0, 320.0), (-150.0, 0.0, 320.0), (0.0, -150.0, 320.0), (0.0, 120.0, 320.0))
# The hood is white inside: so much of the light comes from all sides.
_HOOD_SHARE = 0.55


def relative_melanin(plan: Plan, rng: np.random.Generator) -> Float32Array:
    """Melanin relative to the face's base, H×W float32 about 1."""
    regions = 1 + _regions(plan, _MELANIN_AT)
    mottle = _mottle(plan, rng, ((14.0, 0.08), (4.0, 0.06), (1.3, 0.035), (0.4, 0.03)))
    return np.asarray(regions * np.exp(mottle), np.float32)


def blood_at_rest(plan: Plan, lips: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Blood's volume fraction in the dermis, H×W float32."""
    base = float(rng.uniform(*_BLOOD))
    mottle = _mottle(plan, rng, ((9.0, 0.10), (3.0, 0.10), (1.0, 0.07)))
    own = base * (1 + rng.uniform(0.7, 1.3) * _regions(plan, _BLOOD_AT)) * np.exp(mottle)
    creases = _mottle(plan, rng, ((0.9, 0.12),))
    return np.asarray(own + lips * (_LIP_BLOOD * np.exp(creases) - own), np.float32)


def microrelief(plan: Plan, skin: Float32Array, lips: Float32Array, rng: np.random.Generator) -> Float32Array:
    """The net of fine lines that skin has, some hundredths of a millimetre deep, in mm H×W float32."""
    net = _mottle(plan, rng, ((0.28, 0.006), (0.7, 0.010), (2.0, 0.02)))
    tall = rng.standard_normal((plan.height // 6, plan.width)).astype(np.float32)
    lines = cv2.GaussianBlur(
        cv2.resize(tall, (plan.width, plan.height)), (0, 0), 0.45 / plan.mm_per_px, sigmaY=8
    )
    folds = 0.05 * np.clip(lines / lines.std(), -2, 2)
    return np.asarray(net * skin + folds * lips, np.float32)


def ring_light(shape: Shape) -> Float32Array:
    """Light of the lamps around the lens on each place, H×W float32; 1 on a plane facing the camera."""
    height, width = shape.skin.shape
    step = 2
    coarse = Shape(
        shape.points_mm[::step, ::step], shape.normals[::step, ::step], shape.skin, shape.mm_per_px
    )
    lit = np.mean([shading(coarse, lamp) for lamp in _RING_MM], axis=0)
    lit = cv2.resize(lit, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(_HOOD_SHARE + (1 - _HOOD_SHARE) * lit, np.float32)


def shine_of(shape: Shape, plan: Plan, rng: np.random.Generator) -> Float32Array:
    """What the surface reflects of those lamps, H×W float32: most where the skin faces them and is oily."""
    facing = np.clip(shape.normals[:, :, 2], 0, 1)
    smooth = cv2.GaussianBlur(facing, (0, 0), 1.2 / plan.mm_per_px)
    oily = 0.35 + _regions(
        plan,
        (
            (0.0, 0.45, 1.0, 0.16, 0.3),
            (0.0, -0.45, 0.6, 0.5, 0.2),
            (0.6, 0.3, 0.4, 0.2, 0.12),
            (0.0, 1.4, 0.4, 0.2, 0.1),
        ),
    )
    grain = _mottle(plan, rng, ((0.3, 0.35), (0.9, 0.25)))
    oily *= 1 - _regions(plan, ((0.0, 2.1, 0.9, 2.0, 0.5),))
    lobe = 0.10 * smooth**40 + 0.006 * facing**12
    return np.asarray(lobe * oily * np.exp(grain) + 0.0008, np.float32)


def _regions(plan: Plan, table: tuple[tuple[float, ...], ...]) -> Float32Array:
    u, v = plan.to_mean(_COARSE)
    total = np.zeros(u.shape, np.float32)
    for x, y, amount, half_breadth, half_height in table:
        for place in {x, -x}:
            total += amount * np.exp(-(((u - place) / half_breadth) ** 2) - ((v - y) / half_height) ** 2)
    whole = cv2.resize(total, (plan.width, plan.height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(whole, np.float32)


def _mottle(plan: Plan, rng: np.random.Generator, layers: tuple[tuple[float, float], ...]) -> Float32Array:
    """Random variation, H×W float32 around 0: for each (size in mm, standard deviation) one layer."""
    total = np.zeros((plan.height, plan.width), np.float32)
    for size_mm, spread in layers:
        sigma = size_mm / plan.mm_per_px
        step = max(1, int(sigma / 2.5))
        noise = rng.standard_normal((plan.height // step + 2, plan.width // step + 2)).astype(np.float32)
        small = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma / step), np.float32)
        small *= spread / float(small.std())
        whole = cv2.resize(small, (plan.width, plan.height), interpolation=cv2.INTER_CUBIC)
        total += np.asarray(whole, np.float32)
    return total
