"""Counts: where a sentence says how many or how long, it is right for one and for next to nothing too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from hardware.counts import counted, rounded
from hardware.host.patience import so_long
from sync.clinic.web import words
from tests.support.sources import ROOMS, ROOT, code_of, modules, parsed

# Of a time, and of whatever is counted anywhere.
TIMES = {"second", "minute", "hour", "day", "week", "month", "year"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in modules(training=False):
        yield str(path.relative_to(ROOT)), parsed(path)


def templates() -> dict[str, str]:
    paths = (path for room in ROOMS for path in sorted((ROOT / room).rglob("templates/*")))
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def nouns() -> str:
    """What is counted somewhere, by the last words of what `counted` is given: a part of a pattern."""
    calls = [node for _, tree in sources() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    given = [each.args[1] for each in calls if code_of(each.func).endswith("counted")]
    things = {str(thing.value) for thing in given if isinstance(thing, ast.Constant)}
    for page in templates().values():
        things |= set(re.findall(r'counted\([^"]*, "([^"]+)"\)', page))
    return "|".join(sorted(TIMES | {thing.split()[-1] for thing in things}))


def plurals_by_hand(tree: ast.AST, plural: re.Pattern[str]) -> Iterator[str]:
    """The sentences in which a number that may be one stands before a plural. A constant never changes."""
    for sentence in ast.walk(tree):
        if isinstance(sentence, ast.JoinedStr):
            for value, then in zip(sentence.values, sentence.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(then, ast.Constant):
                    constant = code_of(value.value).rpartition(".")[2].isupper()
                    if not constant and plural.match(str(then.value)):
                        yield code_of(sentence)


def durations_to_nothing(tree: ast.AST) -> Iterator[str]:
    """The sentences in which a time is rounded that may be next to none. A constant never changes."""
    for sentence in ast.walk(tree):
        if isinstance(sentence, ast.JoinedStr):
            for value, then in zip(sentence.values, sentence.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(then, ast.Constant):
                    how = "" if value.format_spec is None else code_of(value.format_spec)
                    constant = code_of(value.value).rpartition(".")[2].isupper()
                    if not constant and re.search(r"\.\df", how) and re.match(r" m?[sh]\b", str(then.value)):
                        yield code_of(sentence)


@pytest.mark.parametrize("say", [counted, words.counted])
def test_one_is_no_plural(say) -> None:
    assert [say(count, "finding") for count in (0, 1, 2)] == ["0 findings", "1 finding", "2 findings"]


def test_no_sentence_writes_a_plural_behind_a_number_that_may_be_one() -> None:
    plural = re.compile(rf"\s(?:[a-z]+ )?(?:{nouns()})s\b(?!/)")
    found = [(path, text) for path, tree in sources() for text in plurals_by_hand(tree, plural)]
    assert found == []
    assert list(plurals_by_hand(ast.parse("f'{wait} seconds'"), plural))
    assert list(plurals_by_hand(ast.parse("f'{len(gone)} encrypted items'"), plural))


def test_no_page_writes_a_plural_behind_a_number_that_may_be_one() -> None:
    plural = re.compile(rf"\}}\}}(?:</\w+>)?\s*(?:[a-z]+ )?(?:{nouns()})s\b")
    assert [name for name, text in templates().items() if plural.search(text)] == []
    assert plural.search("{{ marks|length }} marked places")


def test_no_sentence_rounds_a_time_to_nothing() -> None:
    assert [(path, text) for path, tree in sources() for text in durations_to_nothing(tree)] == []
    assert list(durations_to_nothing(ast.parse("f'no answer for {timeout:.1f} s.'")))
    assert not list(durations_to_nothing(ast.parse("f'no answer for {LONGEST:.1f} s.'")))


@pytest.mark.parametrize(
    ("wait_s", "said"),
    [(5.0, "5 s"), (29.98, "29.9 s"), (0.29, "0.2 s"), (0.1, "0.1 s")]
    + [(none, "the moment that was left") for none in (0.09, 0.0, -0.0, -3.0)],
)
def test_a_wait_for_which_next_to_no_time_was_left_is_said_to_be_one(wait_s: float, said: str) -> None:
    assert so_long(wait_s) == said


@pytest.mark.parametrize(
    ("amount", "decimals", "said"),
    [(2.34, 0, "2 h"), (2.34, 1, "2.3 h"), (0.4, 0, "less than 1 h"), (0.04, 1, "less than 0.1 h")]
    + [(0.0, 2, "less than 0.01 h"), (0.6, 0, "1 h")],
)
def test_what_rounds_to_nothing_is_said_to_be_less_than_the_least(
    amount: float, decimals: int, said: str
) -> None:
    assert rounded(amount, "h", decimals) == said
