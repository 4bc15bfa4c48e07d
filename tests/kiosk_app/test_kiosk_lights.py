"""A patient meets the lights that a measure reads, and no other; without UV no page speaks of it."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from flask_babel import force_locale

from firmware.capture.client import CaptureClient, CaptureFault
from hardware.board import load_board
from kiosk_app.patient import sentences
from kiosk_app.patient.app import create_app
from kiosk_app.scanning.phases import take_pictures
from kiosk_app.serve_cli import open_kiosk
from kiosk_app.web.languages import LANGUAGES
from models.analysis.lights import READS, lights_read
from tests.support.kiosk_bench import Bench, Clinic
from tests.support.kiosk_daemons import (
    EVERY_LIGHT,
    SIMULATED,
    consent,
    running_kiosk,
    small_board,
    uv_allowance,
)
from tests.support.visitor import PatientClock, Visitor

# Ultraviolet by its name in each of the languages.
UV = re.compile(r"\bUV|ultravi|فوق البنفسجية", re.IGNORECASE)


@pytest.fixture
def patient(bench: Bench, clock: PatientClock) -> Visitor:
    """One at a kiosk whose measures are those that there are."""
    bench.lights = lights_read()
    return Visitor(create_app(bench.again(), clock).test_client(), clock)


def test_no_lamp_shines_at_a_patient_but_for_a_measure(tmp_path: Path) -> None:
    with running_kiosk(small_board(tmp_path), tmp_path / "k") as kiosk:
        camera, session = CaptureClient(kiosk.capture_socket), uuid.uuid4().hex
        camera.preview(session, consent())
        capture = take_pictures(camera, session, consent(), lights_read(), None, lambda *_step: None)
        assert [frame.light for frame in capture.frames] == ["dark", "white", "cross"]
        assert dict(capture.missing) == {}
        assert {item.light for item in kiosk.history() if item.level > 0} == {"white", "cross"}


def test_uv_that_nobody_reads_is_not_lit_even_where_the_patient_would_allow_it(tmp_path: Path) -> None:
    with running_kiosk(small_board(tmp_path), tmp_path / "k") as kiosk:
        camera = CaptureClient(kiosk.capture_socket)
        for phase, lights in (("all", ["dark", "white", "cross"]), ("uv", [])):
            capture = camera.capture("s1", consent(), lights_read(), uv_allowance(), phase=phase)
            assert [frame.light for frame in capture.frames] == lights
        assert "uv365" not in {item.light for item in kiosk.history() if item.level > 0}


def test_a_capture_that_names_no_lights_lights_none(tmp_path: Path) -> None:
    with running_kiosk(small_board(tmp_path), tmp_path / "k") as kiosk:
        request = {"do": "capture", "session": "s1", "consent": consent().to_dict(), "phase": "all"}
        with pytest.raises(CaptureFault, match="names the lights"):
            CaptureClient(kiosk.capture_socket)._ask(request, None)
        assert kiosk.history() == []


def test_without_uv_nobody_is_asked_about_it_or_to_close_the_eyes(patient: Visitor, bench: Bench) -> None:
    assert patient.walk_to_done() == ["language", "about", "consent", "position", "result", "done"]
    assert [(taken["phase"], taken["lights"]) for taken in bench.camera.captured] == [("all", lights_read())]


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_without_uv_no_page_speaks_of_it(patient: Visitor, language: str) -> None:
    patient.tap(language=language)
    while patient.page.name != "done":
        assert not UV.search(patient.page.words), patient.page.name
        patient.wait() if patient.page.name == "scan" else patient.tap()
    with pytest.raises(AssertionError):
        patient.look("/light_questions").form("/light_questions")


def test_the_words_for_uv_are_found_where_they_are(visitor: Visitor) -> None:
    for language in LANGUAGES:
        visitor.tap("/start-over")
        visitor.tap(language=language)
        assert UV.search(visitor.walk_to("light_questions").words), language


def test_the_steps_are_counted_without_the_questions_that_are_not_asked(patient: Visitor) -> None:
    said = [re.findall(r"Step (\d) of (\d)", patient.walk_to(name).text) for name in ("about", "position")]
    assert said == [[("1", "4")], [("3", "4")]]


@pytest.mark.parametrize(("measure", "has_uv"), [({}, False), ({"porphyrins": frozenset(("uv365",))}, True)])
def test_a_measure_that_reads_uv_brings_the_questions_back(
    tmp_path: Path,
    clinic: Clinic,
    monkeypatch: pytest.MonkeyPatch,
    measure: dict[str, frozenset[str]],
    has_uv: bool,
) -> None:
    for name, lights in measure.items():
        monkeypatch.setitem(READS, name, lights)
    with open_kiosk(load_board(SIMULATED), clinic.enrol(tmp_path / "kiosk"), lights_read()) as kiosk:
        assert kiosk.has_uv is has_uv


def test_a_board_without_uv_has_none_whatever_is_read() -> None:
    board = load_board(SIMULATED.parent / "laptop.toml")
    assert not board.uv_among(EVERY_LIGHT)


# What says in each of the languages that a light is off; one that stayed off is another matter.
IS_OFF = {
    "en": r"(?<!stayed )off\.",
    "de": r"\b(ist|sind) (jetzt )?(aus|ausgeschaltet)\b",
    "es": r"\best(á|án) (ahora )?apagad",
    "ar": r"مطفأ",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reason", sorted(sentences.TROUBLES))
def test_no_trouble_says_that_a_light_is_off_which_nobody_can_see(
    bench: Bench, reason: str, language: str
) -> None:
    with create_app(bench.kiosk).test_request_context(), force_locale(language):
        said = sentences.TROUBLES[reason]
        assert not re.search(IS_OFF[language], f"{said.happened} {said.now}")
