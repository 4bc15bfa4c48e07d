"""How training is planned: what can be said of it without its heavy libraries."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from models import training
from models.training.schedule import Schedule, schedule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TASKS = tomllib.loads((Path(training.__file__).parent / "tasks.toml").read_text())


@pytest.mark.parametrize("task", TASKS)
def test_a_run_with_the_default_settings_ends_after_its_epochs(task: str) -> None:
    plan = schedule(TASKS[task])
    assert plan.progress(0, 10_000) == 0
    assert plan.progress(plan.epochs / 2, 10_000) == pytest.approx(0.5)
    assert plan.progress(plan.epochs, 0) == 1


def test_a_run_with_seconds_ends_by_the_clock() -> None:
    plan = Schedule(epochs=1000, seconds=60)
    assert plan.progress(1, 30) == pytest.approx(0.5)
    assert plan.progress(1, 90) == 1


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_nothing() -> None:
    plan = Schedule(rate=2.0, warm_up=0.1)
    rates = [plan.rate_at(progress) for progress in (0, 0.05, 0.1, 0.55, 1)]
    assert rates == pytest.approx([0, 1, 2, 1, 0], abs=1e-9)
