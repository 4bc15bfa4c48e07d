"""The simulated senses read what the pins light, with noise, and the faults that a board names."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from hardware.board import BOARDS, load_board
from hardware.simulated.lamp import LampHeat
from hardware.simulated.pins import PinPage
from hardware.simulated.senses import SimulatedSenses
from hardware.simulated.shroud import SimulatedShroud
from hardware.simulation import Simulation

S = 1_000_000_000


@pytest.fixture
def kiosk(tmp_path: Path) -> Iterator[Callable[..., tuple[PinPage, SimulatedSenses]]]:
    """`kiosk(…)`: the page and the senses of a simulated board whose simulation is as given."""
    opened = []

    def build(**simulation) -> tuple[PinPage, SimulatedSenses]:
        board = load_board(BOARDS / "simulated.toml")
        board = board.model_copy(update={"simulation": Simulation(**simulation)})
        page = PinPage(tmp_path / "pins.page", list(board.lights))
        senses = SimulatedSenses(board, tmp_path / "pins.page")
        opened.extend([page, senses])
        return page, senses

    yield build
    for item in opened:
        item.close()


# Sensors take the mean over a millisecond: after five of them they say what is.
SETTLED_S = 0.005


def mean(read, count=50) -> float:
    return statistics.mean(read() for _ in range(count))


def test_photodiode_and_current_follow_the_pin_of_the_uv_lamp(
    kiosk: Callable[..., tuple[PinPage, SimulatedSenses]],
) -> None:
    page, senses = kiosk()
    page.write("white", 1.0)
    assert mean(senses.photodiode_w_m2) == pytest.approx(0.0, abs=0.05)
    assert mean(senses.lamp_current_a) == pytest.approx(0.0, abs=0.01)
    assert senses.uv_seen() == (False, False)
    page.write("uv365", 1.0)
    time.sleep(SETTLED_S)
    assert mean(senses.photodiode_w_m2) == pytest.approx(8.0, abs=0.05)
    assert mean(senses.lamp_current_a) == pytest.approx(0.7, abs=0.01)
    assert senses.uv_seen() == (True, True)


def test_every_reading_has_noise(kiosk: Callable[..., tuple[PinPage, SimulatedSenses]]) -> None:
    _, senses = kiosk()
    for read in (senses.photodiode_w_m2, senses.lamp_current_a, senses.lamp_temperature_c):
        assert len({read() for _ in range(10)}) == 10


def test_a_dead_lamp_has_neither_light_nor_current(
    kiosk: Callable[..., tuple[PinPage, SimulatedSenses]],
) -> None:
    page, senses = kiosk(dead_lamps=("uv365",))
    page.write("uv365", 1.0)
    assert mean(senses.photodiode_w_m2) == pytest.approx(0.0, abs=0.05)
    assert mean(senses.lamp_current_a) == pytest.approx(0.0, abs=0.01)
    assert senses.uv_seen() == (False, False)


def test_a_stuck_lamp_has_light_and_current_after_off(
    kiosk: Callable[..., tuple[PinPage, SimulatedSenses]],
) -> None:
    page, senses = kiosk(stuck_lamps=("uv365",))
    page.write("uv365", 1.0)
    page.write("uv365", 0.0)
    time.sleep(SETTLED_S)
    assert mean(senses.photodiode_w_m2) > 7.5
    assert mean(senses.lamp_current_a) > 0.65
    assert senses.uv_seen() == (True, True)


@pytest.mark.parametrize(
    ("dead", "photodiode", "current"), [("photodiode", 0.0, 0.7), ("lamp_current", 8.0, 0.0)]
)
def test_a_dead_sensor_reads_nothing_and_the_other_goes_on(
    kiosk: Callable[..., tuple[PinPage, SimulatedSenses]], dead, photodiode, current
) -> None:
    page, senses = kiosk(dead_senses=(dead,))
    page.write("uv365", 1.0)
    time.sleep(SETTLED_S)
    assert mean(senses.photodiode_w_m2) == pytest.approx(photodiode, abs=0.05)
    assert mean(senses.lamp_current_a) == pytest.approx(current, abs=0.01)


def test_a_dead_thermometer_cannot_be_read(kiosk: Callable[..., tuple[PinPage, SimulatedSenses]]) -> None:
    _, senses = kiosk(dead_senses=("lamp_temperature",))
    with pytest.raises(OSError, match="does not answer"):
        senses.lamp_temperature_c()


def test_the_lamp_at_rest_is_as_warm_as_its_board_says(
    kiosk: Callable[..., tuple[PinPage, SimulatedSenses]],
) -> None:
    _, senses = kiosk(lamp_temperature_c=41.0)
    assert mean(senses.lamp_temperature_c) == pytest.approx(41.0, abs=0.1)


def test_the_lamp_warms_while_it_is_lit_and_cools_down_again() -> None:
    heat = LampHeat(Simulation(lamp_warms_c_per_s=2.0, lamp_cools_s=10.0), 0)
    shone = [(5 * S, 6 * S, 1.0)]
    assert heat.above_rest_c(shone, 5 * S) == 0.0
    # 2 K/s · 10 s · (1 − e^−0.1), then e-fold in 10 s.
    assert heat.above_rest_c(shone, 6 * S) == pytest.approx(1.903, abs=1e-3)
    assert heat.above_rest_c(shone, 16 * S) == pytest.approx(0.700, abs=1e-3)
    assert heat.above_rest_c(shone, 200 * S) < 1e-6


def test_it_does_not_matter_how_often_the_thermometer_is_read() -> None:
    simulation = Simulation(lamp_warms_c_per_s=2.0, lamp_cools_s=10.0)
    shone = [(1 * S, 2 * S, 1.0), (3 * S, 2**63, 0.5)]
    seldom, often = LampHeat(simulation, 0), LampHeat(simulation, 0)
    for now in range(0, 5 * S, S // 10):
        often.above_rest_c(shone, now)
    assert often.above_rest_c(shone, 5 * S) == pytest.approx(seldom.above_rest_c(shone, 5 * S))


class Rises:
    """A reader of pins that knows only when they rose."""

    def __init__(self, **rises) -> None:
        self._rises = rises

    def rise_ns(self, light, nth) -> int | None:
        return self._rises[light][nth - 1] if len(self._rises.get(light, ())) >= nth else None


def test_the_patient_opens_the_shroud_at_the_moment_named_and_closes_it_again() -> None:
    moment = {"light": "cross", "nth": 2, "after_s": 0.5}
    board = load_board(BOARDS / "simulated.toml")
    simulation = Simulation(patient_opens_shroud_at=moment, patient_opens_shroud_s=2.0)
    shroud = SimulatedShroud(
        board.model_copy(update={"simulation": simulation}), Rises(cross=[1 * S, 10 * S, 20 * S])
    )
    at = [any(shroud.closed(round(second * S))) for second in (1.6, 10.4, 10.6, 12.4, 12.6, 20.6)]
    assert at == [True, True, False, False, True, True]


def test_a_shroud_that_nobody_opens_is_as_its_board_says() -> None:
    board = load_board(BOARDS / "simulated.toml")
    for closed in itertools.product((True, False), repeat=2):
        simulation = Simulation(shroud_closed=closed)
        assert (
            SimulatedShroud(board.model_copy(update={"simulation": simulation}), Rises()).closed(S) == closed
        )


@pytest.mark.parametrize("moment", [{"light": "green"}, {"light": "white", "nth": 0}, {"after_s": 1.0}])
def test_a_moment_that_cannot_be_is_refused(moment) -> None:
    with pytest.raises(ValidationError):
        Simulation(patient_opens_shroud_at=moment)
