"""UV in a capture sequence, and the shroud around it: eyes looked at, pulses whole, none fired in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from firmware.cameras.camera import CameraFrozen, Exposure
from firmware.cameras.exposing import TakenExposure
from firmware.capture.sequence import _SEEN_CLOSED_S as REAL_SEEN_CLOSED_S
from firmware.capture.sequence import Sequence, SequenceFailed
from hardware.simulated.patient import Patient
from hardware.simulated.senses import hold_shroud
from hardware.simulation import Cue
from tests.support.kiosk_daemons import EVERY_LIGHT, until
from tests.support.sequences import STEPS, lit_lamps, run, uv_rises


class SlowCamera:
    """The camera; what it gives in a UV pulse it gives when `later(exposure)` does."""

    def __init__(self, sequence, later) -> None:
        self._camera, self._lights, self._later = sequence.camera, sequence.lights, later
        self.prepare, self.tell = self._camera.prepare, self._camera.tell

    def expose(self, *settings) -> Exposure:
        exposure = self._camera.expose(*settings)
        return self._later(exposure) if self._lights.core.status()["pulse"] else exposure


class Rolling:
    """An exposure whose last row ends a minute after the first."""

    def __init__(self, exposure) -> None:
        self.exposure_us, self.gain, self.counts = exposure.exposure_us, exposure.gain, exposure.counts
        self.timestamp_ns, self.end_ns = exposure.timestamp_ns, exposure.end_ns + 60 * 10**9


def test_open_eyes_are_seen_and_get_no_uv(stage: Callable[..., Sequence], tmp_path: Path) -> None:
    sequence = stage(patient_keeps_eyes_open=True)
    capture, _ = run(sequence)
    assert capture.missing == {"uv365": "eyes_open"}
    assert uv_rises(tmp_path) == 0


def test_a_shroud_opened_in_a_pulse_loses_the_uv_frame_even_a_half_lit_one(
    stage: Callable[..., Sequence], tmp_path: Path
) -> None:
    sequence = stage()

    def half_lit(exposure) -> Rolling:
        hold_shroud(tmp_path / "pins.page", is_open=True)
        until(lambda: not sequence.lights.core.status()["pulse"], "the UV pulse over")
        return Rolling(exposure)

    sequence.camera = SlowCamera(sequence, half_lit)
    capture, _ = run(sequence)
    assert capture.missing == {"uv365": "shroud_open"}
    assert [frame.light for frame in capture.frames] == STEPS[:-1]
    assert lit_lamps(tmp_path) == set()


@pytest.mark.parametrize(("mode", "why"), [("preview", "eyes_not_seen"), ("still", "too_early")])
def test_a_picture_from_before_its_light_is_no_look_at_the_eyes_and_no_frame(
    stage: Callable[..., Sequence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode, why
) -> None:
    """No camera should give one; what it shows may be a patient whose eyes were still closed."""

    def begun_before(taken) -> bool:
        return taken.setting.mode == mode and (mode == "preview" or taken.setting.is_uv)

    monkeypatch.setattr(TakenExposure, "too_early", property(begun_before))
    capture, _ = run(stage())
    assert capture.missing == {"uv365": why}
    assert (uv_rises(tmp_path) == 0) == (mode == "preview")


@pytest.mark.parametrize(
    ("later_ns", "missing", "looks", "pulses"),
    [
        ([1_500_000_000], {}, 1, 1),
        ([1_500_000_001, 0], {}, 2, 1),
        ([1_500_000_001] * 2, {"uv365": "look_too_old"}, 2, 0),
    ],
    ids=["just in time", "once too late", "twice too late"],
)
def test_a_pulse_that_comes_too_late_after_the_look_at_the_eyes_waits_for_another_look(
    stage: Callable[..., Sequence],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    later_ns,
    missing,
    looks,
    pulses,
) -> None:
    sequence, seen = stage(), []
    expose = sequence.camera.expose

    def noting(mode, *setting) -> Exposure:
        exposure = expose(mode, *setting)
        if mode == "preview":
            seen.append(exposure.end_ns)
        return exposure

    monkeypatch.setattr(sequence.camera, "expose", noting)
    monkeypatch.setattr("firmware.capture.sequence._SEEN_CLOSED_S", REAL_SEEN_CLOSED_S)
    clock = SimpleNamespace(monotonic_ns=lambda: seen[-1] + later_ns.pop(0))
    monkeypatch.setattr("firmware.capture.sequence.time", clock)
    capture, _ = run(sequence)
    assert capture.missing == missing
    assert (len(seen), uv_rises(tmp_path)) == (looks, pulses)


@pytest.mark.parametrize("protection", ["goggles", "none"])
def test_eyes_that_nothing_can_look_at_get_no_uv(
    stage: Callable[..., Sequence], tmp_path: Path, protection
) -> None:
    sequence = stage()
    sequence.board = sequence.board.model_copy(update={"eye_protection": protection})
    capture, _ = run(sequence)
    assert capture.missing == {"uv365": "eyes_not_seen"}
    assert uv_rises(tmp_path) == 0


def test_without_a_face_finder_there_is_no_uv(stage: Callable[..., Sequence], tmp_path: Path) -> None:
    capture, _ = run(stage(find_face=None))
    assert capture.missing == {"uv365": "eyes_not_seen"}
    assert uv_rises(tmp_path) == 0


def test_a_uv_pulse_that_an_interlock_has_cut_is_not_fired_again(
    stage: Callable[..., Sequence], tmp_path: Path
) -> None:
    sequence, opened = stage(), []
    camera, lights = sequence.camera, sequence.lights

    class Opened:
        """The camera; in the first pulse somebody opens the shroud, and closes it when that is over."""

        prepare, tell = camera.prepare, camera.tell

        def expose(self, *settings) -> Exposure:
            if lights.core.status()["pulse"] and not opened:
                opened.append(True)
                hold_shroud(tmp_path / "pins.page", is_open=True)
                until(lambda: not lights.core.status()["pulse"], "the UV pulse over")
                hold_shroud(tmp_path / "pins.page", is_open=False)
            return camera.expose(*settings)

    sequence.camera = Opened()
    capture, _ = run(sequence)
    assert capture.missing == {"uv365": "shroud_open"}
    assert uv_rises(tmp_path) == 1


def test_eyes_that_open_after_a_first_uv_pulse_get_no_second_one(
    stage: Callable[..., Sequence], tmp_path: Path, patient: Patient
) -> None:
    sequence = stage()
    asked = []

    class Told:
        """The camera; its patient obeys once."""

        prepare, expose = sequence.camera.prepare, sequence.camera.expose

        def tell(self, instruction) -> None:
            asked.append(instruction)
            patient.eyes_closed = len(asked) == 1

    sequence.camera = Told()
    lights = dict(sequence.board.lights)
    lights["uv365"] = lights["uv365"].model_copy(update={"expect": (0.9, 0.95)})
    sequence.board = sequence.board.model_copy(update={"lights": lights})
    sequence.__post_init__()
    capture, _ = run(sequence, phase="uv")
    assert capture.missing == {"uv365": "eyes_open"}
    assert asked == ["close_eyes", "close_eyes"]
    assert uv_rises(tmp_path) == 1


def test_a_pulse_over_before_the_last_row_was_exposed_gives_no_uv_frame(
    stage: Callable[..., Sequence],
) -> None:
    sequence = stage()
    sequence.camera = SlowCamera(sequence, Rolling)
    capture, _ = run(sequence, phase="uv")
    assert capture.missing == {"uv365": "cut_short"}


def test_a_pulse_that_ends_while_its_picture_is_under_way_was_long_enough(
    stage: Callable[..., Sequence],
) -> None:
    sequence = stage()

    def come_late(exposure) -> Exposure:
        while sequence.lights.core.status()["pulse"]:
            time.sleep(0.01)
        return exposure

    sequence.camera = SlowCamera(sequence, come_late)
    capture, _ = run(sequence, phase="uv")
    assert capture.missing == {}


def test_a_shroud_opened_late_and_left_open_costs_the_frames_after_it(stage: Callable[..., Sequence]) -> None:
    capture, _ = run(stage(patient_opens_shroud_at=Cue(light="dir3"), patient_opens_shroud_s=60.0))
    assert capture.missing == {"dir3": "shroud_open", "uv365": "shroud_open"}


@pytest.mark.parametrize(("light", "ends_at"), [("white", "white"), ("cross", "dir0")])
def test_a_shroud_opened_early_and_left_open_ends_the_sequence(
    stage: Callable[..., Sequence], tmp_path: Path, light, ends_at
) -> None:
    sequence = stage(patient_opens_shroud_at=Cue(light=light), patient_opens_shroud_s=60.0)
    begun = []
    with pytest.raises(SequenceFailed, match="close it") as caught:
        sequence.run(EVERY_LIGHT, True, lambda name, done, of: begun.append(name))
    assert caught.value.code == "shroud_open"
    assert begun[-1] == ends_at
    assert lit_lamps(tmp_path) == set()


def test_an_open_shroud_is_not_taken_for_a_lamp_that_stays_on(stage: Callable[..., Sequence]) -> None:
    sequence = stage(shroud_closed=(False, False))
    with pytest.raises(SequenceFailed) as caught:
        run(sequence)
    assert caught.value.code == "shroud_open"


def test_one_broken_switch_of_the_shroud_costs_no_more_than_uv(stage: Callable[..., Sequence]) -> None:
    capture, _ = run(stage(shroud_closed=(True, False)))
    assert capture.missing == {"uv365": "shroud_open"}


def test_uv_is_a_phase_of_its_own(stage: Callable[..., Sequence], patient: Patient) -> None:
    lit_phase, steps = run(stage(), phase="lit")
    assert steps == [*STEPS[:-1], "done"]
    assert lit_phase.missing == {}
    assert not patient.eyes_closed
    uv_phase, steps = run(stage(), phase="uv")
    assert steps == ["uv365", "done"]
    assert patient.eyes_closed
    joined = lit_phase.joined(uv_phase)
    assert [frame.light for frame in joined.frames] == STEPS
    refused, _ = run(stage(), uv=False, phase="uv")
    assert lit_phase.joined(refused).missing == {"uv365": "not_allowed"}


def test_a_read_out_that_hangs_in_the_look_at_the_eyes_is_given_up(
    stage: Callable[..., Sequence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware.cameras.exposing._READ_OUT_S", 0.2)
    sequence = stage()
    stuck = threading.Event()

    class Hanging:
        """The camera, but what it shows of eyes is never read out."""

        prepare, tell = sequence.camera.prepare, sequence.camera.tell

        def expose(self, mode, *settings) -> Exposure:
            exposure = camera.expose(mode, *settings)
            if mode == "preview":
                exposure.counts = stuck.wait
            return exposure

    camera, sequence.camera = sequence.camera, Hanging()
    with pytest.raises(CameraFrozen):
        run(sequence, phase="uv")
    stuck.set()
    assert lit_lamps(tmp_path) == set()
    assert sequence.lights.core.status()["pulse_over_ns"] is None
