"""A gpiozero pin factory whose mock pins publish what they do on a pin page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpiozero.pins.mock import MockFactory, MockPWMPin

from hardware.simulated.pins import PinPage


class PagePin(MockPWMPin):  # type: ignore[misc]  # gpiozero has no types
    """A mock PWM pin that also writes each change of state to its factory's page."""

    def _change_state(self, value: float) -> bool:
        changed: bool = super()._change_state(value)
        if changed:
            self.factory.publish(self.info.name, float(value))
        return changed


class PageFactory(MockFactory):  # type: ignore[misc]  # nor here
    """`PageFactory(page, {23: "uv365"})`: pin 23 shows on the page as "uv365"; other pins do not show."""

    def __init__(self, page: PinPage, lights: Mapping[int, str]) -> None:
        super().__init__(pin_class=PagePin)
        self.page = page
        self._lights = {f"GPIO{number}": name for number, name in lights.items()}

    def publish(self, pin: str, level: float) -> None:
        """Called by the pins; `pin` is gpiozero's name for it."""
        light = self._lights.get(pin)
        if light is not None:
            self.page.write(light, level)

    def close(self) -> Any:
        super().close()
        self.page.close()
