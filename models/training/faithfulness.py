"""`python -m models.training.faithfulness --data DIR`: whether the class rests where its saliency says.

On HAM10000's validation pictures, one a lesion, the places that a map calls the most important are deleted
(the chance of the explained class should fall) or alone kept (it should stay), by the saliency's map and by
three that do not know the network: the lesion's inside, nearness to its middle, smooth noise. What is
deleted becomes the skin around, or a blur; the class is asked as the kiosk asks it. Writes
build/faithfulness.json and prints a markdown table; intervals are 95 % bootstrap intervals over lesions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from models.analysis import lesion as lesions
from models.analysis.lesion import FoundLesion, chances, constants, find_lesion
from models.analysis.picture import read_picture
from models.analysis.refusal import Refused
from models.analysis.saliency import GRID, Saliency, saliency
from models.networks.lesion_views import CLASSES
from models.training.score import interval, lesion_rows

SHARES = (0.1, 0.2, 0.4)
"""Of the saliency's window, what is deleted or kept; a figure is the mean over them."""

Map = Callable[[np.ndarray, FoundLesion, Saliency, np.random.Generator], np.ndarray]


def _own(picture: np.ndarray, lesion: FoundLesion, found: Saliency, draw: np.random.Generator) -> np.ndarray:
    kind = CLASSES[int(lesion.chances.argmax())]
    return found.over(kind, (picture.shape[0], picture.shape[1]))


def _inside(
    picture: np.ndarray, lesion: FoundLesion, found: Saliency, draw: np.random.Generator
) -> np.ndarray:
    within = (lesion.mask > 0).astype(np.uint8)
    return cv2.distanceTransform(within, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - within, cv2.DIST_L2, 5)


def _middle(
    picture: np.ndarray, lesion: FoundLesion, found: Saliency, draw: np.random.Generator
) -> np.ndarray:
    x0, y0, x1, y1 = found.window
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return -np.hypot(x - (x0 + x1) / 2, y - (y0 + y1) / 2)


def _noise(
    picture: np.ndarray, lesion: FoundLesion, found: Saliency, draw: np.random.Generator
) -> np.ndarray:
    falls = np.repeat(draw.random((1, GRID, GRID)), len(CLASSES), axis=0)
    return Saliency(falls, found.window).over(CLASSES[0], (picture.shape[0], picture.shape[1]))


MAPS: dict[str, Map] = {"saliency": _own, "inside": _inside, "middle": _middle, "noise": _noise}


def fills(picture: np.ndarray, lesion: FoundLesion, found: Saliency) -> list[np.ndarray]:
    """What a deleted place becomes (float32, like `picture`): the skin's median colour, a blur."""
    around = picture[lesion.mask == 0]
    skin = np.median(around if len(around) > 50 else picture.reshape(-1, 3), axis=0)
    blur = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), (found.window[2] - found.window[0]) / 8)
    return [np.broadcast_to(skin.astype(np.float32), picture.shape), blur]


def remaining(
    picture: np.ndarray, lesion: FoundLesion, found: Saliency, order: np.ndarray
) -> tuple[float, float]:
    """The mean chance of the explained class with the first of `order` (H×W) deleted, and alone kept."""
    kind = int(lesion.chances.argmax())
    window = np.zeros(picture.shape[:2], np.uint8)
    x0, y0, x1, y1 = (round(edge) for edge in found.window)
    window[max(0, y0) : y1, max(0, x0) : x1] = 1
    rows, columns = np.nonzero(window)
    ranks = np.argsort(-order[rows, columns], kind="stable")
    deleted, kept = [], []
    for share in SHARES:
        some = ranks[: round(share * len(ranks))]
        taken = np.zeros(picture.shape[:2], np.float32)
        taken[rows[some], columns[some]] = 1
        for fill in fills(picture, lesion, found):
            deleted.append(_chance(picture, fill, taken, lesion.mask, kind))
            kept.append(_chance(picture, fill, window - taken, lesion.mask, kind))
    return float(np.mean(deleted)), float(np.mean(kept))


def _chance(picture: np.ndarray, fill: np.ndarray, taken: np.ndarray, mask: np.ndarray, kind: int) -> float:
    weight = cv2.GaussianBlur(taken.astype(np.float32), (0, 0), 1.5)[..., None]
    changed = np.round(picture + (fill - picture) * weight).astype(np.uint8)
    logits = lesions.view_logits(changed, mask, lesions.DEFAULT_ENGINE).mean(axis=0)
    return float(chances(logits, constants()["classes"])[kind])


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--pictures", type=click.IntRange(10), default=100, show_default=True)
@click.option("--skip", type=click.IntRange(0), default=0, show_default=True, help="Pictures passed over.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/faithfulness.json"))
def main(data: Path, pictures: int, skip: int, out: Path) -> None:
    """Delete and keep by each map in PICTURES validation pictures that are not refused."""
    folder = data / "ham10000"
    firsts = {row["lesion_id"]: row for row in reversed(lesion_rows(folder))}
    ids = sorted(row["image_id"] for row in firsts.values())
    draw = np.random.default_rng(0)
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in MAPS}
    seconds = []
    for number in draw.permutation(len(ids))[skip:]:
        picture = read_picture(folder / "images" / f"{ids[number]}.jpg")
        try:
            lesion = find_lesion(picture)
        except Refused:
            continue
        started = time.perf_counter()
        found = saliency(picture, lesion.mask)
        seconds.append(time.perf_counter() - started)
        for name, order in MAPS.items():
            figures[name].append(remaining(picture, lesion, found, order(picture, lesion, found, draw)))
        if len(seconds) == pictures:
            break
    rows = _rows({name: np.array(pairs) for name, pairs in figures.items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("| by | chance, deleted | saliency − this | chance, kept alone | saliency − this |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        cells = [row["map"], *(_cell(row[key]) for key in ("deleted", "deleted_gap", "kept", "kept_gap"))]
        print(f"| {' | '.join(cells)} |")
    print(f"{len(seconds)} pictures; a map took {np.median(seconds):.2f} s.")


def _rows(figures: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """By map: the figures with their intervals, and how much the saliency's are above them, paired."""
    rows = []
    for name, pairs in figures.items():
        groups = [str(number) for number in range(len(pairs))]
        row: dict[str, Any] = {"map": name}
        for column, key in enumerate(("deleted", "kept")):
            own, gap = pairs[:, column], figures["saliency"][:, column] - pairs[:, column]
            row[key] = interval(groups, lambda i, v=own: float(v[i].mean()))
            row[f"{key}_gap"] = interval(groups, lambda i, v=gap: float(v[i].mean()))
        rows.append(row)
    return rows


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


if __name__ == "__main__":
    main()
