"""Marked spots: every close-up of a Capture is measured or refused by reason, and says where it was taken."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hardware.capture import Capture, Frame, Spot
from hardware.capture_folder import read_capture_folder, write_capture_folder
from hardware.simulated.close_up import draw_skin
from kiosk_app.scanning.analyst import Analyst
from models.analysis.capture import analyse_capture
from models.analysis.marked_spots import marked_spots, require_lesion
from models.analysis.refusal import Refused
from models.networks.runtime import DEFAULT_ENGINE
from sync.wire.findings import LESION_CLASSES, Findings, schema_of

pytestmark = pytest.mark.usefixtures("one_look")


def a_frame(pixels: np.ndarray, colour: str = "srgb") -> Frame:
    return Frame("closeup", pixels, 0, 1.0, 1, colour)


def a_capture(*taken: tuple[Spot, Frame]) -> Capture:
    return Capture("test", ()).with_close_ups(taken)


@pytest.mark.parametrize("seed", range(1, 7))
def test_the_simulated_close_up_is_skin_to_the_network_with_the_mole_where_it_was_drawn(seed: int) -> None:
    from models.analysis.lesion import find_lesion

    drawn = draw_skin(600, 450, seed)
    found = find_lesion(drawn.picture).mask > 0
    assert (found & drawn.lesion).sum() / (found | drawn.lesion).sum() > 0.75


def test_a_spot_is_measured_in_millimetres_where_the_scale_is_known() -> None:
    drawn = draw_skin(600, 450, 2)
    capture = a_capture(
        (Spot(zone="nose", x=0.1, y=0.4, mm_per_px=0.05), a_frame(drawn.picture)),
        (Spot(zone="chin"), a_frame(drawn.picture)),
    )
    known, unknown = marked_spots(capture, DEFAULT_ENGINE)
    assert (known.frame, known.zone, known.x, known.y) == ("closeup0", "nose", 0.1, 0.4)
    assert (unknown.frame, unknown.zone, unknown.x, unknown.y) == ("closeup1", "chin", None, None)
    assert known.lesion is not None and unknown.lesion is not None
    assert known.lesion.area_mm2 == pytest.approx(drawn.lesion.sum() * 0.05**2, rel=0.25)
    assert known.lesion.abcd.diameter_mm is not None
    assert (unknown.lesion.area_mm2, unknown.lesion.abcd.diameter_mm) == (None, None)
    assert tuple(known.lesion.classes) == LESION_CLASSES
    assert sum(known.lesion.classes.values()) == pytest.approx(1, abs=1e-3)
    assert known.lesion.model.startswith("lesion-class@")


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (lambda: np.zeros((300, 400, 3), np.uint8), "too_dark"),
        (lambda: np.full((300, 400, 3), (210, 160, 150), np.uint8), "not_skin"),
        (lambda: np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8), "not_skin"),
        (lambda: np.full((8, 8, 3), 200, np.uint8), "too_small"),
    ],
)
def test_a_close_up_that_says_nothing_is_refused_by_reason(
    pixels: Callable[[], np.ndarray], reason: str
) -> None:
    frame = a_frame(pixels())
    with pytest.raises(Refused) as refused:
        require_lesion(frame, DEFAULT_ENGINE)
    assert refused.value.code == reason
    [spot] = marked_spots(a_capture((Spot(zone="nose"), frame)), DEFAULT_ENGINE)
    assert (spot.refused, spot.lesion, spot.zone) == (reason, None, "nose")


def test_a_marked_spot_without_a_picture_says_why_and_keeps_its_place() -> None:
    frame = a_frame(draw_skin(600, 450, 2).picture)
    capture = Capture("test", ()).with_close_ups(
        [
            (Spot(zone="chin", not_taken="too_blurred"), None),
            (Spot(zone="nose"), frame),
            (Spot(zone="forehead", x=0.1, y=-0.4, not_taken="close_up_lost"), None),
        ]
    )
    kept = Capture.from_bytes(capture.to_bytes())
    first, second, third = marked_spots(kept, DEFAULT_ENGINE)
    assert (first.frame, first.zone, first.refused) == ("closeup0", "chin", "too_blurred")
    assert (second.frame, second.refused) == ("closeup1", None)
    assert (third.frame, third.x, third.refused, third.lesion) == ("closeup2", 0.1, "close_up_lost", None)


def test_a_close_up_without_a_place_is_somewhere_on_the_face(tmp_path: Path) -> None:
    """Anyone's capture folder may have one: it needs no more than its name."""
    cv2.imwrite(str(tmp_path / "closeup0.png"), draw_skin(400, 300, 1).picture[:, :, ::-1])
    (tmp_path / "capture.json").write_text('{"frames": [{"file": "closeup0.png"}]}')
    [spot] = marked_spots(read_capture_folder(tmp_path), DEFAULT_ENGINE)
    assert (spot.frame, spot.zone, spot.x) == ("closeup0", "face", None)
    assert spot.lesion is not None


def test_a_capture_folder_and_memory_keep_the_places(tmp_path: Path) -> None:
    capture = a_capture(
        (Spot(zone="chin", x=0.1, y=1.2, mm_per_px=0.03), a_frame(draw_skin(200, 150, 1).picture))
    )
    write_capture_folder(capture, tmp_path)
    for known in (read_capture_folder(tmp_path), Capture.from_bytes(capture.to_bytes())):
        assert known.spots == capture.spots
        assert np.array_equal(known.close_ups[0].pixels, capture.close_ups[0].pixels)


def test_findings_carry_the_spots_beside_the_face_and_without_any_they_are_of_the_first_schema(
    portrait: np.ndarray,
) -> None:
    face = Capture("test", (Frame("white", portrait, 0, 1.0, 1, "srgb"),))
    plain = analyse_capture(face, uuid.uuid4()).findings.model_dump(mode="json")
    assert plain["schema"] == 1 and "spots" not in plain
    both = face.with_close_ups([(Spot(zone="nose"), a_frame(draw_skin(600, 450, 1).picture))])
    found = analyse_capture(both, uuid.uuid4()).findings
    said = found.model_dump(mode="json")
    assert said["schema"] == schema_of(found.spots) > 1 and len(said["spots"]) == 1
    assert {"lesion-class", "lesion-outline"} <= set(found.models)
    assert said["findings"] == plain["findings"]
    assert Findings.model_validate(said) == found


def test_the_child_without_keys_says_whether_a_close_up_is_refused() -> None:
    analyst = Analyst(DEFAULT_ENGINE)
    skin = Capture("test", (a_frame(draw_skin(600, 450, 1).picture),))
    assert analyst.refuses(skin, uuid.uuid4()) is None
    grey = dataclasses.replace(skin, frames=(a_frame(np.full((300, 400, 3), 128, np.uint8)),))
    assert analyst.refuses(grey, uuid.uuid4()) == "not_skin"
