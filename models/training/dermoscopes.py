"""Close-ups as other dermoscopes, other hands and other skins would have given them, kind by kind.

Each kind is drawn over a true close-up and leaves it one. The refusal is fitted to FITTED; UNSEEN only tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from hardware.srgb import srgb_coded, srgb_linear
from models.analysis.picture import read_labels, read_picture

Draw = np.random.Generator
Alter = Callable[[np.ndarray, np.ndarray, Draw], np.ndarray]
"""(picture H×W×3 uint8 sRGB, its lesion's mask H×W uint8, draw) to a picture."""

_LEFT_IN = (
    "dark corners, circle",
    "dark corners, ellipse",
    "dark frame, square",
    "lesion on 2 to 8 %",
    "thin dark hairs",
    "gel bubbles",
    "ruler",
    "pen ink",
    "sticker",
)
# Optical density that melanin adds to skin in R, G, B: absorption falls with wavelength as λ^-3.33 (Jacques).
_MELANIN = np.array([0.55, 0.78, 1.36])


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _linear(picture: np.ndarray) -> np.ndarray:
    return srgb_linear(picture.astype(np.float64) / 255)


def _coded(light: np.ndarray) -> np.ndarray:
    return _as_bytes(255 * srgb_coded(np.clip(light, 0, 1)))


def _over(picture: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`colour` over the picture, by `cover` (h, w) 0…1."""
    cover = cover[..., None]
    return _as_bytes(picture * (1 - cover) + colour * cover)


def _strokes(shape: tuple[int, ...], draw: Draw, count: int, width: tuple[float, float]) -> np.ndarray:
    """(h, w) 0…1: arcs across a picture; widths are shares of its longer side."""
    height, across = shape[:2]
    fine = 4
    cover = np.zeros((height * fine, across * fine), np.uint8)
    for _ in range(count):
        start = draw.uniform(-0.1, 1.1, 2) * [across, height]
        way = draw.uniform(0, 2 * np.pi)
        reach = draw.uniform(0.3, 1.3) * across
        ends = start + reach * np.array([np.cos(way), np.sin(way)])
        bend = (start + ends) / 2 + draw.normal(0, 0.2, 2) * reach
        t = np.linspace(0, 1, 40)[:, None]
        line = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * ends
        thick = max(1, round(draw.uniform(*width) * across * fine))
        cv2.polylines(cover, [np.rint(line * fine).astype(np.int32)], False, 255, thick, cv2.LINE_AA)
    return cv2.resize(cover, (across, height), interpolation=cv2.INTER_AREA).astype(np.float64) / 255


def hairs(
    picture: np.ndarray, _mask: np.ndarray, draw: Draw, *, width: tuple[float, float], fair: bool = False
) -> np.ndarray:
    """Hairs as thick as shares of the picture's longer side, from black to red-brown, or fair to white."""
    cover = _strokes(picture.shape, draw, int(draw.integers(4, 25)), width)
    dark = draw.uniform(5, 70) * np.array([1.0, draw.uniform(0.6, 1), draw.uniform(0.35, 1)])
    light = draw.uniform(190, 250) * np.array([1.0, draw.uniform(0.85, 1), draw.uniform(0.6, 1)])
    return _over(picture, cover * draw.uniform(0.7, 1), light if fair else dark)


def bubbles(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Bubbles of the contact gel: bright rims, dim outsides, a glint in each."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    made = picture.astype(np.float64)
    for _ in range(int(draw.integers(3, 30))):
        radius = width * np.exp(draw.uniform(np.log(0.012), np.log(0.09)))
        centre = draw.uniform(0, 1, 2) * [width, height]
        away = np.hypot(x - centre[0], y - centre[1]) / radius
        thick = draw.uniform(0.08, 0.25)
        rim = np.exp(-(((away - 1) / thick) ** 2))[..., None]
        shade = np.exp(-(((away - 1 - 1.5 * thick) / thick) ** 2))[..., None]
        spot = centre + radius * 0.5 * draw.uniform(-1, 1, 2)
        glint = np.exp(-((np.hypot(x - spot[0], y - spot[1]) / (0.22 * radius)) ** 2))[..., None]
        made *= 1 - draw.uniform(0.05, 0.35) * shade
        made += (255 - made) * np.clip(draw.uniform(0.3, 0.8) * rim + draw.uniform(0.6, 1) * glint, 0, 1)
    return _as_bytes(made)


def cast(picture: np.ndarray, _mask: np.ndarray, draw: Draw, *, red: float, green: float = 0.0) -> np.ndarray:
    """Light or a white balance with so many stops more of red than of blue, and more of green."""
    strength = draw.uniform(0.5, 1)
    stops = strength * np.array([red / 2, green, -red / 2])
    stops -= max(0.0, float(stops.max())) * draw.uniform(0, 1)
    return _coded(_linear(picture) * np.exp2(stops))


def corners(picture: np.ndarray, _mask: np.ndarray, draw: Draw, *, power: float, oval: float) -> np.ndarray:
    """All dark but for a superellipse of `power` (2 a circle, 30 a frame), `oval` times as wide as high."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    centre = np.array([width, height]) * (0.5 + draw.uniform(-0.06, 0.06, 2))
    radius = height * draw.uniform(0.45, 0.62)
    away = (
        np.abs((x - centre[0]) / (radius * oval)) ** power + np.abs((y - centre[1]) / radius) ** power
    ) ** (1 / power)
    soft = draw.uniform(0.005, 0.12)
    cover = 1 / (1 + np.exp(-np.clip((away - 1) / soft * 4, -50, 50)))
    return _over(picture, cover, draw.uniform(0, 28, 3))


def framed_white(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """A white border, as of a printed or scanned picture."""
    made = picture.copy()
    edge = [int(v) for v in draw.uniform(0.02, 0.14, 4) * picture.shape[0]]
    white = draw.integers(215, 256, 3)
    made[: edge[0]], made[picture.shape[0] - edge[1] :] = white, white
    made[:, : edge[2]], made[:, picture.shape[1] - edge[3] :] = white, white
    return made


def small_lesion(picture: np.ndarray, mask: np.ndarray, draw: Draw) -> np.ndarray:
    """The lesion on 2 to 8 % of the picture, the skin about it going on."""
    share = draw.uniform(0.02, 0.08)
    times = np.sqrt(max((mask > 0).mean(), share) / share)
    height, width = picture.shape[:2]
    if times < 1.05:
        return picture
    size = (max(8, round(width / times)), max(8, round(height / times)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    hole = cv2.dilate(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.ones((5, 5), np.uint8))
    # The skin without the lesion, mirrored outwards, so that no second lesion appears.
    bare = cv2.inpaint(small, hole, 3, cv2.INPAINT_TELEA)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    edges = (top, height - size[1] - top, left, width - size[0] - left)
    # numpy's mirror goes on mirroring where it has to reach farther than the picture does.
    made = np.pad(bare, (edges[:2], edges[2:], (0, 0)), mode="reflect")
    rough = max(0.5, float((small.astype(float) - cv2.GaussianBlur(small, (0, 0), 1)).std()))
    made = _as_bytes(made + draw.normal(0, rough, made.shape))
    made[top : top + size[1], left : left + size[0]] = small
    return made


def large_lesion(picture: np.ndarray, mask: np.ndarray, draw: Draw) -> np.ndarray:
    """The lesion on 70 to 95 % of the picture, as near as a cut can bring it."""
    goal = draw.uniform(0.7, 0.95)
    height, width = picture.shape[:2]
    places = np.argwhere(mask > 0)
    if not len(places):
        return picture
    middle = places.mean(0)
    for times in np.linspace(1, 0.12, 45):
        h, w = max(8, round(height * times)), max(8, round(width * times))
        top, left = np.clip(middle - [h / 2, w / 2], 0, [height - h, width - w]).astype(int)
        if (mask[top : top + h, left : left + w] > 0).mean() >= goal:
            break
    part = picture[top : top + h, left : left + w]
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)


def sharper(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """An unsharp mask, as many cameras put over their pictures."""
    soft = cv2.GaussianBlur(picture, (0, 0), draw.uniform(0.5, 1.5) * picture.shape[1] / 200)
    return _as_bytes(picture + draw.uniform(0.6, 2.2) * (picture.astype(np.float64) - soft))


def blurrier(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Out of focus by up to 1.2 % of the longer side."""
    return cv2.GaussianBlur(picture, (0, 0), draw.uniform(0.004, 0.012) * picture.shape[1])


def shaken(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Blurred along one way."""
    length = max(3, round(draw.uniform(0.015, 0.045) * picture.shape[1]))
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, (0, length // 2), (length - 1, length // 2), 1.0)
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), float(draw.uniform(0, 180)), 1.0)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return np.asarray(cv2.filter2D(picture, -1, kernel / max(1e-6, float(kernel.sum()))))


def curve(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Another camera's gamma, contrast and saturation."""
    tone = 255 * (picture / 255.0) ** np.exp(draw.uniform(-0.45, 0.45))
    grey = tone.mean(2, keepdims=True)
    tone = grey + (tone - grey) * np.exp(draw.uniform(-0.5, 0.4))
    return _as_bytes(tone.mean() + (tone - tone.mean()) * np.exp(draw.uniform(-0.35, 0.35)))


def s_curve(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Blacks and whites pressed together, as in a phone's picture."""
    steep = draw.uniform(4, 8)
    middle = draw.uniform(0.4, 0.65)
    low, high = (1 / (1 + np.exp(-steep * (edge - middle))) for edge in (0.0, 1.0))
    tone = 1 / (1 + np.exp(-steep * (picture / 255.0 - middle)))
    return _as_bytes(255 * (tone - low) / (high - low))


def crossed(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Another sensor's colours: a mild matrix over linear light, its rows summing to one."""
    mix = draw.normal(0, 0.12, (3, 3))
    mix -= np.diag(np.diag(mix))
    mix += np.diag(1 - mix.sum(1))
    return _coded(_linear(picture) @ mix.T)


def exposed(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """A stop too little to two thirds of one too much."""
    return _coded(_linear(picture) * np.exp2(draw.choice([draw.uniform(-1.2, -0.4), draw.uniform(0.3, 0.7)])))


def compressed(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """JPEG of quality 15 to 50."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(draw.integers(15, 51))]
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR))


def grainy(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Noise of 4 to 16 of 255."""
    return _as_bytes(picture + draw.normal(0, draw.uniform(4, 16), picture.shape))


def ruler(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """A ruler's ticks along one edge, on its own strip, on glass or none."""
    height, width = picture.shape[:2]
    made = picture.copy()
    upright = bool(draw.integers(0, 2))
    length, depth = (height, width) if upright else (width, height)
    pitch = length * draw.uniform(0.018, 0.06)
    ink = [int(v) for v in draw.uniform(0, 70) + draw.uniform(-5, 5, 3)]
    if draw.integers(0, 2):
        strip = int(depth * draw.uniform(0.1, 0.2))
        paper = draw.uniform(170, 250)
        part = made[:, :strip] if upright else made[:strip]
        part[:] = _as_bytes(part * 0.2 + paper * 0.8)
    thick = max(1, round(pitch * draw.uniform(0.12, 0.3)))
    for i in range(int(length / pitch) + 1):
        place = round(i * pitch + pitch / 2)
        tall = round(depth * (0.12 if i % 10 == 0 else 0.09 if i % 5 == 0 else 0.06))
        ends = ((0, place), (tall, place)) if upright else ((place, 0), (place, tall))
        cv2.line(made, *ends, ink, thick, cv2.LINE_AA)
    return made[:, ::-1].copy() if upright and draw.integers(0, 2) else made


def ink(picture: np.ndarray, mask: np.ndarray, draw: Draw) -> np.ndarray:
    """A surgical marker's strokes about the lesion: violet, blue, green or black-blue."""
    height, width = picture.shape[:2]
    tints = ((95, 45, 150), (50, 50, 165), (30, 60, 130), (20, 110, 110), (70, 20, 110))
    tint = np.array(tints[int(draw.integers(0, len(tints)))]) * draw.uniform(0.75, 1.25)
    cover = np.zeros((height, width), np.uint8)
    thick = max(2, round(width * draw.uniform(0.012, 0.035)))
    for _ in range(int(draw.integers(1, 5))):
        start = draw.uniform(0.03, 0.97, 2) * [width, height]
        way = draw.uniform(0, 2 * np.pi) + np.cumsum(draw.normal(0, 0.25, 14))
        steps = width * draw.uniform(0.01, 0.03) * np.stack([np.cos(way), np.sin(way)], 1)
        line = np.rint(start + np.cumsum(steps, 0)).astype(np.int32)
        cv2.polylines(cover, [line], False, 255, thick, cv2.LINE_AA)
    free = cv2.GaussianBlur(cover, (0, 0), max(0.5, thick / 5)) / 255.0
    if draw.integers(0, 2):
        # A careful hand does not write over the lesion.
        free = free * (cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0)
    # Ink takes away light where the skin is bright, rather than covering it.
    return _as_bytes(picture * (1 - free[..., None] * draw.uniform(0.6, 0.95) * (1 - tint / 255)))


def sticker(picture: np.ndarray, mask: np.ndarray, draw: Draw) -> np.ndarray:
    """A coloured round sticker, whole or cut by the edge, as stood beside lesions in many clinics."""
    height, width = picture.shape[:2]
    hue = draw.choice([draw.uniform(20, 65), draw.uniform(80, 165)])  # OpenCV's, of 180: no skin's red
    tint = np.array([[[hue, draw.integers(130, 240), draw.integers(110, 235)]]], np.uint8)
    colour = cv2.cvtColor(tint, cv2.COLOR_HSV2RGB)
    # The corner that is farthest from the lesion.
    places = np.argwhere(mask > 0)
    middle = places.mean(0)[::-1] if len(places) else np.array([width / 2, height / 2])
    ends = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    centre = ends[np.linalg.norm(ends - middle, axis=1).argmax()]
    centre = centre + (np.array([width, height]) / 2 - centre) * draw.uniform(0, 0.25, 2)
    radius = width * draw.uniform(0.08, 0.2)
    y, x = np.mgrid[0:height, 0:width]
    away = np.hypot(x - centre[0], y - centre[1]) / radius
    shade = 1 + draw.normal(0, 0.02, (height, width, 1))
    return _over(picture, 1 / (1 + np.exp(np.clip((away - 1) * 60, -50, 50))), colour[0, 0] * shade)


def darker_skin(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """More melanin in all of the skin: tan to deep brown."""
    return _coded(_linear(picture) * 10 ** (-draw.uniform(0.15, 0.75) * _MELANIN))


def paler_skin(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Less melanin in all of the skin, or a flash nearer to it."""
    return _coded(np.clip(_linear(picture), 0, 1) ** draw.uniform(0.6, 0.85))


def glare(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Unpolarised light: soft white reflections."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    cover = np.zeros((height, width))
    for _ in range(int(draw.integers(1, 5))):
        centre, size = draw.uniform(0, 1, 2) * [width, height], draw.uniform(0.02, 0.12, 2) * width
        cover = np.maximum(
            cover, np.exp(-(((x - centre[0]) / size[0]) ** 2) - ((y - centre[1]) / size[1]) ** 2)
        )
    return _over(picture, cover * draw.uniform(0.5, 0.95), np.array([255.0, 255, 255]))


def labelled(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """A date, a number or a scale burnt into a corner."""
    made = picture.copy()
    height, width = picture.shape[:2]
    size = width / 200 * draw.uniform(0.3, 0.5)
    light = [int(v) for v in (255, 255, draw.choice([0, 255]))]
    text = "".join(str(d) for d in draw.integers(0, 10, 8))
    place = (int(draw.uniform(0.02, 0.4) * width), int(draw.choice([0.1, 0.97]) * height))
    thick = max(1, round(size * 1.6))
    cv2.putText(made, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, light, thick, cv2.LINE_AA)
    return made


def greyish(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Most of the colour gone."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float64)
    return _as_bytes(grey + (picture - grey) * draw.uniform(0.15, 0.5))


def coarse(picture: np.ndarray, _mask: np.ndarray, draw: Draw) -> np.ndarray:
    """From a sensor of few pixels, enlarged."""
    share = draw.uniform(0.3, 0.6)
    small = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    how = int(draw.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC]))
    return cv2.resize(small, picture.shape[1::-1], interpolation=how)


FITTED: dict[str, Alter] = {
    "thin dark hairs": partial(hairs, width=(0.002, 0.006)),
    "thick dark hairs": partial(hairs, width=(0.008, 0.025)),
    "fair hairs": partial(hairs, width=(0.002, 0.012), fair=True),
    "gel bubbles": bubbles,
    "blue cast": partial(cast, red=-1.6),
    "orange cast": partial(cast, red=1.6),
    "green or magenta cast": lambda picture, mask, draw: cast(
        picture, mask, draw, red=0, green=0.5 * draw.choice([-1, 1])
    ),
    "dark corners, circle": partial(corners, power=2.0, oval=1.0),
    "dark corners, ellipse": partial(corners, power=2.0, oval=1.35),
    "dark frame, square": partial(corners, power=30.0, oval=1.0),
    "white frame": framed_white,
    "lesion on 2 to 8 %": small_lesion,
    "lesion on 70 to 95 %": large_lesion,
    "sharper": sharper,
    "blurrier": blurrier,
    "another tone curve": curve,
    "another sensor's colours": crossed,
    "another exposure": exposed,
    "JPEG 15 to 50": compressed,
    "noise of 4 to 16": grainy,
    "ruler": ruler,
    "pen ink": ink,
    "sticker": sticker,
    "darker skin": darker_skin,
    "paler skin": paler_skin,
    "little colour": greyish,
}
UNSEEN: dict[str, Alter] = {
    "dark frame, oblong": partial(corners, power=30.0, oval=1.3),
    "shaken": shaken,
    "an S curve": s_curve,
    "few pixels": coarse,
    "glare": glare,
    "burnt-in text": labelled,
}


def another_camera(picture: np.ndarray, mask: np.ndarray, draw: Draw) -> np.ndarray:
    """Four kinds at once: what the clinic left in the picture, focus or JPEG, tone curve, colours."""
    first = str(draw.choice(_LEFT_IN))
    then = str(draw.choice(["sharper", "blurrier", "JPEG 15 to 50"]))
    for name in (first, then, "another sensor's colours", "another tone curve"):
        picture = np.ascontiguousarray(FITTED[name](picture, mask, draw))
    return picture


UNSEEN["another camera altogether"] = another_camera


def altered(picture: np.ndarray, mask: np.ndarray, kinds: Sequence[Alter], draw: Draw) -> np.ndarray:
    """The picture with `kinds` one over the other, every second at twice its size, where lines are finer."""
    if draw.integers(0, 2):
        picture = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(mask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    for kind in kinds:
        picture = np.ascontiguousarray(kind(picture, mask, draw))
    return picture


def read_lesion(folder: Path, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """A picture of HAM10000 (H×W×3 uint8 sRGB) with the mask of its lesion (H×W uint8)."""
    picture = read_picture(folder / "images" / f"{row['image_id']}.jpg")
    return picture, read_labels(folder / "masks" / f"{row['image_id']}.png")
