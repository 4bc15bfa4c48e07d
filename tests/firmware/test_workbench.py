"""The workbench on a busy computer: what came to nothing is taken again, what an interlock ended is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from firmware.bench.calibrate import FLAT_RESIDUAL, CalibrationFailed, calibrate
from firmware.bench.workbench import Workbench
from firmware.cameras.camera import Exposure
from firmware.cameras.exposing import DARK
from firmware.lights.client import Lights, LightsFault
from hardware.board import BOARDS, load_board
from hardware.simulated.camera import SimulatedCamera
from hardware.simulated.pins import PinReader
from hardware.simulated.senses import hold_shroud
from hardware.targets import reference_chart
from tests.support.kiosk_daemons import Daemon, lit, small_board, until
from tests.support.sequences import uv_rises

# A client that falls silent loses its lease before its camera counts as frozen.
IMPATIENT = {"lease_silence_s = 2.0": "lease_silence_s = 0.5"}

# Mean counts of a card in any light; in the dark it is the black level, 64.
LIT = 200


@pytest.fixture(scope="module")
def lightd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The board and the state of a light daemon."""
    folder = tmp_path_factory.mktemp("bench")
    board = small_board(folder, profile=BOARDS / "simulated-uncalibrated.toml", **IMPATIENT)
    daemon = Daemon("lightd", board, folder / "k")
    yield board, folder / "k"
    daemon.end()


@pytest.fixture
def bench(lightd: tuple[Path, Path]) -> Iterator[Any]:
    """White paper before the camera, the hood empty; no light is on."""
    board, state = lightd
    page = state / "run" / "pins.page"
    with Workbench(load_board(board), state, lambda target: None, hood_empty=True) as bench:
        bench.show("paper")
        bench.rose = uv_rises(page.parent)
        bench.page = page
        yield bench
        hold_shroud(page, is_open=False)


def pulses(bench) -> int:
    """How often UV was lit since `bench` was made."""
    return uv_rises(bench.page.parent) - bench.rose


