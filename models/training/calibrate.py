"""`python -m models.training.calibrate --data DIR`: the constants beside the lesion's shipped networks.

Prior, temperature and melanoma's threshold are chosen on half of the validation lesions; the card reports
both halves. The refusal is fitted to training pictures, plain and altered, against pictures that are no skin
close-ups, plain and altered likewise. Its limit is even odds, or what refuses 2 % of that half, altered
twice over, if that is milder; 2 % of that half as it is are called unusual.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import scipy.optimize

from models.analysis import lesion
from models.analysis.outline import NETWORK as OUTLINE
from models.analysis.unlike_skin import scores, strangeness, unusualness
from models.networks.lesion_views import CLASSES
from models.networks.manifest import load_manifest
from models.training.dermoscopes import FITTED, altered, read_lesion
from models.training.register import ship_constants
from models.training.score import balanced_accuracy, calibration_error
from models.training.splits import first_half, held_out
from models.training.strange import strange_pictures

REFUSED = 0.02
UNUSUAL = 0.02
SENSITIVITY = 0.96
SHARES = np.arange(0, 1.01, 0.05)
MOST_ERROR = 0.05
# Pictures to fit the refusal to: as they are, of each kind, of two kinds at once.
_PLAIN, _OF_EACH, _OF_TWO = 300, 30, 300
# Kinds that hide much of the skin are seen thrice as often.
_HARD, _OFTEN = ("gel bubbles", "thick dark hairs", "white frame"), 3
# Of two kinds at once, to set the limit: another camera differs in more than one thing.
_TO_LIMIT = 300
_HIDDEN, _STRENGTH = 8, 1e-3

Pictures = Iterator[np.ndarray]


def looks(pictures: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 7) and traits (n, k) of pictures, as the kiosk sees them."""
    seen = [lesion.look(picture) for picture in pictures]
    return np.array([s.logits for s in seen]), np.array([s.traits for s in seen])


def choose(logits: np.ndarray, labels: np.ndarray, log_prior: np.ndarray) -> tuple[float, float]:
    """Share of the prior and temperature: the best balanced accuracy with a small calibration error.

    Small is four fifths of MOST_ERROR; temperatures up to that of the least cross-entropy are tried.
    """
    best, chosen = -1.0, (1.0, 1.0)
    for share in SHARES:
        known = {"share": share, "prior": np.exp(log_prior)}

        def cross(t: float, known: dict[str, Any] = known) -> float:
            p = lesion.chances(logits, known | {"temperature": t})
            return -float(np.log(p[np.arange(len(labels)), labels] + 1e-9).mean())

        heat = float(scipy.optimize.minimize_scalar(cross, bounds=(0.2, 5), method="bounded").x)
        for factor in np.geomspace(0.3, 1.0, 25):
            p = lesion.chances(logits, known | {"temperature": heat * factor})
            score = balanced_accuracy(p, labels)
            # Equal to the fourth decimal is a tie, which the calibration decides.
            error = calibration_error(p, labels)
            if error <= 0.8 * MOST_ERROR and score - 0.01 * error > best:
                best, chosen = score - 0.01 * error, (float(share), heat * factor)
    return chosen


def refusal(plain: np.ndarray, skin: np.ndarray, strange: np.ndarray) -> dict[str, Any]:
    """A perceptron for strange (m, k) against skin (n, k) traits, both sides of equal weight.

    Traits are scaled by plain (p, k) close-ups, which are among `skin`.
    """
    scale = {"means": plain.mean(0), "deviations": plain.std(0) + 1e-3}
    x = scores(np.concatenate([skin, strange]), scale)
    y = np.repeat([0.0, 1.0], [len(skin), len(strange)])
    weight = np.where(y > 0, 0.5 / len(strange), 0.5 / len(skin))
    shapes = ((x.shape[1], _HIDDEN), (_HIDDEN,), (_HIDDEN,), (x.shape[1],), ())
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def parts(w: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(w, cuts), shapes, strict=True)]

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        hidden, offsets, output, past, offset = parts(w)
        within = np.tanh(x @ hidden + offsets)
        z = within @ output + x @ past + offset
        error = weight * (1 / (1 + np.exp(-z)) - y)
        back = np.outer(error, output) * (1 - within**2)
        strong = (hidden**2).sum() + (output**2).sum() + (past**2).sum()
        value = float((weight * (np.logaddexp(0, z) - y * z)).sum() + _STRENGTH * strong)
        slopes = (
            x.T @ back + 2 * _STRENGTH * hidden,
            back.sum(0),
            within.T @ error + 2 * _STRENGTH * output,
            x.T @ error + 2 * _STRENGTH * past,
            error.sum(),
        )
        return value, np.concatenate([np.ravel(slope) for slope in slopes])

    start = np.random.default_rng(0).normal(0, 0.1, int(cuts[-1]) + 1)
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 600}).x
    names = ("hidden", "hidden_offsets", "output", "past", "offset")
    known = {**scale, **dict(zip(names, parts(found), strict=True))}
    return {name: np.round(value, 4).tolist() for name, value in known.items()}


