"""Pictures that are no skin close-ups, to fit the refusal on some kinds and to test it on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from skimage import data as examples

from models.analysis.picture import read_picture

HEIGHT, WIDTH = 300, 400
# scikit-image's example pictures: no scene is in both lists, so neither is the other eye's view of one.
FITTED = (
    "coffee camera chessboard_RGB grass logo text moon rocket horse motorcycle_left color hubble_deep_field"
)
TESTED = "astronaut chelsea brick gravel page coins clock_motion retina ihc phantom cell microaneurysms"
# Of the families' photographs, in the order in which they are taken: the last ones only test.
_ALL, _FAMILIES, _OTHER_FAMILIES = slice(None), slice(30), slice(30, None)
_UPRIGHT, _SERIF = (0, 2, 3), (4, 6, 7)

Draw = np.random.Generator


def strange_pictures(data: Path, *, tested: bool) -> Iterator[tuple[str, np.ndarray]]:
    """(kind, H×W×3 uint8 sRGB) one after the other. `data` has the unpacked archives of faces.

    Photographs, letters and shapes for testing are others than those for fitting; walls, bare or through a
    dermoscope, noise and darkness are of the same kinds, drawn anew.
    """
    draw = np.random.default_rng(6 if tested else 5)
    for name in (TESTED if tested else FITTED).split():
        yield from ((name, crop) for crop in _crops(example(name), draw, 9 if tested else 14))
    for kind, make, count in _tested(data) if tested else _fitted(data):
        yield from ((kind, make(draw, i)) for i in range(count))
    for name in (TESTED if tested else FITTED).split():
        for crop in _crops(example(name), draw, 3 if tested else 5):
            yield "scenes out of focus", cv2.GaussianBlur(crop, (0, 0), draw.uniform(4, 24))


def _fitted(data: Path) -> list[tuple[str, Callable[[Draw, int], np.ndarray], int]]:
    return [
        ("text", lambda draw, _: _text(draw, _UPRIGHT), 50),
        ("coloured walls", lambda draw, _: _wall(draw, _any_colour(draw)), 50),
        ("pale walls", lambda draw, _: _wall(draw, _pale(draw)), 30),
        ("walls in a skin's colour", lambda draw, _: _wall(draw, _skin_colour(draw)), 30),
        (
            "coloured surfaces through a dermoscope",
            lambda draw, _: _cornered(draw, _wall(draw, _any_colour(draw))),
            30,
        ),
        ("noise", lambda draw, _: _noise(draw), 40),
        ("dark frames", lambda draw, _: _dark(draw), 30),
        ("drawn objects", lambda draw, _: _objects(draw, 30), 60),
        ("families", _photographs(data / "pratheepan_family" / "images", _FAMILIES), 30),
        ("parts of families", _parts(data / "pratheepan_family" / "images", _FAMILIES), 150),
        ("faces with acne", _photographs(data / "acne04" / "train"), 60),
        ("parts of faces with acne", _parts(data / "acne04" / "train"), 60),
        ("nothing but hair", lambda draw, _: _hair(draw), 40),
        ("woven cloth", lambda draw, _: _cloth(draw, stripes=False), 40),
        ("a sky over land", lambda draw, _: _landscape(draw), 40),
    ]


def _tested(data: Path) -> list[tuple[str, Callable[[Draw, int], np.ndarray], int]]:
    return [
        ("text in other letters", lambda draw, _: _text(draw, _SERIF), 40),
        ("pale walls", lambda draw, _: _wall(draw, _pale(draw)), 40),
        ("walls in a skin's colour", lambda draw, _: _wall(draw, _skin_colour(draw)), 30),
        ("a dermoscope off the skin", lambda draw, _: _cornered(draw, _wall(draw, _pale(draw))), 30),
        ("noise", lambda draw, _: _noise(draw), 30),
        ("dark frames", lambda draw, _: _dark(draw), 30),
        ("drawn objects, angular", lambda draw, _: _objects(draw, 72), 40),
        ("portraits", _photographs(data / "fasseg_frontal03" / "images"), 40),
        ("parts of portraits", _parts(data / "fasseg_frontal03" / "images"), 40),
        ("other families", _photographs(data / "pratheepan_family" / "images", _OTHER_FAMILIES), 16),
        ("parts of other families", _parts(data / "pratheepan_family" / "images", _OTHER_FAMILIES), 60),
        ("nothing but hair", lambda draw, _: _hair(draw), 20),
        ("striped cloth", lambda draw, _: _cloth(draw, stripes=True), 30),
    ]


def example(name: str) -> np.ndarray:
    """H×W×3 uint8 sRGB: scikit-image's example picture of this name."""
    folder = Path(examples.__file__).parent
    [file] = [path for path in folder.iterdir() if path.stem == name]
    return read_picture(file)


