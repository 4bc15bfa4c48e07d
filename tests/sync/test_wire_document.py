"""The integrator's page of the wire says what the code says: fields, types, words, numbers, topics."""

from __future__ import annotations

import ast
import functools
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from provisioning.broker import ACCESS_LIST
from sync.clinic import receiving
from sync.clinic.receiving.registry import RegistryEntry
from sync.wire import cose, topics
from sync.wire.clinic_keys import _KeySet
from sync.wire.envelope import Header, Reason
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
    [("receipt's status", get_args(ReceiptStatus)), ("why an envelope is refused", get_args(Reason))],
)
def test_every_word_is_explained_once(head: str, words: tuple[str, ...]) -> None:
    assert [row[head].strip("`") for row in WIRE.table(head)] == list(words)


# Whatever hands one of these a word sets a message aside for that reason.
SETS_ASIDE = {
    "Offered",
    "Refused",
    "_quarantine",
    "_refuse_heartbeat",
    "_set_apart",
    "keep_poison",
    "take_poison",
}
A_REASON = re.compile(r"[a-z]+(?:_[a-z]+)+:?")


def reasons_in(source: str, module: ModuleType) -> set[str]:
    """The words for which this code sets messages aside: literals, and constants of the module."""
    given = list[ast.AST]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SETS_ASIDE:
            given += node.args
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason":
            given.append(node.value)
        elif isinstance(node, ast.JoinedStr) and ast.unparse(node).endswith("(error).__name__}'"):
            given.append(node)
    found = set[str]()
    for leaf in (leaf for each in given for leaf in ast.walk(each)):
        name = ast.unparse(leaf) if isinstance(leaf, ast.Name | ast.Attribute) else ""
        value: object = getattr(leaf, "value", None)
        if name.rpartition(".")[2].isupper():
            value = functools.reduce(getattr, name.split("."), module)
        if isinstance(value, str) and A_REASON.fullmatch(value):
            found.add(value)
    return found


def test_every_reason_for_which_the_clinic_sets_a_message_aside_is_explained() -> None:
    found = set[str]()
    for path in sorted(Path(receiving.__path__[0]).glob("*.py")):
        module = import_module(f"{receiving.__name__}.{path.stem}")
        found |= reasons_in(path.read_text(), module)
    rows = WIRE.table("why a message is set aside")
    told = [row["why a message is set aside"].strip("`") for row in rows]
    assert len(told) == len(set(told))
    assert found - set(get_args(Reason)) == set(told)


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
