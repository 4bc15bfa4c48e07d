"""The integrator's page of the wire says what the code says: fields, types, words, numbers, topics."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

from provisioning.broker import ACCESS_LIST
from sync.clinic import receiving
from sync.clinic.receiving.intake import Offered
from sync.clinic.receiving.opening_alone import MessageRefused
from sync.clinic.receiving.poison import keep_poison, take_poison
from sync.clinic.receiving.reasons import NamedFault, Reason, SetAside
from sync.clinic.receiving.registry import RegistryEntry
from sync.wire import cose, topics
from sync.wire.clinic_keys import _KeySet
from sync.wire.envelope import Header
from sync.wire.envelope import Reason as EnvelopeReason
from sync.wire.findings import Abcd, Finding, Findings, Geometry, Lesion, Mark, MarkedSpot
from sync.wire.messages import _KINDS, Consent, ReminderDue, ResultWithFlags, WithdrawMessages
from sync.wire.receipt import Receipt, ReceiptStatus
from sync.wire.status import Status
from tests.support.documents import document, in_code

WIRE, PAGE = document("sync/docs/wire.md"), document("sync/docs/messages.md")
# The newest version of each message; what an older one lacks is said in the text.
MESSAGES: dict[str, type[BaseModel]] = {
    "Result": ResultWithFlags,
    "Consent": Consent,
    "Findings": Findings,
    "Finding": Finding,
    "Geometry": Geometry,
    "Mark": Mark,
    "MarkedSpot": MarkedSpot,
    "Lesion": Lesion,
    "Abcd": Abcd,
    "Withdraw": WithdrawMessages,
    "ReminderDue": ReminderDue,
    "Receipt": Receipt,
    "Status": Status,
    "key set": _KeySet,
}


def fields_of(model: type[BaseModel]) -> dict[str, str]:
    """A model's fields by their names on the wire, each with its type as the page writes it."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return {
        name: kind(facts) + ("" if name in required or "const" in facts else ", optional")
        for name, facts in schema["properties"].items()
    }


def kind(facts: dict[str, Any]) -> str:
    if "anyOf" in facts:
        return " or ".join(kind(each) for each in facts["anyOf"])
    if "$ref" in facts:
        return str(facts["$ref"].rpartition("/")[2]).strip("_")
    if "const" in facts:
        return f"`{facts['const']}`"
    if "enum" in facts:
        return "word" if len(facts["enum"]) > 4 else " or ".join(f"`{each}`" for each in facts["enum"])
    if facts["type"] == "array":
        return f"list of {kind(facts['items'])}"
    formats = {"uuid": "UUID", "date-time": "moment", "date": "day", "binary": "hex"}
    names = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean", "null": "null"}
    return formats.get(
        facts.get("format", ""), {"object": "map"}.get(facts["type"], names.get(facts["type"], ""))
    )


@pytest.mark.parametrize("name", MESSAGES)
def test_the_fields_of_a_message_are_those_of_the_code(name: str) -> None:
    rows = {row[name]: row for table in PAGE.tables(name) for row in table}
    written = {field.strip("`"): row["type"] for field, row in rows.items()}
    assert written == fields_of(MESSAGES[name])


def test_every_message_that_is_sealed_is_on_the_page() -> None:
    rows = PAGE.table("type in the header")
    assert [(row["type in the header"].strip("`"), int(row["schema"])) for row in rows] == [
        (model.KIND, model.VERSION) for model in _KINDS
    ]


def test_the_header_is_the_one_that_is_signed() -> None:
    header = Header.__dataclass_fields__
    rows = WIRE.table("header label")
    labels = [row["header label"].strip("`") for row in rows]
    assert labels[:3] == [str(cose.ALGORITHM), str(cose.KEY_ID), str(cose.TYPE)]
    assert len(labels) == len(header) + 2
    refused = re.findall(r"names = \{([^}]+)\}", (WIRE.path.parents[1] / "wire" / "envelope.py").read_text())
    assert set(labels[3:]) == set(re.findall(r'"(\w+)"', refused[0]))


