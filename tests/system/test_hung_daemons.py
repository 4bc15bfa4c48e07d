"""A daemon that hangs: the patient reads what is known, it is started again, and the next visit works."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.system import RunningSystem
from tests.support.visits import Visit, everything_arrived_once
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def running(running_quick: RunningSystem) -> RunningSystem:
    """Here only what becomes of a scan counts."""
    return running_quick


def hang(running: RunningSystem, part: str) -> int:
    """Stop a part where it is, as a process that waits for what never comes; its process id."""
    first = running.supervisor.pid(part)
    os.kill(first, signal.SIGSTOP)
    return first


def started_again(running: RunningSystem, part: str, first: int) -> None:
    def look() -> bool:
        running.supervisor.mend()
        return running.supervisor.pid(part) != first

    wait_until(look, f"{part} is started again", seconds=120)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("lightd", "We could not reach the lights, so we stopped."),
        ("captured", "The camera did not answer, so we stopped."),
        ("app", "The kiosk does not answer"),
    ],
)
def test_a_daemon_that_hangs_costs_one_try_and_the_patient_reads_what_is_known(
    running: RunningSystem, part: str, said: str
) -> None:
    first = hang(running, part)
    visit = Visit(running)
    started_again(running, part, first)
    sentence = visit.end()
    assert sentence is not None
    assert said in sentence
    assert "lights are off" not in sentence
    wait_until(lambda: Visit(running).end() is None, "a visit that works")
    everything_arrived_once(running)


def test_an_agent_that_hangs_costs_the_patient_nothing_and_the_result_arrives(running: RunningSystem) -> None:
    first = hang(running, "sync")
    running.may_be_silent("sync", 6.0)
    assert Visit(running).end() is None
    started_again(running, "sync", first)
    everything_arrived_once(running)
