"""`python -m models.training.score --data DIR`: the shipped networks' scores, by the shipped commands.

They see validation pictures only. Writes build/scores.json and prints a markdown table; intervals are 95 %
bootstrap intervals over lesions or persons. Each row says on which processor and engine it was measured, and
the line that a card has for it comes last.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from hardware.host.durable import write_whole
from models.analysis.artefacts import NAMES
from models.analysis.picture import read_labels
from models.networks.lesion_views import CLASSES
from models.networks.parsing_classes import CLASSES as PARTS
from models.networks.parsing_classes import NOSE, SKIN
from models.networks.runtime import DEFAULT_ENGINE, engine_here
from models.training.alterations import ALTERATIONS, altered_copy
from models.training.boxes import TWINS, average_precision, found, level, read_boxes
from models.training.curves import area
from models.training.dermoscopes import FITTED, UNSEEN, altered, read_lesion
from models.training.splits import FAMILIES_HELD_OUT, first_half, held_out, held_out_block
from models.training.strange import TESTED, strange_pictures

LEAST_OVERLAP = 0.3
"""Intersection over union from which a box has found a lesion."""
CLOSE_UPS = 8
"""One in so many of HAM10000's validation pictures is shown to the acne network, which must refuse it."""
FACES = ("astronaut", "portraits", "parts of portraits", "other families", "parts of other families")
ALTERED = 60
"""Altered close-ups of each kind."""
MEASURED_ON = "| measured on | {}; how processors and engines agree: `models/docs/processors.md` |"
"""The row of a card for figures that were measured here."""
ROUNDS = 1000
BINS = 15
DEADLINE_S = 3600

Figure = Callable[[np.ndarray], float]
Row = dict[str, Any]


def balanced_accuracy(chances: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes that occur of the share found."""
    found = chances.argmax(1)
    return float(np.mean([(found[labels == c] == c).mean() for c in np.unique(labels)]))


def calibration_error(chances: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of the likeliest class, in BINS bins of equal width (Guo et al. 2017)."""
    sure, right = chances.max(1), chances.argmax(1) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, sure - right, BINS)
    return float(np.abs(gaps).sum() / len(labels))


