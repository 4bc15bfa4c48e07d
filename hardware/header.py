"""Header: the 40-pin connector of a board, with the GPIO line behind each of its pins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SUPPLY: Mapping[int, str] = {1: "3V3", 17: "3V3", 2: "5V", 4: "5V"} | dict.fromkeys(
    (6, 9, 14, 20, 25, 30, 34, 39), "GND"
)
# Header pins of the first I2C bus, and of the SPI bus of a TPM with its chip select.
I2C: Mapping[int, str] = {3: "SDA", 5: "SCL"}
SPI: Mapping[int, str] = {19: "MOSI", 21: "MISO", 23: "SCLK", 26: "CE1"}

_RASPBERRYPI = """
3 2, 5 3, 7 4, 8 14, 10 15, 11 17, 12 18, 13 27, 15 22, 16 23, 18 24, 19 10, 21 9, 22 25, 23 11, 24 8, 26 7,
27 0, 28 1, 29 5, 31 6, 32 12, 33 13, 35 19, 36 16, 37 26, 38 20, 40 21
"""
# Lines of tegra234-gpio (gpiochip0) as NVIDIA names them: Orin Nano module on the developer kit's carrier.
_JETSON_ORIN_NANO = """
7 144 PAC.06, 11 112 PR.04, 12 50 PH.07, 13 122 PY.00, 15 85 PN.01, 16 126 PY.04, 18 125 PY.03, 19 135 PZ.05,
21 134 PZ.04, 22 123 PY.01, 23 133 PZ.03, 24 136 PZ.06, 26 137 PZ.07, 29 105 PQ.05, 31 106 PQ.06, 32 41 PG.06,
33 43 PH.00, 35 53 PI.02, 36 113 PR.05, 37 124 PY.02, 38 52 PI.01, 40 51 PI.00
"""


@dataclass(frozen=True)
class PinHeader:
    """A 40-pin header: `at` gives the header pin of a GPIO line, `names` what the maker calls the line.

    `pulled_up` lines idle high from power-on until a driver takes them: no lamp may hang there. A pull-down
    of `pull_down_ohm` goes to ground at every gate. The kernel's number of the bus at I2C is `i2c_bus`.
    """

    at: Mapping[int, int]
    names: Mapping[int, str]
    pulled_up: frozenset[int]
    pull_down_ohm: int
    i2c_bus: int


def _read(table: str) -> list[tuple[int, int, str]]:
    rows = [row.split() for row in table.replace("\n", " ").split(",")]
    return [
        (int(line), int(pin), f"{name[0]}, line {line}" if name else f"GPIO {line}")
        for pin, line, *name in rows
    ]


def _header(table: str, pulled_up: range, pull_down_ohm: int, i2c_bus: int) -> PinHeader:
    rows = _read(table)
    return PinHeader(
        at={line: pin for line, pin, _ in rows},
        names={line: name for line, _, name in rows},
        pulled_up=frozenset(pulled_up),
        pull_down_ohm=pull_down_ohm,
        i2c_bus=i2c_bus,
    )


HEADERS: Mapping[str, PinHeader] = {
    # BCM2711 and RP1 alike: lines 0 to 8 have their pull-ups on at power-on, the others pull-downs.
    "raspberrypi": _header(_RASPBERRYPI, range(9), 10_000, i2c_bus=1),
    # The carrier's level shifters are weak: anything below 50 kΩ bends their levels.
    "jetson-orin-nano": _header(_JETSON_ORIN_NANO, range(0), 100_000, i2c_bus=7),
}
