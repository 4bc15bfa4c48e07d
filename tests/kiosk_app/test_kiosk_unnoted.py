"""What the outbox has taken or let go of and the records do not say: killed, full, or answered too late."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from kiosk_app.kept.records_file import RecordsFull
from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning.delivery import Delivery
from sync.kiosk.client import OutboxRefused, OutboxUnavailable
from tests.support.kiosk_bench import Bench
from tests.support.messages import deleted, given, the_message
from tests.support.scanning import consented, do, state_of

STEPS = [("result", "settle"), ("result", "discard"), ("withdraw", "withdraw_again"), ("withdraw", "discard")]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(("kind", "step"), STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_the_clinic_asks_to_seal_again_is_that_wherever_the_application_is_killed(
    bench: Bench, kind: str, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, first = given(bench, kind)
    bench.outbox.states[first] = "reseal"
    owner = bench.outbox if step == "discard" else bench.kiosk.records.messages
    does = getattr(owner, step)

    def killed(*its: Any, **more: Any) -> None:
        if when == "after":
            does(*its, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed)
        with pytest.raises(Killed):
            bench.kiosk.courier.run_once()
    bench.again().work.recover()
    for _ in range(4):
        bench.kiosk.courier.run_once()
        bench.kiosk.work.go_on()
    second = the_message(bench, scan, kind)
    assert second.id != first and second.state == MessageState.SUBMITTED
    assert second.id in bench.outbox.submitted
    assert bench.outbox.state(first) == "discarded"


def discards(bench: Bench, patch: pytest.MonkeyPatch, fault: BaseException) -> None:
    def fails(_: UUID) -> str:
        raise fault

    patch.setattr(bench.outbox, "discard", fails)


NOT_DISCARDED = [
    OutboxRefused("storage", "The disk is full."),
    OutboxUnavailable("The outbox does not answer."),
    Killed(),
]


@pytest.mark.parametrize("kind", ["result", "withdraw"])
@pytest.mark.parametrize("fault", NOT_DISCARDED, ids=["full", "away", "killed"])
def test_what_was_sealed_again_does_not_stay_in_the_outbox(
    bench: Bench, kind: str, fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later round takes it out, and the next ones leave the outbox alone."""
    _, first = given(bench, kind)
    bench.outbox.states[first] = "reseal"
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        discards(bench, patch, fault)
        bench.kiosk.courier.run_once()
    assert first in bench.outbox.submitted
    if isinstance(fault, Killed):
        bench.again()
    bench.kiosk.courier.run_once()
    assert bench.outbox.state(first) == "discarded" and first not in bench.outbox.submitted
    discards(bench, monkeypatch, AssertionError("for nothing"))
    bench.kiosk.courier.run_once()
    bench.again().courier.run_once()
    monkeypatch.undo()
    assert bench.outbox.state(first) == "discarded"


@pytest.mark.parametrize("sealed_again", [False, True])
def test_of_a_deleted_scan_no_envelope_stays_in_the_outbox(
    bench: Bench, sealed_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not said to be deleted there before all are gone, those of which another took the place too."""
    scan, first = given(bench, "result")
    bench.outbox.states[first] = "reseal"
    fault = OutboxRefused("storage", "The disk is full.")
    with monkeypatch.context() as patch:
        discards(bench, patch, fault)
        bench.kiosk.courier.run_once()
        if sealed_again:
            bench.kiosk.work.go_on()
    carriers = bench.kiosk.records.messages.carriers(scan)
    assert set(bench.outbox.submitted) == set(carriers) and len(carriers) == 1 + sealed_again
    discard = bench.outbox.discard

    def all_but_the_first(message: UUID) -> str:
        if message == first:
            raise fault
        return discard(message)

    with monkeypatch.context() as patch:
        patch.setattr(bench.outbox, "discard", all_but_the_first)
        assert deleted(bench, scan) is Delivery.UNTOLD
    bench.kiosk.courier.run_once(scan)
    assert set(bench.outbox.submitted) == {the_message(bench, scan, "withdraw").id}
    assert bench.kiosk.delivery(scan) is Delivery.TELLING


def killed_before_it_is_noted(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    patch.setattr(bench.kiosk.records.messages, "settle", killed)


def full_when_it_is_noted(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RecordsFull("full")

    patch.setattr(bench.kiosk.records.messages, "settle", full)


def taken_and_answers(bench: Bench, patch: pytest.MonkeyPatch, answer: OutboxUnavailable) -> None:
    """The outbox takes it, and the answer is another."""
    submit = bench.outbox.submit

    def taken(*its: Any, **more: Any) -> None:
        submit(*its, **more)
        raise answer

    patch.setattr(bench.outbox, "submit", taken)


def answered_too_late(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    taken_and_answers(bench, patch, OutboxUnavailable("The outbox does not answer."))


def unreadable_once_it_has_it(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    taken_and_answers(bench, patch, OutboxRefused("storage", "The disk reports an error."))


def had_and_full_when_that_is_noted(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    taken_and_answers(bench, patch, OutboxRefused("conflict", "The id was used for another envelope."))
    full_when_it_is_noted(bench, patch)


HAD_UNNOTED = [
    killed_before_it_is_noted,
    full_when_it_is_noted,
    answered_too_late,
    unreadable_once_it_has_it,
    had_and_full_when_that_is_noted,
]


@pytest.mark.parametrize("handed_over_again", [False, True])
@pytest.mark.parametrize("fault", HAD_UNNOTED)
def test_of_what_an_outbox_had_before_the_records_said_so_nobody_is_told_that_nothing_was_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None], handed_over_again: bool
) -> None:
    """It is handed over, sent and stored, and then the outbox is lost."""
    scan = consented(bench)
    with monkeypatch.context() as patch:
        fault(bench, patch)
        with contextlib.suppress(Killed):
            do(bench, scan)
    assert set(bench.outbox.submitted) == {the_message(bench, scan, "result").id}
    assert state_of(bench, scan) == ScanState.SEALED
    bench.outbox.lose()
    if fault is killed_before_it_is_noted:
        bench.again().work.recover()
    if handed_over_again:
        bench.kiosk.courier.run_once()
    assert deleted(bench, scan) is not Delivery.NOTHING_SENT
    assert set(bench.outbox.submitted) == {the_message(bench, scan, "withdraw").id}


@pytest.mark.parametrize("code", ["full", "used", "bad_request"])
def test_what_the_outbox_did_not_take_is_said_to_have_never_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OutboxRefused(code, "It is not taken.")

    scan = consented(bench)
    monkeypatch.setattr(bench.outbox, "submit", refused)
    do(bench, scan)
    assert deleted(bench, scan) is Delivery.NOTHING_SENT
    assert bench.kiosk.records.messages.of(scan, "withdraw") is None
