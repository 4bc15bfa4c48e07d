"""The log: every event has a name in snake_case, so that it can be searched for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.sources import ROOMS, code_of, modules, parsed

_LEVELS = ("debug", "info", "warning", "error")


def events(path: Path) -> list[str]:
    """The events that the module at `path` logs; one whose name is worked out is its source."""
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in _LEVELS]
    ours = [call.args[0] for call in named if re.match(r"log\.|.*get_logger\(\)\.", code_of(call.func))]
    return [str(name.value) if isinstance(name, ast.Constant) else code_of(name) for name in ours]


@pytest.mark.parametrize("room", ROOMS)
def test_every_event_has_a_name_in_snake_case(room: str) -> None:
    found = {event for path in modules(room) for event in events(path)}
    named = re.compile(r"[a-z]+(_[a-z]+)*|event|ALARM|[\w.]+ if .*")
    assert [event for event in sorted(found) if not named.fullmatch(event)] == []
    assert found or room in ("hardware", "models", "provisioning")
