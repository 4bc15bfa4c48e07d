"""A real board opened whole, over a bus and pins that stand in for the kernel's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin

from firmware.lights.core import LightCore, LightRefused
from firmware.lights.doses import DoseLedger
from firmware.pins.protocols import readings
from firmware.pins.real import open_real_pins
from hardware.board import BOARDS, DriverMissing, load_board
from hardware.header import HEADERS
from hardware.wiring import draw_wiring
from tests.support import stand_in_gpio as gpio
from tests.support.i2c_bus import Bus, Chip, set_lamp, wire
from tests.support.kiosk_daemons import consent, until, uv_allowance

PI = load_board(BOARDS / "raspberrypi5.toml")
JETSON = load_board(BOARDS / "jetson-orin-nano.toml")


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    return wire(monkeypatch, Bus(Chip()))


@pytest.fixture
def kiosk(bus: Bus) -> Iterator[Callable[..., tuple[Any, MockFactory]]]:
    """`kiosk()`: the opened hardware of a Raspberry Pi on `bus`, its shroud closed, already sampled."""
    opened = []

    def build(wait=True) -> tuple[Any, MockFactory]:
        factory = MockFactory(pin_class=MockPWMPin)
        hardware = open_real_pins(PI, gpio.lgpio(factory))
        opened.append(hardware)
        for pin in PI.interlocks.shroud_pins:
            factory.pin(pin).drive_high()
        if wait:
            until(lambda: readable(hardware.senses.photodiode_w_m2), "a reading of the photodiode")
        return hardware, factory

    yield build
    bus.chip.hangs.set()
    for hardware in opened:
        hardware.close()


def readable(read) -> bool:
    try:
        read()
    except OSError:
        return False
    return True


def test_a_board_reads_its_sensors_through_smbus2(
    kiosk: Callable[..., tuple[Any, MockFactory]], bus: Bus
) -> None:
    hardware, _ = kiosk()
    set_lamp(bus.chip, lit=True)
    until(lambda: hardware.senses.uv_seen() == (True, True), "UV seen by both sensors")
    assert bus.timeout == 2
    until(lambda: None not in readings(hardware.senses).values(), "a reading of each sensor")
    until(
        lambda: readings(hardware.senses)["photodiode_w_m2"] == pytest.approx(8.0, abs=0.01),
        "the photodiode at 8 W/m²",
    )
    until(
        lambda: readings(hardware.senses)["lamp_temperature_c"] == pytest.approx(35.0, abs=0.1),
        "the lamp at 35 °C",
    )


def test_a_converter_that_goes_is_noticed_and_one_that_comes_back_is_read(
    kiosk: Callable[..., tuple[Any, MockFactory]], bus: Bus
) -> None:
    hardware, _ = kiosk()
    bus.chip.gone = True
    until(lambda: hardware.senses.uv_seen() == (None, None), "both sensors unreadable")
    until(
        lambda: "Remote I/O error" in message(hardware.senses.lamp_temperature_c),
        "the converter's error on reading the temperature",
    )
    bus.chip.gone = False
    until(lambda: hardware.senses.uv_seen() == (False, False), "no UV seen by either sensor")


def test_a_transfer_that_hangs_holds_up_nobody_who_asks(
    kiosk: Callable[..., tuple[Any, MockFactory]], bus: Bus
) -> None:
    hardware, _ = kiosk()
    bus.chip.hangs.clear()
    until(lambda: hardware.senses.uv_seen() == (None, None), "both sensors unreadable")
    begun = time.monotonic()
    for _ in range(1000):
        assert hardware.senses.uv_seen() == (None, None)
    # A call that waited for the bus would never come back; a thousand that do not are quick on any machine.
    assert time.monotonic() - begun < 60
    hardware.close()
    bus.chip.hangs.set()


def test_a_board_without_its_bus_starts_and_has_no_uv(
    kiosk: Callable[..., tuple[Any, MockFactory]], bus: Bus
) -> None:
    bus.missing = True
    hardware, _ = kiosk(wait=False)
    hardware.pins.set("white", 1.0)
    assert hardware.senses.uv_seen() == (None, None)
    until(
        lambda: "No such file" in message(hardware.senses.lamp_temperature_c),
        "the missing bus's error on reading the temperature",
    )
    bus.missing = False
    until(lambda: hardware.senses.uv_seen() == (False, False), "no UV seen by either sensor")


def message(read) -> str:
    try:
        read()
    except OSError as error:
        return str(error)
    return ""


def test_a_missing_smbus2_is_an_error_that_names_the_key() -> None:
    modules = gpio.lgpio(MockFactory(pin_class=MockPWMPin))
    with pytest.raises(DriverMissing, match=r"sensors\.adc .* 'smbus2'"):
        open_real_pins(PI, lambda name: modules(name) if name != "smbus2" else gpio.missing(name))


def test_both_switches_are_read_with_the_pull_that_makes_a_torn_wire_open(
    kiosk: Callable[..., tuple[Any, MockFactory]],
) -> None:
    hardware, factory = kiosk()
    assert hardware.senses.shroud_closed() == (True, True)
    first, second = (factory.pin(pin) for pin in PI.interlocks.shroud_pins)
    assert (first.pull, second.pull) == ("down", "down")
    first.drive_low()
    assert hardware.senses.shroud_closed() == (False, True)
    second.drive_low()
    assert hardware.senses.shroud_closed() == (False, False)


def test_libgpiod_reads_both_switches_with_the_same_pull(bus: Bus) -> None:
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


def test_a_driver_that_fails_to_read_a_switch_is_an_oserror(bus: Bus) -> None:
    factory = MockFactory(pin_class=MockPWMPin)
    hardware = open_real_pins(PI, gpio.lgpio(factory))
    pin = factory.pin(PI.interlocks.shroud_pins[0])
    gpio.break_pin(pin)
    with pytest.raises(OSError, match="bad handle"):
        hardware.senses.shroud_closed()
    pin.__class__ = MockPWMPin
    hardware.close()


@pytest.mark.parametrize("board", [PI, JETSON], ids=["pi", "jetson"])
def test_what_is_read_is_what_is_drawn(board) -> None:
    drawn, header = draw_wiring(board), HEADERS[board.header]
    for pin in board.interlocks.shroud_pins:
        assert header.names[pin] in drawn
    assert drawn.count("closed reads high; a cut wire reads open") == 2
    adc, sensors = board.sensors.adc, board.sensors
    assert f"ADS1115 at 0x{adc.address:02x}, I²C bus {adc.bus}" in drawn
    for sensor in (sensors.photodiode, sensors.lamp_current, sensors.lamp_temperature):
        assert f"A{sensor.channel}" in drawn
    assert "100 kΩ to ground at each input" in drawn


def granted(core) -> bool:
    """Whether UV is lit; a machine with other work may have starved the sampler just then."""
    try:
        core.pulse(1, "uv365", 0.9)
    except LightRefused as refused:
        assert refused.code == "sense_failed"
        core.beat(1)
        return False
    return True


def test_uv_lights_on_a_raspberry_pi_and_not_without_its_converter(
    kiosk: Callable[..., tuple[Any, MockFactory]], bus: Bus
) -> None:
    hardware, factory = kiosk()
    lamp = PI.lights["uv365"].model_copy(update={"calibrated_on": datetime.now(timezone.utc).date()})
    board = PI.model_copy(update={"lights": {**PI.lights, "uv365": lamp}})
    core = LightCore(board, hardware.pins, hardware.senses, DoseLedger(":memory:"), time.monotonic)
    core.lease(1, "s1", consent(), uv_allowance())
    until(lambda: granted(core), "a lease granted")
    assert factory.pin(lamp.pin).state
    bus.chip.gone = True
    until(lambda: core.tick() or not factory.pin(lamp.pin).state, "the lamp's pin low")
    core.release(1)
    core.stop()
