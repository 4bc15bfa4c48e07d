"""What starts a server or a browser is for tests that are marked `long`: `make check` leaves these out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pytest

F = TypeVar("F", bound=Callable[..., Any])
# The name of the test that runs, with what it is set up by, where it is not marked `long`.
short_test: str | None = None


def for_long_tests(what: str) -> Callable[[F], F]:
    """A function that starts `what`: it fails in a test that is not `long`, and files that import it are."""

    def decorate(start: F) -> F:
        @functools.wraps(start)
        def started(*arguments: Any, **named: Any) -> Any:
            assert short_test is None, (
                f"{short_test} starts {what}, which takes too long for 'make check': mark it with"
                " pytest.mark.long, or import what starts it at the head of its file."
            )
            return start(*arguments, **named)

        started.for_long_tests = True  # type: ignore[attr-defined]
        return started  # type: ignore[return-value]

    return decorate


def is_long(item: pytest.Item) -> bool:
    """Whether its file, or a fixture of it, names something that is for long tests."""
    fixtures = (of[-1].func for of in item._fixtureinfo.name2fixturedefs.values())  # type: ignore[attr-defined]
    return any(map(_starts, vars(item.module).values())) or any(map(_names_a_start, fixtures))  # type: ignore[attr-defined]


def _names_a_start(fixture: Callable[..., Any]) -> bool:
    code = getattr(fixture, "__code__", None)
    return code is not None and any(_starts(fixture.__globals__.get(name)) for name in code.co_names)


def _starts(value: object) -> bool:
    parts: list[object] = [value]
    if isinstance(value, type):
        parts = [part for one in value.__mro__ for part in vars(one).values()]
    return any(isinstance(part, FunctionType) and hasattr(part, "for_long_tests") for part in parts)
