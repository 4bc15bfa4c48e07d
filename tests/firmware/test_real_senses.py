"""A real board's senses, over a bus and pins that stand in for the kernel's: what fails reads as open."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin

from firmware.ads1115 import Ads1115
from firmware.doses import DoseLedger
from firmware.light_terms import readings
from firmware.lightcore import LightCore, LightRefused
from firmware.real_pins import open_real_pins
from firmware.real_senses import RealSenses
from firmware.sampler import OLDEST_S, Sampler
from hardware.board import BOARDS, DriverMissing, load_board
from hardware.header import HEADERS
from hardware.wiring import draw_wiring
from tests.support import stand_in_gpio as gpio
from tests.support.i2c_bus import Bus, Chip, wire
from tests.support.kiosk_daemons import consent, until, uv_allowance
from tests.support.lightworld import World

PI = load_board(BOARDS / "raspberrypi5.toml")
JETSON = load_board(BOARDS / "jetson-orin-nano.toml")
# A lamp that is lit: 0.1 V per W/m², 1 V per A; and its heat sink at 35 °C: 0.5 V and 10 mV for each °C.
LIT_V, LIT_A, WARM = 0.8, 0.5, 0.85
# What the reading of one voltage may be off by: half a step of the converter.
STEP_V = 4.096 / 32_768


@pytest.fixture
def bus(monkeypatch):
    return wire(monkeypatch, Bus(Chip()))


@pytest.fixture
def kiosk(bus):
    """`kiosk()`: the opened hardware of a Raspberry Pi on `bus`, its shroud closed, already sampled."""
    opened = []

    def build(wait=True):
        factory = MockFactory(pin_class=MockPWMPin)
        hardware = open_real_pins(PI, gpio.lgpio(factory))
        opened.append(hardware)
        for pin in PI.interlocks.shroud_pins:
            factory.pin(pin).drive_high()
        if wait:
            until(lambda: readable(hardware.senses.photodiode_w_m2))
        return hardware, factory

    yield build
    bus.chip.hangs.set()
    for hardware in opened:
        hardware.close()


def readable(read):
    try:
        read()
    except OSError:
        return False
    return True


def senses(chip, board=PI, shroud=None):
    """Senses that convert at the moment they are asked."""
    converter = Ads1115(board.sensors.adc, SmallBus(chip), sleep=lambda seconds: None)
    return RealSenses(shroud, (board.sensors, converter.volts))


class SmallBus:
    """An SMBus with one chip on it."""

    def __init__(self, chip):
        self.chip = chip

    def write_i2c_block_data(self, address, register, data):
        assert address == self.chip.address
        self.chip.write(register, int.from_bytes(bytes(data), "big"))

    def read_i2c_block_data(self, address, register, length):
        assert (address, length) == (self.chip.address, 2)
        return list(self.chip.read(register).to_bytes(2, "big"))


def set_lamp(chip, lit):
    chip.volts[0], chip.volts[1] = (LIT_V, LIT_A) if lit else (0.0, 0.0)


# The converter and what hangs on it.


def test_each_sensor_is_read_from_its_own_input_in_its_own_unit():
    chip = Chip()
    chip.volts[:3] = [LIT_V, LIT_A, WARM]
    read = senses(chip)
    assert read.photodiode_w_m2() == pytest.approx(8.0, abs=10 * STEP_V)
    assert read.lamp_current_a() == pytest.approx(0.5, abs=STEP_V)
    assert read.lamp_temperature_c() == pytest.approx(35.0, abs=100 * STEP_V)
    assert read.uv_seen() == (True, True)
    set_lamp(chip, lit=False)
    assert read.uv_seen() == (False, False)


def test_a_voltage_a_little_below_ground_is_darkness():
    chip = Chip()
    chip.volts[0] = -0.002
    assert senses(chip).photodiode_w_m2() == pytest.approx(-0.02, abs=10 * STEP_V)
    assert senses(chip).uv_seen() == (False, False)


@pytest.mark.parametrize("volts", [3.3, 3.2, -0.2])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_sensor_at_a_rail_is_no_reading(volts, channel):
    chip = Chip()
    chip.volts[channel] = volts
    broken = readings(senses(chip))
    assert [value is None for value in broken.values()] == [n == channel for n in range(3)]
    assert senses(chip).uv_seen()[:2] == tuple(None if n == channel else False for n in range(2))


@pytest.mark.parametrize("volts", [0.0, 0.29])
def test_a_thermometer_shorted_to_ground_or_with_its_wire_torn_is_none(volts):
    chip = Chip()
    chip.volts[2] = volts
    with pytest.raises(OSError, match="TMP36 reads .* the sensor or its wire is broken"):
        senses(chip).lamp_temperature_c()


def test_a_converter_that_always_gives_the_last_value_is_found_out_by_what_it_says_elsewhere():
    chip = Chip()
    chip.registers[0] = round(WARM / 4.096 * 32_768)
    chip.stuck_value = True
    # 35 °C at every input: the photodiode then sees light that nobody asked for.
    assert senses(chip).uv_seen() == (True, True)
    chip.registers[0] = 0
    with pytest.raises(OSError, match="broken"):
        senses(chip).lamp_temperature_c()


@pytest.mark.parametrize("stuck", [0x0000, 0xFFFF])
def test_a_bus_whose_data_line_is_stuck_is_no_converter(stuck):
    chip = Chip()
    chip.stuck_lines = stuck
    assert set(readings(senses(chip)).values()) == {None}
    assert senses(chip).uv_seen() == (None, None)


def test_a_conversion_that_takes_its_time_is_waited_for_and_one_that_never_ends_is_not():
    chip = Chip()
    chip.volts[0] = LIT_V
    chip.conversions_take = 3
    assert senses(chip).photodiode_w_m2() == pytest.approx(8.0, abs=10 * STEP_V)
    chip.never_ends = True
    with pytest.raises(OSError, match="does not end"):
        senses(chip).photodiode_w_m2()


# The sampler, on a clock of the test's own.


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Converter:
    """Gives 1 V per channel number, plus one; `takes` seconds each."""

    def __init__(self, clock, takes=0.003):
        self.clock, self.takes, self.broken = clock, takes, set()

    def volts(self, channel):
        self.clock.now += self.takes
        if channel in self.broken:
            raise OSError("no answer")
        return channel + 1.0


@pytest.fixture
def sampled():
    clock = Clock()
    converter = Converter(clock)
    return clock, converter, Sampler(lambda: (converter, lambda: None), [0, 1, 2], clock)


def test_nothing_sampled_yet_is_no_voltage(sampled):
    _, _, sampler = sampled
    with pytest.raises(OSError, match="not read yet"):
        sampler.volts(0)


def test_a_voltage_older_than_it_may_be_is_none(sampled):
    clock, converter, sampler = sampled
    sampler.sample(converter)
    begun = clock.now - 3 * converter.takes
    assert [sampler.volts(channel) for channel in range(3)] == [1.0, 2.0, 3.0]
    clock.now = begun + OLDEST_S - 1e-6
    assert sampler.volts(0) == 1.0
    clock.now = begun + OLDEST_S + 1e-6
    with pytest.raises(OSError, match="gives no voltage"):
        sampler.volts(0)
    assert sampler.volts(2) == 3.0


def test_one_transfer_gone_wrong_does_not_lose_a_channel_and_several_do(sampled):
    clock, converter, sampler = sampled
    sampler.sample(converter)
    converter.broken = {1}
    sampler.sample(converter)
    assert sampler.volts(1) == 2.0
    for _ in range(3):
        sampler.sample(converter)
    assert sampler.volts(0) == 1.0
    with pytest.raises(OSError, match="no answer"):
        sampler.volts(1)


def test_what_is_looked_at_50_ms_after_off_was_converted_in_the_dark():
    assert PI.limits.light_after_off_s > OLDEST_S


# The whole of it, over smbus2's own code.


def test_a_board_reads_its_sensors_through_smbus2(kiosk, bus):
    hardware, _ = kiosk()
    set_lamp(bus.chip, lit=True)
    until(lambda: hardware.senses.uv_seen() == (True, True))
    assert bus.timeout == 2
    until(lambda: None not in readings(hardware.senses).values())
    until(lambda: readings(hardware.senses)["photodiode_w_m2"] == pytest.approx(8.0, abs=0.01))
    until(lambda: readings(hardware.senses)["lamp_temperature_c"] == pytest.approx(35.0, abs=0.1))


def test_a_converter_that_goes_is_noticed_and_one_that_comes_back_is_read(kiosk, bus):
    hardware, _ = kiosk()
    bus.chip.gone = True
    until(lambda: hardware.senses.uv_seen() == (None, None))
    until(lambda: "Remote I/O error" in message(hardware.senses.lamp_temperature_c))
    bus.chip.gone = False
    until(lambda: hardware.senses.uv_seen() == (False, False))


def test_a_transfer_that_hangs_holds_up_nobody_who_asks(kiosk, bus):
    hardware, _ = kiosk()
    bus.chip.hangs.clear()
    until(lambda: hardware.senses.uv_seen() == (None, None))
    begun = time.monotonic()
    for _ in range(1000):
        assert hardware.senses.uv_seen() == (None, None)
    # A call that waited for the bus would never come back; a thousand that do not are quick on any machine.
    assert time.monotonic() - begun < 5
    hardware.close()
    bus.chip.hangs.set()


def test_a_board_without_its_bus_starts_and_has_no_uv(kiosk, bus):
    bus.missing = True
    hardware, _ = kiosk(wait=False)
    hardware.pins.set("white", 1.0)
    assert hardware.senses.uv_seen() == (None, None)
    until(lambda: "No such file" in message(hardware.senses.lamp_temperature_c))
    bus.missing = False
    until(lambda: hardware.senses.uv_seen() == (False, False))


def message(read):
    try:
        read()
    except OSError as error:
        return str(error)
    return ""


def test_a_missing_smbus2_is_an_error_that_names_the_key():
    modules = gpio.lgpio(MockFactory(pin_class=MockPWMPin))
    with pytest.raises(DriverMissing, match=r"sensors\.adc .* 'smbus2'"):
        open_real_pins(PI, lambda name: modules(name) if name != "smbus2" else gpio.missing(name))


# The shroud.


def test_both_switches_are_read_with_the_pull_that_makes_a_torn_wire_open(kiosk):
    hardware, factory = kiosk()
    assert hardware.senses.shroud_closed() == (True, True)
    first, second = (factory.pin(pin) for pin in PI.interlocks.shroud_pins)
    assert (first.pull, second.pull) == ("down", "down")
    first.drive_low()
    assert hardware.senses.shroud_closed() == (False, True)
    second.drive_low()
    assert hardware.senses.shroud_closed() == (False, False)


def test_libgpiod_reads_both_switches_with_the_same_pull(bus):
    gpiod = gpio.libgpiod()
    board = JETSON.model_copy(update={"sensors": None})
    hardware = open_real_pins(board, {"gpiod": gpiod}.__getitem__)
    (request,) = [one for one in gpiod.requests if one.direction == "input"]
    assert set(request.values) == set(board.interlocks.shroud_pins)
    assert request.bias == "pull down"
    assert hardware.senses.shroud_closed() == (False, False)
    for pin in board.interlocks.shroud_pins:
        request.values[pin] = gpio.Value.ACTIVE
    assert hardware.senses.shroud_closed() == (True, True)
    request.values[board.interlocks.shroud_pins[1]] = gpio.Value.INACTIVE
    assert hardware.senses.shroud_closed() == (True, False)
    request.fails = True
    with pytest.raises(OSError, match="no such line"):
        hardware.senses.shroud_closed()
    hardware.close()
    assert request.released


def test_a_driver_that_fails_to_read_a_switch_is_an_oserror(bus):
    factory = MockFactory(pin_class=MockPWMPin)
    hardware = open_real_pins(PI, gpio.lgpio(factory))
    pin = factory.pin(PI.interlocks.shroud_pins[0])
    gpio.break_pin(pin)
    with pytest.raises(OSError, match="bad handle"):
        hardware.senses.shroud_closed()
    pin.__class__ = MockPWMPin
    hardware.close()


@pytest.mark.parametrize("board", [PI, JETSON], ids=["pi", "jetson"])
def test_what_is_read_is_what_is_drawn(board):
    drawn, header = draw_wiring(board), HEADERS[board.header]
    for pin in board.interlocks.shroud_pins:
        assert header.names[pin] in drawn
    assert drawn.count("closed reads high; a cut wire reads open") == 2
    adc, sensors = board.sensors.adc, board.sensors
    assert f"ADS1115 at 0x{adc.address:02x}, I²C bus {adc.bus}" in drawn
    for sensor in (sensors.photodiode, sensors.lamp_current, sensors.lamp_temperature):
        assert f"A{sensor.channel}" in drawn
    assert "100 kΩ to ground at each input" in drawn


def granted(core):
    """Whether UV is lit; a machine with other work may have starved the sampler just then."""
    try:
        core.pulse(1, "uv365", 0.9)
    except LightRefused as refused:
        assert refused.code == "sense_failed"
        core.beat(1)
        return False
    return True


def test_uv_lights_on_a_raspberry_pi_and_not_without_its_converter(kiosk, bus):
    hardware, factory = kiosk()
    lamp = PI.lights["uv365"].model_copy(update={"calibrated_on": datetime.now(timezone.utc).date()})
    board = PI.model_copy(update={"lights": {**PI.lights, "uv365": lamp}})
    core = LightCore(board, hardware.pins, hardware.senses, DoseLedger(":memory:"), time.monotonic)
    core.lease(1, "s1", consent(), uv_allowance())
    until(lambda: granted(core))
    assert factory.pin(lamp.pin).state
    bus.chip.gone = True
    until(lambda: core.tick() or not factory.pin(lamp.pin).state)
    core.release(1)
    core.stop()


# The light core over these senses: no UV, and no UV any longer.


class WiredWorld(World):
    """A World whose senses are a real board's; its lamp shows at the converter's inputs."""

    def __init__(self):
        self.chip, self.switches = Chip(), Switches()
        self.wired = senses(self.chip, shroud=self.switches)
        super().__init__(irradiance=8.0)

    def shroud_closed(self):
        return self.wired.shroud_closed()

    def lamp_temperature_c(self):
        return self.wired.lamp_temperature_c()

    def uv_seen(self):
        if not self.chip.stuck_value:
            set_lamp(self.chip, lit=self.levels.get("uv365", 0.0) > 0)
        return self.wired.uv_seen()


class Switches:
    def __init__(self):
        self.state = (True, True)

    def closed(self):
        if self.state is None:
            raise OSError("no answer")
        return self.state


def break_switch_1(world):
    world.switches.state = (False, True)


def break_switch_2(world):
    world.switches.state = (True, False)


def lose_the_inputs(world):
    world.switches.state = None


def lose_the_converter(world):
    world.chip.stuck_lines = 0xFFFF


def heat_the_lamp(world):
    world.chip.volts[2] = 0.5 + 0.601


def tear_the_thermometers_wire(world):
    world.chip.volts[2] = 0.0


def short_the_thermometer(world):
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
def world():
    world = WiredWorld()
    world.lease(1, "s1", world.allowance())
    return world


def test_uv_lights_on_a_real_boards_senses_when_all_is_well(world):
    world.pulse(1, 0.3)
    world.advance(0.5, beat=1)
    ((begin, end),) = world.uv_intervals()
    assert end - begin == pytest.approx(0.3, abs=0.02)
    assert world.faults == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_before_a_pulse_refuses_it(world, fault):
    fault(world)
    with pytest.raises(LightRefused) as refused:
        world.pulse(1, 0.3)
    assert refused.value.code == FAULTS[fault]
    assert world.uv_intervals() == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_in_a_pulse_ends_it_at_the_next_look(world, fault):
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


def test_a_value_stuck_at_lit_locks_the_lights_after_the_pulse(world):
    world.pulse(1, 0.3)
    world.advance(0.1, beat=1)
    world.chip.stuck_value = True
    world.chip.registers[0] = round(LIT_V / 4.096 * 32_768)
    world.advance(0.5, beat=1)
    assert world.core.status()["fault"] == "light_after_off"


@pytest.mark.parametrize("channel", [0, 1])
def test_a_torn_wire_to_photodiode_or_current_sense_locks_uv_after_one_pulse(world, channel):
    real = world.uv_seen
    world.uv_seen = lambda: (real(), world.chip.volts.__setitem__(channel, 0.0), world.wired.uv_seen())[2]
    world.pulse(1, 0.2)
    world.advance(0.4, beat=1)
    assert world.core.status()["fault"] == "uv_unseen"
    world.on(1, "white")
