"""Leaving: who goes is told what stays, who comes next reads nothing of it, and a restart is told once."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import pytest

from firmware.capture.client import CaptureFault
from kiosk_app.kept.keyring import KeyringError
from kiosk_app.kept.records_file import RecordsUnusable
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import VaultError
from kiosk_app.patient.app import create_app
from kiosk_app.patient.journey import PATIENCE_S, State
from kiosk_app.scanning.analyst import AnalysisFailed
from kiosk_app.scanning.delivery import Delivery
from kiosk_app.web.languages import LANGUAGES
from kiosk_app.web.showings import FIELD
from tests.support.kiosk_bench import Bench, Clinic
from tests.support.visitor import Page, PatientClock, Visitor, the_scan, the_session
from tests.support.waiting import wait_until

PLACES = (
    "about",
    "consent",
    "light_questions",
    "position",
    "scan",
    "eyes",
    "result",
    "done",
    "deleted",
    "leave",
)


def restart(bench: Bench) -> None:
    """What a new process knows of the sessions of the old one."""
    bench.kiosk.sessions._sessions.clear()


def old_pages(visitor: Visitor) -> list[Page]:
    """What "back" shows, page by page."""
    return [
        visitor.look(f"/{name}") for name in (*PLACES, "help", "languages", "delete", "result?picture=zones")
    ]


def test_the_next_patient_who_goes_back_reads_the_first_page_and_no_alarm(visitor: Visitor) -> None:
    visitor.walk_to("done")
    visitor.tap()
    for page in old_pages(visitor):
        assert page.name in ("language", "help", "languages"), page.name
        assert "started again" not in page.text


def test_going_back_after_a_session_ended_by_itself_alarms_nobody(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    session = the_session(bench)
    for state in (State.RESULT, State.EXPIRED):
        session.touched -= PATIENCE_S[state] + 1
        visitor.look("/")
    restart(bench)
    assert visitor.look("/").name == "language"
    assert {page.name for page in old_pages(visitor)} == {"language", "help", "languages"}


def test_a_restart_at_the_first_page_alarms_nobody(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("about")
    visitor.tap("/start-over")
    restart(bench)
    assert visitor.tap(language="de").name == "about"


@pytest.mark.parametrize("end", ["done", "deleted", "declined", "expired"])
def test_a_restart_at_a_last_page_alarms_nobody(visitor: Visitor, bench: Bench, end: str) -> None:
    if end == "declined":
        visitor.walk_to("consent")
        visitor.tap("/consent", consent="decline")
    elif end == "expired":
        visitor.walk_to("about")
        the_session(bench).touched -= PATIENCE_S[State.ABOUT] + 1
        visitor.look("/")
    else:
        visitor.walk_to("result")
        if end == "deleted":
            visitor.look("/delete")
        visitor.tap("/delete" if end == "deleted" else None)
    assert visitor.page.name == end
    restart(bench)
    assert visitor.look("/").name == "language"


@pytest.mark.parametrize("place", ["about", "consent", "light_questions", "position", "eyes", "result"])
def test_a_patient_in_the_middle_of_it_is_told_of_a_restart_once(
    visitor: Visitor, bench: Bench, place: str
) -> None:
    visitor.walk_to(place)
    restart(bench)
    for address in ("/scan/progress", "/delivery", "/preview"):
        assert visitor.client.get(address).status_code == 410
    picture = visitor.client.get("/result/zones.png", headers={"Sec-Fetch-Dest": "image"})
    assert picture.status_code == 410
    page = visitor.tap()  # whatever they do next
    assert (page.status, page.name) == (410, "restarted")
    assert page.body["data-first"] == ""  # it does not wait for the next patient
    assert visitor.look("/").name == "language"


def test_a_restart_is_told_in_the_language_and_size_of_text_that_the_patient_chose(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("about")
    token = visitor.page.form()["fields"]["csrf_token"]
    visitor.client.post("/languages", data={"csrf_token": token, "language": "ar"})
    visitor.client.post("/text-size", data={"csrf_token": token, "larger": "1"})
    visitor.look("/")
    restart(bench)
    told = visitor.look("/")
    assert told.name == "restarted"
    assert (told.html["lang"], told.html["dir"], told.html["data-text"]) == ("ar", "rtl", "150")
    anew = visitor.look("/").html  # the next patient
    assert (anew["lang"], anew["dir"], anew["data-text"]) == ("en", "ltr", "100")


def test_start_over_before_the_pictures_are_kept_leaves_nothing_and_asks_nothing(
    visitor: Visitor, bench: Bench
) -> None:
    for place in ("position", "eyes"):
        visitor.walk_to(place)
        assert visitor.tap("/start-over").name == "language"
    bench.kiosk.work.go_on()
    wait_until(
        lambda: {row.state for row in bench.kiosk.records.scans()} == {ScanState.ABANDONED},
        "each scan given up",
    )


def test_start_over_on_the_result_asks_what_becomes_of_the_scan_and_does_nothing_by_itself(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("result")
    page = visitor.tap("/start-over")
    assert page.name == "leave"
    assert "your scan is kept, and your measurements go to Clinic at the Park" in page.text
    assert the_scan(bench).state == ScanState.HANDED_OVER
    assert visitor.tap("/start-over").name == "leave"
    assert visitor.look("/result").name == "result"


def start_over_while_pictures_are_noted_as_kept(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, leaves, go = threading.Event(), threading.Event(), threading.Event()
    note, leave = bench.kiosk.records.advance, bench.kiosk.work.leave_unless_kept

    def slowly(*args: Any, **figures: Any) -> None:
        notes.set()
        go.wait(240)
        note(*args, **figures)

    def asked(scan: UUID) -> bool:
        leaves.set()
        return leave(scan)

    monkeypatch.setattr(bench.kiosk.records, "advance", slowly)
    monkeypatch.setattr(bench.kiosk.work, "leave_unless_kept", asked)
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    wait_until(notes.is_set, "the pictures about to be noted as kept")
    starting_over = threading.Thread(target=visitor.tap, args=("/start-over",))
    starting_over.start()
    wait_until(leaves.is_set, "the work told that its patient leaves")
    go.set()
    starting_over.join(60)
    assert visitor.page.name == "leave"


def test_who_starts_over_while_the_pictures_are_being_noted_as_kept_may_come_back_and_mark_spots(
    bench: Bench, clock: PatientClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(create_app(bench.with_close_up().kiosk, clock).test_client(), clock)
    start_over_while_pictures_are_noted_as_kept(visitor, bench, monkeypatch)
    visitor.tap("/help")
    assert visitor.wait().name == "spots"


def test_start_over_while_the_pictures_are_being_noted_as_kept_asks_too(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_over_while_pictures_are_noted_as_kept(visitor, bench, monkeypatch)
    assert visitor.tap("/delete").name == "deleted"

    def is_brought_to_its_end() -> bool:
        bench.kiosk.work.go_on()  # nothing, as long as the scan's own thread is not done with it
        return destroyed(bench)

    wait_until(is_brought_to_its_end, "what is left of the scan is destroyed")


@pytest.mark.parametrize("place", ["result", "scan"])
def test_who_goes_is_let_go_though_the_records_cannot_be_read(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def unusable(*_args: object) -> None:
        raise RecordsUnusable("The kiosk's records cannot be used: the disk reports an error.")

    if place == "scan":
        bench.analyst.fail = AnalysisFailed("died")
        visitor.walk_to("eyes")
        visitor.tap("/eyes", eyes="open")
        wait_until(lambda: visitor.progress()["state"] == "failed", "the scan failed")
        visitor.look("/scan")
    else:
        visitor.walk_to("result")
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records, "_one", unusable)
        page = visitor.tap("/start-over" if place == "result" else None)
    assert page.name == "language"
    assert the_scan(bench).state in (ScanState.CAPTURED, ScanState.HANDED_OVER)


def test_who_keeps_the_scan_reads_where_it_goes(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    visitor.tap("/start-over")
    page = visitor.tap()
    assert (page.name, the_scan(bench).state) == ("done", ScanState.HANDED_OVER)
    assert 'data-delivery="under_way"' in page.text
    assert visitor.tap().name == "language"


def test_who_does_not_want_it_has_it_deleted(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    visitor.tap("/start-over")
    page = visitor.tap("/delete")
    assert (page.name, the_scan(bench).state) == ("deleted", ScanState.SHREDDED)
    assert bench.outbox.submitted == {}


@pytest.mark.parametrize(("place", "known"), [("result", "under_way"), ("position", None), ("eyes", None)])
def test_who_walked_away_and_comes_back_reads_what_became_of_a_kept_scan(
    visitor: Visitor, bench: Bench, place: str, known: str | None
) -> None:
    visitor.walk_to(place)
    session = the_session(bench)
    session.touched -= PATIENCE_S[session.state] + 1
    page = visitor.look("/")
    assert page.name == "expired"
    assert visitor.client.get("/delivery").get_json() == {"delivery": known}
    assert ("data-delivery=" in page.text, session.scan) == (known is not None, None)
    visitor.tap()
    assert session.told_of is None


@pytest.fixture
def at_the_spots(bench: Bench, clock: PatientClock) -> Visitor:
    visitor = Visitor(create_app(bench.with_close_up().kiosk, clock).test_client(), clock)
    visitor.walk_to("spots")
    return visitor


def destroyed(bench: Bench) -> bool:
    """Whether the one scan is gone with all that could still open or show it."""
    kiosk, scan = bench.kiosk, the_scan(bench)
    alone = len(kiosk.records.keyring.generations()) == 1
    return scan.state == ScanState.SHREDDED and alone and kiosk.vault.items(scan.id) == []


@pytest.mark.parametrize("broken", ["checkpoint", "destroy"])
def test_a_deletion_that_ended_half_way_is_not_said_to_be_done_and_is_brought_to_its_end(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_args: object, **_at_once: bool) -> None:
        raise RecordsUnusable("The kiosk's records cannot be used: the disk reports an error.")

    visitor.walk_to("result")
    visitor.look("/delete")
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.vault if broken == "destroy" else bench.kiosk.records._file, broken, fail)
        page = visitor.tap("/delete")
        assert (page.status, page.name) == (200, "deleted")
        assert "Your scan is being deleted" in page.words
        assert not destroyed(bench)
        bench.kiosk.work.go_on()
        assert "Your scan is being deleted" in visitor.look("/deleted").words
    bench.kiosk.work.go_on()
    assert destroyed(bench)
    assert "Your scan is deleted from this kiosk" in visitor.look("/deleted").words


@pytest.mark.parametrize(
    "why", [RecordsUnusable("damaged"), KeyringError("missing"), VaultError("unreadable")]
)
def test_a_deletion_that_did_not_begin_leaves_the_patient_the_choice_whatever_kept_it(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    def fails(*_args: object) -> None:
        raise why

    visitor.walk_to("result")
    visitor.look("/delete")
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records, "forget", fails)
        page = visitor.tap("/delete")
        assert (page.status, page.name) == (503, "not_deleted")
        assert "Your scan is not deleted yet" in page.words and "no room" not in page.words
    assert visitor.look("/delete").name == "delete"
    assert "Your scan is deleted from this kiosk" in visitor.tap("/delete").words


@pytest.mark.parametrize("place", ["position", "eyes"])
def test_a_page_that_offers_no_deletion_deletes_nothing(visitor: Visitor, bench: Bench, place: str) -> None:
    visitor.walk_to(place)
    fields = visitor.page.form()["fields"]
    sealed = visitor.client.application.extensions["showings"]._sealed
    _, *rest = sealed.loads(fields[FIELD])
    fields[FIELD] = sealed.dumps(["/delete", *rest])  # as a page that offers it would have it
    visitor.clock.now += visitor.reads_s
    page = Page(visitor.client.post("/delete", data=fields, follow_redirects=True))
    assert (page.name, the_scan(bench).state) == (place, ScanState.CONSENTED)


def test_start_over_at_the_marking_of_spots_asks_too(at_the_spots: Visitor, bench: Bench) -> None:
    assert at_the_spots.tap("/start-over").name == "leave"
    page = at_the_spots.tap()
    assert (page.name, 'data-delivery="measuring"' in page.text) == ("done", True)
    wait_until(lambda: the_scan(bench).state == ScanState.HANDED_OVER, "the result handed over")
    assert bench.kiosk.delivery(the_scan(bench).id) is Delivery.UNDER_WAY


def test_a_scan_deleted_at_the_marking_of_spots_leaves_nothing(at_the_spots: Visitor, bench: Bench) -> None:
    at_the_spots.tap("/start-over")
    page = at_the_spots.tap("/delete")
    assert (page.name, 'data-delivery="nothing_sent"' in page.text) == ("deleted", True)
    wait_until(lambda: not bench.kiosk.work._at_work, "no scan at work any more")
    assert the_scan(bench).state == ScanState.SHREDDED
    assert bench.kiosk.vault.items(the_scan(bench).id) == []
    assert bench.outbox.submitted == {}


def test_pictures_that_could_not_be_measured_yet_are_said_to_be_kept(visitor: Visitor, bench: Bench) -> None:
    bench.analyst.fail = AnalysisFailed("died")
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    wait_until(lambda: visitor.progress()["state"] == "failed", "the scan failed")
    page = visitor.look("/scan")
    assert "will measure them again and send" not in page.text
    assert "tries again by itself" in page.text
    page = visitor.tap()
    assert (page.name, 'data-delivery="measuring"' in page.text) == ("done", True)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("eyes_open", "your eyes were closed, so the UV picture was left out"),
        ("no_face", "your eyes were closed, so the UV picture was left out"),
        ("two_faces", "your eyes were closed, so the UV picture was left out"),
        ("eyes_not_confirmed", "your eyes were closed, so the UV picture was left out"),
        ("shroud_open", "The hood was open at the UV picture"),
        ("dose_per_day", "The UV picture could not be taken"),
        ("light_fault", "The UV picture could not be taken"),
    ],
)
def test_a_uv_picture_that_was_wanted_and_left_out_is_told_with_why_it_does_not_matter(
    visitor: Visitor, bench: Bench, code: str, said: str
) -> None:
    visitor.walk_to("eyes")
    if code == "light_fault":
        bench.camera.uv_fault = CaptureFault(code, "gone")
    else:
        bench.camera.uv_says = [code] * 3
    page = visitor.walk_to("result")
    assert said in page.text
    assert "The measurements shown here do not need it." in page.text


def test_a_uv_picture_that_nobody_wanted_is_not_told(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("light_questions")
    visitor.tap("/light_questions", answer="some")
    assert "UV" not in visitor.walk_to("result").words
    visitor.tap()
    visitor.tap()
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    assert "UV" not in visitor.walk_to("result").words


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"en"}))
def test_what_is_said_to_who_leaves_is_translated(
    visitor: Visitor, bench: Bench, clinic: Clinic, language: str
) -> None:
    visitor.tap(language=language)
    visitor.walk_to("eyes")
    bench.camera.uv_says = ["eyes_open"] * 3
    pages = [visitor.walk_to("result"), visitor.tap("/start-over"), visitor.tap("/delete")]
    for page in pages:
        main = page.text.split("<main>")[1].replace("Clinic at the Park", "")
        for english in (" the ", " your ", "Your ", "measurements", " scan"):
            assert english not in main.replace("data-scan", ""), (page.name, english)
