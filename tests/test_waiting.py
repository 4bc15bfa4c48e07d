"""The tests' own waiting: nothing excuses a broken limit but a machine that held us up, and that is told."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support import waiting
from tests.support.held_up import HeldUp
from tests.support.waiting import ROUNDS, unless_held_up


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told of these rounds is not told of this test."""
    rounds: list[str] = []
    monkeypatch.setattr(waiting, "played_anew", rounds)
    return rounds


def held_up_for(seconds: float) -> Callable[[], HeldUp]:
    class Known(HeldUp):
        def longest_s(self) -> float:
            return seconds

    return Known


LONG_S, SHORT_S = 10 * waiting.HELD_UP_S, waiting.HELD_UP_S / 10


def failing(times: int, played: list[int]) -> Callable[[], int]:
    def play() -> int:
        played.append(len(played))
        if len(played) <= times:
            raise AssertionError("too late")
        return 7

    return play


def test_a_limit_that_is_broken_on_a_machine_that_held_nobody_up_fails_at_once(told: list[str]) -> None:
    played: list[int] = []
    with pytest.raises(AssertionError, match="too late"):
        unless_held_up(failing(1, played), held_up_for(SHORT_S))
    assert len(played) == 1
    assert told == []


def test_a_round_in_which_the_machine_held_us_up_is_played_anew_and_told(
    told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[int] = []
    assert unless_held_up(failing(ROUNDS - 1, played), held_up_for(LONG_S)) == 7
    assert len(played) == ROUNDS
    assert told == [
        f"round {number} of {ROUNDS}: held up for {LONG_S:.2f} s, AssertionError"
        for number in range(1, ROUNDS)
    ]
    assert capsys.readouterr().out.count("AssertionError: too late") == ROUNDS - 1


def test_a_machine_that_always_holds_us_up_excuses_no_more_than_that() -> None:
    played: list[int] = []
    with pytest.raises(AssertionError, match="too late"):
        unless_held_up(failing(ROUNDS, played), held_up_for(LONG_S))
    assert len(played) == ROUNDS


def test_a_round_that_is_kept_is_told_by_nobody(told: list[str]) -> None:
    assert unless_held_up(failing(0, []), held_up_for(LONG_S)) == 7
    assert told == []


SPINNING = """
import os, signal, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
sys.stdin.read()
began = time.process_time()
while time.process_time() - began < 0.3:
    pass
print(flush=True)
signal.pause()
"""


def test_whoever_waits_for_the_one_processor_that_another_has_is_held_up() -> None:
    processor = str(min(os.sched_getaffinity(0)))
    command = [sys.executable, "-c", SPINNING, processor]
    held_up = HeldUp()
    with contextlib.ExitStack() as ending:
        both = [
            ending.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(2)
        ]
        for process in both:
            ending.callback(process.kill)
        for process in both:
            assert process.stdin is not None
            process.stdin.close()
        for process in both:
            assert process.stdout is not None
            process.stdout.readline()
        # Each of them wants the processor for 0.3 s: one waits as long for the other.
        assert held_up.longest_s() > 0.2
