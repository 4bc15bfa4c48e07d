"""The drivers of real pins, over stand-ins for their libraries: this machine has no GPIO."""

from __future__ import annotations

import types

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin

from firmware.pins import open_light_hardware
from firmware.real_pins import open_real_pins
from hardware.board import Board, DriverMissing, load_board
from tests.support.kiosk_daemons import SIMULATED
from tests.support.stand_in_gpio import Value, lgpio, libgpiod


def a_board(factory, **light):
    board = load_board(SIMULATED)
    lights = {name: profile.model_copy(update=light) for name, profile in board.lights.items()}
    return Board.model_construct(
        **{**dict(board), "lights": lights, "pin_factory": factory, "gpio_chip": "/dev/gpiochip7"}
    )


def test_libgpiod_lines_are_requested_low_and_switched():
    gpiod = libgpiod()
    hardware = open_real_pins(a_board("gpiod", pwm_hz=None), {"gpiod": gpiod}.__getitem__)
    lights, shroud = gpiod.requests
    assert {(request.path, request.consumer) for request in (lights, shroud)} == {
        ("/dev/gpiochip7", "dermakiosk-lightd")
    }
    assert (lights.direction, lights.output_value) == ("output", Value.INACTIVE)
    hardware.pins.set("white", 0.5)
    assert [pin for pin, value in lights.values.items() if value is Value.ACTIVE] == [18]
    hardware.pins.all_low()
    assert set(lights.values.values()) == {Value.INACTIVE}
    hardware.close()
    assert lights.released
    assert shroud.released


def test_a_libgpiod_line_that_fails_keeps_no_other_from_going_low():
    gpiod = libgpiod()
    hardware = open_real_pins(a_board("gpiod", pwm_hz=None), {"gpiod": gpiod}.__getitem__)
    hardware.pins.set("uv365", 1.0)
    lights = gpiod.requests[0]
    lights.broken = 18
    with pytest.raises(OSError, match="does not go low"):
        hardware.pins.all_low()
    assert lights.values[23] is Value.INACTIVE


def test_libgpiod_cannot_dim_and_says_which_line_to_change():
    with pytest.raises(DriverMissing, match=r"lights\.white\.pwm_hz"):
        open_real_pins(a_board("gpiod"), {"gpiod": libgpiod()}.__getitem__)


def test_lgpio_is_gpiozeros_own_factory():
    factory = MockFactory(pin_class=MockPWMPin)
    hardware = open_real_pins(a_board("lgpio"), lgpio(factory))
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


def test_a_real_board_without_sensors_counts_every_interlock_as_open():
    board = a_board("gpiod", pwm_hz=None).model_copy(update={"interlocks": None})
    hardware = open_real_pins(board, {"gpiod": libgpiod()}.__getitem__)
    senses = hardware.senses
    for read in (
        senses.shroud_closed,
        senses.lamp_temperature_c,
        senses.photodiode_w_m2,
        senses.lamp_current_a,
    ):
        with pytest.raises(OSError, match="this board has no"):
            read()
    assert senses.uv_seen() == (None, None)
