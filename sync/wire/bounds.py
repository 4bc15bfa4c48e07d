"""Bounds: how far a moment, a number or a text of a message may go, the same at both ends of the wire."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from datetime import date, datetime, timezone
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field, TypeAdapter

# A kiosk without a clock says 1970, and the clocks of boards end in 2199: such a moment is wrong, and is
# taken. What lies beyond is no clock's, and what follows (zones, databases, pages) cannot reckon with it.
FIRST_MOMENT = datetime(1970, 1, 1, tzinfo=timezone.utc)
END_OF_MOMENTS = datetime(2200, 1, 1, tzinfo=timezone.utc)
# The largest packet that the broker and a kiosk take.
MAX_PACKET_BYTES = 256 * 1024
MAX_FINDINGS = 1024
MAX_MARKS = 4096

Many = TypeVar("Many", bound=tuple[Any, ...])


def _text_of(kind: type[date] | type[UUID], form: str, as_: str = "RFC 3339 says") -> BeforeValidator:
    """Of what is no `kind` yet, only text of this `form` is read: no number, and nothing that is like it."""
    whole = re.compile(form, re.ASCII)
    reader: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(hide_input_in_errors=True))

    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, str) or not whole.fullmatch(value):
            raise ValueError(f"this is not written as {as_}")
        return reader.validate_python(value)

    return BeforeValidator(read)


def unique(key: Callable[[Any], Hashable] = lambda item: item) -> AfterValidator:
    """No two items of the tuple have the same `key`: whoever reads only one of them would not read all."""

    def check(items: Many) -> Many:
        if len({key(item) for item in items}) < len(items):
            raise ValueError("something stands here twice")
        return items

    return AfterValidator(check)


def _whole(value: Any) -> Any:
    if isinstance(value, bool | float):
        raise ValueError("this is not written as a whole number")
    return value


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("this has characters that cannot be shown")
    return text


# A Literal of numbers would take true and 1.0 for 1.
WHOLE = BeforeValidator(_whole)
_DAY, _TIME = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(\.\d{1,6})?"
# As RFC 3339 writes them: each reads a number, or a time without a zone, in a way of its own.
Moment = Annotated[
    AwareDatetime,
    _text_of(datetime, rf"{_DAY}T{_TIME}(Z|[+-]\d\d:\d\d)"),
    Field(ge=FIRST_MOMENT, lt=END_OF_MOMENTS),
]
Day = Annotated[
    date,
    _text_of(date, _DAY),
    Field(ge=FIRST_MOMENT.date(), lt=END_OF_MOMENTS.date()),
]
# As RFC 9562 writes them: without hyphens, in capitals, in braces or as a URN it would be another text.
_HEX = "[0-9a-f]"
Id = Annotated[
    UUID,
    _text_of(UUID, rf"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}", "lower-case hexadecimal with hyphens"),
]
# No measurement comes near it, in any unit.
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Amount = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
# Larger integers are no longer exact in every reader of JSON.
Counter = Annotated[int, Field(ge=0, le=2**53 - 1)]
# Without control characters (PostgreSQL keeps no zero byte) and without marks that turn the line around.
Line = Annotated[str, Field(max_length=128, pattern=r"^\P{C}*$")]
ShortLine = Annotated[str, Field(max_length=64, pattern=r"^\P{C}*$")]
# The name of a kiosk, as people read it on pages and terminals.
Name = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(_printable)]
Word = Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]
