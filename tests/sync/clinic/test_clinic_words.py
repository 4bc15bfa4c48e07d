from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync.clinic.scans.interval_plot import IntervalPlot
from sync.clinic.scans.scan_view import ScanView
from sync.clinic.store.tables import FindingRow
from sync.clinic.web import words
from sync.clinic.web.drawn_face import DrawnFace


def rows(measure: str, **values: tuple[float, float, float]) -> list[FindingRow]:
    return [
        FindingRow(
            scan=uuid4(), position=0, measure=measure, zone=zone, value=value, unit="1", low=low, high=high
        )
        for zone, (low, value, high) in values.items()
    ]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(56, 60, "Very light"), (27.9, 28.1, "Tan to intermediate"), (-50, -31, "Dark"), (-30, -30, "Dark")],
)
def test_skin_tone_is_named_by_its_class_and_by_both_when_it_spans_them(
    low: float, high: float, text: str
) -> None:
    assert words.reading(rows("ita", face=(low, (low + high) / 2, high))) == text


def test_a_reading_names_the_highest_zone_only_when_the_intervals_are_apart() -> None:
    apart = rows("redness", nose=(4, 5, 6), chin=(1, 2, 3), face=(9, 9, 9))
    assert words.reading(apart) == "Highest on the nose"
    together = rows("redness", nose=(2, 5, 6), chin=(1, 2, 3))
    assert words.reading(together) == "No zone stands out"
    assert words.reading(rows("spot_count", nose=(0, 0, 0), chin=(0, 0, 0))) == "None seen in any zone"
    assert words.reading(rows("spot_count", nose=(1, 2, 3), chin=(0, 1, 2))) == "No zone stands out"
    assert words.reading(rows("redness", face=(1, 2, 3))) == ""
    assert words.reading([]) == ""


@pytest.mark.parametrize("measure", words.TOTALS)
def test_the_only_zone_in_which_something_was_found_is_named(measure: str) -> None:
    one, none = (0, 1, 2), (0, 0, 1)
    assert words.reading(rows(measure, nose=none, chin=one)) == "Seen only on the chin"
    assert words.reading(rows(measure, nose=none, chin=one, face=one)) == "Seen only on the chin"
    # The other one is between the zones.
    assert words.reading(rows(measure, nose=none, chin=one, face=(0, 2, 3))) == "No zone stands out"


def test_acne_reads_as_a_count_with_the_number_of_lesions_of_its_severity() -> None:
    assert words.reading(rows("acne_count", nose=(4, 7, 9), chin=(0, 1, 3))) == "Most on the nose"
    assert words.reading(rows("acne_severity", face=(0, 1, 2))) == "6 to 20 lesions"
    assert words.interval("acne_severity", 0, 2) == "0 to 2"
    assert "acne_count" in words.TOTALS
    for name in ("acne_count", "acne_severity"):
        assert "Hayashi" not in words.measure(name).name
    assert words.caveats(["acne_not_counted", "acne_in_polarised_light"]) == [
        "Acne lesions were counted in polarised light, new to the network."
    ]


def test_numbers_have_a_true_minus_and_no_minus_zero() -> None:
    assert words.number("ita", -12.34) == "\N{MINUS SIGN}12.3"
    assert words.number("ita", -0.04) == "0.0"
    assert words.number("spot_count", 1234) == "1\N{THIN SPACE}234"
    assert words.interval("spot_count", 5.5, 6.5) == "5 to 7"
    assert words.with_unit("ita", 3, "deg") == "3.0°"
    assert words.with_unit("spot_area", 3, "mm2") == "3.0\N{NO-BREAK SPACE}mm²"


