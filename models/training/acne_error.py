"""`python -m models.training.acne_error --data DIR`: the constants beside the acne network, of its errors.

The shipped network counts on ACNE04's validation pictures without those whose twin was trained on, by the
kiosk's own code; a zone's error is measured where landmarks fit. All of those pictures show acne, so
portraits of FASSEG, presumed clear, say what is counted where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from models.analysis.acne import NETWORK, acne_in, acne_of_face, as_it_is, find_acne
from models.analysis.acne_count import interval, lesions_on
from models.analysis.face import find_faces
from models.analysis.picture import read_picture
from models.analysis.zones import zone_masks
from models.networks.manifest import load_manifest
from models.training.boxes import TWINS, level, read_boxes
from models.training.register import ship_constants

# Counts from which the error is measured anew, so that each level has pictures enough.
FACE_LEVELS = (0, 4, 9, 21)
ZONE_LEVELS = (0, 1, 3, 6)
OUTSIDE = 0.025
"""The share of true numbers that may lie below an interval, and above it."""
CLEAR = 0.95
"""The share of faces presumed clear on which no more is counted than `clear`."""
SIDES = (640, 427, 320, 240, 180, 128)
"""Pixels to which the pictures are reduced, to find the least that do."""
FOLDS = 10

Pairs = list[tuple[int, int]]


def roots(pairs: Pairs, levels: tuple[int, ...]) -> dict[str, list[float]]:
    """By level of the counted number: quantiles of √true − √counted over `pairs` (counted, true).

    The quantiles are those of conformal prediction, the k-th smallest of n with k = ⌈(n + 1) q⌉; too few
    pictures give the extremes.
    """
    counted, true = np.array(pairs).T
    differences = np.sqrt(true) - np.sqrt(counted)
    of = np.searchsorted(levels, counted, side="right") - 1
    table: dict[str, list[float]] = {"below": [], "above": [], "pictures": []}
    for number in range(len(levels)):
        some = np.sort(differences[of == number])
        rank = min(len(some), int(np.ceil((len(some) + 1) * (1 - OUTSIDE))))
        table["below"].append(round(float(some[-rank]), 4))
        table["above"].append(round(float(some[rank - 1]), 4))
        table["pictures"].append(len(some))
    return table


def coverage(pairs: Pairs, levels: tuple[int, ...], clear: int) -> float:
    """The share of pairs whose true number lies in the interval that the other folds give."""
    order = np.random.default_rng(0).permutation(len(pairs))
    held = []
    for fold in range(FOLDS):
        rest = [pairs[i] for n, i in enumerate(order) if n % FOLDS != fold]
        known = {"from": levels, "clear": clear} | roots(rest, levels)
        for i in order[fold::FOLDS]:
            low, high = interval(pairs[i][0], known)
            held.append(low <= pairs[i][1] <= high)
    return float(np.mean(held))


def grades(said: list[int], true: list[int]) -> dict[str, list[int]]:
    """By the grade said: the narrowest run of true grades that holds 95 % of them, itself among them."""
    lows, highs = [], []
    for grade in range(4):
        some = np.bincount([t for s, t in zip(said, true, strict=True) if s == grade], minlength=4)
        runs = [
            (high - low, -some[low : high + 1].sum(), low, high)
            for low in range(grade + 1)
            for high in range(grade, 4)
            if some[low : high + 1].sum() >= (1 - 2 * OUTSIDE) * some.sum()
        ]
        *_, low, high = min(runs)
        lows.append(low)
        highs.append(high)
    return {"low": lows, "high": highs}


def least_side(errors: dict[int, np.ndarray]) -> int:
    """The least side at which the count errs as at the largest: by 5 % more at most, its mean by half a
    lesion at most. `errors` is counted − true by side."""
    best = np.abs(errors[max(errors)]).mean()
    fits = [
        side
        for side, error in errors.items()
        if np.abs(error).mean() <= 1.05 * best and abs(error.mean()) <= 0.5
    ]
    return min(fits)


def written(tables: dict[str, dict[str, Any]]) -> str:
    """The constants as TOML, with their origin."""
    lines = [
        "# Constants beside the acne network, by `python -m models.training.acne_error` on ACNE04's",
        "# validation pictures without twins, and on FASSEG's portraits.",
        "# networks: the SHA-256 of the one that was measured; they are refused with any other.",
        "# face, zone: by the level `from` which lesions are counted, the 2.5 % and 97.5 % quantiles of",
        "# √true − √counted over so many pictures or zones; clear: 95 % of faces presumed clear count no",
        "# more. least_px: the face's least extent at which the count errs no more than at full size.",
        "# severity: by the grade said, the true grades that hold 95 %.",
        "",
        "[networks]",
        f'{NETWORK} = "{load_manifest().entry(NETWORK).sha256}"',
    ]
    for name, values in tables.items():
        lines += [
            "",
            f"[{name}]",
            *(
                f"{key} = {list(value) if isinstance(value, tuple) else value}"
                for key, value in values.items()
            ),
        ]
    return "\n".join(lines) + "\n"


def _pictures(files: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    for file in files:
        yield file.name, read_picture(file)


def _by_zone(boxes: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, int]:
    lesions = lesions_on(boxes, masks)
    return {zone: sum(lesion.zone == zone for lesion in lesions) for zone in masks if zone != "face"}


def _masks(picture: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    return zone_masks(points, np.full(picture.shape[:2], 255, np.uint8))


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
def main(data: Path) -> None:
    """Measure the errors of the shipped network with the unpacked archives in DATA, and ship them."""
    folder = data / "acne04" / "valid"
    truths, twins = read_boxes(folder / "boxes.csv"), set(TWINS.read_text(encoding="utf-8").split())
    files = [file for file in sorted((folder / "images").iterdir()) if file.name not in twins]
    face: Pairs = []
    zone: Pairs = []
    said, true, shares = [], [], []
    errors: dict[int, list[int]] = {side: [] for side in SIDES}
    for name, picture in _pictures(files):
        real = np.array(truths.get(name, [])).reshape(-1, 5)
        acne = find_acne(picture)
        face.append((len(acne.counted), len(real)))
        if level(name) >= 0:
            said.append(acne.severity)
            true.append(level(name))
        for side in SIDES:
            small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
            errors[side].append(len(acne_in((0, 0, side, side), small, as_it_is).counted) - len(real))
        faces = find_faces(picture)
        if faces:
            masks = _masks(picture, faces[0].points)
            counted, really = _by_zone(acne.counted, masks), _by_zone(real, masks)
            zone += [(counted[name], really[name]) for name in counted]
            shares.append(float(np.sqrt(np.ptp(faces[0].points, axis=0).prod())) / picture.shape[0])
    clear: dict[str, list[int]] = {"face": [], "zone": []}
    for _, picture in _pictures(sorted((data / "fasseg_frontal03" / "images").iterdir())):
        for found in find_faces(picture)[:1]:
            acne = acne_of_face(found, picture, as_it_is)
            clear["face"].append(len(acne.counted))
            clear["zone"] += _by_zone(acne.counted, _masks(picture, found.points)).values()
    most = {name: int(np.quantile(counts, CLEAR, method="higher")) for name, counts in clear.items()}
    least = least_side({side: np.array(error) for side, error in errors.items()})
    tables: dict[str, dict[str, Any]] = {
        "face": {"least_px": round(least * float(np.median(shares))), "clear": most["face"]},
        "zone": {"clear": most["zone"]},
    }
    for name, pairs, levels in (("face", face, FACE_LEVELS), ("zone", zone, ZONE_LEVELS)):
        tables[name] |= {"from": levels} | roots(pairs, levels)
        print(f"{name}: {len(pairs)} pairs, held by the others' intervals: ", end="")
        print(f"{coverage(pairs, levels, most[name]):.3f}; clear faces: {np.bincount(clear[name])}")
    for side, error in errors.items():
        print(f"{side} px: count error {np.abs(error).mean():.2f}, mean {np.mean(error):+.2f}")
    ship_constants(NETWORK, written(tables | {"severity": grades(said, true)}))


if __name__ == "__main__":
    main()