def _photographs(folder: Path, which: slice = _ALL) -> Callable[[Draw, int], np.ndarray]:
    names = (".jpg", ".jpeg", ".png")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in names)
    files = [files[i * 7 % len(files)] for i in range(len(files))][which]
    return lambda _draw, i: read_picture(files[i % len(files)])


def _parts(folder: Path, which: slice = _ALL) -> Callable[[Draw, int], np.ndarray]:
    """Parts of photographs: a background, hair, cloth, half a face."""
    whole = _photographs(folder, which)

    def part(draw: Draw, i: int) -> np.ndarray:
        *_, crop = _crops(whole(draw, i), draw, 1)
        return np.ascontiguousarray(crop)

    return part


def _crops(picture: np.ndarray, draw: Draw, count: int) -> Iterator[np.ndarray]:
    height, width = picture.shape[:2]
    yield cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    for _ in range(count):
        w = int(min(width, height * 4 / 3) * draw.uniform(0.25, 0.9))
        h = int(w * 0.75)
        y, x = draw.integers(0, height - h + 1), draw.integers(0, width - w + 1)
        how = cv2.INTER_AREA if w > WIDTH else cv2.INTER_CUBIC
        yield cv2.resize(picture[y : y + h, x : x + w], (WIDTH, HEIGHT), interpolation=how)


def _text(draw: Draw, fonts: tuple[int, ...]) -> np.ndarray:
    page = np.full((HEIGHT, WIDTH, 3), draw.integers(180, 256), np.uint8)
    ink, size = [int(v) for v in draw.integers(0, 90, 3)], draw.uniform(0.4, 1.6)
    font = int(draw.choice(fonts))
    for y in range(20, HEIGHT, int(22 * size + 8)):
        line = "".join(chr(c) for c in draw.integers(65, 122, 30))
        cv2.putText(page, line, (5, y), font, size, ink, int(1 + size), cv2.LINE_AA)
    return page


def _any_colour(draw: Draw) -> np.ndarray:
    return draw.uniform(20, 250, 3)


def _pale(draw: Draw) -> np.ndarray:
    return draw.uniform(170, 245) + draw.uniform(-14, 14, 3)


def _skin_colour(draw: Draw) -> np.ndarray:
    return draw.uniform(140, 230) * np.array([1, 0.78, 0.66]) + draw.uniform(-6, 6, 3)


