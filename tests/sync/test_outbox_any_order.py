"""In whatever order an outbox is given, told and asked things, it keeps what it has taken."""

from __future__ import annotations

import tempfile
from pathlib import Path
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sync.kiosk.outbox import Outbox
from sync.wire.receipt import Receipt
from tests.support.wire import Party

PARTY = Party()


class OutboxMachine(RuleBasedStateMachine):
    """Any order of events, compared with a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.outbox = Outbox(Path(self.folder.name) / "outbox.sqlite")
        self.waiting: dict[UUID, bytes] = {}
        self.states: dict[UUID, str] = {}
        self.bytes_of: dict[UUID, bytes] = {}
        self.never_left: set[UUID] = set()

    def pick(self, data: st.DataObject) -> UUID:
        return data.draw(st.sampled_from(sorted(self.bytes_of, key=str)))

    @rule(seed=st.integers(0, 2**64))
    def put_new(self, seed: int) -> None:
        message, envelope = UUID(int=seed), seed.to_bytes(9, "big") * 7
        self.outbox.put(message, "result", envelope)
        if message not in self.bytes_of:
            self.bytes_of[message] = envelope
            self.waiting[message] = envelope
            self.states[message] = "waiting"

    @precondition(lambda self: self.bytes_of)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        message = self.pick(data)
        taken = self.outbox.take_to_send(message)
        if self.states[message] in ("waiting", "sent"):
            assert taken is not None
            assert taken.envelope == self.waiting[message]
            self.states[message] = "sent"
        else:
            assert taken is None

    @precondition(lambda self: self.bytes_of)
    @rule(
        data=st.data(),
        status=st.sampled_from(["stored", "duplicate", "quarantined", "reseal"]),
        right_bytes=st.booleans(),
    )
    def receive(self, data: st.DataObject, status, right_bytes: bool) -> None:
        message = self.pick(data)
        envelope = self.bytes_of[message] if right_bytes else b"other"
        receipt: Receipt = PARTY.receipt(message, envelope, status)
        outcome = self.outbox.accept_receipt(receipt)
        right = right_bytes and message not in self.never_left
        assert outcome == ("accepted" if right else "mismatch")
        if not right:
            return
        before = self.states[message]
        if before in ("waiting", "sent", "reseal"):
            self.states[message] = {"duplicate": "stored"}.get(status, status)
            if status != "reseal":
                del self.waiting[message]
        elif before == "quarantined" and status in ("stored", "duplicate"):
            self.states[message] = "stored"

    @precondition(lambda self: self.bytes_of)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        message = self.pick(data)
        before = "waiting" if message in self.never_left else self.states[message]
        assert self.outbox.discard(message) == before
        if before == "waiting":
            self.never_left.add(message)
        if self.waiting.pop(message, None) is not None:
            self.states[message] = "discarded"

    @rule()
    def start_anew(self) -> None:
        """Of what is found then nobody knows whether it has left."""
        self.outbox.close()
        self.outbox = Outbox(Path(self.folder.name) / "outbox.sqlite")
        for message, state in self.states.items():
            self.states[message] = "sent" if state == "waiting" else state

    @invariant()
    def agrees(self) -> None:
        assert {m: self.outbox.state(m) for m in self.states} == self.states
        to_send = [m for m in self.waiting if self.states[m] != "reseal"]
        assert self.outbox.unreceipted() == to_send
        assert self.outbox.counts().bytes == sum(map(len, self.waiting.values()))

    def teardown(self) -> None:
        self.outbox.close()
        self.folder.cleanup()


OutboxMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


TestAnyOrderOfEvents = OutboxMachine.TestCase
