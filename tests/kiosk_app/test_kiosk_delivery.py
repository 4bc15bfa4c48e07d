"""What the kiosk says of a scan's way to the clinic is what it knows, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from kiosk_app.kept.states import ScanState
from kiosk_app.patient import sentences
from kiosk_app.scanning.delivery import Delivery, delivery
from kiosk_app.web.languages import LANGUAGES
from sync.wire.messages import WithdrawMessages
from tests.support.kiosk_bench import Bench
from tests.support.scanning import consented, do
from tests.support.visitor import Page, Visitor, the_scan
from tests.support.waiting import wait_until

Befalls = Callable[[Bench, UUID], None]


def the_message(bench: Bench, kind: str = "result") -> UUID:
    message = bench.kiosk.records.messages.of(the_scan(bench).id, kind)
    assert message is not None
    return message.id


def says(page: Page, delivery: Delivery) -> bool:
    """Whether the page's own sentence is the one about `delivery`; the others are only at hand."""
    sentence = str(sentences.DELIVERIES[delivery]) % {"clinic": "Clinic at the Park"}
    return f'data-delivery="{delivery.value}">{sentence}</span>' in page.text


def the_outbox_says(state: str, kind: str = "result") -> Befalls:
    def befall(bench: Bench, scan: UUID) -> None:
        bench.outbox.states[the_message(bench, kind)] = state

    return befall


def no_connection(bench: Bench, scan: UUID) -> None:
    bench.outbox.connected = False


def no_outbox(bench: Bench, scan: UUID) -> None:
    bench.outbox.there = False


def receipted(bench: Bench, scan: UUID) -> None:
    """The receipt has come, and the outbox cannot be asked any more."""
    bench.outbox.states[the_message(bench)] = "stored"
    bench.kiosk.courier.run_once()
    bench.outbox.there = False


@pytest.mark.parametrize("after", ["state", "of"])
def test_of_a_scan_that_is_deleted_between_two_looks_at_it_nobody_is_told_that_nothing_was_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """After a restart the records may be an older copy, and the outbox, which knows, has not been asked."""
    scan = consented(bench)
    bench.analyst.fail = OSError("no memory")
    do(bench, scan)
    records = bench.again().records
    owner = records if after == "state" else records.messages
    look = getattr(owner, after)

    def deleted_after_it(*asked: Any) -> object:
        seen: object = look(*asked)
        records.forget(scan)
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(owner, after, deleted_after_it)
        assert delivery(scan, records, bench.outbox) is not Delivery.NOTHING_SENT  # type: ignore[arg-type]
    assert bench.kiosk.delivery(scan) is Delivery.UNTOLD


@pytest.mark.parametrize(
    ("befalls", "known"),
    [
        ([], Delivery.UNDER_WAY),
        ([no_connection], Delivery.WAITING),
        ([the_outbox_says("sent")], Delivery.UNDER_WAY),
        ([the_outbox_says("sent"), no_connection], Delivery.KEPT),
        ([the_outbox_says("stored")], Delivery.RECEIVED),
        ([receipted], Delivery.RECEIVED),
        ([the_outbox_says("quarantined")], Delivery.HELD),
        ([the_outbox_says("reseal")], Delivery.KEPT),
        ([the_outbox_says("unknown")], Delivery.KEPT),
        ([no_outbox], Delivery.KEPT),
    ],
)
def test_the_result_and_the_last_page_say_how_far_the_measurements_have_come(
    visitor: Visitor, bench: Bench, befalls: list[Befalls], known: Delivery
) -> None:
    visitor.walk_to("result")
    for befall in befalls:
        befall(bench, the_scan(bench).id)
    assert says(visitor.look("/result"), known)
    assert says(visitor.tap(), known)
    assert visitor.page.name == "done"
    assert visitor.client.get("/delivery").get_json() == {"delivery": known.value}


