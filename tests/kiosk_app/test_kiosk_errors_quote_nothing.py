"""What the kiosk's processes hand each other is quoted by no error, wherever in it something is wrong."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.capture import Capture, Frame, Spot
from kiosk_app.log import OURS
from models.analysis.result import AnalysisResult, read_result, write_result
from tests.support.clinic import findings

SECRET = "ref-4711-secret"
WRONG: dict[str, Any] = {
    "text": SECRET,
    "list": [SECRET],
    "object": {SECRET: SECRET},
    "value": {"x": SECRET},
}


def spoiled(data: Any, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """`data` (as of JSON) with something that is wrong, and names a patient, at one place after another.

    The place comes first (a list's items are alike), then what kind of wrong it is.
    """
    for kind, wrong in WRONG.items():
        yield place, kind, wrong
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        for within, kind, wrong in spoiled(data[key], f"{place}.{'*' if isinstance(key, int) else key}"):
            changed = copy.deepcopy(data)
            changed[key] = wrong
            yield within, kind, changed


def framed(data: bytes, magic: int) -> tuple[Any, Callable[[Any], bytes]]:
    """The JSON at the head of `data`, and how another is put there."""
    start = magic + 4
    end = start + int.from_bytes(data[magic:start], "big")

    def again(header: Any) -> bytes:
        text = json.dumps(header).encode()
        return data[:magic] + len(text).to_bytes(4, "big") + text + data[end:]

    return json.loads(data[start:end]), again


def a_capture() -> Capture:
    frame = Frame("white", np.zeros((4, 4, 3), np.uint16), 8000, 1.0, 1)
    taken = [
        (
            Spot(zone="chin", x=0.1, y=0.2, mm_per_px=0.05),
            Frame("x", np.zeros((4, 4, 3), np.uint8), 1, 1.0, 2),
        )
    ]
    at = datetime.now(timezone.utc)
    return Capture("test", (frame,), "nominal-test", captured_at=at).with_close_ups(taken)


def captures() -> Iterator[tuple[Callable[[Any], object], Any]]:
    header, again = framed(a_capture().to_bytes(), 7)
    yield lambda said: Capture.from_bytes(again(said)), header


def results() -> Iterator[tuple[Callable[[Any], object], Any]]:
    whole = write_result(AnalysisResult(findings(uuid4()), {"spots": b"png"}, seconds={"total": 1.0}))
    header, again = framed(whole, 7)
    yield lambda said: read_result(again(said)), header


def stamps() -> Iterator[tuple[Callable[[Any], object], Any]]:
    yield UvAllowance.from_dict, UvAllowance("someone", True, time.time()).to_dict()
    yield ConsentStamp.from_dict, ConsentStamp("1", "en", datetime.now(timezone.utc)).to_dict()


# What is let through, by its place: a text where a text stands, and what is only carried along.
TEXT, ANYTHING = {"text"}, set(WRONG)
LET_THROUGH: dict[Callable[[], Any], dict[str, set[str]]] = {
    captures: {
        **dict.fromkeys((".board", ".calibration", ".mm_per_px", ".simulated", ".missing"), ANYTHING),
        **{
            f".frames.*.{name}": ANYTHING
            for name in ("light", "exposure_us", "gain", "timestamp_ns", "colour")
        },
        ".spots.closeup0": {"object"},
    },
    results: {
        ".findings.models": {"object", "value"},
        ".findings.quality": {"list"},
        **{
            f".findings.{name}": TEXT
            for name in ("models.face_landmarks", "calibration", "software", "quality.*")
        },
        **{f".findings.findings.*.{name}": TEXT for name in ("unit", "model")},
        ".overlays.*.*": TEXT,
        **dict.fromkeys((".refused", ".error", ".sentence", ".peak_rss_mb"), ANYTHING),
        **dict.fromkeys((".seconds", ".seconds.total"), ANYTHING),
    },
    stamps: {
        **dict.fromkeys((".patient_reference", ".text_version", ".language"), TEXT),
        ".screened": ANYTHING,
    },
}


@pytest.mark.parametrize("handed_over", LET_THROUGH)
def test_no_error_quotes_what_it_could_not_digest(
    handed_over: Callable[[], Iterator[tuple[Callable[[Any], object], Any]]],
) -> None:
    tried, refused = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for read, right in handed_over():
        read(right)
        for place, kind, wrong in spoiled(right):
            tried[place, kind] += 1
            try:
                read(wrong)
            except Exception as error:  # noqa: BLE001  whatever it is, and from wherever
                refused[place, kind] += 1
                assert isinstance(error, OURS), f"{error!r} is no error of ours"
                assert SECRET not in str(error)
    let_through: dict[str, set[str]] = {}
    for place, kind in tried - refused:
        let_through.setdefault(place, set()).add(kind)
    assert let_through == LET_THROUGH[handed_over]
