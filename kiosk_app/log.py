"""The log: one JSON line an event, and of a fault its class and its place, never its words."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Hashable, Iterator, MutableMapping
from pathlib import Path
from traceback import format_tb
from types import TracebackType
from typing import Any, TextIO

import structlog

from hardware.host.errors import PlainError
from sync.wire.errors import PlainError as PlainErrorOfTheWire

# What an exception says can quote what it could not digest: a reference, a measurement, a piece of a key.
LINKS, PLACES = 6, 6
_ROOT = Path(__file__).resolve().parent.parent

Event = MutableMapping[str, Any]
OURS = (PlainError, PlainErrorOfTheWire)


def configure(debug: bool) -> None:
    """One JSON line an event on stderr: time in UTC, level, event and its fields. No patient is in them."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_the_place,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=lambda *_: _Lines(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)
    threading.excepthook = _thread_ended
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warned


class _Lines(structlog.PrintLogger):
    """Lines for a file, as far as it takes them: whoever logs goes on where it is full, or unread."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def own_words(error: BaseException | None) -> str | None:
    """The sentence of an error of ours, which was written to be read and quotes nobody; None of any other."""
    return str(error) or None if isinstance(error, OURS) else None


def why(error: BaseException) -> str | list[str]:
    """What a log may say of `error`: its own sentence if it is one of ours, else where it came about."""
    return own_words(error) or fault(error)


class Told:
    """Troubles that the log tells of when they begin, and again when they are others or come back."""

    def __init__(self) -> None:
        self._now: dict[Hashable, str] = {}

    def begins(self, trouble: Hashable, why: str = "") -> bool:
        """Whether to tell of it: it was not there before, or for another reason."""
        before = self._now.get(trouble)
        self._now[trouble] = why
        return before != why

    def over(self, trouble: Hashable) -> None:
        self._now.pop(trouble, None)


def fault(error: BaseException) -> list[str]:
    """The error and what it came of, each as `class at file:line function < …`, innermost place first."""
    return [_link(link) for link in _chain(error)]


def traceback(error: BaseException) -> str:
    """Python's traceback of the error and of what it came of, last things last, without their words."""
    links = [
        f"Traceback (most recent call last):\n{''.join(format_tb(link.__traceback__))}"
        f"{type(link).__module__}.{type(link).__qualname__}\n"
        for link in _chain(error)
    ]
    return "\nThat led to this:\n\n".join(reversed(links))


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(seen) < LINKS:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _link(error: BaseException) -> str:
    places = list(_places(error.__traceback__))[-PLACES:]
    name = type(error).__qualname__
    return f"{name} at {' < '.join(reversed(places))}" if places else name


def _places(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield f"{_place(code.co_filename, trace.tb_lineno)} {code.co_name}"
        trace = trace.tb_next


def _place(file: str, line: int) -> str:
    path = Path(file)
    shown = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else Path(*path.parts[-2:])
    if "site-packages" in shown.parts:
        shown = Path(*shown.parts[-2:])
    return f"{shown}:{line}"


def _only_the_place(_: object, __: str, event: Event) -> Event:
    said = event.pop("exc_info", None)
    if isinstance(said, tuple):
        said = said[1]
    elif said is not None and not isinstance(said, BaseException):
        said = sys.exc_info()[1] if said else None
    if said is not None:
        event["fault"] = fault(said)
    for name in [name for name, value in event.items() if isinstance(value, BaseException)]:
        event[name] = fault(event[name])
    return event


class _Libraries(logging.Handler):
    """Where libraries log, in our form. Their text stands unfilled: what is filled into it may be anyone's.

    A text without arguments has been filled already, for all that is known; its place says what it was.
    """

    def emit(self, record: logging.LogRecord) -> None:
        level = logging.ERROR if record.levelno >= logging.ERROR else logging.WARNING
        said = {"text": record.msg} if record.args and isinstance(record.msg, str) else {}
        structlog.get_logger().log(
            level,
            "library",
            logger=record.name,
            place=f"{_place(record.pathname, record.lineno)} {record.funcName}",
            exc_info=record.exc_info[1] if record.exc_info else None,
            **said,
        )


def _thread_ended(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_type is not SystemExit:
        name = hook.thread.name if hook.thread else None
        structlog.get_logger().error("thread_ended", thread=name, exc_info=hook.exc_value)


def _unraisable(hook: sys.UnraisableHookArgs) -> None:
    structlog.get_logger().error("unraisable", exc_info=hook.exc_value)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    structlog.get_logger().warning("warned", kind=category.__name__, place=_place(filename, lineno))