@pytest.mark.parametrize("measure", sorted(words.MEASURES))
@given(ends=st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)).map(sorted))
@example(ends=[0.01, 0.04])
@example(ends=[1.1, 1.1001])
def test_an_interval_is_never_written_as_a_point_and_holds_all_of_it(measure: str, ends: list[float]) -> None:
    """A red area that may be up to 0.04 % is not one of "0.0 to 0.0"."""
    low, high = ends
    text = words.interval(measure, low, high)
    if low == high:
        assert text == ""
        return
    first, last = (float(end.replace("\N{THIN SPACE}", "")) for end in text.split(" to "))
    assert first <= low < high <= last and first < last


def test_where_nothing_red_was_seen_there_is_no_interval() -> None:
    record = SimpleNamespace(
        scan=SimpleNamespace(spots=(), quality=(), geometry=SimpleNamespace(marks=())),
        findings=rows("redness", face=(0, 0, 0), nose=(0, 0, 0), chin=(0, 0, 0)),
    )
    [figure] = ScanView(record, None).figures  # type: ignore[arg-type]
    assert (figure.value, figure.interval, figure.reading) == ("0.0", "", "None seen in any zone")


def test_a_quality_flag_is_a_sentence_and_harmless_ones_ask_for_no_care() -> None:
    flags = ["nose_hidden", "no_uv365_frame", "no_dir2_frame", "something_new"]
    assert words.caveats(flags) == [
        "Too little skin to measure: nose.",
        "No picture under the light 'dir2' was taken.",
        "Something new.",
    ]


def test_times_are_said_as_people_say_them() -> None:
    today = datetime(2026, 3, 2, 14, 5).astimezone()
    assert words.when(today, today) == "today 14:05"
    assert words.when(today - timedelta(days=1), today) == "yesterday 14:05"
    assert words.when(today - timedelta(days=20), today) == "10 Feb 14:05"
    assert words.when(today - timedelta(days=400), today) == "26 Jan 2025"
    assert words.when(today.astimezone(timezone(timedelta(hours=9))), today) == "today 14:05"


def _intervals() -> st.SearchStrategy[tuple[float, float, float]]:
    number = st.floats(-1e9, 1e9)
    apart = st.tuples(number, number, number)
    near = st.builds(lambda one, by: (one, one + by, one + 2 * by), number, st.floats(0, 1e-3))
    return (apart | near).map(lambda three: tuple(sorted(three)))


@example((0, 0, 0))
@example((5, 5, 5))
@example((-3, -2, -1))
@example((0.001, 0.002, 0.003))
@example((1e5, 2e5, 3e5))
@example((-5e-324, -5e-324, -5e-324))
@example((1e9 - 1e-7, 1e9, 1e9))
@given(_intervals())
@settings(max_examples=300, deadline=None)
def test_the_plot_holds_every_interval_between_few_ticks(values: tuple[float, float, float]) -> None:
    plot = IntervalPlot(rows("ita", nose=values, chin=values))
    assert 2 <= len(plot.ticks) <= 7
    assert len({tick.text for tick in plot.ticks}) == len(plot.ticks)
    (row, _) = plot.rows
    assert plot.ticks[0].x <= row.low <= row.value <= row.high <= plot.ticks[-1].x


@pytest.mark.parametrize("measure", ["spot_count", "acne_count", "acne_severity"])
def test_the_plot_of_what_is_counted_has_no_halves(measure: str) -> None:
    assert [tick.text for tick in IntervalPlot(rows(measure, nose=(0, 0, 1))).ticks] == ["0", "1"]
    assert [tick.text for tick in IntervalPlot(rows(measure, nose=(0, 1, 2))).ticks] == ["0", "1", "2"]


def test_the_patients_left_is_drawn_on_our_right_and_labels_do_not_meet() -> None:
    face = DrawnFace([], words.ZONES)
    places = {label.zone: label for label in face.labels}
    assert places["left_cheek"].to.x > face.width / 2 > places["right_cheek"].to.x
    for side in ("start", "end"):
        heights = sorted(label.y for label in face.labels if label.anchor == side)
        assert all(after - before >= 40 for before, after in zip(heights, heights[1:], strict=False))
        assert heights[-1] <= face.height
