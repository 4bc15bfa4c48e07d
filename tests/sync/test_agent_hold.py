"""What an agent finds when it begins waits for the application's word; after an hour without it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from sync.kiosk import agent as agent_module
from sync.kiosk.agent import HOLD_S, SUCCESS, Agent
from sync.kiosk.outbox import Outbox
from tests.support.agent import party_of
from tests.support.mosquitto import Broker
from tests.support.wire import Party


@dataclass
class Link:
    """A connection that takes all that it is given; heartbeats are not `sent`, but retained."""

    sent: list[bytes] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int:
        if not retain:
            self.sent.append(payload)
        return len(self.sent)


@dataclass
class Kiosk:
    """An enrolled kiosk's agent, which has a turn where the test says so, at the time that it says."""

    state: Path
    party: Party
    at: float = 0.0

    @contextmanager
    def agent(self) -> Iterator[Agent]:
        outbox = Outbox(self.state / "sync" / "outbox.sqlite")
        agent = Agent(self.state, outbox)
        agent._link = Link()  # type: ignore[assignment]
        agent.connected(agent._link)  # type: ignore[arg-type]
        yield agent
        outbox.close()

    def put(self, agent: Agent) -> tuple[UUID, bytes]:
        message, envelope = self.party.envelope()
        agent._outbox.put(message, "result", envelope)
        return message, envelope

    def receipted(self, agent: Agent, message: tuple[UUID, bytes], status: Any) -> None:
        assert agent._outbox.accept_receipt(self.party.receipt(*message, status=status)) == "accepted"

    def sent(self, agent: Agent, after: float = 0.0) -> list[bytes]:
        """What is sent, and taken by the broker, in a turn so many seconds later."""
        self.at += after
        link: Any = agent._link
        link.sent.clear()
        agent._note_change()
        agent._tick(self.at)
        for number in list(agent._in_flight):
            agent.published(link, number, SUCCESS)
        return list(link.sent)


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Party]:
    broker, state = Broker(tmp_path_factory.mktemp("system")), tmp_path_factory.mktemp("kiosk")
    return state, party_of(broker, broker.enrol(state), state)


@pytest.fixture
def kiosk(enrolled: tuple[Path, Party], monkeypatch: pytest.MonkeyPatch) -> Iterator[Kiosk]:
    made = Kiosk(*enrolled)
    monkeypatch.setattr(agent_module, "time", SimpleNamespace(monotonic=lambda: made.at))
    yield made
    for file in (made.state / "sync").glob("outbox.sqlite*"):
        file.unlink()


def test_what_is_found_waits_for_an_hour_and_what_comes_since_does_not(kiosk: Kiosk) -> None:
    with kiosk.agent() as agent:
        found = kiosk.put(agent)
    with kiosk.agent() as agent, capture_logs() as said:
        assert kiosk.sent(agent) == []
        since = kiosk.put(agent)
        assert kiosk.sent(agent, HOLD_S - 1) == [since[1]]
        assert said == []
        assert kiosk.sent(agent, 1) == [found[1]]
    assert [(line["event"], line["count"]) for line in said] == [("sends_unvouched", 1)]


def test_an_application_that_looks_through_the_first_of_many_has_an_hour_again_for_the_others(
    kiosk: Kiosk,
) -> None:
    with kiosk.agent() as agent:
        first, second = kiosk.put(agent), kiosk.put(agent)
    with kiosk.agent() as agent:
        kiosk.at += HOLD_S - 1
        agent.vouch([first[0]])
        assert kiosk.sent(agent) == [first[1]]
        kiosk.receipted(agent, first, "stored")
        assert kiosk.sent(agent, HOLD_S - 1) == []
        assert kiosk.sent(agent, 1) == [second[1]]


def test_what_is_counted_as_not_looked_through_is_what_has_no_receipt_and_is_sent(kiosk: Kiosk) -> None:
    """Of the others the application is told all the same: what was deleted of them is to be withdrawn."""
    with kiosk.agent() as agent:
        waiting, stored, resealed = [kiosk.put(agent) for _ in range(3)]
        kiosk.receipted(agent, resealed, "reseal")
    with kiosk.agent() as agent, capture_logs() as said:
        assert agent.status()["unvouched"] == 2
        assert kiosk.sent(agent, HOLD_S) == [waiting[1], stored[1]]
        kiosk.receipted(agent, stored, "stored")
        assert agent.status()["unvouched"] == 1
        assert agent._outbox.sent_unvouched() == {waiting[0], stored[0]}
    with kiosk.agent() as agent, capture_logs() as said_then:
        assert agent.status()["unvouched"] == 1
        assert set(agent.unvouched()) == {waiting[0], stored[0], resealed[0]}
        kiosk.receipted(agent, waiting, "stored")
        assert agent.status()["unvouched"] == 0
        assert kiosk.sent(agent, HOLD_S) == []
    assert [line["count"] for line in said] == [2] and said_then == []


class TakenFromByBoth(frozenset[UUID]):
    """Each of two threads that take something from it waits for the other, which may be kept from it."""

    def __new__(cls, of: frozenset[UUID]) -> TakenFromByBoth:
        made = super().__new__(cls, of)
        made.both = threading.Barrier(2, timeout=0.5)
        return made

    both: threading.Barrier

    def __sub__(self, other: Any) -> frozenset[UUID]:
        with suppress(threading.BrokenBarrierError):
            self.both.wait()
        return frozenset(super().__sub__(other))


def test_two_that_look_through_at_once_lose_none_of_each_others_words(kiosk: Kiosk) -> None:
    with kiosk.agent() as agent:
        for _ in range(2):
            kiosk.put(agent)
    with kiosk.agent() as agent:
        agent._unvouched = TakenFromByBoth(agent._unvouched)
        threads = [threading.Thread(target=agent.vouch, args=([each],)) for each in agent.unvouched()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert agent.unvouched() == []
