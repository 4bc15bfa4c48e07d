"""A gpiozero pin factory whose mock pins publish what they do on a pin page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpiozero.pins.mock import MockFactory, MockPWMPin

from hardware.simulated.pins import PinPage


class PagePin(MockPWMPin):
    """A mock PWM pin that also writes each change of state to its factory's page."""

    def _change_state(self, value: float) -> bool:
        changed: bool = super()._change_state(value)
        if changed:
            self.factory.publish(self.info.name, float(value))
        return changed


class PageFactory(MockFactory):
    """`PageFactory(page, {23: "uv365"})`: pin 23 shows on the page as "uv365"; other pins do not show."""

    def __init__(self, page: PinPage, channels: Mapping[int, str]) -> None:
        super().__init__(pin_class=PagePin)
        self.page = page
        self._channels = {f"GPIO{number}": name for number, name in channels.items()}

    def publish(self, pin: str, level: float) -> None:
        """Called by the pins; `pin` is gpiozero's name for it."""
        channel = self._channels.get(pin)
        if channel is not None:
            self.page.write(channel, level)

    def close(self) -> Any:
        super().close()
        self.page.close()
