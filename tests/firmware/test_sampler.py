"""The sampler, on a clock of the test's own: no voltage is older than it may be."""

from __future__ import annotations

import pytest

from firmware.pins.sampler import OLDEST_S, Sampler
from hardware.profile import Limits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Converter:
    """Gives 1 V per channel number, plus one; `takes` seconds each."""

    def __init__(self, clock, takes=0.003) -> None:
        self.clock, self.takes, self.broken = clock, takes, set()

    def volts(self, channel) -> float:
        self.clock.now += self.takes
        if channel in self.broken:
            raise OSError("no answer")
        return channel + 1.0


@pytest.fixture
def sampled() -> tuple[Clock, Converter, Sampler]:
    clock = Clock()
    converter = Converter(clock)
    return clock, converter, Sampler(lambda: (converter, lambda: None), [0, 1, 2], clock)


def test_nothing_sampled_yet_is_no_voltage(sampled: tuple[Clock, Converter, Sampler]) -> None:
    _, _, sampler = sampled
    with pytest.raises(OSError, match="not read yet"):
        sampler.volts(0)


def test_a_voltage_older_than_it_may_be_is_none(sampled: tuple[Clock, Converter, Sampler]) -> None:
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


def test_one_transfer_gone_wrong_does_not_lose_a_channel_and_several_do(
    sampled: tuple[Clock, Converter, Sampler],
) -> None:
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


def test_what_is_looked_at_50_ms_after_off_was_converted_in_the_dark() -> None:
    assert Limits().light_after_off_s > OLDEST_S
