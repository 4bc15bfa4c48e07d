"""A sync agent as its own process, with the clinic's side of the wire played by the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sync.kiosk.agent import Agent
from sync.kiosk.client import OutboxClient, OutboxUnavailable
from sync.wire import topics
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.envelope import read_header
from sync.wire.keys import (
    load_opening_keys,
    load_public_key,
    load_signing_key,
)
from tests.support.mosquitto import Broker
from tests.support.mqtt import MqttClient
from tests.support.waiting import wait_until
from tests.support.wire import Party

COMMAND = (sys.executable, "-c", "from kiosk_app.cli import main; main()")
# Two seconds are promised; this long at most is waited for it, on however slow a machine.
STOP_S, WAIT_S = 5.0, 60.0


class AgentProcess:
    """`dermakiosk sync run` on an enrolled kiosk's state.

    What it finds in its outbox it is told to send as soon as it has begun, unless the test `vouches` itself.
    """

    def __init__(self, state: Path, *options: str, vouches: bool = True) -> None:
        self._vouches = vouches
        self.state = state
        self.options = options
        self.client = OutboxClient(state / "run" / "outbox.sock")
        self.log = state / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "sync", "run", "--state", str(self.state), *self.options],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            return b'"event": "ready"' in self.log.read_bytes()[begin:]

        wait_until(ready, "the agent ready")
        if self._vouches:
            self.client.vouch(self.client.unvouched())

    @contextmanager
    def held(self) -> Iterator[None]:
        """It does nothing meanwhile: what it would send comes to whoever listens after."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Stop cleanly; the seconds that it took. A test of those plays a few rounds."""
        started = time.monotonic()
        assert self._end(number) == 0, self.log.read_text()
        return time.monotonic() - started

    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def status(self) -> dict[str, Any]:
        return self.client.status()

    def wait_connected(self) -> None:
        wait_until(lambda: self.status()["connected"], "the agent connected to the broker")

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        try:
            return process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(WAIT_S)
            raise

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_S)
            self._process = None


@contextmanager
def running_agent(state: Path, *options: str) -> Iterator[AgentProcess]:
    agent = AgentProcess(state, *options)
    agent.start()
    try:
        yield agent
    finally:
        agent.close()


def unavailable(client: OutboxClient) -> bool:
    try:
        client.status()
    except OutboxUnavailable:
        return True
    return False


def party_of(broker: Broker, kiosk: UUID, state: Path) -> Party:
    """The keys of an enrolled kiosk with its clinic."""
    clinic_keys = ClinicKeys.verify(
        (state / "clinic-keys.cose").read_bytes(),
        load_public_key(bytes.fromhex((state / "clinic-root.pub").read_text())),
    )
    opening = load_opening_keys((broker.opener / "opening.key").read_bytes())[-1]
    assert opening.kid == clinic_keys.seal_to.kid
    return Party(
        kiosk=kiosk,
        signing=load_signing_key((state / "app" / "result.key").read_bytes()),
        opening=opening,
        receipts=load_signing_key((broker.ingest / "receipt.key").read_bytes()),
    )


class Clinic:
    """The clinic's end of the broker: takes envelopes, and answers as the test says."""

    def __init__(self, broker: Broker, party: Party, client: MqttClient) -> None:
        self.party = party
        self.client = client
        code = client.subscribe(topics.all_up("result"))
        assert code < 0x80

    def take(self) -> tuple[UUID, bytes]:
        """The next envelope and the id in its header."""
        _, envelope = self.client.message()
        return read_header(envelope).message_id, envelope

    def take_until(self, expected: set[UUID]) -> dict[UUID, bytes]:
        """Everything that comes, until all that is expected has come."""
        taken: dict[UUID, bytes] = {}
        while not expected <= set(taken):
            message, envelope = self.take()
            assert taken.setdefault(message, envelope) == envelope
        return taken

    def receipt_all_until(self, done: Callable[[], bool]) -> None:
        """Take and receipt whatever comes."""

        def serve() -> bool:
            while not self.client.messages.empty():
                self.receipt(*self.take())
            return done()

        wait_until(serve, "what is to come of the receipts")

    def answer(self, payload: bytes) -> None:
        assert self.client.publish(topics.down(self.party.kiosk, "receipt"), payload) == 0

    def receipt(self, message: UUID, envelope: bytes, **changes: Any) -> None:
        self.answer(self.party.receipt(message, envelope, **changes).sign(self.party.receipts))


def submit(agent: AgentProcess, party: Party) -> tuple[UUID, bytes]:
    message, envelope = party.envelope()
    agent.client.submit(message, "result", envelope)
    return message, envelope


@contextmanager
def at_work(agent: Agent) -> Iterator[threading.Thread]:
    stop = threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        agent.wake()
        thread.join(30)
        assert not thread.is_alive()