def test_without_an_outbox_the_measurements_wait_here_and_the_pages_say_so(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("position")
    bench.outbox.there = False
    page = visitor.walk_to("result")
    assert says(page, Delivery.WAITING)
    page = visitor.tap()
    assert says(page, Delivery.WAITING)
    assert "has your measurements" not in page.text
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert visitor.client.get("/delivery").get_json() == {"delivery": "under_way"}


def test_a_result_that_could_not_be_sealed_is_said_to_be_kept_here(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("position")
    (bench.state / "clinic-keys.cose").write_bytes(b"")
    assert says(visitor.walk_to("result"), Delivery.KEPT)


def test_what_the_outbox_will_never_take_is_not_said_to_have_reached_anyone(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sync.kiosk.client import OutboxRefused

    def never(*_: object, **__: object) -> None:
        raise OutboxRefused("bad_request", "never")

    monkeypatch.setattr(bench.outbox, "submit", never)
    assert says(visitor.walk_to("result"), Delivery.KEPT)
    visitor.look("/delete")
    assert says(visitor.tap("/delete"), Delivery.NOTHING_SENT)


def leaves_it(visitor: Visitor) -> Page:
    """The patient starts over while the pictures are measured, and keeps the scan."""
    wait_until(lambda: visitor.progress()["stage"] == "measuring", "the measurement begun")
    visitor.tap("/start-over")
    return visitor.tap("/start-over", scan="keep")


@pytest.mark.parametrize("refused", [None, "too_blurred"])
@pytest.mark.parametrize("there", [True, False])
def test_who_leaves_before_there_is_a_result_is_told_of_no_measurements(
    visitor: Visitor, bench: Bench, refused: str | None, there: bool
) -> None:
    bench.analyst.go.clear()
    bench.analyst.refuse = refused
    bench.outbox.there = there
    visitor.walk_to("eyes")
    visitor.tap()
    page = leaves_it(visitor)
    assert page.name == "done"
    assert says(page, Delivery.MEASURING)
    assert "Ask your clinician about your measurements" not in page.words
    bench.end_scans()
    known = Delivery.NOT_MEASURED if refused else Delivery.UNDER_WAY if there else Delivery.WAITING
    assert says(visitor.look("/done"), known)
    assert ("Ask your clinician about your measurements" in visitor.page.words) is (refused is None)


def test_whose_scan_the_desk_deletes_is_not_sent_to_ask_about_its_measurements(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("result")
    visitor.tap()
    scan = the_scan(bench).id
    bench.kiosk.shred(scan)
    page = visitor.look("/done")
    assert page.name == "done" and says(page, Delivery.NOTHING_SENT)
    assert "Ask your clinician about your measurements" not in page.words


def deleted(visitor: Visitor) -> Page:
    visitor.look("/delete")
    page = visitor.tap("/delete")
    assert page.name == "deleted"
    assert "destroyed for good" in page.text
    assert "Nothing of it can be read any more" not in page.text
    return page


@pytest.mark.parametrize(
    ("befalls", "known"),
    [
        ([], Delivery.NOTHING_SENT),
        ([no_connection], Delivery.NOTHING_SENT),
        ([the_outbox_says("sent")], Delivery.TELLING),
        ([the_outbox_says("stored")], Delivery.TELLING),
        ([the_outbox_says("quarantined")], Delivery.TELLING),
        ([the_outbox_says("sent"), no_connection], Delivery.UNTOLD),
        ([the_outbox_says("sent"), no_outbox], Delivery.UNTOLD),
        ([the_outbox_says("unknown")], Delivery.TELLING),
        ([receipted], Delivery.UNTOLD),
    ],
)
def test_the_deleted_page_says_what_is_known_of_the_clinic(
    visitor: Visitor, bench: Bench, befalls: list[Befalls], known: Delivery
) -> None:
    visitor.walk_to("result")
    for befall in befalls:
        befall(bench, the_scan(bench).id)
    assert says(deleted(visitor), known)


@pytest.mark.parametrize(("receipt", "known"), [("stored", "told"), ("quarantined", "told_held")])
def test_a_late_receipt_is_told_while_the_deleted_page_is_open(
    visitor: Visitor, bench: Bench, receipt: str, known: str
) -> None:
    visitor.walk_to("result")
    bench.outbox.states[the_message(bench)] = "stored"
    bench.outbox.there = False
    assert says(deleted(visitor), Delivery.UNTOLD)
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert visitor.client.get("/delivery").get_json() == {"delivery": "telling"}
    bench.outbox.states[the_message(bench, "withdraw")] = receipt
    assert visitor.client.get("/delivery").get_json() == {"delivery": known}
    bench.kiosk.courier.run_once()
    bench.outbox.there = False
    assert visitor.client.get("/delivery").get_json() == {"delivery": known}


def test_the_last_page_knows_the_scan_by_its_random_id_only_and_forgets_that_too(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("done")
    (session,) = bench.kiosk.sessions._sessions.values()
    assert (session.reference, session.consent, session.scan) == (None, None, None)
    assert session.told_of == the_scan(bench).id
    assert visitor.client.get("/result/zones.png").status_code == 404
    bench.kiosk.sessions.leave(session)
    assert session.told_of is None


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_each_of_these_sentences_is_there_in_each_language(
    visitor: Visitor, bench: Bench, language: str
) -> None:
    visitor.tap(language=language)
    visitor.walk_to("result")
    text = deleted_in_any_language(visitor).text
    english = {known: str(sentence) for known, sentence in sentences.DELIVERIES.items()}
    for known in Delivery:
        assert f'<p data-code="{known.value}">' in text
        shown = english[known] % {"clinic": "Clinic at the Park"}
        assert (shown in text) is (language == "en"), known
    assert text.count("Clinic at the Park") >= len(Delivery)


def deleted_in_any_language(visitor: Visitor) -> Page:
    visitor.look("/delete")
    return visitor.tap("/delete")


def test_a_withdrawal_sealed_to_a_retired_key_is_sealed_again_until_the_clinic_knows(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("result")
    scan, result = the_scan(bench).id, the_message(bench)
    bench.outbox.states[result] = "stored"
    deleted(visitor)
    first = the_message(bench, "withdraw")
    bench.outbox.states[first] = "reseal"
    for _ in range(2):
        bench.kiosk.courier.run_once()
    second = the_message(bench, "withdraw")
    assert second != first
    message = bench.clinic.open(bench.outbox.submitted[second][1])
    assert isinstance(message, WithdrawMessages)
    assert (message.scan, message.messages, message.reason) == (scan, (result,), "patient")
    assert first not in bench.outbox.submitted
    bench.outbox.states[second] = "stored"
    bench.kiosk.courier.run_once()
    assert bench.kiosk.delivery(scan) is Delivery.TOLD


def test_no_old_envelope_of_a_result_that_was_sealed_again_stays_in_the_outbox(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("result")
    first = the_message(bench)
    bench.outbox.states[first] = "reseal"
    bench.kiosk.courier.run_once()
    bench.kiosk.work.go_on()
    second = the_message(bench)
    assert set(bench.outbox.submitted) == {second}
    bench.outbox.states[second] = "sent"
    deleted(visitor)
    message = bench.clinic.open(bench.outbox.submitted[the_message(bench, "withdraw")][1])
    assert isinstance(message, WithdrawMessages)
    assert message.messages == (first, second)


@pytest.mark.parametrize("sealed_again", [False, True])
@pytest.mark.parametrize("reached", [True, False])
def test_a_result_that_was_to_be_sealed_again_had_left_and_is_withdrawn(
    visitor: Visitor, bench: Bench, sealed_again: bool, reached: bool
) -> None:
    visitor.walk_to("result")
    scan, first = the_scan(bench).id, the_message(bench)
    bench.outbox.states[first] = "reseal"
    bench.kiosk.courier.run_once()
    if sealed_again:
        bench.kiosk.work.go_on()
    bench.outbox.there = reached
    assert says(deleted(visitor), Delivery.TELLING if reached else Delivery.UNTOLD)
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert bench.kiosk.delivery(scan) is Delivery.TELLING
    message = bench.clinic.open(bench.outbox.submitted[the_message(bench, "withdraw")][1])
    assert isinstance(message, WithdrawMessages)
    assert message.messages[0] == first


def test_a_crash_while_a_result_is_to_be_sealed_again_does_not_lose_it(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.walk_to("result")
    first = the_message(bench)
    bench.outbox.states[first] = "reseal"

    def power_loss(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records.messages, "settle", power_loss)
        with pytest.raises(KeyboardInterrupt):
            bench.kiosk.courier.run_once()
    kiosk = bench.again()
    kiosk.courier.run_once()
    kiosk.work.go_on()
    assert the_message(bench) != first
    assert the_scan(bench).state == ScanState.HANDED_OVER
