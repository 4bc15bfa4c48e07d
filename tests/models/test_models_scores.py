"""The figures of our networks: those that are computed here, not by a library."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from models.networks.manifest import load_manifest
from models.networks.runtime import DEFAULT_ENGINE, engine_here
from models.training import score
from models.training.boxes import level, read_boxes
from models.training.curves import area

HEAD = "image,xmin,ymin,xmax,ymax,class\n"


def test_the_area_is_the_chance_that_a_positive_outscores_a_negative() -> None:
    positive = np.array([True, True, False, False])
    assert area(np.array([0.9, 0.4, 0.4, 0.1]), positive) == pytest.approx(0.875)
    assert np.isnan(area(np.array([0.9]), np.array([True])))


def test_boxes_without_an_area_are_no_lesions(tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text(HEAD + "levle2_1.jpg,0,0,10,10,papules\nlevle2_1.jpg,5,5,5,9,papules\n")
    assert read_boxes(file) == {"levle2_1.jpg": [[0, 0, 10, 10, 1]]}
    assert (level("levle2_1.jpg"), level("other.jpg")) == (2, -1)


def test_acne_is_scored_without_twins_and_a_refused_picture_counts_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = score.TWINS.read_text().split()[0]
    folder = tmp_path / "acne04" / "valid"
    (folder / "images").mkdir(parents=True)
    for name in ("levle0_a.jpg", "levle1_b.jpg", twin):
        (folder / "images" / name).touch()
    rows = [
        "levle0_a.jpg,0,0,10,10,papules",
        "levle0_a.jpg,50,50,60,60,papules",
        "levle1_b.jpg,0,0,9,9,papules",
    ]
    (folder / "boxes.csv").write_text(HEAD + "\n".join(rows) + "\n")
    answers = {
        "levle0_a.jpg": {
            "boxes": [[0, 0, 10, 10, 0.9, "papules"], [90, 90, 99, 99, 0.3, "papules"]],
            "count": 1,
            "severity": 0,
        },
        "levle1_b.jpg": {"refused": "no_face"},
    }
    monkeypatch.setattr(score, "command", lambda task, files: [answers[file.name] for file in files])
    scores = {row["measure"]: row for row in score.acne_answers(tmp_path)}
    assert scores["F1"]["value"] == pytest.approx(2 * 1 / (1 + 3))
    assert scores["count error"]["value"] == 1
    assert scores["severity right"]["value"] == 0.5
    assert scores["refused, of faces"]["value"] == 0.5


def test_a_score_says_on_which_processor_and_engine_it_was_measured_and_so_does_the_cards_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"measure": "F1", "goal": 0.72, "value": 0.7, "low": 0.6, "high": 0.8}
    monkeypatch.setitem(score.TASKS, "acne", lambda data: [row])
    out = tmp_path / "scores.json"
    older = {"task": "parsing", **row}
    out.write_text(json.dumps([older]))
    done = CliRunner().invoke(
        score.main, ["--data", str(tmp_path), "--out", str(out), "acne"], catch_exceptions=False
    )
    here = engine_here(DEFAULT_ENGINE)
    assert json.loads(out.read_text()) == [older, {"task": "acne", **row, "measured_on": here}]
    last = done.output.splitlines()[-1]
    assert last == f"| measured on | {here}; how processors and engines agree: `models/docs/processors.md` |"
    for card in Path("models/cards").glob("*.md"):
        [line] = [line for line in card.read_text().splitlines() if line.startswith("| measured on |")]
        assert line.split(";")[1] == last.split(";")[1], card.name


CARDS = Path(__file__).parents[2] / "models" / "cards"
_PERCENT = r"(\d+\.\d) %"


@pytest.mark.parametrize(
    ("card", "network"),
    [("acne", "acne"), ("lesion", "lesion-class"), ("outline", "lesion-outline"), ("parsing", "parsing")],
)
def test_a_card_is_about_the_file_that_is_shipped(card: str, network: str) -> None:
    [row] = re.findall(r"^\| file \|.*$", (CARDS / f"{card}.md").read_text(), re.MULTILINE)
    shipped = load_manifest().entry(network)
    assert f"`{shipped.path.name}`, {shipped.path.stat().st_size:,} bytes, SHA-256 `{shipped.sha256}`" in row


def test_of_the_close_ups_that_were_altered_no_more_are_refused_than_may_be_and_of_others_no_fewer() -> None:
    section = (CARDS / "lesion.md").read_text().partition("## What is refused")[2].partition("\n## ")[0]
    kinds = [float(share) for share in re.findall(rf"^\| [^*|]+ \| {_PERCENT} \|", section, re.MULTILINE)]
    [together] = re.findall(rf"\*\*{_PERCENT}\*\* \[.*\] \| \|$", section, re.MULTILINE)
    [others, at_least] = re.findall(rf"refuses \*\*{_PERCENT}\*\* \[{_PERCENT}", section)[0]
    assert len(kinds) > 30 and max(kinds) <= 5 and float(together) <= 2
    assert float(others) >= float(at_least) >= 95
