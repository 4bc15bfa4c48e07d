"""Whatever one message raises in the agent, that message alone is set aside, and the next goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import MQTTErrorCode

from sync.kiosk import agent as agent_module
from sync.kiosk import link as link_module
from sync.kiosk.agent import Agent, Pace
from sync.kiosk.outbox import Outbox
from sync.kiosk.schedule import Backoff
from sync.wire.receipt import Receipt
from tests.support.agent import Clinic, at_work
from tests.support.mosquitto import Broker, running_broker
from tests.support.own_log import own_log
from tests.support.waiting import wait_until
from tests.support.wire import Party

FAULTS = [ValueError, KeyError, AttributeError, RecursionError, AssertionError]
SOON = Pace(resend_first=1.0)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture
def outbox(state: Path, party: Party) -> Iterator[Outbox]:
    opened = Outbox(state / "sync" / "outbox.sqlite")
    yield opened
    opened.close()


@contextmanager
def carrying(state: Path, outbox: Outbox, pace: Pace = SOON) -> Iterator[threading.Thread]:
    """An agent at work, as the process of its own that it is in life."""
    with at_work(Agent(state, outbox, pace)) as thread:
        yield thread


def put(outbox: Outbox, party: Party) -> tuple[UUID, bytes]:
    message, envelope = party.envelope()
    outbox.put(message, "result", envelope)
    return message, envelope


@contextmanager
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """The lines of the log, once the block is over; the words of no fault are in them."""
    lines: list[str] = []
    with own_log():
        yield lines
    lines += capsys.readouterr().err.splitlines()
    assert not any("ref-secret" in line for line in lines)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_receipt_that_nobody_foresaw_costs_itself_only(
    clinic: Clinic,
    outbox: Outbox,
    state: Path,
    party: Party,
    fault: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verify, tripped = Receipt.verify, []

    def trip(payload: bytes, *more: object) -> Receipt:
        if payload == b"poison":
            tripped.append(payload)
            raise fault("ref-secret")
        return verify(payload, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(agent_module.Receipt, "verify", trip)
    message, envelope = put(outbox, party)
    with logged(capsys) as lines:
        with carrying(state, outbox):
            clinic.take_until({message})
            clinic.answer(b"poison")
            clinic.receipt(message, envelope)
            wait_until(lambda: outbox.state(message) == "stored", "the message stored")
        # A second start hears nothing of it: it was taken.
        later, envelope = put(outbox, party)
        with carrying(state, outbox):
            clinic.take_until({later})
            clinic.receipt(later, envelope)
            wait_until(lambda: outbox.state(later) == "stored", "the later message stored")
    assert len(tripped) == 1
    [said] = [line for line in lines if '"set_aside"' in line]
    assert f"{fault.__name__} at " in said
    assert not any('"disconnected"' in line for line in lines)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_envelope_that_cannot_be_sent_keeps_no_other_back(
    clinic: Clinic,
    outbox: Outbox,
    state: Path,
    party: Party,
    fault: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poison, good = put(outbox, party), put(outbox, party)
    publish = agent_module.BrokerLink.publish

    def trip(self: object, topic: str, payload: bytes, *more: object, **given: object) -> int | None:
        if payload == poison[1]:
            raise fault("ref-secret")
        return publish(self, topic, payload, *more, **given)  # type: ignore[arg-type]

    with logged(capsys) as lines, monkeypatch.context() as patch:
        patch.setattr(agent_module.BrokerLink, "publish", trip)
        with carrying(state, outbox):
            assert set(clinic.take_until({good[0]})) == {good[0]}
            clinic.receipt(*good)
            wait_until(lambda: outbox.state(good[0]) == "stored", "the good message stored")
            assert outbox.state(poison[0]) == "sent"
            # What was odd about it has passed: it goes in its time.
            patch.undo()
            clinic.take_until({poison[0]})
    assert any('"set_aside"' in line and str(poison[0]) in line for line in lines)
    assert not any('"disconnected"' in line for line in lines)


def failing_once(failure: Exception, monkeypatch: pytest.MonkeyPatch, where: str, payload: bytes) -> None:
    """Have the machine fail while the agent takes in or sends `payload`, the first time."""
    left = [failure]

    def may_fail(work: Callable[..., Any], place: int) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            if arguments[place] == payload and left:
                raise left.pop()
            return work(*arguments, **options)

        return instead

    if where == "received":
        monkeypatch.setattr(agent_module.Receipt, "verify", may_fail(Receipt.verify, 0))
    else:
        monkeypatch.setattr(agent_module.BrokerLink, "publish", may_fail(agent_module.BrokerLink.publish, 2))


@pytest.mark.parametrize("where", ["received", "sent"])
@pytest.mark.parametrize("failure", [MemoryError, OSError])
def test_a_failure_of_the_machine_is_held_against_no_message(
    clinic: Clinic,
    outbox: Outbox,
    state: Path,
    party: Party,
    failure: type[Exception],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message, envelope = put(outbox, party)
    receipt = party.receipt(message, envelope).sign(party.receipts)
    failing_once(failure("ref-secret"), monkeypatch, where, envelope if where == "sent" else receipt)

    def deliver(agent: threading.Thread) -> None:
        if where == "received":
            clinic.take_until({message})
            clinic.answer(receipt)
        if failure is MemoryError:
            # It ends the process, and systemd starts the next.
            agent.join(30)
            assert not agent.is_alive()
            return
        if where == "sent":
            clinic.take_until({message})
            clinic.answer(receipt)
        wait_until(lambda: outbox.state(message) == "stored", "the message stored")

    with logged(capsys) as lines:
        # So long that only what was not taken at all comes again, once there is a connection.
        with carrying(state, outbox, Pace(resend_first=600.0, reconnect_first=0.05)) as agent:
            deliver(agent)
        if failure is MemoryError:
            with carrying(state, outbox):
                if where == "sent":
                    clinic.take_until({message})
                    clinic.answer(receipt)
                wait_until(lambda: outbox.state(message) == "stored", "the message stored")
    assert not any('"set_aside"' in line for line in lines)
    ended = [line for line in lines if '"thread_ended"' in line]
    assert all("MemoryError at" in line for line in ended)
    assert len(ended) == (failure is MemoryError)


def test_a_connection_whose_own_thread_dies_is_made_anew(
    clinic: Clinic, state: Path, party: Party, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, turn = threading.Event(), mqtt.Client.loop_misc
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def die(client: mqtt.Client) -> MQTTErrorCode:
        if dying.is_set():
            dying.clear()
            raise MemoryError
        return turn(client)

    monkeypatch.setattr(link_module._Client, "loop_misc", die)
    with carrying(state, outbox):
        for _ in range(2):
            message, envelope = put(outbox, party)
            clinic.take_until({message})
            clinic.receipt(message, envelope)
            wait_until(lambda sent=message: outbox.state(sent) == "stored", "the message stored")  # type: ignore[misc]
            dying.set()
            wait_until(lambda: not dying.is_set(), "the connection's thread dead")


def test_a_broker_that_keeps_its_word_on_a_message_back_is_dialled_again(
    clinic: Clinic, outbox: Outbox, state: Path, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, unheard = Agent.published, []

    def hear_the_second(agent: Agent, link: link_module.BrokerLink, number: int, code: int) -> None:
        unheard.append(link)
        if link is not unheard[0]:
            published(agent, link, number, code)

    monkeypatch.setattr(Agent, "published", hear_the_second)
    with carrying(state, outbox, Pace(resend_first=60.0, reconnect_first=0.1, answer=0.5)):
        message, envelope = put(outbox, party)
        assert clinic.take() == (message, envelope)
        assert clinic.take() == (message, envelope), "over the next connection"
        clinic.receipt(message, envelope)
        wait_until(lambda: outbox.state(message) == "stored", "the message stored")


def test_a_message_whose_answer_is_passed_over_goes_again_in_its_time(
    clinic: Clinic, outbox: Outbox, state: Path, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, dropped = link_module.BrokerLink.publish, list[bytes]()
    first, second = put(outbox, party), put(outbox, party)

    def drop_the_first(
        link: link_module.BrokerLink, topic: str, payload: bytes, retain: bool = False
    ) -> int | None:
        if payload == first[1] and not dropped:
            dropped.append(payload)
            return 2**16 - 1
        return publish(link, topic, payload, retain)

    monkeypatch.setattr(link_module.BrokerLink, "publish", drop_the_first)
    with carrying(state, outbox):
        assert clinic.take() == second
        assert clinic.take() == first
    assert dropped == [first[1]]


def test_a_broker_that_takes_nothing_is_dialled_ever_more_rarely(
    broker: Broker, outbox: Outbox, state: Path, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lets a kiosk in, and ends the connection before it answers anything."""
    failures = list[int]()
    monkeypatch.setattr(Agent, "published", lambda agent, link, *_: agent.lost(link, "it ended"))
    monkeypatch.setattr(Backoff, "delay", lambda _, count: failures.append(count) or 0.01)
    put(outbox, party)
    with carrying(state, outbox):
        wait_until(lambda: 5 in failures, "the fifth failure")
    assert failures[:5] == [1, 2, 3, 4, 5]
