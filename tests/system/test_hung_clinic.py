"""A part of the clinic that hangs: it is started again, and what was on its way arrives once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from kiosk_app.demo import supervisor
from tests.support.system import QUICK, RunningSystem, running_system
from tests.support.visits import Visit, everything_arrived_once
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

# The clinic's own, and the broker, which is nobody's.
CLINIC = ("broker", "tap", "ingest", "opener", "clinic", "worker")
SILENT_S, ASKED_S = 6.0, 1.0
# What is sent to a broker that hangs is soon sent again.
OPTIONS = {"sync": ("--resend-first", "0.3")}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system that lasts, whose broker is asked often."""
    root = tmp_path_factory.mktemp("system")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "ASK_S", ASKED_S)
        with running_system(
            root,
            extra=OPTIONS,
            replace={"app": QUICK},
            lasting=True,
            tapped=True,
        ) as system:
            yield system


def test_every_part_of_the_demo_says_that_it_lives_or_is_asked(running: RunningSystem) -> None:
    assert {name for name, part in running.parts.items() if part.answers is not None} == {"broker"}
    heartbeats = running.supervisor._heartbeats

    def silent() -> set[str]:
        """Those that have not yet said a first word, for which they have longer."""
        running.supervisor.mend()
        until = {name: at - time.monotonic() for name, at in heartbeats._until.items()}
        assert until.keys() == running.parts.keys() - {"broker"}
        return {name for name, left in until.items() if left > running.parts[name].watchdog_s}

    wait_until(lambda: not silent(), "a word from every part")


@pytest.mark.parametrize("part", CLINIC)
def test_a_part_of_the_clinic_that_hangs_is_started_again_and_what_was_on_its_way_arrives_once(
    running: RunningSystem, part: str
) -> None:
    first = running.supervisor.pid(part)
    os.kill(first, signal.SIGSTOP)
    running.may_be_silent(part, SILENT_S)
    # The patient is at the kiosk, and is to notice nothing.
    assert Visit(running).end() is None

    def is_another() -> bool:
        running.supervisor.mend()
        return running.supervisor.pid(part) != first

    wait_until(is_another, f"{part} is started again", seconds=120)
    everything_arrived_once(running)
