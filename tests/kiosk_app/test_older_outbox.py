"""An older copy of the outbox, put back: what was discarded since is never sent, what left is withdrawn."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from hardware.board import BOARDS
from kiosk_app.kept.states import ScanState
from kiosk_app.scanning.delivery import Delivery
from sync.clinic.store.tables import Envelope, Scan, Withdrawal
from sync.kiosk.agent import Agent, Pace
from sync.kiosk.client import OutboxClient
from sync.kiosk.outbox import Outbox
from sync.kiosk.server import serving
from tests.support.agent import at_work
from tests.support.kiosk_commands import run
from tests.support.older_copies import finished
from tests.support.scanning import consented, do, state_of
from tests.support.waiting import wait_until
from tests.support.whole_way import Way


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
