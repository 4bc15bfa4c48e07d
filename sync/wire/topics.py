"""The topics of the wire, each kiosk's under its own id."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args
from uuid import UUID

from sync.wire.errors import PlainError

UpKind = Literal["result", "reminder", "status"]
DownKind = Literal["receipt", "config", "command"]
Direction = Literal["up", "down"]

CONTENT_TYPE = "application/cose"
_ROOT = "clinic/v1"
_KINDS: dict[str, tuple[str, ...]] = {"up": get_args(UpKind), "down": get_args(DownKind)}


class TopicError(PlainError, ValueError):
    """A topic that is not one of ours."""

    exit_status = 2


class Topic(NamedTuple):
    """A topic taken apart."""

    kiosk: UUID
    direction: Direction
    kind: str


def up(kiosk: UUID, kind: UpKind) -> str:
    """Where a kiosk publishes."""
    return _topic(str(kiosk), "up", kind)


def up_kind(message_kind: str) -> UpKind:
    """The kind of topic that a message travels on: results, and what is said of them later, stay in order."""
    return "reminder" if message_kind == "reminder" else "result"


def down(kiosk: UUID, kind: DownKind) -> str:
    """Where a kiosk is spoken to."""
    return _topic(str(kiosk), "down", kind)


def all_up(kind: UpKind) -> str:
    """The filter for one kind from every kiosk."""
    return _topic("+", "up", kind)


def shared_up(group: str, kind: UpKind) -> str:
    """The shared subscription by which a group of workers divides one kind from every kiosk."""
    return f"$share/{group}/{all_up(kind)}"


def all_down(kiosk: UUID) -> str:
    """The filter for everything that is said to one kiosk."""
    return f"{_ROOT}/{kiosk}/down/#"


def parse(topic: str) -> Topic:
    """Take a topic apart; raises TopicError."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != _ROOT or parts[4] not in _KINDS.get(parts[3], ()):
        raise TopicError("This topic is not one of the clinic's.")
    try:
        kiosk = UUID(parts[2])
    except ValueError as error:
        raise TopicError("The topic does not name a kiosk.") from error
    if str(kiosk) != parts[2]:
        raise TopicError("The topic does not name a kiosk in the usual form.")
    return Topic(kiosk, cast(Direction, parts[3]), parts[4])


def _topic(kiosk: str, direction: str, kind: str) -> str:
    if kind not in _KINDS[direction]:
        raise TopicError(f"'{kind}' is not a kind of message that goes {direction}.")
    return f"{_ROOT}/{kiosk}/{direction}/{kind}"
