"""`python -m models.training.calibrate --data DIR`: the constants beside the lesion's shipped networks.

Prior, temperature and melanoma's threshold are chosen on half of the validation lesions; the card reports
both halves. The refusal is fitted to training pictures, under varied light and blur, against pictures that
are no skin close-ups; its limit is even odds, or what refuses 1 % of the validation pictures if that is
milder.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import scipy.optimize

from models.analysis import lesion
from models.analysis.outline import NETWORK as OUTLINE
from models.manifest import load_manifest
from models.picture import read_picture
from models.training.lesion_views import CLASSES
from models.training.register import ship_constants
from models.training.score import balanced_accuracy, calibration_error
from models.training.splits import held_out
from models.training.strange import strange_pictures

REFUSED = 0.01
SENSITIVITY = 0.96
SHARES = np.arange(0, 1.01, 0.05)
MOST_ERROR = 0.05
_FITTED = 700


def first_half(group: str) -> bool:
    """Whether a validation lesion is used to choose; the others report."""
    return held_out(group, 0.5, "calibration")


def looks(pictures: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
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


def refusal(skin: np.ndarray, strange: np.ndarray, strength: float = 0.01) -> dict[str, Any]:
    """Logistic regression of strange (m, k) against skin (n, k) traits, both sides of equal weight."""
    means, deviations = skin.mean(0), skin.std(0) + 1e-3
    x = lesion.spread(np.concatenate([skin, strange]), means.tolist(), deviations.tolist())
    y = np.repeat([0.0, 1.0], [len(skin), len(strange)])
    weight = np.where(y > 0, 0.5 / len(strange), 0.5 / len(skin))

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w[:-1] + w[-1]
        error = weight * (1 / (1 + np.exp(-z)) - y)
        value = float((weight * (np.logaddexp(0, z) - y * z)).sum() + strength * (w[:-1] ** 2).sum())
        return value, np.append(x.T @ error + 2 * strength * w[:-1], error.sum())

    w = scipy.optimize.minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    known = {"means": means, "deviations": deviations, "weights": w[:-1], "offset": w[-1]}
    return {name: np.round(value, 5).tolist() for name, value in known.items()}


def strangeness(traits: np.ndarray, known: dict[str, Any]) -> np.ndarray:
    """(n, k) to (n,), as models.analysis.lesion.strangeness does for one."""
    return lesion.spread(traits, known["means"], known["deviations"]) @ known["weights"] + known["offset"]


def fit(
    logits: np.ndarray,
    traits: np.ndarray,
    labels: np.ndarray,
    groups: list[str],
    prior: np.ndarray,
    skin: np.ndarray,
    strange: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """The constants, of the validation pictures' logits … groups and the training pictures' prior (7,)."""
    half = np.array([first_half(group) for group in groups])
    share, temperature = choose(logits[half], labels[half], np.log(prior))
    mel = CLASSES.index("mel")
    classes = {
        "share": round(share, 4),
        "temperature": round(temperature, 4),
        "prior": prior.round(6).tolist(),
    }
    found = lesion.chances(logits[half & (labels == mel)], classes)[:, mel]
    known = refusal(skin, strange)
    limit = max(0.0, np.quantile(strangeness(traits, known), 1 - REFUSED))
    return {
        "classes": classes,
        "melanoma": {"never_benign": round(float(np.quantile(found, 1 - SENSITIVITY)), 5)},
        "refusal": {"limit": round(float(limit), 4), **known},
    }


def written(constants: dict[str, dict[str, Any]]) -> str:
    """The constants as TOML, with their origin."""
    lines = [
        "# Constants beside the lesion's networks, by `python -m models.training.calibrate` on HAM10000.",
        "# networks: the SHA-256 of those that they were made with, and are refused with any other;",
        "# prior: shares of the classes in its training pictures; share, temperature, never_benign:",
        "# chosen on half of its validation lesions; refusal: fitted to training pictures against others",
        "# than skin, its limit checked on all validation pictures.",
        "",
        "[networks]",
        *(f'{name} = "{load_manifest().entry(name).sha256}"' for name in (OUTLINE, lesion.NETWORK)),
    ]
    for name, values in constants.items():
        lines += ["", f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _varied(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Every second picture in other light, half of those blurred."""
    draw = np.random.default_rng(1)
    for i, picture in enumerate(pictures):
        light = np.exp2(draw.uniform(-1, 1) / 2.2) * np.exp(np.array([1, 0, -1]) * draw.uniform(-0.12, 0.12))
        if i % 2:
            picture = np.clip(picture * light, 0, 255).astype(np.uint8)
        yield cv2.GaussianBlur(picture, (0, 0), draw.uniform(0.5, 1.5)) if i % 4 == 1 else picture


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
def main(data: Path) -> None:
    """Choose the constants with the shipped networks and the unpacked archives in DATA."""
    folder = data / "ham10000"
    with (folder / "metadata.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))

    def pictures(some: list[dict[str, str]]) -> Iterator[np.ndarray]:
        for row in some:
            yield read_picture(folder / "images" / f"{row['image_id']}.jpg")

    learnt = [row for row in rows if not held_out(row["lesion_id"])]
    valid = [row for row in rows if held_out(row["lesion_id"])]
    counts = np.bincount([CLASSES.index(row["dx"]) for row in learnt], minlength=len(CLASSES))
    some = [learnt[i] for i in np.random.default_rng(0).permutation(len(learnt))[:_FITTED]]
    logits, traits = looks(pictures(valid))
    labels = np.array([CLASSES.index(row["dx"]) for row in valid])
    _, skin = looks(_varied(pictures(some)))
    _, strange = looks(picture for _, picture in strange_pictures(data, tested=False))
    groups = [row["lesion_id"] for row in valid]
    ship_constants(
        lesion.NETWORK, written(fit(logits, traits, labels, groups, counts / counts.sum(), skin, strange))
    )


if __name__ == "__main__":
    main()
