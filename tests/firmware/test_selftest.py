"""The self-test's judgements, on what a workbench reports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from firmware.selftest import _sensed
from hardware.board import BOARDS, load_board

BOARD = load_board(BOARDS / "simulated.toml")


def bench(w_m2: float) -> SimpleNamespace:
    """A bench whose UV lamp gives so much while it is on."""

    def step(lit):
        sensors = {"photodiode_w_m2": w_m2 if lit else 0.0, "lamp_current_a": 0.7 if lit else 0.0}
        return {"sensors": sensors, "uv_seen": [lit, lit]}

    return SimpleNamespace(board=BOARD, sense=lambda name: [step(False), step(True), step(False)])


@pytest.mark.parametrize(
    ("w_m2", "well", "said"),
    [
        (8.2, True, "photodiode 0.00, 8.20, 0.00 W/m²"),
        (9.7, False, "uv365 gives 9.7 W/m² by the photodiode, brighter than the 8 W/m²"),
        (4.0, False, "uv365 gives 4.0 W/m² by the photodiode, not as bright as the 8 W/m²"),
    ],
)
def test_a_uv_lamp_is_as_bright_as_the_dose_is_reckoned_by(w_m2, well, said):
    result = _sensed(bench(w_m2), "uv365")
    assert result.ok is well
    assert said in result.found
