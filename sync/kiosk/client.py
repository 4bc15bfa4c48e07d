"""The outbox as the kiosk application sees it: a socket to the sync agent."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from hardware.host.errors import Fault, PlainError
from hardware.host.patience import time_left
from hardware.host.peers import refuse_strangers, servers_of
from sync.kiosk.outbox_state import NEVER_LEFT, OutboxState
from sync.kiosk.socket_frames import receive_frame, send_frame

# The states it tells are for whoever asks it.
__all__ = ["NEVER_LEFT", "OutboxClient", "OutboxRefused", "OutboxState", "OutboxUnavailable"]


class OutboxUnavailable(PlainError):
    """The outbox has not taken a message, or cannot be asked: keep it, and try again later."""


class OutboxRefused(Fault, OutboxUnavailable):
    """The agent answered, and refused; `code` is `full`, `storage`, `conflict`, `used` or `bad_request`.

    After the first two the same message can be accepted later, after the others never. `conflict`: other
    bytes had its id. `used`: another message has its sequence number, and `highest` is the highest of all.
    """

    highest = 0


ANSWER_S = 5.0
T = TypeVar("T")


class OutboxClient:
    """Asks the agent behind `socket_path`; each call is a connection of its own, with a deadline.

    `server` is the agent's user; see `servers_of` for when it is not named.
    """

    def __init__(self, socket_path: Path, timeout: float = ANSWER_S, server: int | None = None) -> None:
        self._path = socket_path
        self._timeout = timeout
        self._server = server

    def submit(self, message_id: UUID, kind: str, envelope: bytes, *, may_have_left: bool = False) -> None:
        """Hand an envelope over; on return the outbox has it on its disk, unless it was discarded before.

        The same envelope can be handed over again: it is kept, and sent, once. `kind` is the kind of the
        message in the envelope. `may_have_left` says that an outbox that is lost had it before this one: it
        is `sent` from the first. Raises OutboxUnavailable.
        """
        question = {"do": "submit", "id": message_id.bytes, "kind": kind, "envelope": envelope}
        self._ask(question | {"may_have_left": may_have_left}, _state)

    def state(self, message_id: UUID) -> OutboxState:
        """`waiting` (has never left, and was handed over since the agent began), `sent` (may have left; no
        receipt yet), what the clinic's receipt said (`stored`, `quarantined`, `reseal`), `discarded`, or
        `unknown`: it was never handed over to this outbox, or was finished very long ago. Raises
        OutboxUnavailable, also where the outbox's file cannot be read.
        """
        return self._ask({"do": "state", "id": message_id.bytes}, _state)

    def discard(self, message_id: UUID) -> OutboxState:
        """Take an envelope out, and return the state it was in.

        Only after `waiting` or `unknown` the clinic never sees it; after any other it may have it.
        """
        return self._ask({"do": "discard", "id": message_id.bytes}, _state)

    def unvouched(self) -> list[UUID]:
        """What the agent found in the outbox when it began, and nobody has vouched for; of many the first.

        It is sent once somebody has, or after an hour in which nobody did. Also what an agent before it sent
        so. Raises OutboxUnavailable.
        """
        return self._ask({"do": "unvouched"}, _ids)

    def sent_unvouched(self) -> list[UUID]:
        """Those of the `unvouched` that were sent, since nobody looked. Raises OutboxUnavailable."""
        return self._ask({"do": "sent_unvouched"}, _ids)

    def vouch(self, messages: Collection[UUID]) -> None:
        """Have what is still there of these `unvouched` messages sent. Raises OutboxUnavailable."""
        self._ask({"do": "vouch", "ids": [each.bytes for each in messages]}, lambda _: None)

    def status(self) -> dict[str, Any]:
        """Counts, fill and connection, as `dermakiosk sync status --json` shows them.

        `accepting` says whether there is room for new scans. Raises OutboxUnavailable.
        """
        return self._ask({"do": "status"}, _status)

    def _ask(self, question: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """What `read` finds in the answer; what it raises says that it is none of an outbox."""
        timeout = time_left(self._timeout)
        deadline = time.monotonic() + timeout
        try:
            if not timeout:  # which to a socket would mean another kind of waiting
                raise TimeoutError("no time is left to ask it")
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout)
                connection.connect(str(self._path))
                refuse_strangers(connection, servers_of(self._path, "sync", self._server), self._path)
                send_frame(connection, question, deadline)
                answer = receive_frame(connection, deadline)
        except OSError as error:
            raise OutboxUnavailable(
                f"The outbox does not answer on {self._path} ({error}): is 'dermakiosk sync run' running?"
            ) from error
        try:
            if "refused" in answer:
                raise _refusal(answer)
            return read(answer)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise OutboxUnavailable(
                f"What answers on {self._path} does not answer as an outbox: is 'dermakiosk sync run' of this"
                " version running?"
            ) from error


def _refusal(answer: dict[str, Any]) -> OutboxRefused:
    refused = OutboxRefused(str(answer["refused"]), str(answer.get("sentence", "The outbox refused.")))
    refused.highest = int(answer.get("highest", 0))
    return refused


def _state(answer: dict[str, Any]) -> OutboxState:
    return OutboxState(answer["state"])


def _ids(answer: dict[str, Any]) -> list[UUID]:
    if not all(isinstance(each, bytes) for each in answer["ids"]):
        raise TypeError("an id is bytes")
    return [UUID(bytes=each) for each in answer["ids"]]


def _status(answer: dict[str, Any]) -> dict[str, Any]:
    status = dict(answer["status"])
    if not isinstance(status["accepting"], bool):
        raise TypeError("an outbox is accepting, or is not")
    return status | {"fill": float(status["fill"])}
