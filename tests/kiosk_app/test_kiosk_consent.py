"""Silence never consents: what the patient agrees to before there is a picture."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from firmware.line.stamps import ConsentStamp
from kiosk_app.kept.states import ScanState
from kiosk_app.patient.journey import PATIENCE_S, State
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.visitor import Visitor, the_scan, the_session


def test_there_is_no_picture_and_no_record_before_consent(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("consent")
    assert visitor.client.get("/preview").status_code == 409
    assert bench.camera.previewed == []
    assert bench.kiosk.records.scans() == []


def test_silence_never_consents(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("consent")
    the_session(bench).touched -= PATIENCE_S[State.CONSENT] + 1
    assert visitor.look("/").name == "expired"
    assert bench.kiosk.records.scans() == []
    assert the_session(bench).consent is None


def test_the_page_after_a_refusal_keeps_language_and_size_of_the_letters(visitor: Visitor) -> None:
    visitor.tap(language="de")
    visitor.tap("/text-size", larger="1")
    visitor.walk_to("consent")
    page = visitor.tap("/consent", consent="decline")
    assert page.name == "declined"
    assert '<html lang="de" dir="ltr" data-text="150"' in page.text


@pytest.mark.parametrize("answer", ["decline", "", "yes"])
def test_only_the_agree_button_consents(visitor: Visitor, bench: Bench, answer: str) -> None:
    visitor.walk_to("consent")
    assert visitor.tap("/consent", consent=answer).name == "declined"
    assert bench.kiosk.records.scans() == []


def test_the_consent_record_is_written_before_the_first_preview(visitor: Visitor, bench: Bench) -> None:
    visitor.tap(language="de")
    visitor.walk_to("position")
    (row,) = bench.kiosk.records.scans(ScanState.CONSENTED)
    assert row.consent["language"] == "de"
    assert row.consent["text_version"]
    preview = visitor.client.get("/preview")
    assert preview.mimetype == "image/jpeg"
    assert preview.headers["X-Guidance"] == "hold_still"
    assert bench.camera.previewed == [str(row.id)]


def test_any_answer_but_a_clear_no_is_a_scan_without_uv(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("light_questions")
    visitor.tap("/light_questions", answer="some")
    visitor.walk_to("result")
    assert bench.camera.phases() == [("all", False)]


def test_a_walk_in_is_not_asked_about_uv(visitor: Visitor, bench: Bench) -> None:
    bench.kiosk.reference = lambda: None
    visitor.walk_to("consent")
    assert visitor.tap().name == "position"
    visitor.walk_to("result")
    assert bench.camera.phases() == [("all", False)]


def test_the_consent_that_is_written_down_is_that_of_the_tap_that_counted(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.tap(language="de")
    visitor.walk_to("consent")
    with bench.kiosk.records.keyring.lock(), pages_wait_briefly():
        assert visitor.tap("/consent", consent="agree").status == 503
    session = the_session(bench)
    assert (session.consent, session.scan, bench.kiosk.records.scans()) == (None, None, [])
    visitor.look("/languages")
    visitor.tap("/languages", language="es")
    agreed = datetime.now(timezone.utc)
    visitor.tap("/consent", consent="agree")
    consent = the_scan(bench).consent
    assert (consent["language"], session.consent) == ("es", ConsentStamp.from_dict(consent))
    assert session.consent.at >= agreed
