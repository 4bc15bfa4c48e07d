"""A state is one word of an enum, and the code says of each word what it means."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.sources import ROOT, code_of, modules, parsed


def states_without_a_line(path: Path) -> list[str]:
    """The members of this module's states of which no comment beside or above them says what they are."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for each in parsed(path).body:
        if not isinstance(each, ast.ClassDef) or "StateName" not in map(code_of, each.bases):
            continue
        for member in each.body:
            if isinstance(member, ast.Assign):
                beside, above = lines[member.lineno - 1], lines[member.lineno - 2]
                if "  # " not in beside and not above.lstrip().startswith("# "):
                    found.append(f"{path.name}: {each.name}.{code_of(member.targets[0])}")
    return found


def test_of_each_state_one_line_says_what_it_is() -> None:
    assert [state for path in modules() for state in states_without_a_line(path)] == []


def test_a_state_without_a_line_is_found(tmp_path: Path) -> None:
    module = tmp_path / "state.py"
    module.write_text(
        'class State(StateName):\n    """Where it is."""\n\n    NEW = "new"\n    OLD = "old"  # over\n'
        '    # Nobody\n    # knows.\n    LOST = "lost"\n'
    )
    assert states_without_a_line(module) == ["state.py: State.NEW"]


def test_no_state_is_one_of_some_bare_words() -> None:
    # What travels on the wire is bounded where it is read, by pydantic, and stays a choice of words.
    found = []
    for path in modules("firmware", "hardware", "kiosk_app", "models", "provisioning", "sync/kiosk"):
        for each in parsed(path).body:
            if isinstance(each, ast.Assign) and code_of(each.value).startswith("Literal["):
                found += [f"{path.relative_to(ROOT)}: {code_of(name)}" for name in each.targets]
    assert found == [
        "hardware/picture_colours.py: Colour",
        "hardware/simulation.py: _Sense",
    ]
