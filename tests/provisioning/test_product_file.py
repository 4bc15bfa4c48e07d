"""The product's file is held to the code: its controls run, its numbers are computed, its words are ours."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from collections import Counter

import pytest

from sync.clinic.web.words import ITA_CLASSES
from tests.support.documents import document, documents, files_of_tests, in_code, nodes_named
from tests.support.sources import ROOT

RISKS = document("provisioning/docs/file/risks.md").table("id")
PLAN = document("provisioning/docs/file/clinical-evaluation.md")
FILE = [each for each in documents() if each.name.startswith("provisioning/docs/file/")]
COLLECTING_S = 120.0


def test_every_risk_has_a_control_that_a_test_shows_and_says_how_bad_it_is() -> None:
    for risk in RISKS:
        assert nodes_named(risk["test"]), risk["id"]
        assert risk["hazard"] and risk["cause"] and risk["control"], risk["id"]
        assert risk["severity"] in "12345", risk["id"]
    assert len({risk["id"] for risk in RISKS}) == len(RISKS)


def test_every_test_of_the_file_is_one_that_pytest_finds() -> None:
    named = {node for each in FILE for node in nodes_named(each.text)}
    paths = [f"{files_of_tests()[file].relative_to(ROOT)}::{test}" for file, test in sorted(named)]
    assert len(paths) > 60
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=COLLECTING_S,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_whoever_misses_a_test_in_that_list_is_told() -> None:
    missing = "tests/provisioning/test_product_file.py::test_that_nobody_wrote"
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", missing],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=COLLECTING_S,
        check=False,
    )
    assert found.returncode != 0


def test_every_clause_that_is_met_names_a_test_or_why_it_needs_none() -> None:
    rows = document("provisioning/docs/file/accessibility.md").table("clause")
    assert Counter(row["status"] for row in rows).keys() <= {"met", "partly", "not", "not assessed"}
    without = [
        row["clause"]
        for row in rows
        if row["status"] == "met" and not nodes_named(row["test, or what is missing"])
    ]
    # There is no video, no masked entry, no receipt, and nothing that listens.
    assert without == ["5.1.3.7, 5.1.3.8, 5.1.3.16", "5.1.7"]


def at_least(n: int, k: int, p: float) -> float:
    """The chance of k or more of n."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def least(worst: float, hoped: float, alpha: float, power: float) -> tuple[int, int]:
    """The smallest n, with the number that has to succeed, of an exact one-sided binomial test."""
    for n in range(1, 1000):
        k = next((k for k in range(n + 1) if at_least(n, k, worst) <= alpha), None)
        if k is not None and at_least(n, k, hoped) >= power:
            return n, k
    raise AssertionError("no n is enough")


def endpoint(name: str) -> dict[str, str]:
    [row] = [row for row in PLAN.table("endpoint") if row["endpoint"].startswith(name)]
    return row


def test_the_number_of_spots_is_the_least_that_shows_what_it_has_to() -> None:
    n, k = least(0.80, 0.95, 0.025, 0.80)
    row = endpoint("E4")
    assert row["n in each tone class"].startswith(f"{n} ")
    assert f"at least {k} of {n}" in row["passes when"]
    assert f"E4 needs {n * len(ITA_CLASSES)} such spots" in PLAN.text
    assert f"{n * 10} marked spots in a class" in PLAN.text
    stop = next(row["when"] for row in PLAN.table("stop") if row["stop"].startswith("E4"))
    assert "the fourth spot" in stop and n - k + 1 == 4


def test_the_widths_of_the_plan_are_those_of_its_numbers() -> None:
    people = int(endpoint("E1")["n in each tone class"])
    half = 1.96 / math.sqrt(2 * people * (3 - 1))
    assert f"± {100 * half:.1f} %" in endpoint("E1")["why so many"]
    people = int(endpoint("E2")["n in each tone class"])
    assert f"± {1.96 * math.sqrt(3 / people):.2f} standard deviations" in endpoint("E2")["why so many"]


def test_the_agreement_that_is_asked_for_tells_the_narrowest_tone_classes_apart() -> None:
    bounds = [bound for bound, _ in ITA_CLASSES if math.isfinite(bound)]
    narrowest = min(high - low for low, high in itertools.pairwise(bounds))
    asked = re.search(
        r"± (\d+)°, less than half of the narrowest class \((\d+)°\)", endpoint("E2")["passes when"]
    )
    assert asked is not None
    assert float(asked[1]) < narrowest / 2 and float(asked[2]) == narrowest


def test_the_number_of_interviews_bounds_the_share_below_five_per_cent() -> None:
    people = next(n for n in range(1, 1000) if 0.95**n <= 0.05)
    assert endpoint("E6")["n in each tone class"].startswith(f"{people} ")


@pytest.mark.parametrize(("bound", "name"), ITA_CLASSES)
def test_the_tone_classes_of_the_plan_are_those_of_the_clinics_pages(bound: float, name: str) -> None:
    bounds = [limit for limit, _ in ITA_CLASSES]
    place = bounds.index(bound)
    said = "below" if place == 0 else f"above {bounds[place - 1]:g}°".replace("-", "−")
    assert re.search(rf"`{name}` {re.escape(said)}", PLAN.text)


def test_the_faults_that_stop_the_study_are_faults_that_lock_every_light() -> None:
    from firmware.lights.doses import UV_ONLY
    from firmware.lights.latch import FAULT_WORDS

    [row] = [row for row in PLAN.table("stop") if row["stop"].startswith("at once")]
    assert set(in_code(row["when"])) <= set(FAULT_WORDS) - UV_ONLY
