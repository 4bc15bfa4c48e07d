"""What real daemons do about each fault that a simulated kiosk can be given: lights, pictures, words."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from firmware.capture.client import CaptureClient, CaptureFault
from firmware.lights.client import Lights, LightsFault
from hardware.capture import Capture
from tests.support.kiosk_daemons import (
    EVERY_LIGHT,
    Kiosk,
    consent,
    intervals,
    running_kiosk,
    small_board,
    until,
    uv_allowance,
)
from tests.support.waiting import unless_held_up

LIGHTS = ["dark", "white", "parallel", "cross", "dir0", "dir1", "dir2", "dir3", "uv365"]
# From the switch to darkness, on a machine with other work; the light daemon looks every 10 ms.
AT_ONCE_S = 0.25


@pytest.fixture
def kiosk(tmp_path: Path) -> Iterator[Callable[..., Kiosk]]:
    """`kiosk(simulation)`: a running kiosk whose board has these lines in [simulation]."""
    with contextlib.ExitStack() as stack:

        def start(simulation, state="k") -> Kiosk:
            board = small_board(tmp_path, f"\n[simulation]\n{simulation}\n")
            return stack.enter_context(running_kiosk(board, tmp_path / state))

        yield start


def visit(kiosk) -> Capture:
    """One capture of a patient of its own, with UV allowed; every light is off after it."""
    session = uuid.uuid4().hex
    try:
        client = CaptureClient(kiosk.capture_socket, timeout=60)
        return client.capture(session, consent(), EVERY_LIGHT, uv_allowance(session), None)
    finally:
        assert kiosk.lit() == set()


def status(kiosk) -> dict[str, Any]:
    lights = Lights(kiosk.light_socket)
    try:
        return lights.status()
    finally:
        lights.close()


def uv_pulses(kiosk) -> list[float]:
    return intervals(kiosk.history(), "uv365")


def test_a_shroud_opened_in_a_pulse_puts_uv_out_at_once_and_the_next_visit_is_whole(
    kiosk: Callable[..., Kiosk],
) -> None:
    rounds = count(1)

    def goes_out_at_once() -> None:
        played = kiosk(
            'patient_opens_shroud_at = { light = "uv365", after_s = 0.05 }\npatient_opens_shroud_s = 1.5',
            f"k{next(rounds)}",
        )
        capture = visit(played)
        assert capture.missing == {"uv365": "shroud_open"}
        assert [frame.light for frame in capture.frames] == LIGHTS[:-1]
        (pulse,) = uv_pulses(played)
        assert 0.05 <= pulse < 0.05 + AT_ONCE_S
        until(lambda: status(played)["interlock"] is None, "every interlock closed")
        again = visit(played)
        assert again.missing == {}
        assert [frame.light for frame in again.frames] == LIGHTS

    unless_held_up(goes_out_at_once)


def test_a_shroud_opened_for_a_moment_only_is_still_named_as_what_cut_the_pulse(
    kiosk: Callable[..., Kiosk],
) -> None:
    kiosk = kiosk(
        'patient_opens_shroud_at = { light = "uv365", after_s = 0.03 }\npatient_opens_shroud_s = 0.1'
    )
    assert visit(kiosk).missing == {"uv365": "shroud_open"}
    assert len(uv_pulses(kiosk)) == 1


def test_a_shroud_opened_among_the_white_pictures_ends_the_scan_with_a_sentence(
    kiosk: Callable[..., Kiosk],
) -> None:
    kiosk = kiosk('patient_opens_shroud_at = { light = "parallel" }\npatient_opens_shroud_s = 4.0')
    with pytest.raises(CaptureFault, match="The shroud was open in several pictures") as caught:
        visit(kiosk)
    assert caught.value.code == "shroud_open"
    assert uv_pulses(kiosk) == []
    until(lambda: status(kiosk)["interlock"] is None, "every interlock closed")
    assert visit(kiosk).missing == {}


def test_a_lamp_that_is_hot_gives_no_uv_and_the_scan_is_whole_without(kiosk: Callable[..., Kiosk]) -> None:
    kiosk = kiosk("lamp_temperature_c = 65.0")
    assert visit(kiosk).missing == {"uv365": "lamp_hot"}
    assert uv_pulses(kiosk) == []
    assert status(kiosk)["fault"] is None


def test_a_lamp_that_gets_hot_in_a_pulse_goes_out_and_works_again_when_it_has_cooled_down(
    kiosk: Callable[..., Kiosk],
) -> None:
    # From 35 °C it takes less than 0.1 s of light to 60 °C, and a few seconds back.
    rounds = count(1)

    def goes_out() -> Kiosk:
        played = kiosk("lamp_warms_c_per_s = 300.0\nlamp_cools_s = 2.0", f"k{next(rounds)}")
        assert visit(played).missing == {"uv365": "lamp_hot"}
        assert all(pulse < 0.3 for pulse in uv_pulses(played))
        return played

    kiosk = unless_held_up(goes_out)
    until(lambda: status(kiosk)["interlock"] is None, "every interlock closed")
    lights = Lights(kiosk.light_socket)
    session = uuid.uuid4().hex
    lights.lease(session, consent(), uv_allowance(session))
    lights.pulse("uv365", 0.02)
    lights.close()
    until(lambda: not kiosk.lit(), "every light off")


@pytest.mark.parametrize(
    ("fault", "missing"),
    [('dead_lamps = ["uv365"]', {"uv365": "uv_fault"}), ('dead_senses = ["photodiode"]', {})],
)
def test_uv_that_no_photodiode_sees_locks_uv_and_nothing_else(
    kiosk: Callable[..., Kiosk], fault, missing
) -> None:
    kiosk = kiosk(fault)
    assert visit(kiosk).missing == missing
    until(lambda: status(kiosk)["fault"] == "uv_unseen", "the fault of a UV lamp that was not seen")
    assert visit(kiosk).missing == {"uv365": "uv_fault"}
    assert len(uv_pulses(kiosk)) == 1


def test_a_dead_thermometer_gives_no_uv(kiosk: Callable[..., Kiosk]) -> None:
    kiosk = kiosk('dead_senses = ["lamp_temperature"]')
    assert visit(kiosk).missing == {"uv365": "sense_failed"}
    assert uv_pulses(kiosk) == []


def test_a_uv_lamp_that_does_not_go_out_locks_every_light_until_staff_clears_it(
    kiosk: Callable[..., Kiosk],
) -> None:
    kiosk = kiosk('stuck_lamps = ["uv365"]')
    with contextlib.suppress(CaptureFault):
        visit(kiosk)
    until(lambda: status(kiosk)["fault"] == "light_after_off", "the fault of a light that stays on")
    with pytest.raises(CaptureFault) as caught:
        visit(kiosk)
    assert caught.value.code == "light_fault"
    assert "call staff" in str(caught.value)
    lights = Lights(kiosk.light_socket)
    with contextlib.suppress(LightsFault):
        assert lights.clear("nurse") == "light_after_off"
    lights.close()
    assert status(kiosk)["fault"] == "light_after_off"


def test_dropped_frames_cost_time_and_no_picture(kiosk: Callable[..., Kiosk]) -> None:
    kiosk = kiosk("camera_drops_every = 3")
    assert visit(kiosk).missing == {}


def test_a_patient_who_keeps_the_eyes_open_gets_no_uv(kiosk: Callable[..., Kiosk]) -> None:
    kiosk = kiosk("patient_keeps_eyes_open = true")
    assert visit(kiosk).missing == {"uv365": "eyes_open"}
    assert uv_pulses(kiosk) == []


def test_the_logs_of_both_daemons_say_simulated(kiosk: Callable[..., Kiosk]) -> None:
    kiosk = kiosk("")
    for daemon in (kiosk.lightd, kiosk.captured):
        (ready,) = [line for line in daemon.log.read_text().splitlines() if '"ready"' in line]
        assert '"simulated": true' in ready
