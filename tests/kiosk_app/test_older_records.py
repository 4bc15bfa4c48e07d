"""An older copy of the records, put back: no number is used twice, and the clinic has one result."""

from __future__ import annotations

import contextlib
import shutil
from uuid import UUID

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from kiosk_app.kept.states import ScanState
from kiosk_app.scanning.delivery import Delivery
from sync.clinic.store.tables import Envelope, Scan, Withdrawal
from tests.support.kiosk_bench import Bench
from tests.support.older_copies import copied_records, finished, older_records
from tests.support.scanning import consented, do, state_of
from tests.support.whole_way import Way


@pytest.mark.parametrize("used", [1, 3])
@pytest.mark.parametrize("agent_runs", [True, False])
def test_no_number_is_used_twice_by_older_records(way: Way, used: int, agent_runs: bool) -> None:
    """Also where a scan is finished while the outbox cannot be asked which numbers were used."""
    way.broker.start()
    way.agent.start()
    before = finished(way)
    way.reaches_the_clinic()
    copy = copied_records(way)
    since = [finished(way) for _ in range(used)]
    way.reaches_the_clinic()
    older_records(way, copy)
    if not agent_runs:
        way.agent.kill()
    after = [finished(way) for _ in range(2)]
    if not agent_runs:
        assert {state_of(way.bench, scan) for scan in after} == {ScanState.SEALED}
        way.agent.start()
    with capture_logs() as said:
        way.reaches_the_clinic()
        way.round()
    with way.database.reading() as session:
        assert set(session.scalars(select(Scan.id))) == {before, *since, *after}
        assert {scan.supersedes for scan in session.scalars(select(Scan))} == {None}
        numbers = sorted(session.scalars(select(Envelope.sequence)))
    assert numbers == list(range(1, 4 + used))
    assert {state_of(way.bench, scan) for scan in after} == {ScanState.STORED}
    assert way.nobody_has_to_look()
    assert len([line for line in said if line["event"] == "records_older"]) <= 1


def test_staff_are_told_once_that_the_records_are_an_older_copy(way: Way) -> None:
    way.agent.start()
    copy = copied_records(way)
    finished(way)
    older_records(way, copy)
    with capture_logs() as said:
        for _ in range(2):
            finished(way)
            way.round()
    (line,) = [line for line in said if line["event"] == "records_older"]
    assert line["log_level"] == "error" and "older copy" in line["why"] and line["from_number"] == 2


@pytest.mark.parametrize("delivered", [True, False])
def test_a_scan_that_older_records_find_unfinished_has_one_result_at_the_clinic(
    way: Way, monkeypatch: pytest.MonkeyPatch, delivered: bool
) -> None:
    """It was sealed and handed over since they were copied."""
    way.agent.start()
    scan = consented(way.bench)
    with monkeypatch.context() as patch:
        patch.setattr(way.bench.analyst, "fail", OSError("no memory"))
        with contextlib.suppress(OSError):
            do(way.bench, scan)
    assert state_of(way.bench, scan) == ScanState.CAPTURED
    copy = copied_records(way)
    way.bench.kiosk.work.recover()
    way.round()
    assert state_of(way.bench, scan) == ScanState.HANDED_OVER
    if delivered:
        way.broker.start()
        way.reaches_the_clinic()
    older_records(way, copy)
    if not delivered:
        way.broker.start()
    way.reaches_the_clinic()
    assert state_of(way.bench, scan) == ScanState.STORED
    with way.database.reading() as session:
        assert session.scalars(select(Scan.id)).all() == [scan]
    assert way.nobody_has_to_look()


def unfinished(way: Way) -> UUID:
    """A scan whose pictures are kept, and not measured yet."""
    scan = consented(way.bench)
    way.bench.analyst.fail = OSError("no memory")
    do(way.bench, scan)
    way.bench.analyst.fail = None
    assert state_of(way.bench, scan) == ScanState.CAPTURED
    return scan


def test_a_result_at_the_clinic_is_withdrawn_of_a_scan_that_older_records_have_measured_and_refused(
    way: Way,
) -> None:
    way.broker.start()
    way.agent.start()
    scan = unfinished(way)
    copy = copied_records(way)
    way.bench.kiosk.work.recover()
    way.round()
    way.reaches_the_clinic()
    assert way.count(Scan) == 1
    older_records(way, copy)
    way.bench.analyst.refuse = "too_dark"
    way.bench.kiosk.work.go_on()
    assert state_of(way.bench, scan) == ScanState.REFUSED
    assert way.bench.kiosk.delivery(scan) is Delivery.UNTOLD
    way.reaches_the_clinic()
    assert way.delete(scan) is Delivery.TOLD
    assert (way.count(Scan), way.count(Withdrawal)) == (0, 1)
    assert way.nobody_has_to_look()


@pytest.mark.parametrize("abandoned_before", [True, False])
def test_a_result_at_the_clinic_is_withdrawn_of_a_scan_that_older_records_know_from_its_consent_only(
    way: Way, abandoned_before: bool
) -> None:
    """Its pictures went with the vault, say: to these records there never were any."""
    way.broker.start()
    way.agent.start()
    scan = consented(way.bench)
    copy = copied_records(way)
    do(way.bench, scan)
    way.reaches_the_clinic()
    if abandoned_before:
        way.bench.kiosk.vault.destroy(scan)
    older_records(way, copy)
    assert state_of(way.bench, scan) == (ScanState.ABANDONED if abandoned_before else ScanState.CONSENTED)
    assert way.delete(scan) in (Delivery.UNTOLD, Delivery.TELLING)
    way.reaches_the_clinic()
    assert way.delete(scan) is Delivery.TOLD
    assert (way.count(Scan), way.count(Withdrawal)) == (0, 1)
    assert way.nobody_has_to_look()


@pytest.mark.parametrize("handed_over", [True, False])
def test_what_older_records_took_for_sent_was_to_be_sealed_again_since(
    bench: Bench, handed_over: bool
) -> None:
    """Where the outbox never had the other one it may be a deletion: it is not sent, and both are said."""
    scan = consented(bench)
    do(bench, scan)
    app, copy = bench.state / "app", bench.state / "app.copy"
    shutil.copytree(app, copy)
    (first,) = bench.outbox.submitted
    bench.outbox.states[first] = "reseal"
    bench.kiosk.courier.run_once()
    if handed_over:
        bench.kiosk.work.go_on()
        assert len(bench.outbox.submitted) == 1
    shutil.rmtree(app)
    shutil.copytree(copy, app)
    bench.again()
    with capture_logs() as said:
        for _ in range(3):
            bench.kiosk.courier.run_once()
            bench.kiosk.work.go_on()
    lines = [line["why"] for line in said if line["event"] == "not_sent_again"]
    assert (len(bench.outbox.submitted), len(lines)) == ((1, 0) if handed_over else (0, 1))
    for why in lines:
        assert "its scan was deleted, or it was to be sealed again" in why
    assert bench.kiosk.vault.items(scan) != []
