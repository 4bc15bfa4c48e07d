"""Stand-ins for the libraries of real pins, which this machine has no chips for."""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Value(enum.Enum):
    INACTIVE = 0
    ACTIVE = 1


class Request:
    """What gpiod.request_lines gives: lines that remember, one of which may fail."""

    def __init__(self, path: str, consumer: str | None, config: Mapping[Any, Any]) -> None:
        self.path, self.consumer = path, consumer
        ((pins, settings),) = config.items()
        self.direction, self.bias, self.output_value = settings
        self.values = dict.fromkeys(pins, Value.INACTIVE)
        self.broken: int | None = None
        self.fails = False
        self.released = False

    def set_value(self, line: int, value: Value) -> None:
        assert self.direction == "output"
        if line == self.broken:
            raise OSError("no such line")
        self.values[line] = value

    def get_values(self, lines: Sequence[int]) -> list[Value]:
        if self.fails:
            raise OSError("no such line")
        return [self.values[line] for line in lines]

    def release(self) -> None:
        self.released = True


def libgpiod() -> Any:
    """A stand-in with the names of libgpiod's own binding, version 2; `requests` are those made."""
    module = types.SimpleNamespace(requests=[])

    def request_lines(path: str, config: Mapping[Any, Any], consumer: str | None = None) -> Request:
        module.requests.append(Request(path, consumer, config))
        return module.requests[-1]

    def line_settings(direction: str, bias: str | None = None, output_value: Value | None = None) -> Any:
        return (direction, bias, output_value)

    module.request_lines, module.LineSettings = request_lines, line_settings
    module.line = types.SimpleNamespace(
        Value=Value,
        Direction=types.SimpleNamespace(OUTPUT="output", INPUT="input"),
        Bias=types.SimpleNamespace(PULL_DOWN="pull down"),
    )
    return module


class LgpioError(Exception):
    """lgpio.error is no OSError."""


def lgpio(factory: Any) -> Callable[[str], Any]:
    """An import under which gpiozero's lgpio factory is `factory`; smbus2 is the real one."""
    import smbus2

    modules = {
        "lgpio": types.SimpleNamespace(error=LgpioError),
        "gpiozero.pins.lgpio": types.SimpleNamespace(LGPIOFactory=lambda: factory),
        "smbus2": smbus2,
    }
    return modules.__getitem__


def break_pin(pin: Any) -> None:
    """From now on the driver raises what lgpio raises, where gpiozero sets or reads `pin`."""

    def fail(self: Any, *_: Any) -> None:
        raise LgpioError("bad handle")

    pin.__class__ = type("Broken", (type(pin),), {"_get_state": fail, "_set_state": fail})


def missing(name: str) -> Any:
    raise ImportError(f"No module named {name!r}")
