"""The interlocks' part of the self-test, before a light daemon that breaks a rule."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firmware.bench.interlock_check import _hung_up, _refused, check_interlocks
from firmware.lights.client import Lights, LightsFault
from hardware.board import Board, load_board
from tests.support.kiosk_daemons import ROOT, small_board, until

# Run in the daemon before it starts: a client that goes in a pulse is not noticed, its missing heartbeat is.
_DEAF = "LightCore.release = lambda self, *who, real=LightCore.release: self._pulse or real(self, *who)"


@contextmanager
def broken_daemon(folder, rule) -> Iterator[tuple[Board, Path]]:
    """A light daemon whose core was changed by `rule`; gives its board and its state folder."""
    board, state = small_board(folder), folder / "k"
    state.mkdir()
    code = f"from firmware.lights.core import LightCore; {rule}; from kiosk_app.cli import main; main()"
    command = [sys.executable, "-c", code, "lightd", "--board", str(board), "--state", str(state)]
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 60
        while b'"ready"' not in log.read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        yield load_board(board), state
    finally:
        process.kill()
        process.wait(60)


def checked(board, state) -> dict[str, bool | None]:
    results = check_interlocks(board, state, lambda target: None, hood_empty=True)
    return {result.check: result.ok for result in results}


@pytest.mark.parametrize(("rule", "well"), [("pass", True), (_DEAF, False)], ids=["as it is", "deaf"])
def test_a_daemon_that_does_not_notice_a_lost_client_fails(tmp_path: Path, rule, well) -> None:
    with broken_daemon(tmp_path, rule) as daemon:
        said = checked(*daemon)
    assert said["UV after its client"] is well
    assert said["UV without heartbeat"] is True


@pytest.mark.parametrize(("times", "well"), [(1, True), (9, False)])
@pytest.mark.parametrize("rule", ["pass", _DEAF], ids=["as it is", "deaf"])
def test_a_lost_client_is_timed_only_where_this_computer_was_quick_to_hang_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule, times, well
) -> None:
    slow, close = [True] * times, Lights.close

    def closing(lights) -> None:
        if slow and lights.status()["pulse"]:
            slow.pop()
            until(lambda: not lights.status()["pulse"], "the UV pulse over")
        close(lights)

    with broken_daemon(tmp_path, rule) as (board, state):
        monkeypatch.setattr(Lights, "close", closing)
        result = _hung_up(state / "run" / "light.sock", "uv365", board.limits)
    assert result.ok is (well and rule == "pass")
    assert ("too busy to time it" in result.found) is not well


class CarelessLights:
    """Lights that refuse nothing, or fail in another way than they should."""

    def __init__(self, fault=None) -> None:
        self.fault, self.lit = fault, False

    def pulse(self) -> None:
        self.lit = True
        if self.fault is not None:
            raise self.fault

    def off(self) -> None:
        self.lit = False


@pytest.mark.parametrize("fault", [None, LightsFault("unavailable", "gone"), LightsFault("no_lease", "no")])
def test_whatever_was_lit_where_it_had_to_be_refused_is_put_out(fault) -> None:
    lights = CarelessLights(fault)
    result = _refused(lights, "UV without a lease", "no_lease", lights.pulse)
    assert result.ok is (fault is not None and fault.code == "no_lease")
    assert not lights.lit
