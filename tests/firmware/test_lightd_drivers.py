"""The drivers of real pins, over stand-ins for their libraries: this machine has no GPIO."""

from __future__ import annotations

import enum
import types

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin

from firmware.pins import open_light_hardware
from firmware.real_pins import open_real_pins
from hardware.board import Board, DriverMissing, load_board
from tests.support.kiosk_daemons import SIMULATED


class Value(enum.Enum):
    INACTIVE = 0
    ACTIVE = 1


class Request:
    """What gpiod.request_lines gives: lines that remember, one of which may fail."""

    def __init__(self, config):
        self.values = dict.fromkeys([pin for pins in config for pin in pins], Value.INACTIVE)
        self.broken = None
        self.released = False

    def set_value(self, line, value):
        if line == self.broken:
            raise OSError("no such line")
        self.values[line] = value

    def release(self):
        self.released = True


def libgpiod():
    """A stand-in with the names of libgpiod's own binding, version 2."""
    module = types.SimpleNamespace(requests=[])

    def request_lines(path, config, consumer=None):
        module.requests.append((path, consumer, config))
        module.request = Request(config)
        return module.request

    module.request_lines = request_lines
    module.LineSettings = lambda direction, output_value: (direction, output_value)
    module.line = types.SimpleNamespace(Value=Value, Direction=types.SimpleNamespace(OUTPUT="output"))
    return module


def a_board(factory, **light):
    board = load_board(SIMULATED)
    lights = {name: profile.model_copy(update=light) for name, profile in board.lights.items()}
    return Board.model_construct(
        **{**dict(board), "lights": lights, "pin_factory": factory, "gpio_chip": "/dev/gpiochip7"}
    )


def test_libgpiod_lines_are_requested_low_and_switched():
    gpiod = libgpiod()
    hardware = open_real_pins(a_board("gpiod", pwm_hz=None), {"gpiod": gpiod}.__getitem__)
    ((path, consumer, config),) = gpiod.requests
    assert (path, consumer) == ("/dev/gpiochip7", "dermakiosk-lightd")
    assert set(config.values()) == {("output", Value.INACTIVE)}
    hardware.pins.set("white", 0.5)
    assert [pin for pin, value in gpiod.request.values.items() if value is Value.ACTIVE] == [18]
    hardware.pins.all_low()
    assert set(gpiod.request.values.values()) == {Value.INACTIVE}
    hardware.close()
    assert gpiod.request.released


def test_a_libgpiod_line_that_fails_keeps_no_other_from_going_low():
    gpiod = libgpiod()
    hardware = open_real_pins(a_board("gpiod", pwm_hz=None), {"gpiod": gpiod}.__getitem__)
    hardware.pins.set("uv365", 1.0)
    gpiod.request.broken = 18
    with pytest.raises(OSError, match="does not go low"):
        hardware.pins.all_low()
    assert gpiod.request.values[23] is Value.INACTIVE


def test_libgpiod_cannot_dim_and_says_which_line_to_change():
    with pytest.raises(DriverMissing, match=r"lights\.white\.pwm_hz"):
        open_real_pins(a_board("gpiod"), {"gpiod": libgpiod()}.__getitem__)


def test_lgpio_is_gpiozeros_own_factory():
    factory = MockFactory(pin_class=MockPWMPin)
    modules = {
        "lgpio": types.SimpleNamespace(error=RuntimeError),
        "gpiozero.pins.lgpio": types.SimpleNamespace(LGPIOFactory=lambda: factory),
    }
    hardware = open_real_pins(a_board("lgpio"), modules.__getitem__)
    hardware.pins.set("white", 0.5)
    assert factory.pin(18).state == 0.5
    hardware.pins.all_low()
    assert factory.pin(18).state == 0
    hardware.close()


def test_gpio_that_may_not_be_opened_is_one_sentence():
    class Error(Exception):
        pass

    def refuse():
        raise Error("can not open gpiochip")

    modules = {
        "lgpio": types.SimpleNamespace(error=Error),
        "gpiozero.pins.lgpio": types.SimpleNamespace(LGPIOFactory=refuse),
    }
    with pytest.raises(DriverMissing, match="can not open gpiochip"):
        open_real_pins(a_board("lgpio"), modules.__getitem__)


@pytest.mark.parametrize("factory", ["lgpio", "gpiod"])
def test_a_missing_library_is_an_error_that_names_the_line(factory, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, factory, None)
    with pytest.raises(DriverMissing, match=f"pin_factory = '{factory}'"):
        open_light_hardware(a_board(factory), tmp_path)


def test_a_real_board_without_sensor_drivers_counts_every_interlock_as_open():
    hardware = open_real_pins(a_board("gpiod", pwm_hz=None), {"gpiod": libgpiod()}.__getitem__)
    for read in (
        hardware.senses.shroud_closed,
        hardware.senses.lamp_temperature_c,
        hardware.senses.uv_seen,
    ):
        with pytest.raises(OSError, match="no driver"):
            read()