def macro_area(chances: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes of one against the rest."""
    return float(np.nanmean([area(chances[:, c], labels == c) for c in range(chances.shape[1])]))


def share(flags: np.ndarray) -> float:
    """The share that is set; not a number where there is nothing."""
    return float(flags.mean()) if len(flags) else float("nan")


def interval(groups: Sequence[str], figure: Figure, rounds: int = ROUNDS) -> Row:
    """`figure` of all rows with its 95 % interval: `figure` takes indices of rows; groups are drawn whole."""
    names, inverse = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    draw = np.random.default_rng(0)
    values = [
        figure(np.concatenate([members[i] for i in draw.integers(0, len(names), len(names))]))
        for _ in range(rounds)
    ]
    low, high = np.nanquantile(values, [0.025, 0.975])
    whole = figure(np.arange(len(inverse)))
    return {"value": round(whole, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def command(task: str, files: Sequence[Path], *options: str) -> list[Row]:
    """The rows of `dermakiosk analyse TASK`. Raises CalledProcessError, TimeoutExpired."""
    dermakiosk = str(Path(sys.executable).with_name("dermakiosk"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        line = [dermakiosk, "analyse", task, *map(str, files), "--json", str(out)]
        line += ["--engine", DEFAULT_ENGINE, *options]
        done = subprocess.run(line, check=False, stderr=subprocess.DEVNULL, timeout=DEADLINE_S)
        # Status 2 says that every picture was refused, which is an answer too.
        if done.returncode not in (0, 2):
            done.check_returncode()
        return [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]


def lesion_rows(folder: Path) -> list[Row]:
    """HAM10000's validation rows."""
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as source:
        return [row for row in csv.DictReader(source) if held_out(row["lesion_id"])]


@lru_cache(maxsize=1)
def lesions(data: Path) -> tuple[list[Row], list[Row], np.ndarray]:
    """HAM10000's validation rows, what the command said of each, and (n, 2) Dice, Jaccard of the masks."""
    folder = data / "ham10000"
    rows = lesion_rows(folder)
    files = [folder / "images" / f"{row['image_id']}.jpg" for row in rows]
    overlaps = []
    with tempfile.TemporaryDirectory() as masks:
        said = command("lesion", files, "--masks", masks)
        for row in rows:
            truth = read_labels(folder / "masks" / f"{row['image_id']}.png") > 127
            mask = Path(masks) / f"{row['image_id']}.png"
            found = read_labels(mask) if mask.exists() else None
            # A picture that is refused has no mask, and counts as wholly missed.
            overlaps.append(_overlap(np.zeros_like(truth) if found is None else found > 127, truth))
    return rows, said, np.array(overlaps)


def _overlap(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    both, either = (found & truth).sum(), (found | truth).sum()
    return float(2 * both / max(1, both + either)), float(both / max(1, either))


def outline_scores(data: Path) -> list[Row]:
    """Dice and Jaccard: means over the pictures."""
    rows, _, overlaps = lesions(data)
    groups = [row["lesion_id"] for row in rows]

    def mean(column: int) -> Figure:
        return lambda index: float(overlaps[index, column].mean())

    names = (("Dice", 0, 0.935), ("Jaccard", 1, 0.88))
    return [{"measure": name, "goal": goal, **interval(groups, mean(i))} for name, i, goal in names]


def lesion_scores(data: Path) -> list[Row]:
    """The answers, what is refused of other pictures, and melanoma by group."""
    rows, said, _ = lesions(data)
    others = strange_refused(data, "lesion")
    return [*lesion_answers(data), *altered_refused(data), *others, *by_group(rows, said)]


def lesion_answers(data: Path) -> list[Row]:
    """Of the pictures that were answered; how many were refused is a row of its own."""
    rows, said, _ = lesions(data)
    groups = np.array([row["lesion_id"] for row in rows])
    refused = np.array(["classes" not in answer for answer in said])
    kept = np.flatnonzero(~refused)
    chances = np.array([[said[i]["classes"][name] for name in CLASSES] for i in kept])
    score = np.array([said[i]["melanoma"] for i in kept])
    flagged = np.array([said[i]["melanoma_like"] for i in kept])
    labels = np.array([CLASSES.index(rows[i]["dx"]) for i in kept])
    truly = labels == CLASSES.index("mel")
    figures: list[tuple[str, Figure, float | None]] = [
        ("balanced accuracy", lambda i: balanced_accuracy(chances[i], labels[i]), 0.82),
        ("macro AUC", lambda i: macro_area(chances[i], labels[i]), 0.965),
        ("melanoma AUC", lambda i: area(score[i], truly[i]), None),
        ("calibration error", lambda i: calibration_error(chances[i], labels[i]), 0.05),
        ("melanoma-like: sensitivity", lambda i: share(flagged[i][truly[i]]), 0.95),
        ("melanoma-like: specificity", lambda i: 1 - share(flagged[i][~truly[i]]), None),
    ]
    scores = [{"measure": m, "goal": goal, **interval(groups[kept].tolist(), f)} for m, f, goal in figures]
    scores.append({"measure": "refused, of skin close-ups", "goal": 0.02})
    scores[-1] |= interval(groups.tolist(), lambda i: share(refused[i]))
    return scores


def altered_refused(data: Path) -> list[Row]:
    """What is refused, by kind and of all kinds, of the altered close-ups of the half that chose nothing.

    Also how many of the answered ones are called unusual, and in how many each artefact is found.
    """
    folder = data / "ham10000"
    first: dict[str, Row] = {}
    for row in lesion_rows(folder):
        if not first_half(row["lesion_id"]):
            first.setdefault(row["lesion_id"], row)
    names = [first[name] for name in np.random.default_rng(7).permutation(sorted(first))]
    scores, groups, refused = [], [], np.zeros(0, bool)
    for number, (kind, alter) in enumerate(({"as taken": None} | FITTED | UNSEEN).items()):
        some = [names[(number * ALTERED + i) % len(names)] for i in range(ALTERED)]
        with tempfile.TemporaryDirectory() as out:
            files = [Path(out) / f"{row['image_id']}.png" for row in some]
            for i, (row, file) in enumerate(zip(some, files, strict=True)):
                draw = np.random.default_rng((8, number, i))
                picture = altered(*read_lesion(folder, row), [alter] if alter else [], draw)
                cv2.imwrite(str(file), picture[:, :, ::-1])
            said = command("lesion", files)
        lesions = [row["lesion_id"] for row in some]
        gone = np.array(["refused" in row for row in said])
        scores.append(_shares(f"refused, of close-ups: {kind}", lesions, gone, 0.05))
        kept, owners = [said[i] for i in np.flatnonzero(~gone)], np.array(lesions)[~gone].tolist()
        for flag in ("unusual", *(f"artefact:{name}" for name in NAMES)):
            flagged = np.array([flag in row["flags"] for row in kept])
            scores.append(_shares(f"{flag}, of close-ups: {kind}", owners, flagged, None))
        if alter:
            groups, refused = [*groups, *lesions], np.concatenate([refused, gone])
    return [_shares("refused, of altered close-ups", groups, refused, 0.02), *scores]


def _shares(measure: str, groups: Sequence[str], flags: np.ndarray, goal: float | None) -> Row:
    found = interval(groups, lambda i: share(flags[i]))
    return {"measure": measure, "goal": goal, "pictures": len(flags), **found}


def strange_refused(data: Path, task: str, without: Sequence[str] = ()) -> list[Row]:
    """What `analyse TASK` refuses of the pictures for testing but for the kinds `without`: all, by kind."""
    with tempfile.TemporaryDirectory() as folder:
        files, groups, kinds = [], [], []
        for i, (kind, picture) in enumerate(strange_pictures(data, tested=True)):
            if kind not in without:
                files.append(Path(folder) / f"{i}.png")
                kinds.append(kind)
                # The crops of one photograph are a group.
                groups.append(kind if kind in TESTED.split() else f"{kind} {i}")
                cv2.imwrite(str(files[-1]), picture[:, :, ::-1])
        refused = np.array(["refused" in row for row in command(task, files)])
    rows = [_shares("refused, of other pictures", groups, refused, 0.95)]
    for kind in dict.fromkeys(kinds):
        these = np.array([name == kind for name in kinds])
        owners = [f"{i}" for i in np.flatnonzero(these)]
        rows.append(_shares(f"refused, of other pictures: {kind}", owners, refused[these], None))
    return rows


def refused_share(task: str, files: Sequence[Path], groups: Sequence[str]) -> Row:
    """The share of `files` that `analyse TASK` refuses."""
    refused = np.array(["refused" in row for row in command(task, files)])
    return {"pictures": len(files), **interval(groups, lambda i: float(refused[i].mean()))}


def by_group(rows: list[Row], said: list[Row], least: int = 60) -> list[Row]:
    """Melanoma AUC by age, sex and site, where a group has ten melanomas and `least` pictures."""
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if "classes" not in said[i]:
            continue
        years = float(row["age"] or "nan")
        age = (
            "unknown"
            if np.isnan(years)
            else "under 40"
            if years < 40
            else "40 to 59"
            if years < 60
            else "60 and over"
        )
        for name in (f"age {age}", f"sex {row['sex']}", f"site {row['localization']}"):
            groups.setdefault(name, []).append(i)
    scores = []
    for name, members in sorted(groups.items()):
        truly = np.array([rows[i]["dx"] == "mel" for i in members])
        if len(members) < least or truly.sum() < 10 or name.endswith("unknown"):
            continue
        score = np.array([said[i]["melanoma"] for i in members])
        figure = interval(
            [rows[i]["lesion_id"] for i in members], lambda i, s=score, t=truly: area(s[i], t[i])
        )
        scores.append({"measure": f"melanoma AUC, {name}", "goal": None, "pictures": len(members), **figure})
    return scores


def acne_scores(data: Path) -> list[Row]:
    """The answers, and what is refused of close-ups and of other pictures."""
    rows = lesion_rows(data / "ham10000")[::CLOSE_UPS]
    close_ups = [data / "ham10000" / "images" / f"{row['image_id']}.jpg" for row in rows]
    refused = {"measure": "refused, of dermoscopic close-ups", "goal": None}
    refused |= refused_share("acne", close_ups, [row["lesion_id"] for row in rows])
    return [*acne_answers(data), refused, strange_refused(data, "acne", without=FACES)[0]]


def acne_answers(data: Path) -> list[Row]:
    """ACNE04's validation pictures without those whose twin was trained on; a refused one counts as empty."""
    folder = data / "acne04" / "valid"
    truths, twins = read_boxes(folder / "boxes.csv"), set(TWINS.read_text(encoding="utf-8").split())
    files = [file for file in sorted((folder / "images").iterdir()) if file.name not in twins]
    names, said = [file.name for file in files], command("acne", files)
    refused = np.array(["refused" in row for row in said])
    boxes = [np.array([box[:5] for box in row.get("boxes", [])]).reshape(-1, 5) for row in said]
    true = [np.array(truths.get(name, [])).reshape(-1, 5)[:, :4] for name in names]
    numbers = np.array([len(some) for some in true])
    counted = np.array([row.get("count", 0) for row in said])
    hits = [found(some[:, :4], truth, LEAST_OVERLAP) for some, truth in zip(boxes, true, strict=True)]
    right = np.array([int(hit[:count].sum()) for hit, count in zip(hits, counted, strict=True)])
    graded = np.array([row.get("severity") == level(name) for row, name in zip(said, names, strict=True)])

    def precision(index: np.ndarray) -> float:
        scores = np.concatenate([boxes[i][:, 4] for i in index])
        return average_precision(scores, np.concatenate([hits[i] for i in index]), int(numbers[index].sum()))

    figures: list[tuple[str, Figure, float | None]] = [
        ("F1", lambda i: 2 * right[i].sum() / max(1, (counted[i] + numbers[i]).sum()), 0.72),
        ("average precision", precision, None),
        ("count error", lambda i: float(np.abs(counted[i] - numbers[i]).mean()), 3.3),
        ("severity right", lambda i: float(graded[i].mean()), 0.8),
        ("refused, of faces", lambda i: float(refused[i].mean()), 0.02),
    ]
    return [
        {"measure": m, "goal": goal, "pictures": len(files), **interval(names, f)} for m, f, goal in figures
    ]


def parsing_scores(data: Path) -> list[Row]:
    """Skin with noses in portraits and family photographs, each class in portraits: means over pictures."""
    portraits = sorted((data / "fasseg_frontal03" / "images").iterdir())
    portraits = [file for i, file in enumerate(portraits) if held_out_block(i)]
    families = sorted((data / "pratheepan_family" / "images").iterdir())
    families = [file for file in families if held_out(file.stem, FAMILIES_HELD_OUT)]
    scores = []
    for name, goal, files in (("frontal", 0.95, portraits), ("in the wild", 0.8, families)):
        with tempfile.TemporaryDirectory() as masks, tempfile.TemporaryDirectory() as maps:
            said = command("face", files, "--masks", masks, "--parsing", maps)
            truths = [read_labels(file.parent.parent / "masks" / f"{file.stem}.png") for file in files]
            found = [read_labels(Path(masks) / f"{file.stem}.png") > 127 for file in files]
            labels = [read_labels(Path(maps) / f"{file.stem}.png") for file in files]
        places = [file.stem for file in files]
        is_skin = [
            truth > 127 if truth.max() > len(PARTS) else np.isin(truth, (SKIN, NOSE)) for truth in truths
        ]
        skin = np.array([_overlap(a, b)[1] for a, b in zip(found, is_skin, strict=True)])
        figure = interval(places, lambda i, v=skin: float(v[i].mean()))
        scores.append({"measure": f"skin IoU, {name}", "goal": goal, "pictures": len(files), **figure})
        with_face = np.array([bool(row["faces"]) for row in said])
        figure = interval(places, lambda i, v=with_face: float(v[i].mean()))
        scores.append({"measure": f"a face found, {name}", "goal": None, **figure})
        if files is not portraits:
            continue
        for number, part in enumerate(PARTS):
            pairs = zip(labels, truths, strict=True)
            each = np.array([_overlap(a == number, b == number)[1] for a, b in pairs])
            figure = interval(places, lambda i, v=each: float(v[i].mean()))
            scores.append({"measure": f"class {part}: IoU, {name}", "goal": None, **figure})
    return scores


TASKS: dict[str, Callable[[Path], list[Row]]] = {
    "outline": outline_scores,
    "lesion": lesion_scores,
    "acne": acne_scores,
    "parsing": parsing_scores,
}
ANSWERS = TASKS | {"lesion": lesion_answers, "acne": acne_answers}
"""What is scored of altered pictures: without the other pictures and the groups."""


def robustness(data: Path, tasks: Sequence[str]) -> Iterator[Row]:
    """The TASKS' answers to their validation pictures under each alteration, and as they are."""
    for name in ALTERATIONS:
        with tempfile.TemporaryDirectory() as folder:
            altered_copy(data, tasks, name, Path(folder))
            for task in tasks:
                yield from ({"task": task, "altered": name, **row} for row in ANSWERS[task](Path(folder)))


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/scores.json"), show_default=True)
@click.option("--robustness", "altered", is_flag=True, help="Altered pictures instead: blur, noise, light …")
@click.argument("tasks", nargs=-1, type=click.Choice(sorted(TASKS)))
def main(data: Path, out: Path, altered: bool, tasks: tuple[str, ...]) -> None:
    """Score the TASKS, or all, on the validation pictures in DATA; their other rows in OUT stay."""
    names = tasks or tuple(TASKS)
    before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    scores = [row for row in before if row["task"] not in names or ("altered" in row) != altered]
    plain = ({"task": task, **row} for task in names for row in TASKS[task](data))
    here = engine_here(DEFAULT_ENGINE)
    out.parent.mkdir(parents=True, exist_ok=True)
    print("| task | measure | score | 95 % | goal |\n| --- | --- | --- | --- | --- |")
    for row in robustness(data, names) if altered else plain:
        # Hours may lie between two rows: each is kept as it comes.
        scores.append(row | {"measured_on": here})
        write_whole(out, json.dumps(scores, indent=1) + "\n", 0o644)
        span = f"{row['low']:.3f}–{row['high']:.3f}"
        measure = ", ".join(filter(None, (row["measure"], row.get("altered"))))
        print(
            f"| {row['task']} | {measure} | {row['value']:.3f} | {span} | {row['goal'] or ''} |", flush=True
        )
    print(f"\n{MEASURED_ON.format(here)}")


if __name__ == "__main__":
    main()
