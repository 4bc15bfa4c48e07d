"""The question about the eyes: no UV without the patient's word, and closed eyes are told when to open."""

from __future__ import annotations

import time

from hardware.profile import Limits
from kiosk_app.kept.states import ScanState
from kiosk_app.patient.journey import PATIENCE_S, State
from kiosk_app.patient.sentences import EYES_AGAIN
from kiosk_app.patient.speech import AFTER_UV, BEFORE_UV, CLOSED_AT_MOST_S, DURING_UV, SPOKEN
from kiosk_app.scanning.phases import ASK_AGAIN, ASKS
from tests.support.kiosk_bench import Bench
from tests.support.visitor import Visitor, the_scan, the_session
from tests.support.waiting import wait_until


def test_without_the_word_about_the_eyes_there_is_no_uv(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    visitor.walk_to("result")
    assert bench.camera.phases() == [("lit", False)]


def test_the_word_about_the_eyes_is_given_at_the_uv_step_itself(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("eyes")
    assert bench.camera.phases() == [("lit", False)]  # everything else is taken, with the eyes open
    asked = time.time()
    visitor.tap()
    visitor.walk_to("result")
    assert bench.camera.captured[1]["uv"].eyes_closed_confirmed_at >= asked


def test_open_eyes_are_asked_once_more_and_only_the_uv_picture_is_taken_again(
    visitor: Visitor, bench: Bench
) -> None:
    bench.camera.uv_says = ["eyes_open"]
    visitor.walk_to("eyes")
    assert "UV light stayed off" not in visitor.page.text
    visitor.tap()
    assert visitor.wait().name == "eyes"
    assert "It looked as if your eyes were open" in visitor.page.text
    visitor.tap()
    visitor.walk_to("result")
    assert bench.camera.phases() == [("lit", False), ("uv", True), ("uv", True)]
    assert the_scan(bench).figures["missing"] == {}


def test_eyes_that_stay_open_are_asked_three_times_and_the_scan_is_whole_without_uv(
    visitor: Visitor, bench: Bench
) -> None:
    bench.camera.uv_says = ["eyes_open"] * 9
    visitor.walk_to("eyes")
    for _ in range(ASKS):
        assert visitor.page.name == "eyes"
        visitor.tap()
        visitor.wait()
    assert visitor.page.name == "result"
    assert the_scan(bench).state == ScanState.HANDED_OVER
    assert the_scan(bench).figures["missing"] == {"uv365": "eyes_open"}


def test_after_open_eyes_the_patient_can_still_leave_uv_out(visitor: Visitor, bench: Bench) -> None:
    bench.camera.uv_says = ["eyes_open"]
    visitor.walk_to("eyes")
    visitor.tap()
    visitor.wait()
    visitor.tap("/eyes", eyes="open")
    assert visitor.walk_to("result").name == "result"
    assert bench.camera.phases() == [("lit", False), ("uv", True)]
    assert the_scan(bench).figures["missing"] == {"uv365": "skipped"}


def test_closed_eyes_are_told_when_to_open_and_only_after_uv(visitor: Visitor, bench: Bench) -> None:
    bench.analyst.go.clear()
    visitor.walk_to("position")
    bench.camera.hold.clear()
    visitor.tap()
    assert (visitor.page.body["data-say"], visitor.progress()["say"]) == ("look", "look")
    bench.camera.hold.set()
    assert visitor.wait().body["data-say"] == "close_eyes"
    bench.camera.hold.clear()
    visitor.tap()
    assert (visitor.page.body["data-say"], visitor.page.body["data-after"]) == ("keep_closed", "open_eyes")
    assert visitor.progress()["say"] == "keep_closed"
    bench.camera.hold.set()
    wait_until(lambda: visitor.progress()["stage"] == "measuring", "the measurement begun")
    assert visitor.progress()["say"] == "open_eyes"
    bench.analyst.go.set()
    visitor.walk_to("result")


def test_eyes_that_were_never_closed_are_not_told_to_open(visitor: Visitor, bench: Bench) -> None:
    bench.analyst.go.clear()
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    wait_until(lambda: visitor.progress()["stage"] == "measuring", "the measurement begun")
    assert visitor.progress()["say"] == "move"
    bench.analyst.go.set()


def test_a_patient_who_leaves_at_the_question_about_the_eyes_leaves_no_picture(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("eyes")
    scan = the_scan(bench)
    visitor.tap("/start-over")
    wait_until(lambda: bench.kiosk.records.scan(scan.id).state == ScanState.ABANDONED, "the scan given up")
    assert bench.kiosk.vault.items(scan.id) == []


def test_silence_at_the_question_about_the_eyes_wipes_the_session(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("eyes")
    scan = the_scan(bench)
    the_session(bench).touched -= PATIENCE_S[State.EYES] + 1
    assert visitor.look("/").name == "expired"
    wait_until(lambda: bench.kiosk.records.scan(scan.id).state == ScanState.ABANDONED, "the scan given up")
    assert bench.camera.phases() == [("lit", False)]


def test_a_browser_that_is_gone_when_the_question_comes_does_not_hold_the_session(
    visitor: Visitor, bench: Bench
) -> None:
    bench.camera.hold.clear()
    visitor.walk_to("scan")
    bench.camera.hold.set()
    wait_until(lambda: visitor.progress()["next"], "a page for the patient to go on to")
    the_session(bench).touched -= PATIENCE_S[State.SCAN] + 1
    assert bench.kiosk.sessions.expire() == 1
    wait_until(lambda: bench.kiosk.records.scans()[0].state == ScanState.ABANDONED, "the scan given up")


def test_a_second_tap_about_the_eyes_changes_nothing(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("eyes")
    fields = visitor.page.form()["fields"]
    visitor.tap()
    visitor.client.post("/eyes", data=fields | {"eyes": "open"})
    visitor.walk_to("result")
    assert the_scan(bench).figures["missing"] == {}


def test_the_sentences_spoken_about_the_eyes_exist() -> None:
    assert {BEFORE_UV, DURING_UV, AFTER_UV} <= set(SPOKEN)
    assert set(EYES_AGAIN) == ASK_AGAIN
    assert Limits().eye_protection_s + Limits().uv_pulse_s <= CLOSED_AT_MOST_S
