"""What is deleted of scans that an older copy of the records does not know, or was before it was put back."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID, uuid5

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning.delivery import Delivery
from sync.clinic.store.tables import Envelope, Scan, Withdrawal
from sync.wire.messages import Withdraw
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_commands import run
from tests.support.older_copies import copied_records, finished, older_records
from tests.support.scanning import consented, do, state_of
from tests.support.whole_way import Way


def test_a_deletion_that_older_records_forgot_is_told_the_clinic_once(way: Way) -> None:
    way.broker.start()
    way.agent.start()
    scan = finished(way)
    way.reaches_the_clinic()
    copy = copied_records(way)
    way.delete(scan)
    way.reaches_the_clinic()
    older_records(way, copy)
    way.delete(scan)
    way.reaches_the_clinic()
    assert way.bench.kiosk.delivery(scan) is Delivery.TOLD
    assert (way.count(Scan), way.count(Withdrawal)) == (0, 1)
    assert way.nobody_has_to_look()


@pytest.mark.parametrize("keys_gone", [False, True])
def test_a_scan_that_older_records_find_unfinished_is_withdrawn_by_its_deletion(
    way: Way, monkeypatch: pytest.MonkeyPatch, keys_gone: bool
) -> None:
    """Of its result they know nothing; where another scan was deleted since, its keys are gone too."""
    way.broker.start()
    way.agent.start()
    scan = consented(way.bench)
    with monkeypatch.context() as patch:
        patch.setattr(way.bench.analyst, "fail", OSError("no memory"))
        do(way.bench, scan)
    copy = copied_records(way)
    way.bench.kiosk.work.recover()
    way.round()
    way.reaches_the_clinic()
    if keys_gone:
        other = finished(way)
        way.has_left(other)  # what is deleted before it leaves is missing at the clinic
        way.delete(other)
        way.reaches_the_clinic()
    older_records(way, copy)
    if keys_gone:
        way.round()
    assert state_of(way.bench, scan) == (ScanState.UNREADABLE if keys_gone else ScanState.CAPTURED)
    assert way.delete(scan) in (Delivery.UNTOLD, Delivery.TELLING)
    way.reaches_the_clinic()
    assert way.bench.kiosk.delivery(scan) is Delivery.TOLD
    assert way.count(Scan) == 0
    assert way.nobody_has_to_look()


@pytest.fixture(params=["not_at_all", "from_its_consent"])
def unknown(way: Way, request: pytest.FixtureRequest) -> tuple[UUID, Path]:
    """A scan whose result waits in the outbox, and a copy of records from before."""
    way.agent.start()
    if request.param == "not_at_all":
        copy, scan = copied_records(way), consented(way.bench)
    else:
        scan, copy = consented(way.bench), copied_records(way)
    do(way.bench, scan)
    return scan, copy


def shredded_by_staff(way: Way, scan: UUID) -> str:
    done = run("shred", scan, "--state", way.state)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("agent_began_anew", [True, False])
def test_a_waiting_result_of_a_scan_that_staff_delete_and_the_records_do_not_know_is_not_sent(
    way: Way, unknown: tuple[UUID, Path], agent_began_anew: bool
) -> None:
    """What an agent found in its outbox may have left before, though it has not."""
    scan, copy = unknown
    message = way.message(scan, "result")
    older_records(way, copy)
    if agent_began_anew:
        way.agent.kill()
        way.agent.start()
    said = shredded_by_staff(way, scan)
    assert "which these records do not know" in said and "destroy those too" in said
    assert ("Nothing of it had been sent to the clinic." in said) is not agent_began_anew
    assert way.agent.client.state(message) == "discarded"
    way.broker.start()
    way.reaches_the_clinic()
    assert way.count(Scan) == 0
    known = Delivery.TOLD if agent_began_anew else Delivery.NOTHING_SENT
    assert way.bench.kiosk.delivery(scan) is known


@pytest.mark.parametrize("then", ["stays", "lost", "away"])
def test_a_result_at_the_clinic_of_a_scan_that_the_records_do_not_know_is_withdrawn(
    way: Way, unknown: tuple[UUID, Path], then: str
) -> None:
    """Whatever becomes of the outbox, which alone remembers that the result was sent."""
    scan, copy = unknown
    way.broker.start()
    way.reaches_the_clinic()
    assert way.count(Scan) == 1
    older_records(way, copy)
    if then != "stays":
        way.agent.kill()
    if then == "lost":
        for file in way.outbox_file.parent.glob(f"{way.outbox_file.name}*"):
            file.unlink()
        way.agent.start()
    for _ in range(2):
        assert "Its result may have" in shredded_by_staff(way, scan)
    if then == "away":
        way.agent.start()
    way.reaches_the_clinic()
    said = shredded_by_staff(way, scan)
    if then == "lost":  # and with it which numbers were used: the clinic holds what has one of them
        assert "The clinic has the word to erase it, but in quarantine" in said
    else:
        assert "has confirmed the word to erase it" in said
        assert (way.count(Scan), way.count(Withdrawal)) == (0, 1)


@pytest.mark.parametrize("connected", [True, False])
def test_a_scan_of_which_older_records_forgot_that_it_was_sealed_again_is_deleted_with_that_result(
    bench: Bench, connected: bool
) -> None:
    scan = consented(bench)
    do(bench, scan)
    app, copy = bench.state / "app", bench.state / "app.copy"
    shutil.copytree(app, copy)
    (first,) = bench.outbox.submitted
    bench.outbox.states[first] = "reseal"
    bench.kiosk.courier.run_once()
    bench.kiosk.work.go_on()
    (second,) = bench.outbox.submitted
    bench.outbox.states[second] = "sent" if connected else "waiting"
    shutil.rmtree(app)
    shutil.copytree(copy, app)
    bench.again()
    bench.kiosk.shred(scan)
    bench.kiosk.courier.run_once()
    assert second not in bench.outbox.submitted
    ((kind, envelope),) = bench.outbox.submitted.values()
    withdrawal = bench.clinic.open(envelope)
    assert kind == "withdraw" and isinstance(withdrawal, Withdraw)
    assert set(withdrawal.messages) == {first, second}


def test_a_result_of_which_the_outbox_forgot_all_but_the_last_try_is_withdrawn(bench: Bench) -> None:
    """These records know none of them."""
    scan = consented(bench)
    bench.analyst.fail = OSError("no memory")
    do(bench, scan)
    bench.again()
    last = uuid5(scan, "result 2")
    bench.outbox.states[last] = "sent"
    assert bench.kiosk.shred(scan).clinic is not Delivery.NOTHING_SENT
    assert bench.outbox.states.get(last) is None
    bench.kiosk.courier.run_once()
    assert [kind for kind, _ in bench.outbox.submitted.values()] == ["withdraw"]


def test_a_deletion_whose_number_was_used_since_is_told_the_clinic(way: Way) -> None:
    way.broker.start()
    way.agent.start()
    scan = finished(way)
    way.reaches_the_clinic()
    copy = copied_records(way)
    other = finished(way)
    way.reaches_the_clinic()
    older_records(way, copy)
    assert way.delete(scan) in (Delivery.UNTOLD, Delivery.TELLING)
    way.reaches_the_clinic()
    assert way.bench.kiosk.delivery(scan) is Delivery.TOLD
    with way.database.reading() as session:
        assert session.scalars(select(Scan.id)).all() == [other]
        assert sorted(session.scalars(select(Envelope.sequence))) == [1, 2, 3]
    assert way.nobody_has_to_look()


def test_a_result_that_was_deleted_since_is_not_sent_for_an_older_copy_of_all_that_the_application_keeps(
    way: Way,
) -> None:
    way.agent.start()
    scan = finished(way)
    app, copy = way.state / "app", way.state / "app.copy"
    shutil.copytree(app, copy)
    assert way.delete(scan) is Delivery.NOTHING_SENT
    shutil.rmtree(app)
    shutil.copytree(copy, app)
    way.bench.again()
    with capture_logs() as said:
        for _ in range(3):
            way.round()
    (line,) = [line for line in said if line["event"] == "not_sent_again"]
    assert line["scan"] == str(scan) and "dermakiosk shred" in line["why"]
    assert way.agent.status()["waiting"] == way.agent.status()["sent"] == 0
    records = way.bench.kiosk.records
    assert [message.state for message in records.messages.in_states()] == [MessageState.UNDELIVERABLE]
    assert way.delete(scan) is Delivery.NOTHING_SENT


@pytest.mark.parametrize("outbox_lost_then", [False, True])
def test_a_result_that_was_deleted_after_it_left_is_not_sent_again_for_an_older_copy_of_what_is_kept(
    way: Way, outbox_lost_then: bool
) -> None:
    """Staff are told to delete it again, and that is told the clinic, once."""
    way.broker.start()
    way.agent.start()
    scan = finished(way)
    app, copy = way.state / "app", way.state / "app.copy"
    shutil.copytree(app, copy)
    message = way.message(scan, "result")
    way.has_left(scan)
    assert way.delete(scan) in (Delivery.UNTOLD, Delivery.TELLING)
    way.reaches_the_clinic()
    shutil.rmtree(app)
    shutil.copytree(copy, app)
    way.bench.again().work.recover()
    with capture_logs() as said:
        for _ in range(3):
            way.round()
    (line,) = [line for line in said if line["event"] == "not_sent_again"]
    assert line["scan"] == str(scan) and "dermakiosk shred" in line["why"]
    way.reaches_the_clinic()
    assert message not in way.agent.client.unvouched() and way.agent.status()["sent"] == 0
    if outbox_lost_then:
        way.agent.kill()
        for file in way.outbox_file.parent.glob(f"{way.outbox_file.name}*"):
            file.unlink()
        way.agent.start()
    assert way.delete(scan) is not Delivery.NOTHING_SENT
    way.reaches_the_clinic()
    assert way.bench.kiosk.delivery(scan) in (Delivery.TOLD, Delivery.TOLD_HELD)
    assert way.count(Scan) == 0


def test_a_result_that_is_deleted_after_both_were_put_back_from_before_it_was_handed_over_is_withdrawn(
    way: Way,
) -> None:
    way.broker.start()
    scan = finished(way)
    assert state_of(way.bench, scan) == ScanState.SEALED
    copies = {way.state / name: way.state / f"{name}.copy" for name in ("app", "sync")}
    for folder, copy in copies.items():
        shutil.copytree(folder, copy)
    way.agent.start()
    way.reaches_the_clinic()
    assert way.count(Scan) == 1
    way.agent.kill()
    for folder, copy in copies.items():
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
    way.bench.again().work.recover()
    way.agent.start()
    assert way.delete(scan) in (Delivery.UNTOLD, Delivery.TELLING)
    way.reaches_the_clinic()
    assert way.bench.kiosk.delivery(scan) is Delivery.TOLD
    assert way.count(Scan) == 0
