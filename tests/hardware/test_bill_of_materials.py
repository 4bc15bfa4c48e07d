"""The bill of materials names what the profiles are written for, and the targets that the code looks for."""

from __future__ import annotations

import pytest

from hardware.board import BOARDS, load_board
from hardware.targets import GREY_REFLECTANCE, WHITE_REFLECTANCE, Sphere, reference_chart
from tests.support.documents import document, in_code

PAGE = document("hardware/docs/bill-of-materials.md")
WITH_LAMPS = [
    path for path in sorted(BOARDS.glob("*.toml")) if (board := load_board(path)).pins and not board.simulated
]


def named(head: str) -> dict[str, str]:
    """What a table says of each part."""
    return {row.pop(head): " ".join(row.values()) for row in PAGE.table(head)}


@pytest.mark.parametrize("path", WITH_LAMPS, ids=lambda path: path.stem)
def test_the_leds_and_the_sensor_of_every_kiosk_are_listed(path) -> None:
    board = load_board(path)
    cameras = next(rows for rows in PAGE.tables("part") if any("HQ Camera" in row["part"] for row in rows))
    leds = {light.led for light in board.lights.values() if not light.is_uv}
    assert leds <= set(in_code(named("light")["`white`"]))
    assert board.camera.sensor in in_code(" ".join(row["it must"] for row in cameras))


def test_the_targets_are_those_that_the_code_looks_for() -> None:
    sphere, said = Sphere(), named("target")
    assert f"reflect {100 * WHITE_REFLECTANCE:g} %" in said["white card, A3"]
    assert f"reflect {100 * GREY_REFLECTANCE:g} %" in said["grey card, A3"]
    assert f"reflect {100 * sphere.reflectance:g} %" in said[f"matte ball of {2 * sphere.radius_mm:g} mm"]
    assert {"black cloth", "plain white copy paper, A3", "colour chart on white card"} <= set(said)


def test_the_chart_is_built_to_the_measures_that_it_is_read_by() -> None:
    chart = reference_chart()
    x, y = chart.markers_mm()[2]
    assert {row["of the chart"]: row["measure"] for row in PAGE.table("of the chart")} == {
        "patches": f"{chart.columns} × {chart.rows} of {chart.patch_mm:g} mm,"
        f" their middles {chart.pitch_mm:g} mm apart",
        "markers": f"ArUco from the dictionary of 4 × 4, black on white, {chart.marker_mm:g} mm;"
        " 0 is top left, then 1, 2, 3 clockwise",
        "middles of the markers": f"{x:g} mm beside and {y:g} mm above or below the middle of the chart",
    }
