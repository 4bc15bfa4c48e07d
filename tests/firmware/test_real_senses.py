"""A real board's senses over a converter's inputs, and the light core over them: what fails reads as open."""

from __future__ import annotations

import pytest

from firmware.lights.core import LightRefused
from firmware.pins.ads1115 import Ads1115
from firmware.pins.protocols import readings
from firmware.pins.senses import RealSenses
from hardware.board import BOARDS, load_board
from tests.support.i2c_bus import LIT_A, LIT_V, WARM, Chip, set_lamp
from tests.support.lightworld import World

PI = load_board(BOARDS / "raspberrypi5.toml")
# What the reading of one voltage may be off by: half a step of the converter.
STEP_V = 4.096 / 32_768


def senses(chip, board=PI, shroud=None) -> RealSenses:
    """Senses that convert at the moment they are asked."""
    converter = Ads1115(board.sensors.adc, SmallBus(chip), sleep=lambda seconds: None)
    return RealSenses(shroud, (board.sensors, converter.volts))


class SmallBus:
    """An SMBus with one chip on it."""

    def __init__(self, chip) -> None:
        self.chip = chip

    def write_i2c_block_data(self, address, register, data) -> None:
        assert address == self.chip.address
        self.chip.write(register, int.from_bytes(bytes(data), "big"))

    def read_i2c_block_data(self, address, register, length) -> list[int]:
        assert (address, length) == (self.chip.address, 2)
        return list(self.chip.read(register).to_bytes(2, "big"))


def test_each_sensor_is_read_from_its_own_input_in_its_own_unit() -> None:
    chip = Chip()
    chip.volts[:3] = [LIT_V, LIT_A, WARM]
    read = senses(chip)
    assert read.photodiode_w_m2() == pytest.approx(8.0, abs=10 * STEP_V)
    assert read.lamp_current_a() == pytest.approx(0.5, abs=STEP_V)
    assert read.lamp_temperature_c() == pytest.approx(35.0, abs=100 * STEP_V)
    assert read.uv_seen() == (True, True)
    set_lamp(chip, lit=False)
    assert read.uv_seen() == (False, False)


def test_a_voltage_a_little_below_ground_is_darkness() -> None:
    chip = Chip()
    chip.volts[0] = -0.002
    assert senses(chip).photodiode_w_m2() == pytest.approx(-0.02, abs=10 * STEP_V)
    assert senses(chip).uv_seen() == (False, False)


@pytest.mark.parametrize("volts", [3.3, 3.2, -0.2])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_sensor_at_a_rail_is_no_reading(volts, channel) -> None:
    chip = Chip()
    chip.volts[channel] = volts
    broken = readings(senses(chip))
    assert [value is None for value in broken.values()] == [n == channel for n in range(3)]
    assert senses(chip).uv_seen()[:2] == tuple(None if n == channel else False for n in range(2))


@pytest.mark.parametrize("volts", [0.0, 0.29])
def test_a_thermometer_shorted_to_ground_or_with_its_wire_torn_is_none(volts) -> None:
    chip = Chip()
    chip.volts[2] = volts
    with pytest.raises(OSError, match="TMP36 reads .* the sensor or its wire is broken"):
        senses(chip).lamp_temperature_c()


def test_a_converter_that_always_gives_the_last_value_is_found_out_by_what_it_says_elsewhere() -> None:
    chip = Chip()
    chip.registers[0] = round(WARM / 4.096 * 32_768)
    chip.stuck_value = True
    # 35 °C at every input: the photodiode then sees light that nobody asked for.
    assert senses(chip).uv_seen() == (True, True)
    chip.registers[0] = 0
    with pytest.raises(OSError, match="broken"):
        senses(chip).lamp_temperature_c()


@pytest.mark.parametrize("stuck", [0x0000, 0xFFFF])
def test_a_bus_whose_data_line_is_stuck_is_no_converter(stuck) -> None:
    chip = Chip()
    chip.stuck_lines = stuck
    assert set(readings(senses(chip)).values()) == {None}
    assert senses(chip).uv_seen() == (None, None)


def test_a_conversion_that_takes_its_time_is_waited_for_and_one_that_never_ends_is_not() -> None:
    chip = Chip()
    chip.volts[0] = LIT_V
    chip.conversions_take = 3
    assert senses(chip).photodiode_w_m2() == pytest.approx(8.0, abs=10 * STEP_V)
    chip.never_ends = True
    with pytest.raises(OSError, match="does not end"):
        senses(chip).photodiode_w_m2()


