"""Skin optics: what a portrait shows, taken apart into shine, melanin, haemoglobin, to be lit anew.

A first model. It works on the optical density of the portrait's linear colours, OD = −log10(R), with one
direction for melanin and one for haemoglobin in (red, green, blue). Both are from their absorption through
sRGB's bands: melanin falls as a power of the wavelength (Jacques 1998), haemoglobin peaks in the green.
"""

from __future__ import annotations

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array

MELANIN_OD = np.array([0.43, 0.61, 0.86], np.float32) / np.float32(0.61)
HAEMOGLOBIN_OD = np.array([0.05, 1.0, 0.62], np.float32)
# A base of bloodless, unpigmented skin.
_BASE_R = np.array([0.86, 0.76, 0.66], np.float32)
_FLOOR = 0.004


def split_shine(
    picture: Float32Array, skin: Float32Array, face_px: float
) -> tuple[Float32Array, Float32Array]:
    """(diffuse, shine): `picture` (linear RGB float32 H×W×3) less the gloss on `skin` (H×W in 0…1).

    Gloss adds the lamp's own white, most visible where the skin is darkest: what of the smallest colour
    channel stands out of its surroundings (a third of the face wide) is taken for gloss.
    """
    height, width = picture.shape[:2]
    small = cv2.resize(
        picture.min(axis=2), (max(8, width // 8), max(8, height // 8)), interpolation=cv2.INTER_AREA
    )
    weight = cv2.resize(skin, small.shape[::-1], interpolation=cv2.INTER_AREA) + 1e-3
    sigma = max(1.0, face_px / 8 / 6)
    around = cv2.GaussianBlur(small * weight, (0, 0), sigma) / cv2.GaussianBlur(weight, (0, 0), sigma)
    # A second pass leaves out what stands out of the first: gloss must not lift its own baseline, and
    # brows or nostrils must not lower it.
    weight *= (small <= 1.1 * around) & (small >= 0.75 * around)
    around = cv2.GaussianBlur(small * weight, (0, 0), sigma) / (
        cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-6
    )
    baseline = cv2.resize(around, (width, height), interpolation=cv2.INTER_LINEAR)
    least = picture.min(axis=2)
    shine = np.clip(least - 1.15 * baseline, 0, None) * skin
    shine = cv2.GaussianBlur(shine, (0, 0), max(0.6, face_px / 200))
    # Where the picture is burnt out nothing tells skin from gloss: leave it some of its own light.
    most = 0.5 * least + 1e-6
    shine = most * (1 - np.exp(-shine / most))
    diffuse = picture - shine[:, :, None]
    # A highlight's colour is the lamp's: give the skin under it the hue of the skin around it.
    tiny = cv2.resize(diffuse, small.shape[::-1], interpolation=cv2.INTER_AREA) * weight[:, :, None]
    hue = cv2.GaussianBlur(tiny, (0, 0), sigma)
    hue = cv2.resize(hue / (hue.sum(axis=2, keepdims=True) + 1e-6), (width, height))
    share = np.clip(5.0 * shine / (least + 1e-6) - 1.0, 0, 1)[:, :, None]
    hue *= diffuse.sum(axis=2, keepdims=True)
    diffuse += share * (hue - diffuse)
    return diffuse, shine


def melanin_map(diffuse: Float32Array) -> Float32Array:
    """Melanin as optical density in the green over a fair base, H×W float32, of diffuse linear RGB."""
    density = -np.log10(np.maximum(diffuse / _BASE_R, _FLOOR))
    basis = np.stack([MELANIN_OD, HAEMOGLOBIN_OD, np.ones(3, np.float32)], axis=1)
    return np.asarray(density @ np.linalg.inv(basis)[0].astype(np.float32), np.float32)


def skin_likeness(diffuse: Float32Array, skin: Float32Array) -> Float32Array:
    """How much each pixel has the colour of the skin marked by `skin`: H×W float32 in 0…1, any brightness."""
    total = diffuse.sum(axis=2) + 1e-3
    chroma = diffuse[:, :, :2] / total[:, :, None]
    marked = chroma[skin > 0.9]
    if len(marked) < 100:
        return skin
    middle = np.median(marked, axis=0)
    spread = 3.0 * np.median(np.abs(marked - middle), axis=0) + 0.02
    distance = (((chroma - middle) / spread) ** 2).sum(axis=2)
    bright = np.clip(total / np.float32(0.35 * np.median(total[skin > 0.9])) - 0.3, 0, 1)
    return np.asarray(np.exp(-0.5 * distance) * bright, np.float32)


def fluorescence(
    diffuse: Float32Array, melanin: Float32Array, skin: Float32Array, face_px: float
) -> Float32Array:
    """What a colour camera records under 365 nm, H×W×3 float32: collagen's blue-green light, dimmed where
    melanin takes the UV before it gets there, with a little of the lamp's violet leaking through.

    Fine melanin counts for more than in white light: pigment that white light hardly shows stands out.
    """
    smooth = cv2.GaussianBlur(melanin, (0, 0), max(0.8, face_px / 250))
    broad = cv2.GaussianBlur(melanin, (0, 0), max(1.0, face_px / 20))
    taken = 10.0 ** -np.clip(0.7 * broad + 2.2 * (smooth - broad), -0.3, 3)
    grey = cv2.GaussianBlur(diffuse.mean(axis=2), (0, 0), 0.8)
    quarter = (max(8, skin.shape[1] // 4), max(8, skin.shape[0] // 4))
    small_skin = np.asarray(cv2.resize(skin, quarter, interpolation=cv2.INTER_AREA), np.float32)
    small = np.asarray(cv2.resize(diffuse, quarter, interpolation=cv2.INTER_AREA), np.float32)
    likeness = skin_likeness(small, small_skin)
    own = np.asarray(cv2.GaussianBlur(likeness, (0, 0), max(0.6, face_px / 600)), np.float32)
    own *= np.clip(1.6 * cv2.GaussianBlur(small_skin, (0, 0), face_px / 4 / 30), 0, 1)
    whole = cv2.resize(own, skin.shape[::-1], interpolation=cv2.INTER_LINEAR)
    glow = whole * (0.3 * taken * (0.4 + 0.6 * np.sqrt(np.clip(grey / 0.5, 0, 1.5))))
    emission = np.array([0.30, 0.62, 1.0], np.float32)
    leak = np.array([0.05, 0.03, 0.16], np.float32)
    return np.asarray(glow[:, :, None] * emission + (0.55 * grey)[:, :, None] * leak)


def porphyrin_spots(
    landmarks: Float64Array, shape: tuple[int, int], face_px: float, rng: np.random.Generator
) -> Float32Array:
    """Red-orange points of light on nose, cheeks, chin and forehead: H×W float32 in 0…1."""
    # Landmarks on the wings of the nose, beside it, on the chin, between the brows.
    seats = [(4, 14), (129, 8), (358, 8), (50, 6), (280, 6), (199, 8), (9, 6), (151, 5)]
    height, width = shape
    spots = np.zeros(shape, np.float32)
    for index, count in seats:
        for _ in range(count):
            x, y = landmarks[index, :2] + rng.normal(0, 0.05 * face_px, 2)
            radius = face_px * rng.uniform(0.002, 0.004)
            reach = int(3 * radius) + 1
            x0, y0 = int(x) - reach, int(y) - reach
            if x0 < 0 or y0 < 0 or x0 + 2 * reach >= width or y0 + 2 * reach >= height:
                continue
            ys, xs = np.mgrid[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach]
            blob = rng.uniform(0.3, 1.0) * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * radius**2))
            patch = spots[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach]
            np.maximum(patch, blob, out=patch)
    return spots