@pytest.mark.parametrize(
    ("head", "words"),
    [("receipt's status", get_args(ReceiptStatus)), ("why an envelope is refused", get_args(EnvelopeReason))],
)
def test_every_word_is_explained_once(head: str, words: tuple[str, ...]) -> None:
    assert [row[head].strip("`") for row in WIRE.table(head)] == list(words)


def test_every_reason_for_which_the_clinic_sets_a_message_aside_is_explained_once() -> None:
    rows = WIRE.table("why a message is set aside")
    told = [row["why a message is set aside"].strip("`") for row in rows]
    assert told == [*get_args(SetAside), *get_args(NamedFault)]


def reasons_on_the_spot(source: str) -> list[str]:
    """Where a row's `reason` is a text that is written on the spot, which no types hold to the words."""
    found = []
    for node in ast.walk(ast.parse(source)):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call) and not ast.unparse(node.func).startswith("log."):
            given = [each.value for each in node.keywords if each.arg == "reason"]
        elif isinstance(node, ast.Dict):
            named = [key for key in node.keys if isinstance(key, ast.Constant) and key.value == "reason"]
            given = [node.values[node.keys.index(key)] for key in named]
        elif isinstance(node, ast.Assign) and re.search(r"\breason\b", ast.unparse(node.targets[0])):
            given = [node.value]
        # What a function gives has its type.
        texts = [leaf for each in given if not isinstance(each, ast.Call) for leaf in ast.walk(each)]
        found += [ast.unparse(node) for text in texts if isinstance(getattr(text, "value", None), str)]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "rows.values(state=QUARANTINED, reason='new_word')",
        "Poison(kiosk=kiosk, reason=f'new_word:{error}')",
        "row.state, row.reason = QUARANTINED, 'new_word'",
        "reason = 'new_word' if odd else NO_KEY",
        "{'state': QUARANTINED, 'reason': 'new_word'}",
    ],
)
def test_a_reason_that_is_written_on_the_spot_is_found(source: str) -> None:
    assert reasons_on_the_spot(source)


def test_the_clinic_sets_messages_aside_for_these_reasons_and_no_other() -> None:
    paths = sorted(Path(receiving.__path__[0]).glob("*.py"))
    sources = {path.stem: path.read_text() for path in paths if path.stem != "reasons"}
    assert [name for name, source in sources.items() if reasons_on_the_spot(source)] == []
    for word in (*get_args(SetAside), *get_args(NamedFault)):
        assert any(f'"{word}"' in source for source in sources.values()), word
    for take in (keep_poison, take_poison):
        assert get_type_hints(take)["reason"] == Reason
    assert get_type_hints(MessageRefused.__init__)["reason"] == SetAside
    assert get_type_hints(Offered)["refused"] == Reason | None


def test_the_topics_are_those_that_are_parsed() -> None:
    rows = WIRE.table("topic")
    written = {row["topic"].strip("`") for row in rows}
    kinds = [("up", each) for each in get_args(topics.UpKind)] + [
        ("down", each) for each in get_args(topics.DownKind)
    ]
    assert written == {f"clinic/v1/{{kiosk}}/{direction}/{each}" for direction, each in kinds}
    assert all(row["retained"] in ("yes", "no", "–") for row in rows)


def test_a_kiosk_may_write_and_read_what_the_page_says() -> None:
    rows = WIRE.table("topic")
    for row in rows:
        topic = row["topic"].strip("`").replace("{kiosk}", "%u")
        if "/up/" in topic:
            assert f"pattern write {topic}\n" in ACCESS_LIST
    assert "pattern read clinic/v1/%u/down/#" in ACCESS_LIST


def test_the_registrys_file_has_the_fields_that_are_named() -> None:
    named = {word for row in WIRE.table("registry entry") for word in in_code(row["registry entry"])}
    assert named == set(RegistryEntry.model_fields)


def test_what_a_constant_is_for_is_said_in_words_that_a_page_explains() -> None:
    meanings = {row["constant"].strip("`"): in_code(row["means"]) for row in WIRE.table("constant")}
    assert meanings["sync.kiosk.link.WILL_DELAY_S"] == ["online"]
    for words in meanings.values():
        assert [word for word in words if f"`{word}`" not in PAGE.text] == []
