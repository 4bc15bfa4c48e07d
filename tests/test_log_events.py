"""What is logged and audited: every event has a name in snake_case, so that it can be searched for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sync.clinic.audit.log import ALARM
from tests.support.sources import ROOMS, ROOT, code_of, modules, parsed

# Of a call, which of its arguments is the event's name.
_LEVELS = {"debug": 0, "info": 0, "warning": 0, "error": 0, "critical": 0, "exception": 0, "log": 1}
_AUDITED = {"note": 2}


class Given(NamedTuple):
    """The events are what a function of ours is called with."""

    folder: str
    function: str
    argument: int


class Returned(NamedTuple):
    """The events are what a function of ours returns."""

    module: str
    function: str


_OF_A_FAILURE = Returned("sync/clinic/store/failure.py", "what_failed")
# Where an event is no name as it stands: whatever it may be is looked at all the same.
ELSEWHERE: dict[tuple[str, str], Given | Returned | str] = {
    ("firmware/lights/daemon.py", "event"): Given("firmware/lights", "_note", 0),
    ("kiosk_app/scanning/scan_work.py", "event"): Given("kiosk_app/scanning/scan_work.py", "_alone", 0),
    ("sync/clinic/audit/log.py", "ALARM"): ALARM,
    ("sync/clinic/receiving/quarantine.py", "event"): Given("sync/clinic/receiving", "_note", 2),
    ("sync/clinic/store/patience.py", "event"): _OF_A_FAILURE,
    ("sync/clinic/work/machines.py", "event"): _OF_A_FAILURE,
}


def arguments(path: Path, functions: dict[str, int], of: str = "") -> Iterator[ast.expr]:
    """What the functions of these names are called with in a module, where `of` is what has them."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and re.match(of, code_of(node.func)):
            name = code_of(node.func).rpartition(".")[2]
            if name in functions:
                yield node.args[functions[name]]


def names(expressions: Iterator[ast.expr]) -> list[str]:
    """Of each the name that it is, or its source where it is none as it stands."""
    found = [each.value if isinstance(each, ast.Constant) else code_of(each) for each in expressions]
    return [str(each) for each in found]


def events(path: Path) -> list[str]:
    """The events that the module at `path` logs or audits; one whose name is worked out is its source."""
    logged = arguments(path, _LEVELS, r"log\.|.*get_logger\(\)\.")
    audited = arguments(path, _AUDITED, r"note\b") if path.is_relative_to(ROOT / "sync" / "clinic") else []
    return names(iter([*logged, *audited]))


def worked_out(way: Given | Returned | str) -> list[str]:
    if isinstance(way, str):
        return [way]
    if isinstance(way, Given):
        place = ROOT / way.folder
        paths = [place] if place.is_file() else modules(way.folder)
        return [name for path in paths for name in names(arguments(path, {way.function: way.argument}))]
    [function] = [
        node
        for node in ast.walk(parsed(ROOT / way.module))
        if isinstance(node, ast.FunctionDef) and node.name == way.function
    ]
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
    return names(branch for value in returned for branch in branches(value))


def branches(value: ast.expr) -> list[ast.expr]:
    return [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]


def misnamed(found: list[str]) -> list[str]:
    return [event for event in sorted(set(found)) if not re.fullmatch(r"[a-z]+(_[a-z]+)*", event)]


@pytest.mark.parametrize("room", ROOMS)
def test_every_event_has_a_name_in_snake_case(room: str) -> None:
    found: list[str] = []
    for path in modules(room):
        where = path.relative_to(ROOT).as_posix()
        found += [event for event in events(path) if (where, event) not in ELSEWHERE]
    assert misnamed(found) == []
    assert found or room in ("hardware", "models", "provisioning")


@pytest.mark.parametrize(("where", "event"), ELSEWHERE)
def test_an_event_that_stands_elsewhere_has_such_a_name_there(where: str, event: str) -> None:
    assert event in events(ROOT / where), "it has a name as it stands: take its line out of ELSEWHERE"
    found = worked_out(ELSEWHERE[where, event])
    assert found
    assert misnamed(found) == []