@pytest.fixture
def trouble(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`trouble(kind, times, light)`: what goes wrong under `light` in the next `times` pictures.

    With "no_heartbeat" this process is silent until the light daemon has put the light out; with "cut_short"
    it beats, but its camera looks when the pulse is over; with "shroud_open" somebody opens the shroud.
    """
    left: list[tuple[str, str]] = []
    silent = threading.Event()
    beat, expose = Lights.beat, SimulatedCamera.expose
    pins = PinReader(bench.page)

    def beating(lights) -> None:
        if not silent.is_set():
            beat(lights)

    def exposing(camera, *settings) -> Exposure:
        if left and left[-1][1] in lit(pins):
            kind, _ = left.pop()
            if kind == "no_heartbeat":
                silent.set()
            if kind == "shroud_open":
                hold_shroud(bench.page, is_open=True)
            until(lambda: not lit(pins), "every light off")
            silent.clear()
            hold_shroud(bench.page, is_open=False)
        return expose(camera, *settings)

    monkeypatch.setattr(Lights, "beat", beating)
    monkeypatch.setattr(SimulatedCamera, "expose", exposing)
    yield lambda kind, times=1, light="uv365": left.extend([(kind, light)] * times)
    pins.close()


@pytest.mark.parametrize("kind", ["no_heartbeat", "cut_short"])
def test_a_pulse_that_a_busy_computer_missed_is_fired_once_more(
    bench: Any, trouble: Callable[..., None], kind
) -> None:
    trouble(kind)
    ((counts, _),) = bench.expose("uv365")
    assert counts.mean() > LIT
    assert pulses(bench) == 2


@pytest.mark.parametrize("kind", ["no_heartbeat", "cut_short"])
def test_a_computer_that_stays_busy_is_named_and_gets_no_third_pulse(
    bench: Any, trouble: Callable[..., None], kind
) -> None:
    trouble(kind, times=9)
    with pytest.raises(LightsFault, match="This computer was too busy") as fault:
        bench.expose("uv365")
    assert fault.value.code in (kind, "no_heartbeat")
    assert pulses(bench) == 2


def test_a_pulse_that_an_interlock_has_ended_is_not_fired_again_and_the_interlock_is_named(
    bench: Any, trouble: Callable[..., None]
) -> None:
    trouble("shroud_open")
    with pytest.raises(LightsFault, match="The shroud was open meanwhile") as fault:
        bench.expose("uv365")
    assert fault.value.code == "shroud_open"
    assert pulses(bench) == 1


@pytest.mark.parametrize("light", [DARK, "white", "cross"])
def test_no_picture_is_kept_of_a_hood_that_stands_open(bench: Any, light) -> None:
    hold_shroud(bench.page, is_open=True)
    with pytest.raises(LightsFault, match="The shroud was open meanwhile") as fault:
        bench.expose(light)
    assert fault.value.code == "shroud_open"
    hold_shroud(bench.page, is_open=False)
    assert bench.expose(light)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_a_kiosk_is_not_calibrated_in_stray_light(bench: Any, monkeypatch: pytest.MonkeyPatch, share) -> None:
    """It is taken off the dark and every other picture alike: all the scores come out well."""
    monkeypatch.setattr("hardware.simulated.camera.AMBIENT", share)
    with pytest.raises(CalibrationFailed, match="away from camera.black_level"):
        calibrate(bench, reference_chart(), lambda step: None)


def test_a_card_that_the_camera_cuts_off_is_not_calibrated_by(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean = bench.mean

    def too_bright(light, frames=4) -> npt.NDArray[np.float64]:
        seen = mean(light, frames)
        return seen if light == DARK else np.minimum(1.6 * seen, 4095)

    monkeypatch.setattr(bench, "mean", too_bright)
    with pytest.raises(CalibrationFailed, match="lights.white.exposure_us"):
        calibrate(bench, reference_chart(), lambda step: None)


def test_a_second_pulse_goes_by_the_word_that_the_hood_was_empty_for_the_first(
    bench: Any, trouble: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The light daemon takes that word for some seconds: a computer that slept in a pulse gets no second one.
    words, lease = [], Lights.lease

    def noting(lights, session, consent, uv) -> None:
        words.append(uv.eyes_closed_confirmed_at)
        lease(lights, session, consent, uv)

    monkeypatch.setattr(Lights, "lease", noting)
    trouble("no_heartbeat")
    bench.expose("uv365")
    bench.expose("uv365")
    assert words[0] == words[1] < words[2]


def test_of_several_pulses_those_that_a_busy_computer_missed_are_left_out(
    bench: Any, trouble: Callable[..., None]
) -> None:
    trouble("no_heartbeat", times=2)
    taken = bench.expose("uv365", 4)
    assert [counts.mean() > LIT for counts, _ in taken] == [True, True]
    assert pulses(bench) == 4


def test_white_light_that_went_out_under_a_silent_computer_is_lit_again(
    bench: Any, trouble: Callable[..., None]
) -> None:
    trouble("no_heartbeat", light="white")
    ((counts, _),) = bench.expose("white")
    assert counts.mean() > LIT


def test_white_light_that_goes_out_again_and_again_is_never_taken_for_light(
    bench: Any, trouble: Callable[..., None]
) -> None:
    trouble("no_heartbeat", times=9, light="white")
    with pytest.raises(LightsFault, match="too busy") as fault:
        bench.expose("white")
    assert fault.value.code == "no_lease"


def test_sensors_are_read_while_the_lamp_is_lit_whatever_else_the_computer_does(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, held_up = Lights.beat, [True]

    def late(lights) -> None:
        if held_up:
            until(lambda: not lights.status()["pulse"], "the UV pulse over")
            held_up.clear()
        beat(lights)

    monkeypatch.setattr(Lights, "beat", late)
    seen = [step["uv_seen"] for step in bench.sense("uv365")]
    assert seen == [[False, False], [True, True], [False, False]]
    assert pulses(bench) == 2


def test_busy_moments_in_some_pulses_do_not_cost_the_calibration(
    bench: Any, trouble: Callable[..., None]
) -> None:
    trouble("no_heartbeat", times=3)
    made = calibrate(bench, reference_chart(), lambda step: None)
    assert made.scores["flat_residual"]["uv365"] <= FLAT_RESIDUAL
    # As many as the dose ledger gives one session.
    assert pulses(bench) == bench.board.limits.uv_pulses_per_scan == 6
