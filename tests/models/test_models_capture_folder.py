"""A capture folder that anyone made is read, or refused with one sentence that names what is wrong in it."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import BaseModel

from hardware import capture_folder, picture_file
from hardware.capture import END_OF_MOMENTS, FIRST_MOMENT, Capture, CaptureError, Frame
from hardware.capture_folder import (
    CLOSE_UP_NAME,
    MAX_CALIBRATION,
    MAX_CLOSE_UPS,
    MAX_FRAMES,
    MAX_LIGHT,
    read_capture_folder,
    write_capture_folder,
)
from hardware.picture_file import read_picture_file
from models.analysis import describe
from models.analysis.colour import linear, to_srgb8
from models.networks.runtime import DEFAULT_ENGINE
from sync.wire import bounds
from sync.wire.findings import Findings, MarkedSpot
from tests.support.icc import coded_in, matrix_profile
from tests.support.picture_files import iccp, png, tiff

NO_CLOCK = (
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00+00:00",
    "1969-12-31T23:59:59+00:00",
    "1970-01-01T00:30:00+01:00",
    "2200-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59-14:00",
)
DERMAKIOSK = Path(sys.executable).with_name("dermakiosk")


@pytest.fixture
def visit(tmp_path: Path) -> Path:
    frames = tuple(
        Frame(light, np.full((40, 30, 3), 9000, np.uint16), 8000, 1.0, 1) for light in ("white", "cross")
    )
    write_capture_folder(Capture("test", frames), tmp_path / "visit")
    return tmp_path / "visit"


def _change(visit: Path, changes: dict[str, Any], frame: dict[str, Any] | None = None) -> None:
    index = json.loads((visit / "capture.json").read_text()) | changes
    if frame:
        index["frames"][0] |= frame
    (visit / "capture.json").write_text(json.dumps(index))


def _refusal(visit: Path) -> str:
    with pytest.raises(CaptureError) as refused:
        read_capture_folder(visit)
    sentence = str(refused.value)
    assert refused.value.exit_status == 2 and "\n" not in sentence and "pydantic" not in sentence
    return sentence


def test_what_was_written_is_read_again(visit: Path) -> None:
    _change(visit, {"note": "more than we read"}, {"lens": "50 mm"})
    capture = read_capture_folder(visit)
    assert [frame.light for frame in capture.frames] == ["white", "cross"]
    assert np.unique(capture.frames[0].pixels).tolist() == [9000]
    assert (capture.frames[0].exposure_us, capture.frames[0].colour) == (8000, "linear-srgb")


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("2026-03-29T01:30:00+02:00", datetime(2026, 3, 28, 23, 30, tzinfo=timezone.utc)),
        ("2026-03-28T23:30:00Z", datetime(2026, 3, 28, 23, 30, tzinfo=timezone.utc)),
        (None, None),
    ],
)
def test_when_the_pictures_were_taken_is_known_where_the_folder_says_so(
    visit: Path, tmp_path: Path, said: str | None, read: datetime | None
) -> None:
    assert read_capture_folder(visit).captured_at is None
    _change(visit, {"captured_at": said})
    capture = read_capture_folder(visit)
    write_capture_folder(capture, tmp_path / "again")
    again = read_capture_folder(tmp_path / "again")
    assert (
        capture.captured_at == again.captured_at == Capture.from_bytes(again.to_bytes()).captured_at == read
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        *((said, "should be a text as 2026-03-28T23:30:00+01:00") for said in ("yesterday", "2026-03-29")),
        *((said, "should be a text") for said in ("1700000000", "-1", "253402300800", "0", 7, 1.7e9, ["x"])),
        ("2026-03-29T01:30:00", "should have a time zone"),
        *((said, "should be within the years 1970 to 2199") for said in NO_CLOCK),
        ("2026-03-29T25:30:00Z", "input should be a valid datetime"),
    ],
)
def test_a_time_that_is_none_is_named(visit: Path, said: object, why: str) -> None:
    _change(visit, {"captured_at": said})
    sentence = _refusal(visit)
    assert "captured_at" in sentence and why in sentence


@pytest.mark.parametrize("said", [*NO_CLOCK, "1700000000", "-1", 7, ["x"], "2026-03-29T01:30:00"])
def test_a_time_that_is_none_is_refused_in_memory_too(visit: Path, said: object) -> None:
    taken = read_capture_folder(visit)
    header = replace(taken, captured_at=datetime(2026, 3, 28, tzinfo=timezone.utc)).header()
    assert Capture.known(header, taken.frames).header() == header
    for wrong in ({"captured_at": said}, {"spots": [said]}):
        with pytest.raises((AttributeError, TypeError, ValueError)):
            Capture.known(header | wrong, taken.frames)


def test_a_captures_moments_are_those_that_the_clinic_takes() -> None:
    assert (FIRST_MOMENT, END_OF_MOMENTS) == (bounds.FIRST_MOMENT, bounds.END_OF_MOMENTS)


def test_as_much_is_read_of_a_capture_as_findings_can_say() -> None:
    def bounds_of(model: type[BaseModel], name: str) -> dict[str, Any]:
        said = model.model_json_schema()["properties"][name]
        return next((kind for kind in said.get("anyOf", ()) if kind["type"] == "string"), said)

    assert bounds_of(Findings, "calibration")["maxLength"] == MAX_CALIBRATION
    assert bounds_of(Findings, "quality")["items"]["maxLength"] == len("no__frame") + MAX_LIGHT
    assert bounds_of(Findings, "spots")["maxItems"] == MAX_CLOSE_UPS
    assert bounds_of(MarkedSpot, "frame")["pattern"] == f"^{CLOSE_UP_NAME}$"
    # Half of the flags are left for what is not a missing frame.
    assert bounds_of(Findings, "quality")["maxItems"] >= 2 * MAX_FRAMES


def test_a_folder_whose_frames_are_too_much_together_is_refused_before_any_is_decoded(
    visit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_folder, "MAX_CAPTURE_PIXELS", 2 * 40 * 30)
    assert len(read_capture_folder(visit).frames) == 2
    monkeypatch.setattr(capture_folder, "MAX_CAPTURE_PIXELS", 2 * 40 * 30 - 1)
    monkeypatch.setattr(picture_file, "decode", lambda _: pytest.fail("decoded"))
    assert "pixels together" in _refusal(visit)


def test_a_folder_of_ones_own_needs_only_file_names(visit: Path) -> None:
    (visit / "capture.json").write_text('{"frames": [{"file": "white.png"}]}')
    cv2.imwrite(str(visit / "white.png"), np.full((40, 30, 3), 9000, np.uint16))
    (frame,) = read_capture_folder(visit).frames
    assert (frame.light, frame.colour, frame.gain) == ("white", "srgb", 1.0)


def test_a_frame_of_ours_says_itself_that_it_is_linear(visit: Path) -> None:
    (visit / "capture.json").write_text('{"frames": [{"file": "white.png"}]}')
    (frame,) = read_capture_folder(visit).frames
    assert (frame.colour, int(frame.pixels[0, 0, 0])) == ("linear-srgb", 9000)
    assert int(read_picture_file(visit / "white.png").srgb8()[0, 0, 0]) == 104


def test_what_the_command_says_of_the_frames_goes_before_what_capture_json_says(visit: Path) -> None:
    assert {frame.colour for frame in read_capture_folder(visit, "srgb").frames} == {"srgb"}
    _change(visit, {}, {"colour": "raw"})
    assert [frame.colour for frame in read_capture_folder(visit).frames] == ["raw", "linear-srgb"]


def test_a_profile_in_a_frame_is_believed_unless_it_is_linear_light(visit: Path) -> None:
    pixels = np.round(255 * coded_in("Display P3", np.full((40, 30, 3), [200, 120, 90]) / 255))
    white = png(pixels.astype(np.uint8), iccp(matrix_profile("Display P3")))
    (visit / "white.png").write_bytes(white)
    _change(visit, {}, {"colour": "srgb"})
    frame = read_capture_folder(visit).frames[0]
    assert abs(int(to_srgb8(linear(frame.pixels, frame.colour))[0, 0, 0]) - 200) <= 1
    _change(visit, {}, {"colour": "linear-srgb"})
    assert np.array_equal(read_capture_folder(visit).frames[0].pixels, pixels)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "3", '"text"', "null", "[" * 5000, "\udcff", "{}"])
def test_what_is_no_index_is_refused(visit: Path, text: str) -> None:
    (visit / "capture.json").write_text(text, errors="surrogateescape")
    assert "capture.json is not a capture index: " in _refusal(visit)


def test_what_is_no_json_is_said_to_be_none_and_where(visit: Path) -> None:
    (visit / "capture.json").write_text("frames: white.png")
    assert _refusal(visit).endswith(" index: it is no JSON (expected ident at line 1 column 2).")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": "white.png"}, "frames"),
        ({"frames": {"white": "white.png"}}, "frames"),
        ({"frames": 3}, "frames"),
        ({"frames": ["white.png"]}, "frames.0 should be an object"),
        ({"frames": [[]]}, "frames.0 should be an object"),
        ({"frames": [3]}, "frames.0 should be an object"),
        ({"frames": [{}]}, "frames.0.file is missing"),
        ({"frames": [{"file": f"{n}.png"} for n in range(33)]}, "frames: "),
        ({"frames": [{"light": "white", "file": name} for name in ("a.png", "b.png")]}, "'white' twice"),
        ({"mm_per_px": "0.1"}, "mm_per_px"),
        ({"mm_per_px": float("nan")}, "mm_per_px"),
        ({"mm_per_px": float("inf")}, "mm_per_px"),
        ({"mm_per_px": -0.1}, "mm_per_px"),
        ({"mm_per_px": 0}, "mm_per_px"),
        ({"mm_per_px": 1e9}, "mm_per_px"),
        ({"mm_per_px": 1e-9}, "mm_per_px"),
        ({"mm_per_px": True}, "mm_per_px"),
        ({"calibration": 7}, "calibration"),
        ({"board": ["a"]}, "board"),
        ({"simulated": "no"}, "simulated"),
        ({"missing": ["uv365"]}, "missing"),
        ({"missing": {"uv365": 3}}, "missing.uv365"),
        ({"missing": {"uv " * 30: "lost"}}, "missing.uv uv"),
        ({"missing": {f"l{n}": "lost" for n in range(33)}}, "missing: "),
        ({"calibration": "x" * 129}, "calibration"),
        ({"calibration": "a\nb"}, "calibration"),
        ({"spots": {"closeup0": {"mm_per_px": 10}}}, "spots.closeup0.mm_per_px"),
        ({"spots": {"closeup_left": {"not_taken": "declined"}}}, "it names a close-up 'closeup_left'"),
        ({"frames": [{"file": f"closeup{n}.png"} for n in range(17)]}, "it has 17 close-ups"),
        ({"frames": [{"file": "closeup_left.png"}]}, "it names a close-up 'closeup_left'"),
        ({"missing": {"closeup_left": "lost"}}, "it names a close-up 'closeup_left'"),
        ({"spots": {"s" * 56: {"not_taken": "declined"}}}, "spots.sss"),
        ({"spots": {"closeup0\n": {"not_taken": "declined"}}}, "spots.closeup0"),
        ({"frames": [{"file": "x" * 56 + ".png"}]}, "frames.0 has a file that cannot name a light"),
        ({"frames": [{"file": "x\n.png"}]}, "frames.0 has a file that cannot name a light"),
        ({"frames": [{"file": "a.png", "light": "closeup100"}]}, "it names a close-up 'closeup100'"),
    ],
)
def test_a_wrong_key_is_named(visit: Path, changes: dict[str, Any], words: str) -> None:
    _change(visit, changes)
    assert words in _refusal(visit)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"colour": "cmyk"}, "frames.0.colour"),
        ({"light": 3}, "frames.0.light"),
        ({"file": 3}, "frames.0.file"),
        ({"exposure_us": "8000"}, "frames.0.exposure_us"),
        ({"exposure_us": -1}, "frames.0.exposure_us"),
        ({"gain": float("nan")}, "frames.0.gain"),
        ({"timestamp_ns": 2**80}, "frames.0.timestamp_ns"),
        ({"file": "absent.png"}, "absent.png is missing"),
    ],
)
def test_a_wrong_key_of_a_frame_is_named(visit: Path, frame: dict[str, Any], words: str) -> None:
    _change(visit, {}, frame)
    assert words in _refusal(visit)


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/passwd", "a/white.png", "..", ".", "", "a\\b.png", "a\0.png"]
)
def test_a_file_outside_the_folder_is_refused(visit: Path, name: str) -> None:
    (visit.parent / "x.jpg").write_bytes((visit / "white.png").read_bytes())
    (visit / "x.jpg").write_bytes((visit / "white.png").read_bytes())
    _change(visit, {}, {"file": name})
    assert "frames.0.file" in _refusal(visit)


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_a_picture_cut_short_is_refused(visit: Path, kind: str) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (90, 80, 3), np.uint8)
    data = cv2.imencode(kind, picture)[1].tobytes()
    (visit / f"cut{kind}").write_bytes(data[: len(data) // 2])
    _change(visit, {}, {"file": f"cut{kind}"})
    assert "cut short" in _refusal(visit)


def test_floating_point_numbers_are_read_where_they_are_said_to_be_light(visit: Path) -> None:
    (visit / "float.tif").write_bytes(tiff(np.full((40, 30, 3), 0.25, np.float32)))
    _change(visit, {}, {"file": "float.tif"})
    assert read_capture_folder(visit).frames[0].pixels[0, 0].tolist() == [16384] * 3
    _change(visit, {}, {"colour": "srgb"})
    assert "floating-point" in _refusal(visit)


def test_a_picture_too_large_is_refused_by_its_header(visit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray((visit / "white.png").read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    (visit / "white.png").write_bytes(data)
    monkeypatch.setattr(picture_file, "decode", lambda _: pytest.fail("decoded"))
    assert "too big" in _refusal(visit)


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    assert "has no capture.json" in _refusal(tmp_path)


def test_the_command_answers_with_one_error_row(visit: Path) -> None:
    _change(visit, {"mm_per_px": "wide"})
    command = [str(DERMAKIOSK), "analyse", "capture", str(visit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["error"] == "not_a_capture" and "mm_per_px" in row["sentence"]
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("failure", [MemoryError(), cv2.error("Assertion failed")])
def test_a_capture_that_overwhelms_the_measuring_is_one_sentence(
    visit: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(describe, "analyse_capture", fail)
    row = describe.measure_folder(visit, None, DEFAULT_ENGINE)
    assert row["error"] == "not_measured" and row["sentence"].endswith(".")
