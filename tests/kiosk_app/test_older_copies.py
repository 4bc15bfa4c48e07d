"""An older copy of the outbox or of the records, put back: nothing is lost, sent in vain or said in vain."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid5

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning.delivery import Delivery
from sync.clinic.store.tables import Envelope, Scan, Withdrawal
from sync.kiosk.agent import Agent, Pace
from sync.kiosk.client import OutboxClient
from sync.kiosk.outbox import Outbox
from sync.kiosk.server import serving
from sync.wire.messages import Withdraw
from tests.kiosk_app.test_kiosk_commands import BOARDS, run
from tests.support.kiosk_bench import Bench
from tests.support.scanning import consented, do, state_of
from tests.support.waiting import wait_until
from tests.support.whole_way import Way
from tests.sync.test_agent_poison import at_work


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    opened = Way(tmp_path)
    yield opened
    opened.close()


def copy_files(path: Path, to: Path) -> None:
    for file in to.glob(f"{path.name}*"):
        file.unlink()
    to.mkdir(exist_ok=True)
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, to)


def waiting(way: Way) -> UUID:
    """A scan whose result waits in the outbox, of which a copy was made then; the agent is stopped."""
    way.agent.start()
    scan = consented(way.bench)
    do(way.bench, scan)
    assert way.agent.client.state(way.message(scan, "result")) == "waiting"
    way.agent.kill()
    copy_files(way.outbox_file, way.state / "copy")
    return scan


def put_back(way: Way) -> None:
    copy_files(way.state / "copy" / way.outbox_file.name, way.outbox_file.parent)


def stored(way: Way, scan: UUID) -> None:
    way.agent.start()
    way.reaches_the_clinic()
    assert state_of(way.bench, scan) == ScanState.STORED


def stored_unnoticed(way: Way, scan: UUID) -> None:
    """The application does not run when the receipt comes."""
    way.agent.start()
    way.round()
    with way.clinic.worker():
        wait_until(lambda: way.agent.client.state(way.message(scan, "result")) == "stored", "a receipt")
    way.open_all()
    assert state_of(way.bench, scan) == ScanState.HANDED_OVER


@pytest.mark.parametrize("since", [stored, stored_unnoticed])
@pytest.mark.parametrize("looked_through", [True, False])
def test_a_result_that_left_after_the_copy_of_the_outbox_was_made_is_withdrawn(
    way: Way, since: Callable[[Way, UUID], None], looked_through: bool
) -> None:
    scan = waiting(way)
    way.broker.start()
    since(way, scan)
    way.agent.kill()
    way.broker.stop()
    put_back(way)
    way.agent.start()
    if looked_through:
        way.round()
    assert way.delete(scan) is Delivery.UNTOLD
    way.broker.start()
    way.reaches_the_clinic()
    assert way.bench.kiosk.delivery(scan) is Delivery.TOLD
    assert (way.count(Scan), way.count(Withdrawal)) == (0, 1)
    assert way.nobody_has_to_look()


@pytest.mark.parametrize("restarts", [1, 2])
def test_what_was_discarded_is_never_sent(way: Way, restarts: int) -> None:
    """By an older copy of the outbox, however often its agent is killed before the application has a turn."""
    way.agent.start()
    scan = consented(way.bench)
    do(way.bench, scan)
    message = way.message(scan, "result")
    copy = way.state / "copy"
    copy_files(way.outbox_file, copy)
    assert way.delete(scan) is Delivery.NOTHING_SENT
    way.agent.kill()
    put_back(way)
    way.broker.start()
    with way.clinic.worker():
        for _ in range(restarts):
            way.agent.start()
            way.agent.wait_connected()
            status = way.agent.status()
            assert (status["waiting"], status["unvouched"]) == (1, 1)
            way.agent.kill()
        way.agent.start()
        way.agent.wait_connected()
        way.bench.again()
        way.round()
        assert way.agent.client.unvouched() == []
        # What is handed over after it comes to the clinic, and it does not.
        other = consented(way.bench)
        do(way.bench, other)
        wait_until(way.is_settled, "a receipt for the other one")
    assert way.agent.client.state(message) == "discarded"
    way.open_all()
    with way.database.reading() as session:
        assert session.scalars(select(Scan.id)).all() == [other]
        assert message not in session.scalars(select(Envelope.message_id)).all()
    assert way.bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT


def test_what_waits_in_the_outbox_is_sent_once_the_application_has_looked_it_through(way: Way) -> None:
    scan = waiting(way)
    message = way.message(scan, "result")
    way.broker.start()
    way.agent.start()
    way.agent.wait_connected()
    assert (way.agent.client.unvouched(), way.agent.status()["unvouched"]) == ([message], 1)
    way.reaches_the_clinic()
    assert way.agent.status()["unvouched"] == 0
    assert state_of(way.bench, scan) == ScanState.STORED
    assert way.nobody_has_to_look()


def test_what_waits_in_the_outbox_is_sent_also_where_the_application_refuses_to_serve(way: Way) -> None:
    """Such as on a board that it cannot drive: the results that are there already are to come."""
    scan = waiting(way)
    way.agent.start()
    assert way.agent.client.unvouched() == [way.message(scan, "result")]
    refused = run("serve", "--board", BOARDS / "raspberrypi5.toml", "--state", way.state, "--port", 0)
    assert refused.returncode == 2
    assert way.agent.client.unvouched() == []


@contextlib.contextmanager
def impatient_agent(way: Way) -> Iterator[Outbox]:
    """It holds what it finds for less than an hour here, once it is connected; and its outbox."""
    outbox = Outbox(way.outbox_file)
    agent = Agent(way.state, outbox, Pace(resend_first=0.5, hold=0.2))
    socket, users = way.state / "run" / "outbox.sock", frozenset({os.geteuid()})
    with contextlib.closing(outbox), serving(socket, outbox, agent, users), at_work(agent):
        yield outbox


def sent_by_an_agent_that_nobody_answers(way: Way) -> None:
    """The broker and the clinic are there, and no application."""
    with way.clinic.worker(), impatient_agent(way) as outbox:
        wait_until(lambda: outbox.unreceipted() == [], "a receipt for what was found")
        assert outbox.sent_unvouched() != frozenset()
    way.open_all()


def test_what_is_found_is_sent_also_where_the_application_cannot_read_its_records(way: Way) -> None:
    """It ends, and has vouched for nothing."""
    scan = waiting(way)
    message = way.message(scan, "result")
    records = way.bench.kiosk.records.path
    for file in records.parent.glob(f"{records.name}*"):
        file.write_bytes(b"no records")
    with impatient_agent(way) as outbox, way.clinic.worker():
        refused = run("serve", "--board", BOARDS / "simulated.toml", "--state", way.state, "--port", 0)
        assert refused.returncode != 0 and "records" in refused.stderr
        assert OutboxClient(way.state / "run" / "outbox.sock").unvouched() == [message]
        assert outbox.sent_unvouched() == frozenset()
        with capture_logs() as said:
            way.broker.start()
            wait_until(lambda: outbox.unreceipted() == [], "a receipt for what was found")
        assert outbox.sent_unvouched() == {message}
    way.open_all()
    with way.database.reading() as session:
        assert session.scalars(select(Scan.id)).all() == [scan]
    (line,) = [line for line in said if line["event"] == "sends_unvouched"]
    assert (line["count"], line["log_level"]) == (1, "warning")


@pytest.mark.parametrize("outbox_lost_then", [False, True])
def test_what_was_deleted_and_sent_while_no_application_looked_is_withdrawn(
    way: Way, outbox_lost_then: bool
) -> None:
    way.agent.start()
    scan = finished(way)
    copy_files(way.outbox_file, way.state / "copy")
    assert way.delete(scan) is Delivery.NOTHING_SENT
    way.agent.kill()
    put_back(way)
    way.broker.start()
    sent_by_an_agent_that_nobody_answers(way)
    assert way.count(Scan) == 1
    way.agent.start()
    way.bench.again()
    if outbox_lost_then:
        way.bench.kiosk.courier._vouch()
        way.agent.kill()
        for file in way.outbox_file.parent.glob(f"{way.outbox_file.name}*"):
            file.unlink()
        way.agent.start()
    way.reaches_the_clinic()
    assert way.bench.kiosk.delivery(scan) is Delivery.TOLD
    assert (way.count(Scan), way.count(Withdrawal)) == (0, 1)
    assert way.agent.client.unvouched() == []
    assert way.nobody_has_to_look()


def copied_records(way: Way) -> Path:
    to = way.state / "records.copy"
    now = sqlite3.connect(way.bench.kiosk.records.path)
    with contextlib.closing(now), contextlib.closing(sqlite3.connect(to)) as copy:
        now.backup(copy)
    return to


def older_records(way: Way, copy: Path) -> None:
    """The copy is put back, and the application starts on it."""
    now = sqlite3.connect(way.bench.kiosk.records.path)
    with contextlib.closing(now), contextlib.closing(sqlite3.connect(copy)) as older:
        older.backup(now)
    way.bench.again().work.recover()


def finished(way: Way) -> UUID:
    scan = consented(way.bench)
    do(way.bench, scan)
    return scan


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
