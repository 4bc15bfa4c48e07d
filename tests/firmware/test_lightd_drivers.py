"""The drivers of real pins, over stand-ins for their libraries: this machine has no GPIO."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin

from firmware.lights.core import LightCore, LightRefused
from firmware.pins.light_pins import LightPins
from firmware.pins.opening import open_light_hardware
from firmware.pins.real import open_real_pins
from hardware.board import Board, DriverMissing, load_board
from tests.support.kiosk_daemons import SIMULATED
from tests.support.lightworld import CONSENT, World
from tests.support.stand_in_gpio import LgpioError, Value, break_pin, lgpio, libgpiod


def a_board(factory, **light) -> Board:
    board = load_board(SIMULATED)
    lights = {name: profile.model_copy(update=light) for name, profile in board.lights.items()}
    return Board.model_construct(
        **{**dict(board), "lights": lights, "pin_factory": factory, "gpio_chip": "/dev/gpiochip7"}
    )


def test_libgpiod_lines_are_requested_low_and_switched() -> None:
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


def test_a_libgpiod_line_that_fails_keeps_no_other_from_going_low() -> None:
    gpiod = libgpiod()
    hardware = open_real_pins(a_board("gpiod", pwm_hz=None), {"gpiod": gpiod}.__getitem__)
    hardware.pins.set("uv365", 1.0)
    lights = gpiod.requests[0]
    lights.broken = 18
    with pytest.raises(OSError, match="does not go low"):
        hardware.pins.all_low()
    assert lights.values[23] is Value.INACTIVE


def test_lgpio_is_gpiozeros_own_factory() -> None:
    factory = MockFactory(pin_class=MockPWMPin)
    hardware = open_real_pins(a_board("lgpio"), lgpio(factory))
    hardware.pins.set("white", 0.5)
    assert factory.pin(18).state == 0.5
    hardware.pins.all_low()
    assert factory.pin(18).state == 0
    hardware.close()


@pytest.fixture
def driven() -> Iterator[tuple[World, LightCore, Callable[[str], Any]]]:
    """A light core over gpiozero's pins, with the clocks, senses and ledger of a World."""
    world, factory = World(), MockFactory(pin_class=MockPWMPin)
    pins = LightPins(world.board, factory, LgpioError)
    core = LightCore(
        world.board, pins, world, world, lambda: world.now, world.moment, on_fault=world.faults.append
    )
    core.lease(1, "s1", CONSENT, world.allowance())

    def pin(light) -> Any:
        return factory.pin(world.board.lights[light].pin)

    yield world, core, pin
    for light in world.board.lights:
        pin(light).__class__ = MockPWMPin
    pins.close()


def test_a_driver_that_fails_at_one_pin_does_not_keep_uv_lit_and_latches(
    driven: tuple[World, LightCore, Callable[[str], Any]],
) -> None:
    world, core, pin = driven
    core.pulse(1, "uv365", 0.5)
    assert pin("uv365").state == 1.0
    break_pin(pin("parallel"))
    world.now += 0.6
    core.tick()
    assert pin("uv365").state == 0.0
    assert "pin_failed" in world.faults
    core.stop()


def test_a_driver_that_fails_to_light_a_pin_is_a_refusal_and_latches(
    driven: tuple[World, LightCore, Callable[[str], Any]],
) -> None:
    world, core, pin = driven
    break_pin(pin("cross"))
    with pytest.raises(LightRefused, match="cross"):
        core.on(1, "cross", 1.0)
    assert world.faults == ["pin_failed"]


def test_a_pin_that_cannot_be_let_go_of_keeps_no_other() -> None:
    factory = MockFactory(pin_class=MockPWMPin)
    hardware = open_real_pins(a_board("lgpio"), lgpio(factory))
    hardware.pins.set("white", 1.0)
    pin = factory.pin(23)

    def fail(self) -> NoReturn:
        raise LgpioError("bad handle")

    pin.__class__ = type("Broken", (MockPWMPin,), {"close": fail})
    with pytest.raises(OSError, match="let go"):
        hardware.pins.close()
    assert factory.pin(18).function == "input"
    pin.__class__ = MockPWMPin
    hardware.close()


@pytest.mark.parametrize("name", ["GPIO23", "GPIO20"], ids=["lamp", "shroud"])
def test_a_pin_that_another_process_holds_is_one_sentence(name) -> None:
    class Pin(MockPWMPin):
        def __init__(self, factory, info) -> None:
            if info.name == name:
                raise LgpioError("GPIO busy")
            super().__init__(factory, info)

    with pytest.raises(DriverMissing, match="GPIO busy"):
        open_real_pins(a_board("lgpio"), lgpio(MockFactory(pin_class=Pin)))


def test_gpio_that_may_not_be_opened_is_one_sentence() -> None:
    class Error(Exception):
        pass

    def refuse() -> NoReturn:
        raise Error("can not open gpiochip")

    modules = {
        "lgpio": types.SimpleNamespace(error=Error),
        "gpiozero.pins.lgpio": types.SimpleNamespace(LGPIOFactory=refuse),
    }
    with pytest.raises(DriverMissing, match="can not open gpiochip"):
        open_real_pins(a_board("lgpio"), modules.__getitem__)


@pytest.mark.parametrize("factory", ["lgpio", "gpiod"])
def test_a_missing_library_is_an_error_that_names_the_line(
    factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, factory, None)
    with pytest.raises(DriverMissing, match=f"pin_factory = '{factory}'"):
        open_light_hardware(a_board(factory), tmp_path)


def test_a_real_board_without_sensors_counts_every_interlock_as_open() -> None:
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
