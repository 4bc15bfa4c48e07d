"""Marked spots: a board with a close-up camera offers the step, and whatever goes wrong the visit goes on."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from hardware.board import BOARDS, load_board
from kiosk_app.kept import keyring
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import VaultFull
from kiosk_app.patient.app import create_app
from kiosk_app.patient.journey import PATIENCE_S, WARNING_S, State
from kiosk_app.scanning.close_ups import NOT_KEPT
from kiosk_app.serve_cli import scan_size_mb
from sync.wire.findings.canonical_face import ZONES, inside
from tests.support.kiosk_bench import LIGHTS, Bench, Clinic
from tests.support.spots import go_on_without, mark, sent, start_over, vaulted
from tests.support.visitor import PatientClock, Visitor, the_scan, the_session
from tests.support.waiting import wait_until
from tests.support.way import WAY_PAST_SPOTS


@pytest.fixture
def bench(bench: Bench) -> Bench:
    return bench.with_close_up()


def test_a_patient_without_a_spot_goes_on_with_one_tap(visitor: Visitor, bench: Bench) -> None:
    assert visitor.walk_to_done() == [name for name in WAY_PAST_SPOTS if name != "scan"]
    assert bench.camera.close_ups == 0
    assert sent(bench).schema_version == 1


def test_a_board_without_the_camera_never_offers_it(tmp_path: Path, clinic: Clinic) -> None:
    plain = Bench(clinic.enrol(tmp_path / "plain"), clinic)
    clock = PatientClock()
    visitor = Visitor(create_app(plain.kiosk, clock).test_client(), clock)
    assert visitor.walk_to("result").name == "result"
    assert visitor.client.get("/close_up/preview").status_code == 409
    plain.end_scans()


def test_a_marked_spot_is_photographed_kept_and_sealed(visitor: Visitor, bench: Bench) -> None:
    mark(visitor, zone="left_cheek")
    assert visitor.page.name == "close_up"
    assert visitor.client.get("/close_up/preview").mimetype == "image/jpeg"
    assert visitor.tap().name == "spots"
    assert "Thank you. Your clinician will look at it." in visitor.page.text
    visitor.tap()
    page = visitor.walk_to("result")
    assert 'data-spots="1"' in page.text
    assert vaulted(bench) == ["frame.closeup0"]
    message = sent(bench)
    [spot] = message.findings.spots
    assert (message.schema_version, spot.frame, spot.zone, spot.x) == (2, "closeup0", "left_cheek", None)
    assert spot.lesion is not None and spot.lesion.area_mm2 == 24.2


@pytest.mark.parametrize("zone", sorted(ZONES))
def test_a_tap_on_the_drawn_face_finds_its_zone(zone: str, visitor: Visitor, bench: Bench) -> None:
    x, y = inside(zone)
    mark(visitor, x=f"{x:.4f}", y=f"{y:.4f}")
    spot = the_session(bench).progress.marking.spot
    assert spot.zone == zone
    assert (spot.x, spot.y) == pytest.approx((x, y), abs=1e-3)


@pytest.mark.parametrize(("x", "y"), [("1.9", "1.9"), ("nan", "0"), ("left", "0"), ("", "")])
def test_a_tap_beside_the_face_marks_nothing(x: str, y: str, visitor: Visitor) -> None:
    mark(visitor, x=x, y=y)
    assert visitor.page.name == "spots"


def test_a_visit_takes_three_spots_at_most(visitor: Visitor, bench: Bench) -> None:
    for zone in ("nose", "chin", "forehead"):
        mark(visitor, zone=zone)
        visitor.tap()
    assert "as many as one visit can take" in visitor.page.text
    answers = [form["fields"].get("answer") for form in visitor.page.forms if form["action"] == "/spots"]
    assert answers == ["none", "take_back"]
    again = visitor.page.form()["fields"] | {"zone": "nose", "answer": ""}
    visitor.clock.now += visitor.reads_s
    assert visitor.client.post("/spots", data=again).status_code == 303
    assert visitor.look("/spots").name == "spots"
    visitor.tap()
    visitor.walk_to("result")
    assert vaulted(bench) == [f"frame.closeup{n}" for n in range(3)]
    assert [spot.zone for spot in sent(bench).findings.spots] == ["nose", "chin", "forehead"]


def take_back(visitor: Visitor) -> None:
    [form] = [f for f in visitor.page.forms if f["fields"].get("answer") == "take_back"]
    visitor.clock.now += visitor.reads_s
    for _tap in range(2):  # the second one is of a page that is gone
        visitor.client.post("/spots", data=form["fields"])
    visitor.look("/spots")


def test_a_marked_spot_that_is_taken_back_is_neither_kept_nor_sent(visitor: Visitor, bench: Bench) -> None:
    for zone in ("nose", "chin", "forehead"):
        mark(visitor, zone=zone)
        visitor.tap()
    take_back(visitor)
    assert (visitor.page.body["data-taken"], visitor.page.body["data-say"]) == ("2", "mark_another")
    mark(visitor, zone="left_cheek")
    visitor.tap()
    assert visitor.page.body["data-say"] == "spot_taken"
    visitor.tap()
    assert "You marked 3 spots." in visitor.walk_to("result").words
    assert [spot.zone for spot in sent(bench).findings.spots] == ["nose", "chin", "left_cheek"]
    assert vaulted(bench) == [f"frame.closeup{n}" for n in range(3)]


def test_who_takes_the_only_spot_back_is_asked_as_at_first(visitor: Visitor, bench: Bench) -> None:
    bench.analyst.refuse_close_ups = ["no_lesion"]
    mark(visitor, zone="nose")
    visitor.tap()
    go_on_without(visitor, "skip")
    take_back(visitor)
    assert (visitor.page.body["data-taken"], visitor.page.body["data-say"]) == ("0", "mark_spot")
    assert "Is there a spot" in visitor.page.words and "back" not in visitor.page.words
    visitor.tap()
    assert "You marked" not in visitor.walk_to("result").words
    assert sent(bench).findings.spots == ()


def test_a_patient_who_leaves_at_the_question_has_been_scanned_with_the_spots_so_far(
    visitor: Visitor, bench: Bench
) -> None:
    mark(visitor, zone="nose")
    visitor.tap()
    scan = the_scan(bench).id
    start_over(visitor)
    assert [spot.zone for spot in sent(bench).findings.spots] == ["nose"]
    wait_until(
        lambda: bench.kiosk.records.scan(scan).state == ScanState.HANDED_OVER, "the result handed over"
    )


def test_a_silent_patient_is_forgotten_and_the_face_is_still_measured(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("spots")
    session = the_session(bench)
    assert PATIENCE_S[State.SPOTS] > WARNING_S
    session.touched -= PATIENCE_S[State.SPOTS] + 1
    assert bench.kiosk.sessions.expire() == 1
    assert session.state is State.EXPIRED
    assert session.progress.marking.taken == []
    assert sent(bench).findings.spots == ()


def no_room_for(bench: Bench, monkeypatch: pytest.MonkeyPatch, *items: str) -> None:
    """Later items of a scan whose names begin so find the disk full."""
    add = bench.kiosk.vault.add

    def full(scan: UUID, dek: bytes, item: str, data: bytes) -> int:
        if item.startswith(items):
            raise VaultFull("full")
        return add(scan, dek, item, data)

    monkeypatch.setattr(bench.kiosk.vault, "add", full)


def test_a_full_disk_costs_the_close_ups_and_the_clinician_looks_at_the_spots_as_the_patient_read(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room_for(bench, monkeypatch, "frame.closeup")
    mark(visitor, zone="nose")
    assert "Your clinician will look at it." in visitor.tap().words
    visitor.tap()
    page = visitor.walk_to("result")
    assert "You marked 1 spot. Show it to your clinician." in page.words
    assert "could not keep" not in page.words
    [spot] = sent(bench).findings.spots
    assert (spot.zone, spot.lesion, spot.refused) == ("nose", None, NOT_KEPT)


@pytest.mark.parametrize("misfit", range(3))
def test_a_close_up_that_cannot_be_kept_costs_no_other(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, misfit: int
) -> None:
    zones = ("nose", "chin", "forehead")
    no_room_for(bench, monkeypatch, f"frame.closeup{misfit}")
    for zone in zones:
        mark(visitor, zone=zone)
        visitor.tap()
    visitor.tap()
    assert "You marked 3 spots." in visitor.walk_to("result").words
    assert vaulted(bench) == [f"frame.closeup{n}" for n in range(3) if n != misfit]
    found = [(spot.zone, spot.refused) for spot in sent(bench).findings.spots]
    assert found == [(zone, NOT_KEPT if n == misfit else None) for n, zone in enumerate(zones)]


def test_a_patient_whose_spots_could_not_be_kept_at_all_reads_that_nobody_knows_of_them(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room_for(bench, monkeypatch, "frame.closeup", "capture")
    mark(visitor, zone="nose")
    visitor.tap()
    visitor.tap()
    page = visitor.walk_to("result")
    assert "You marked 1 spot. Show it to your clinician." in page.words
    assert "your clinician knows of it only from you" in page.words
    assert sent(bench).findings.spots == ()


def test_deleting_the_scan_shreds_the_close_ups_too(visitor: Visitor, bench: Bench) -> None:
    mark(visitor, zone="nose")
    visitor.tap()
    visitor.tap()
    visitor.walk_to("result")
    assert vaulted(bench) == ["frame.closeup0"]
    visitor.look("/delete")
    visitor.tap("/delete")
    assert vaulted(bench) == []
    assert the_scan(bench).state == ScanState.SHREDDED


def test_no_page_of_the_step_names_a_disease_or_a_chance(visitor: Visitor, bench: Bench) -> None:
    texts = []
    mark(visitor, zone="nose")
    texts.append(visitor.page.words)
    texts.append(visitor.tap().words)
    visitor.tap()
    texts.append(visitor.walk_to("result").words)
    for word in ("melanoma", "naevus", "cancer", "benign", "mole", "bcc", "80 %"):
        assert not any(word in text.lower() for text in texts), word


def test_after_a_power_cut_at_the_question_the_face_is_measured(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("spots")
    again = bench.again()
    again.work.recover()
    assert again.work.go_on() == 1
    assert again.records.scan(the_scan(bench).id).state == ScanState.HANDED_OVER
    assert sent(bench).findings.spots == ()


def test_a_marked_spot_is_kept_also_while_another_process_holds_the_keys(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOCKED_S", 0.05)
    mark(visitor, zone="left_cheek")
    visitor.tap()
    with bench.kiosk.records.keyring.lock():
        visitor.tap()
        wait_until(lambda: not bench.kiosk.work._at_work, "no scan at work any more")
        assert vaulted(bench) == ["frame.closeup0"]
    assert bench.kiosk.work.go_on() == 1
    assert [spot.zone for spot in sent(bench).findings.spots] == ["left_cheek"]


def test_there_is_room_for_a_scan_only_where_there_is_room_for_its_close_ups() -> None:
    board = load_board(BOARDS / "simulated.toml")
    assert board.close_up is not None
    board = board.model_copy(
        update={"close_up": board.close_up.model_copy(update={"width": 4096, "height": 4096})}
    )
    without = board.model_copy(update={"close_up": None})
    assert scan_size_mb(board, LIGHTS) - scan_size_mb(without, LIGHTS) == 3 * 48