class WiredWorld(World):
    """A World whose senses are a real board's; its lamp shows at the converter's inputs."""

    def __init__(self) -> None:
        self.chip, self.switches = Chip(), Switches()
        self.wired = senses(self.chip, shroud=self.switches)
        super().__init__(irradiance=8.0)

    def shroud_closed(self) -> tuple[bool, bool]:
        return self.wired.shroud_closed()

    def lamp_temperature_c(self) -> float:
        return self.wired.lamp_temperature_c()

    def uv_seen(self) -> tuple[bool | None, bool | None]:
        if not self.chip.stuck_value:
            set_lamp(self.chip, lit=self.levels.get("uv365", 0.0) > 0)
        return self.wired.uv_seen()


class Switches:
    def __init__(self) -> None:
        self.state = (True, True)

    def closed(self) -> tuple[bool, bool]:
        if self.state is None:
            raise OSError("no answer")
        return self.state


def break_switch_1(world) -> None:
    world.switches.state = (False, True)


def break_switch_2(world) -> None:
    world.switches.state = (True, False)


def lose_the_inputs(world) -> None:
    world.switches.state = None


def lose_the_converter(world) -> None:
    world.chip.stuck_lines = 0xFFFF


def heat_the_lamp(world) -> None:
    world.chip.volts[2] = 0.5 + 0.601


def tear_the_thermometers_wire(world) -> None:
    world.chip.volts[2] = 0.0


def short_the_thermometer(world) -> None:
    world.chip.volts[2] = 3.3


FAULTS = {
    break_switch_1: "shroud_open",
    break_switch_2: "shroud_open",
    lose_the_inputs: "sense_failed",
    lose_the_converter: "sense_failed",
    heat_the_lamp: "lamp_hot",
    tear_the_thermometers_wire: "sense_failed",
    short_the_thermometer: "sense_failed",
}


@pytest.fixture
def world() -> WiredWorld:
    world = WiredWorld()
    world.lease(1, "s1", world.allowance())
    return world


def test_uv_lights_on_a_real_boards_senses_when_all_is_well(world: WiredWorld) -> None:
    world.pulse(1, 0.3)
    world.advance(0.5, beat=1)
    ((begin, end),) = world.uv_intervals()
    assert end - begin == pytest.approx(0.3, abs=0.02)
    assert world.faults == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_before_a_pulse_refuses_it(world: WiredWorld, fault) -> None:
    fault(world)
    with pytest.raises(LightRefused) as refused:
        world.pulse(1, 0.3)
    assert refused.value.code == FAULTS[fault]
    assert world.uv_intervals() == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_in_a_pulse_ends_it_at_the_next_look(world: WiredWorld, fault) -> None:
    world.pulse(1, 0.9)
    world.advance(0.1, beat=1)
    at = world.now
    fault(world)
    world.advance(0.5, beat=1)
    ((_, end),) = world.uv_intervals()
    assert end - at <= 0.011
    # Only without the converter was darkness not seen; and that is no reason to do without white light.
    assert world.faults == (["dark_unseen"] if fault is lose_the_converter else [])
    world.on(1, "white")


def test_a_value_stuck_at_lit_locks_the_lights_after_the_pulse(world: WiredWorld) -> None:
    world.pulse(1, 0.3)
    world.advance(0.1, beat=1)
    world.chip.stuck_value = True
    world.chip.registers[0] = round(LIT_V / 4.096 * 32_768)
    world.advance(0.5, beat=1)
    assert world.core.status()["fault"] == "light_after_off"


@pytest.mark.parametrize("channel", [0, 1])
def test_a_torn_wire_to_photodiode_or_current_sense_locks_uv_after_one_pulse(
    world: WiredWorld, channel
) -> None:
    real = world.uv_seen
    world.uv_seen = lambda: (real(), world.chip.volts.__setitem__(channel, 0.0), world.wired.uv_seen())[2]
    world.pulse(1, 0.2)
    world.advance(0.4, beat=1)
    assert world.core.status()["fault"] == "uv_unseen"
    world.on(1, "white")


def test_a_board_without_a_uv_lamp_clears_a_fault_once_its_pins_go_low() -> None:
    world = World()
    lights = {name: light for name, light in world.board.lights.items() if not light.is_uv}
    world.board = world.board.model_copy(update={"lights": lights})
    world.uv_seen = RealSenses(None, None).uv_seen
    world.start()
    world.low_fails = True
    world.core.off(1)
    assert world.core.status()["fault"] == "pin_failed"
    with pytest.raises(LightRefused, match="does not go low"):
        world.core.clear(1, "nurse")
    world.low_fails = False
    world.clear_by_staff()
    assert (world.core.status()["check"], world.core.status()["fault"]) == ("passed", None)
    assert world.faults == ["pin_failed"]
