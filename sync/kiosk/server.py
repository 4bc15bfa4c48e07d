"""The outbox's local socket: takes sealed envelopes from the kiosk application."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from hardware.host.errors import PlainError
from hardware.host.folders import make_folder
from hardware.host.peers import peer_uid
from hardware.host.sockets import check_folder
from hardware.host.unasked import Unasked
from sync.kiosk.agent import Agent
from sync.kiosk.outbox import NumberUsed, Outbox, OutboxError
from sync.kiosk.socket_frames import receive_frame, send_frame
from sync.wire import topics
from sync.wire.envelope import EnvelopeError, read_header

log = structlog.get_logger()

REQUEST_S = 5.0
# The application asks a few questions at once at most; each is answered in milliseconds.
CONNECTIONS = 8
PAGE = 1000  # so many message ids in one frame at most


class SocketRefused(PlainError):
    """The socket cannot be made where it is wanted."""

    exit_status = 2


class BadRequest(ValueError):
    """A question that the application's own code never asks."""


class OutboxServer(socketserver.ThreadingUnixStreamServer):
    """Answers one question a connection, to processes of `users` only.

    At most CONNECTIONS of one user may wait without having asked.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, path: Path, outbox: Outbox, agent: Agent, users: frozenset[int]) -> None:
        check_folder(path.parent, "--state")
        self.outbox = outbox
        self.agent = agent
        self._users = users
        self._unasked = Unasked(CONNECTIONS)
        make_folder(path.parent)
        # The agent holds the lock on its state: a socket that is still there is a dead one's.
        path.unlink(missing_ok=True)
        try:
            super().__init__(str(path), _Question)
        except OSError as error:
            raise SocketRefused(f"The socket {path} cannot be made: {error}.") from error
        # Who may speak is decided by the kernel's word about the peer; the mode only opens the door to it.
        path.chmod(0o600 if users == {os.geteuid()} else 0o666)

    def handle_error(self, request: Any, client_address: object) -> None:
        """One question that ends in a fault is not answered; the base class would print what it says."""
        log.error("socket", exc_info=True)

    def verify_request(self, request: Any, client_address: object) -> bool:
        uid = peer_uid(request)
        if uid not in self._users:
            log.warning("peer_refused", uid=uid)
            return False
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        caller = _Caller(request)
        self._unasked.add(peer_uid(request), caller)
        super().process_request(request, caller)

    def has_asked(self, caller: _Caller) -> None:
        """The question of `caller` is here, or will not come."""
        self._unasked.has_asked(caller)


@dataclass(frozen=True, eq=False)
class _Caller:
    """Who has connected."""

    connection: socket.socket

    def hang_up(self) -> None:
        # Its thread reads the end of the line, and goes.
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _Question(socketserver.BaseRequestHandler):
    """One question, answered."""

    server: OutboxServer
    request: socket.socket
    client_address: _Caller

    def handle(self) -> None:
        deadline = time.monotonic() + REQUEST_S
        try:
            try:
                question = receive_frame(self.request, deadline)
            finally:
                self.server.has_asked(self.client_address)
            send_frame(self.request, self._answer(question), deadline)
        except OSError as error:
            log.warning("socket", problem=str(error))

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "submit": self._submit,
            "state": lambda q: {"state": str(self.server.outbox.state(_message_id(q)))},
            "discard": self._discard,
            "unvouched": lambda _: {"ids": [each.bytes for each in self.server.agent.unvouched()[:PAGE]]},
            "sent_unvouched": lambda _: {"ids": [each.bytes for each in self._sent_unvouched()]},
            "vouch": self._vouch,
            "status": lambda q: {"status": self.server.agent.status()},
        }
        try:
            answer = answers.get(str(question.get("do")))
            if answer is None:
                raise BadRequest("The outbox does not know this question.")
            return answer(question)
        except NumberUsed as error:
            return {"refused": error.code, "sentence": str(error), "highest": error.highest}
        except OutboxError as error:
            return {"refused": error.code, "sentence": str(error)}
        except BadRequest as error:
            return {"refused": "bad_request", "sentence": str(error)}

    def _submit(self, question: dict[str, Any]) -> dict[str, Any]:
        message_id, kind, envelope = _message_id(question), question.get("kind"), question.get("envelope")
        may_have_left = question.get("may_have_left", False)
        if not isinstance(kind, str) or not isinstance(envelope, bytes):
            raise BadRequest("An envelope and its kind are missing.")
        if not isinstance(may_have_left, bool):
            raise BadRequest("Whether the envelope may have left is not said by yes or no.")
        try:
            header = read_header(envelope)
        except EnvelopeError as error:
            # Nothing that is not sealed leaves this kiosk.
            raise BadRequest(f"This is not an envelope: {error}") from error
        if (header.kiosk, header.message_id) != (self.server.agent.kiosk, message_id):
            raise BadRequest("The envelope is another kiosk's or another message's.")
        if kind not in (header.type, topics.up_kind(header.type)):
            raise BadRequest(f"The envelope holds a '{header.type}', not a '{kind}'.")
        place = header.epoch, header.sequence
        self.server.outbox.put(message_id, header.type, envelope, may_have_left=may_have_left, place=place)
        self.server.agent.wake()
        return {"state": str(self.server.outbox.state(message_id))}

    def _discard(self, question: dict[str, Any]) -> dict[str, Any]:
        before = self.server.outbox.discard(_message_id(question))
        self.server.agent.wake()
        return {"state": str(before)}

    def _sent_unvouched(self) -> list[UUID]:
        """Of those that are listed as unvouched."""
        sent = self.server.outbox.sent_unvouched()
        return [each for each in self.server.agent.unvouched()[:PAGE] if each in sent]

    def _vouch(self, question: dict[str, Any]) -> dict[str, Any]:
        ids = question.get("ids")
        if not isinstance(ids, list) or len(ids) > PAGE:
            raise BadRequest("The messages that are vouched for are missing.")
        self.server.agent.vouch([_message_id({"id": each}) for each in ids])
        return {}


@contextlib.contextmanager
def serving(path: Path, outbox: Outbox, agent: Agent, users: frozenset[int]) -> Iterator[None]:
    """The socket at `path`, answered by threads for as long as the block lasts."""
    server = OutboxServer(path, outbox, agent, users)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="outbox-socket", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        path.unlink(missing_ok=True)


def _message_id(question: dict[str, Any]) -> UUID:
    value = question.get("id")
    if not isinstance(value, bytes) or len(value) != 16:
        raise BadRequest("The message id is missing.")
    return UUID(bytes=value)
