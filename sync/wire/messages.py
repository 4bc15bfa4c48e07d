"""The messages that a kiosk seals for its clinic."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sync.wire.bounds import WHOLE, Day, Id, Moment, ShortLine, unique
from sync.wire.document import FieldTwice, read_document
from sync.wire.errors import PlainError
from sync.wire.findings import Findings, SchemaVersion

Reference = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]

# So many messages does a withdrawal name at most; a scan is sealed again once in a key's lifetime.
MOST_NAMED = 64


class UnknownSchema(PlainError, ValueError):
    """A message of a type or version that this software does not know: keep it for one that does."""

    exit_status = 2


class InvalidMessage(PlainError, ValueError):
    """A message that does not follow its own schema. Neither it nor its cause quotes the message."""

    exit_status = 2


class _Message(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
    )

    KIND: ClassVar[str]
    VERSION: ClassVar[int]


class Consent(BaseModel):
    """What the patient agreed to: which text, in which language, when."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    text_version: Annotated[ShortLine, Field(min_length=1)]
    language: Language
    at: Moment


class Result(_Message):
    """The findings of one scan. `supersedes` is the id of the message that this one replaces."""

    KIND: ClassVar[str] = "result"
    VERSION: ClassVar[int] = 1

    kind: Literal["result"] = "result"
    # pydantic reserves the plain name; on the wire the key is "schema".
    schema_version: Annotated[SchemaVersion, Field(alias="schema")] = 1
    scan: Id
    patient_reference: Reference | None
    captured_at: Moment
    board: Annotated[ShortLine, Field(min_length=1)]
    simulated: bool
    consent: Consent
    findings: Findings
    supersedes: Id | None = None

    @model_validator(mode="after")
    def _findings_are_of_this_scan(self) -> Result:
        if self.findings.scan != self.scan:
            raise ValueError("the findings are of another scan")
        if (self.schema_version, self.findings.schema_version) != (self.VERSION, self.VERSION):
            raise ValueError("the findings are of another schema")
        return self


class ResultWithSpots(Result):
    """The findings of a scan in which spots were marked; a clinic that does not know them yet keeps it."""

    VERSION: ClassVar[int] = 2

    schema_version: Annotated[Literal[2], WHOLE, Field(alias="schema")] = 2


class ResultWithFlags(Result):
    """The findings of a scan in which a marked spot's picture has flags."""

    VERSION: ClassVar[int] = 3

    schema_version: Annotated[Literal[3], WHOLE, Field(alias="schema")] = 3


_RESULTS: dict[int, type[Result]] = {
    kind.VERSION: kind for kind in (Result, ResultWithSpots, ResultWithFlags)
}


def result_kind(findings: Findings) -> type[Result]:
    """The kind of Result that holds `findings`, which are of the oldest schema that can."""
    return _RESULTS[findings.schema_version]


class Withdraw(_Message):
    """A scan whose result was sent has been deleted at the kiosk; the clinic erases what it has of it."""

    KIND: ClassVar[str] = "withdraw"
    VERSION: ClassVar[int] = 1

    kind: Literal["withdraw"] = "withdraw"
    schema_version: Annotated[Literal[1, 2], WHOLE, Field(alias="schema")] = 1
    scan: Id
    at: Moment
    reason: Literal["patient", "staff"]


class WithdrawMessages(Withdraw):
    """The same, with the messages that carried the scan: the clinic erases what it cannot open too."""

    VERSION: ClassVar[int] = 2

    schema_version: Annotated[Literal[2], WHOLE, Field(alias="schema")] = 2
    messages: Annotated[tuple[Id, ...], Field(max_length=MOST_NAMED), unique()]


class ReminderDue(_Message):
    """A follow-up has come due: the clinic, which knows the person, reminds them."""

    KIND: ClassVar[str] = "reminder"
    VERSION: ClassVar[int] = 1

    kind: Literal["reminder"] = "reminder"
    schema_version: Annotated[Literal[1], WHOLE, Field(alias="schema")] = 1
    reminder: Id
    patient_reference: Reference
    rule: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
    due_on: Day
    scan: Id | None = None


Message = Result | Withdraw | ReminderDue
_KINDS: tuple[type[_Message], ...] = (*_RESULTS.values(), Withdraw, WithdrawMessages, ReminderDue)
_SCHEMAS = {(model.KIND, model.VERSION): model for model in _KINDS}


def dump_message(message: Message) -> bytes:
    """The message as JSON."""
    return message.model_dump_json().encode()


def parse_message(kind: str, schema_version: int, data: bytes) -> Message:
    """The message that `data` (JSON) holds. Raises UnknownSchema, or InvalidMessage."""
    model: Any = _SCHEMAS.get((kind, schema_version))
    if model is None:
        raise UnknownSchema(f"A message '{kind}' of schema {schema_version} is not known to this software.")
    try:
        message: Message = read_document(model, data)
    except ValidationError as error:
        # Pydantic's own error quotes values, and it must not end in a log: only where, never what.
        places = ", ".join(wrong_places(error)[:8])
        raise InvalidMessage(
            f"A message '{kind}' does not follow its schema, at: {places or 'all of it'}."
        ) from None
    except FieldTwice:
        raise InvalidMessage(f"A message '{kind}' has a field twice.") from None
    return message


def wrong_places(error: ValidationError) -> Sequence[str]:
    """Where a message does not follow its schema, by the schema's own names: keys can be anybody's words."""
    places = (entry["loc"] for entry in error.errors(include_input=False, include_context=False))
    return sorted({".".join(str(part) if _is_ours(part) else "…" for part in place) for place in places})


def _is_ours(part: int | str) -> bool:
    return isinstance(part, int) or part in _names()


@cache
def _names() -> frozenset[str]:
    """The names of all fields; it takes longer to find them than to open a message, and most never ask."""
    schemas = [model.model_json_schema() for model in _KINDS]
    parts = [part for schema in schemas for part in (schema, *schema.get("$defs", {}).values())]
    return frozenset(name for part in parts for name in part.get("properties", ()))
