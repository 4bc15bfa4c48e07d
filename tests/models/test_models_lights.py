"""The table of what each measure reads is what the analysis does: no light is in it for nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import pytest

from firmware.capture.sequence import ORDER
from hardware.capture import Capture, Frame
from models.analysis.capture import Analysis, analyse_capture
from models.analysis.colour import linear
from models.analysis.lights import READS, lights_read

pytestmark = pytest.mark.usefixtures("one_look")

SCAN = UUID("11111111-2222-4333-8444-555555555555")


class Watched(Frame):
    """A frame that notes by its light, in `looked_at`, when somebody looks at its pixels."""

    looked_at: set[str] = set()

    def __getattribute__(self, name: str) -> object:
        if name == "pixels":
            Watched.looked_at.add(super().__getattribute__("light"))
        return super().__getattribute__(name)


@dataclass(frozen=True)
class Scan:
    """A Capture under every light of the sequence, what it gave, and whose pixels were looked at."""

    capture: Capture
    analysis: Analysis
    looked_at: set[str]


def _values(analysis: Analysis) -> dict[str, list[tuple[str, float]]]:
    """The values of each measure, zone by zone."""
    found: dict[str, list[tuple[str, float]]] = {}
    for finding in analysis.findings.findings:
        found.setdefault(finding.measure, []).append((finding.zone, finding.value))
    return found


@pytest.fixture(scope="module")
def scan(large_portrait: np.ndarray) -> Scan:
    white = np.round(linear(large_portrait, "srgb") * 65535).astype(np.uint16)
    Watched.looked_at = set()
    frames = tuple(
        Watched(light, white if light == "white" else white // 2, 8000, 1.0, at)
        for at, light in enumerate(ORDER)
    )
    capture = Capture("test", frames, "nominal-test", simulated=True)
    analysis = analyse_capture(capture, SCAN)
    return Scan(capture, analysis, set(Watched.looked_at))


def test_exactly_the_lights_of_the_table_are_looked_at(scan: Scan) -> None:
    assert scan.looked_at == lights_read()


def test_every_measure_that_is_made_is_in_the_table_and_no_other(scan: Scan) -> None:
    assert {finding.measure for finding in scan.analysis.findings.findings} == set(READS)


def test_another_cross_frame_changes_the_measures_that_read_it_and_no_other(scan: Scan) -> None:
    def disturbed(frame: Frame) -> Frame:
        """Redder, and with dark dots all over."""
        pixels = (frame.pixels * np.array([1.0, 0.8, 0.8])).astype(np.uint16)
        pixels[::24, ::24] = pixels[1::24, ::24] = 0
        return replace(frame, pixels=pixels)

    frames = tuple(disturbed(f) if f.light == "cross" else f for f in scan.capture.frames)
    before, after = (
        _values(scan.analysis),
        _values(analyse_capture(replace(scan.capture, frames=frames), SCAN)),
    )
    # What is not measured any more has changed too: spots are not counted where dots are noise.
    changed = {measure for measure in READS if before[measure] != after.get(measure)}
    assert changed == {measure for measure, lights in READS.items() if "cross" in lights}


def test_a_measure_that_reads_uv_brings_it_back() -> None:
    assert "uv365" not in lights_read()
    assert lights_read({**READS, "porphyrin_count": frozenset(("uv365",))}) == lights_read() | {"uv365"}
