"""Ten thousand faults against the light core leave no violation; each rule taken out is caught."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from tests.support.lightfaults import run_faults
from tests.support.lightmutants import MUTANTS
from tests.support.lightrounds import Rounds
from tests.support.waiting import unless_held_up


def test_ten_thousand_faults_light_nothing_that_may_not_be_lit() -> None:
    outcome = run_faults(10_000, seed=1)
    assert outcome.count >= 10_000
    assert outcome.pulses > 3_000
    assert not outcome.violations


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_judge_catches_a_core_without(mutant) -> None:
    outcome = run_faults(10_000, seed=1, until=mutant.violation, **mutant.world())
    assert any(mutant.violation in name for name in outcome.violations)


def test_the_real_light_daemon_holds_in_a_few_rounds_of_trouble(tmp_path: Path) -> None:
    times = count(1)

    def holds() -> None:
        rounds = Rounds(tmp_path / str(next(times)), seed=3)
        try:
            for number in range(4):
                rounds.play(number)
            assert rounds.close() == []
        finally:
            rounds.give_up()
        assert rounds.tape.pins

    unless_held_up(holds)