def fitted_classes(logits: np.ndarray, labels: np.ndarray, prior: np.ndarray) -> dict[str, dict[str, Any]]:
    """The constants of the classes, of the logits (n, 7) and labels of half of the validation pictures."""
    share, temperature = choose(logits, labels, np.log(prior))
    mel = CLASSES.index("mel")
    classes = {
        "share": round(share, 4),
        "temperature": round(temperature, 4),
        "prior": prior.round(6).tolist(),
    }
    found = lesion.chances(logits[labels == mel], classes)[:, mel]
    return {
        "classes": classes,
        "melanoma": {"never_benign": round(float(np.quantile(found, 1 - SENSITIVITY)), 5)},
    }


def fitted_refusal(
    plain: np.ndarray, skin: np.ndarray, strange: np.ndarray, usual: np.ndarray, alike: np.ndarray
) -> dict[str, Any]:
    """The constants of the refusal; `usual` and `alike` (altered) are traits of half the validation."""
    known = refusal(plain, np.concatenate([plain, skin]), strange)
    limit = max(0.0, np.quantile(strangeness(alike, known), 1 - REFUSED))
    unusual = np.quantile(unusualness(usual, known), 1 - UNUSUAL)
    return {"limit": round(float(limit), 4), "unusual": round(float(unusual), 4), **known}


def written(constants: dict[str, dict[str, Any]]) -> str:
    """The constants as TOML, with their origin."""
    lines = [
        "# Constants beside the lesion's networks, by `python -m models.training.calibrate` on HAM10000.",
        "# networks: the SHA-256 of those that they were made with, and are refused with any other;",
        "# prior: shares of the classes in its training pictures; share, temperature, never_benign:",
        "# chosen on half of its validation lesions; refusal: fitted to training pictures, altered, against",
        "# others than skin, its limits set on the same half.",
        "",
        "[networks]",
        *(f'{name} = "{load_manifest().entry(name).sha256}"' for name in (OUTLINE, lesion.NETWORK)),
    ]
    for name, values in constants.items():
        lines += ["", f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _altered(folder: Path, rows: list[dict[str, str]], kinds: list[list[str]], seed: int) -> Pictures:
    """The picture of each row with its kinds drawn over it, without grain, as the kiosk sees it."""
    for i, (row, names) in enumerate(zip(rows, kinds, strict=True)):
        draw = np.random.default_rng((seed, i))
        alters = [FITTED[name] for name in names]
        yield lesion.without_grain(altered(*read_lesion(folder, row), alters, draw))


def _strangers(data: Path) -> Pictures:
    """Other pictures, and half of them altered as close-ups are: an alteration is no sign of skin."""
    alters = list(FITTED.values())
    for i, (_, picture) in enumerate(strange_pictures(data, tested=False)):
        draw = np.random.default_rng((3, i))
        alter = alters[int(draw.integers(0, len(alters)))]
        yield lesion.without_grain(picture)
        if i % 2:
            yield lesion.without_grain(alter(picture, np.zeros(picture.shape[:2], np.uint8), draw))


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
def main(data: Path) -> None:
    """Choose the constants with the shipped networks and the unpacked archives in DATA."""
    folder = data / "ham10000"
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    learnt = [row for row in rows if not held_out(row["lesion_id"])]
    half = [row for row in rows if held_out(row["lesion_id"]) and first_half(row["lesion_id"])]
    counts = np.bincount([CLASSES.index(row["dx"]) for row in learnt], minlength=len(CLASSES))
    logits, usual = looks(read_lesion(folder, row)[0] for row in half)
    labels = np.array([CLASSES.index(row["dx"]) for row in half])
    classes = fitted_classes(logits, labels, counts / counts.sum())
    draw = np.random.default_rng(0)
    singles = [[name] for name in FITTED for _ in range(_OF_EACH * (_OFTEN if name in _HARD else 1))]
    pairs = [draw.choice(list(FITTED), 2, replace=False).tolist() for _ in range(_OF_TWO)]
    some = [learnt[i] for i in draw.permutation(len(learnt))[: _PLAIN + len(singles) + len(pairs)]]
    few = [draw.choice(list(FITTED), 2, replace=False).tolist() for _ in range(_TO_LIMIT)]
    _, plain = looks(_altered(folder, some[:_PLAIN], [[]] * _PLAIN, 1))
    _, skin = looks(_altered(folder, some[_PLAIN:], singles + pairs, 2))
    _, strange = looks(_strangers(data))
    limiting = [half[i] for i in draw.permutation(len(half))[: len(few)]]
    _, alike = looks(_altered(folder, limiting, few, 4))
    found = {**classes, "refusal": fitted_refusal(plain, skin, strange, usual, alike)}
    ship_constants(lesion.NETWORK, written(found))


if __name__ == "__main__":
    main()
