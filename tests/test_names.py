"""One word stands for one thing, and what is in seconds is named so."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping

from tests.support.sources import ROOMS, ROOT, code_of, modules, parsed

# One line each, with its reason.
ALLOWED = {
    "DrawnFace": "the kiosk draws the same face as the clinic, and neither may import the other",
    "Notifier": "a twin: the clinic may not import the kiosk's computer",
    "OutputFile": "a twin: the clinic may not import the kiosk's computer",
    "OutputUnwritable": "a twin: the clinic may not import the kiosk's computer",
    "PlainError": "a twin: the wire may not import the kiosk's computer",
}


def types_of(tree: ast.Module) -> list[str]:
    """The public classes that a module defines, and the public names it gives to a choice of words."""
    names = [each.name for each in tree.body if isinstance(each, ast.ClassDef)]
    for each in tree.body:
        if isinstance(each, ast.Assign) and code_of(each.value).startswith("Literal["):
            names += [code_of(target) for target in each.targets]
    return [name for name in names if not name.startswith("_")]


def with_two_meanings(trees: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """By each name that stands for types of more than one module: the modules."""
    places = defaultdict(list)
    for place, tree in trees.items():
        for name in types_of(tree):
            places[name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_two_types_of_the_product_have_one_name() -> None:
    # Training has an environment of its own, and finds each network's task by that one name.
    trees = {path.relative_to(ROOT).as_posix(): parsed(path) for path in modules(training=False)}
    found = with_two_meanings(trees)
    assert {name: places for name, places in found.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) <= set(found), "what is allowed is not there any more"


def test_a_name_of_two_types_is_found() -> None:
    one = ast.parse("class Spot:\n    pass\nOutcome = Literal['stored']\n_Own = dict[str, int]")
    other = ast.parse(
        "class Outcome(str, Enum):\n    STORED = 'stored'\nclass _Own:\n    pass\nSpot: int = 3"
    )
    assert with_two_meanings({"one": one, "other": other}) == {"Outcome": ["one", "other"]}


def names_in(tree: ast.AST) -> set[str]:
    """Every name that the code of a module gives to something, or calls it by."""
    names = set()
    for each in ast.walk(tree):
        if isinstance(each, ast.Name):
            names.add(each.id)
        elif isinstance(each, ast.Attribute):
            names.add(each.attr)
        elif isinstance(each, ast.arg | ast.keyword) and each.arg is not None:
            names.add(each.arg)
    return names


def seconds_named_otherwise(tree: ast.AST) -> set[str]:
    return {name for name in names_in(tree) if name.endswith(("_SECONDS", "_seconds"))} - {"total_seconds"}


def test_what_is_in_seconds_is_named_with_an_s() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): seconds_named_otherwise(parsed(path))
        for path in modules(*ROOMS, "tests")
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_what_is_in_seconds_and_is_named_otherwise_is_found() -> None:
    code = (
        "STOP_SECONDS = 5\ndef run(poll_seconds, wait_s):\n    return work(turn_seconds=age.total_seconds())"
    )
    assert seconds_named_otherwise(ast.parse(code)) == {"STOP_SECONDS", "poll_seconds", "turn_seconds"}
