"""Envelopes are kept until the clinic has said what became of them, and none of a deleted scan."""

from __future__ import annotations

from uuid import UUID

import pytest

from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning.delivery import Delivery
from tests.support.kiosk_bench import Bench
from tests.support.messages import given, keep_no_envelope, the_message


@pytest.mark.parametrize("kind", ["result", "withdraw"])
@pytest.mark.parametrize("said", ["stored", "reseal"])
def test_an_envelope_is_kept_until_the_clinic_has_said_what_became_of_it(
    bench: Bench, kind: str, said: str
) -> None:
    _, message = given(bench, kind)
    assert message in kept_envelopes(bench)
    bench.outbox.states[message] = said
    bench.kiosk.courier.run_once()
    assert message not in kept_envelopes(bench)


@pytest.mark.parametrize("kind", ["result", "withdraw"])
def test_a_copy_of_what_the_clinic_set_aside_is_kept_until_it_could_read_that(
    bench: Bench, kind: str
) -> None:
    """Its outbox may be lost too, and whoever looks at it at the clinic counts on this copy."""
    _, message = given(bench, kind)
    bench.outbox.states[message] = "quarantined"
    for _ in range(2):
        bench.kiosk.courier.run_once()
    assert message in kept_envelopes(bench)
    before = bench.outbox.submitted[message]
    bench.outbox.lose()
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {message: before}
    bench.outbox.states[message] = "stored"
    bench.kiosk.courier.run_once()
    assert message not in kept_envelopes(bench)
    assert bench.kiosk.records.messages.in_states(MessageState.QUARANTINED) == []


def test_what_an_earlier_version_did_not_keep_of_what_was_set_aside_is_not_sealed_again(bench: Bench) -> None:
    scan, message = given(bench, "result")
    bench.outbox.states[message] = "quarantined"
    bench.kiosk.courier.run_once()
    keep_no_envelope(bench)
    bench.outbox.lose()
    for _ in range(3):
        bench.kiosk.courier.run_once()
        bench.kiosk.work.go_on()
    assert (bench.outbox.submitted, the_message(bench, scan, "result").id) == ({}, message)
    assert bench.kiosk.delivery(scan) is Delivery.HELD


@pytest.mark.parametrize("said", ["sent", "quarantined"])
def test_no_envelope_of_a_deleted_scan_is_kept(bench: Bench, said: str) -> None:
    scan, result = given(bench, "result")
    bench.outbox.states[result] = said
    bench.kiosk.courier.run_once()
    assert kept_envelopes(bench) == {result}
    bench.kiosk.records.forget(scan, ScanState.SHREDDED, "patient")
    assert kept_envelopes(bench) == set()


def kept_envelopes(bench: Bench) -> set[UUID]:
    with bench.kiosk.records._file.connection() as db:
        return {UUID(row["id"]) for row in db.execute("SELECT id FROM messages WHERE envelope IS NOT NULL")}