def _wall(draw: Draw, colour: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    slope = x * draw.uniform(-0.1, 0.1) + y * draw.uniform(-0.1, 0.1)
    grain = draw.normal(0, draw.uniform(1, 6), (HEIGHT, WIDTH, 1))
    return np.clip(colour + slope[..., None] + grain, 0, 255).astype(np.uint8)


def _cornered(draw: Draw, picture: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -4 / 3 : 4 / 3 : WIDTH * 1j]
    shade = np.clip((draw.uniform(1.0, 1.4) - np.hypot(x, y)) * 8, 0, 1)
    return (picture * shade[..., None]).astype(np.uint8)


def _noise(draw: Draw) -> np.ndarray:
    grain, size = draw.normal(0, 1, (HEIGHT, WIDTH, 3)), float(draw.choice([0, 1, 3, 10]))
    if size:
        grain = cv2.GaussianBlur(grain, (0, 0), size)
    grain = (grain - grain.mean()) / grain.std() * draw.uniform(20, 70) + draw.uniform(60, 190)
    return np.clip(grain, 0, 255).astype(np.uint8)


def _dark(draw: Draw) -> np.ndarray:
    return np.clip(draw.normal(draw.uniform(2, 25), draw.uniform(1, 6), (HEIGHT, WIDTH, 3)), 0, 255).astype(
        np.uint8
    )


def _objects(draw: Draw, degrees: int) -> np.ndarray:
    picture = np.tile(draw.integers(30, 250, 3).astype(np.uint8), (HEIGHT, WIDTH, 1))
    for _ in range(int(draw.integers(1, 5))):
        centre = (int(draw.integers(80, 320)), int(draw.integers(60, 240)))
        axes = (int(draw.integers(30, 150)), int(draw.integers(20, 80)))
        corners = cv2.ellipse2Poly(centre, axes, int(draw.integers(0, 180)), 0, 360, degrees)
        corners = corners + draw.integers(-12, 12, corners.shape).astype(np.int32)
        cv2.fillPoly(picture, [corners], [int(v) for v in draw.integers(0, 255, 3)])
    grainy = np.clip(picture + draw.normal(0, 5, picture.shape), 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(grainy, (0, 0), draw.uniform(0.6, 2))


def _hair(draw: Draw) -> np.ndarray:
    """A head of hair, from black to white: strands over strands."""
    tint = np.array([1.0, draw.uniform(0.7, 1), draw.uniform(0.4, 1)])
    base = draw.uniform(20, 150)
    picture = np.ones((HEIGHT, WIDTH, 3)) * tint * base
    way = draw.uniform(0, np.pi)
    for _ in range(int(draw.integers(250, 700))):
        start = draw.uniform(-0.2, 1.2, 2) * [WIDTH, HEIGHT]
        turn = way + draw.normal(0, 0.25)
        ends = np.rint([start, start + draw.uniform(60, 400) * np.array([np.cos(turn), np.sin(turn)])])
        colour = (tint * base * np.exp(draw.normal(0, 0.5))).clip(0, 255).tolist()
        cv2.line(picture, *ends.astype(int).tolist(), colour, int(draw.integers(1, 4)), cv2.LINE_AA)
    return cv2.GaussianBlur(np.clip(picture, 0, 255).astype(np.uint8), (0, 0), draw.uniform(0.5, 1.5))


def _cloth(draw: Draw, *, stripes: bool) -> np.ndarray:
    """A plain weave, or one with broad stripes, in folds."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    turn, pitch = draw.uniform(0, np.pi), draw.uniform(3, 14)
    along = (x * np.cos(turn) + y * np.sin(turn)) / pitch
    across = (y * np.cos(turn) - x * np.sin(turn)) / pitch
    weave = np.sin(2 * np.pi * along) * np.sin(2 * np.pi * across) * draw.uniform(4, 20)
    folds = cv2.GaussianBlur(draw.normal(0, 1, (HEIGHT, WIDTH)), (0, 0), draw.uniform(15, 60))
    folds *= draw.uniform(5, 25) / folds.std()
    picture = np.ones((HEIGHT, WIDTH, 3)) * _any_colour(draw) + (weave + folds)[..., None]
    if stripes:
        band = (np.sin(along * pitch / draw.uniform(4, 16)) > draw.uniform(-0.5, 0.5))[..., None]
        picture = np.where(band, picture, _any_colour(draw) + (weave + folds)[..., None])
    return np.clip(picture + draw.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def _landscape(draw: Draw) -> np.ndarray:
    """A sky that fades towards a ragged horizon, with rough ground under it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    horizon = HEIGHT * draw.uniform(0.3, 0.7)
    for _ in range(4):
        horizon = horizon + draw.uniform(2, 18) * np.sin(x / draw.uniform(10, 120) + draw.uniform(0, 6))
    sky = np.array([120, 165, 225]) * draw.uniform(0.5, 1.1) + (y / HEIGHT * draw.uniform(0, 90))[..., None]
    rough = cv2.GaussianBlur(draw.normal(0, 1, (HEIGHT, WIDTH)), (0, 0), draw.uniform(0.8, 5))
    ground = np.array(draw.choice([[70, 95, 45], [120, 100, 70], [190, 175, 140], [60, 65, 70]]))
    ground = ground * np.exp(draw.uniform(0.15, 0.5) * rough / rough.std())[..., None]
    picture = np.where((y < horizon)[..., None], sky, ground) + draw.normal(0, 3, (HEIGHT, WIDTH, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)
