"""What the documents name is there: files, commands, options, tests, constants, fields."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
from pathlib import Path

import click
import pytest

from kiosk_app.cli import cli
from tests.support.documents import (
    Document,
    cards,
    document,
    documents,
    files_of_tests,
    in_code,
    nodes_named,
    source_words,
    words_of,
)
from tests.support.sources import ROOMS, ROOT, modules, parsed

DOCUMENTS = documents()
README = DOCUMENTS[0]
# Of which no more is looked at than the commands.
OTHERS = [*cards(), document("CHANGELOG.md")]
FOLDERS = {*ROOMS, "tests"}
TWO_PAGES = 9_000  # characters: a dense page has some 4,500
PATHS = re.compile(r"^[\w./*{},-]+/?$")
ENDINGS = (".py", ".md", ".toml", ".cfg", ".js", ".css", ".html", ".svg", ".sh", ".tflite", ".po")
# Where paths begin that are no files of the checkout: what a command makes or reads, topics, media types.
ELSEWHERE = re.compile(r"^(/|build/|\.venv/|[A-Z_]{2,}/|clinic/v1|up/|down/|application/|\$share/)")
# Commands of others, and what is written into a file of theirs.
PROGRAMS = (
    ".venv/bin/pytest",
    "apt-get",
    "i2cdetect",
    "journalctl",
    "kill",
    "make",
    "pgrep",
    "sudo",
    "systemctl",
    "vcgencmd",
)
FOR_OTHERS = ("dtparam=", "dtoverlay=", "throttled=", "/opt/nvidia")
# Words that people fill in, and of what is not ours.
OF_OTHERS = {
    "AUTHORITY",
    "CLINIC",
    "DIR",
    "FILE",
    "FMA3",
    "GROUP",
    "KIOSK",
    "NAME",
    "NPY_DISABLE_CPU_FEATURES",
    "SCAN",
}

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


@every_document
def test_every_link_leads_somewhere(document: Document) -> None:
    assert [link for link in document.links if not (document.path.parent / link).exists()] == []
    headings = {each.path: each.anchors for each in DOCUMENTS}
    wrong = [
        f"{link}#{anchor}"
        for link, anchor in document.places
        if anchor not in headings[(document.path.parent / link).resolve()]
    ]
    assert wrong == []


@every_document
def test_no_document_is_longer_than_two_pages(document: Document) -> None:
    assert len(document.text) <= TWO_PAGES


@every_document
def test_every_path_is_there(document: Document) -> None:
    named = [span for span in document.spans if is_path(span)]
    assert [span for span in named if not finds(document, span)] == []


def is_path(span: str) -> bool:
    if not PATHS.match(span) or ELSEWHERE.match(span) or "::" in span:
        return False
    return "/" in span or span.endswith(ENDINGS)


def finds(document: Document, span: str) -> bool:
    """Whether the checkout has it: from its root, from the document's folder or room, or by its bare name."""
    if span in names_of_files():
        return True
    room = ROOT / document.path.relative_to(ROOT).parts[0]
    places = [ROOT, document.path.parent, *([room] if room.is_dir() else [])]
    return all(any(any(place.glob(each)) for place in places) for each in alternatives(span.rstrip("/")))


@functools.cache
def names_of_files() -> frozenset[str]:
    """The bare names of everything in the rooms and their tests."""
    return frozenset(path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*"))


def alternatives(path: str) -> list[str]:
    """`a/{b,c}` as the shell reads it."""
    before, brace, rest = path.partition("{")
    inner, _, after = rest.partition("}")
    return [before + each + after for each in inner.split(",")] if brace else [path]


@pytest.mark.parametrize("document", [*DOCUMENTS, *OTHERS], ids=lambda document: document.name)
def test_every_command_is_one_with_the_options_that_it_is_given(document: Document) -> None:
    wrong = [f"{' '.join(words)}: {why}" for words in document.commands() if (why := wrong_with(words))]
    assert wrong == []


def wrong_with(words: list[str]) -> str | None:
    """Why click would not take a command's words, but for what is left out or stands in for something."""
    command: click.Command = cli
    while True:
        context = click.Context(command)
        try:
            values, rest, _ = command.make_parser(context).parse_args(words)
        except click.UsageError as refused:
            return refused.format_message()
        for value in values.values():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str) and each.startswith("--"):
                    return f"{each} stands where a value is to be"
        if not isinstance(command, click.Group):
            return f"takes no {rest}" if rest else None
        if not rest:
            return None
        found = command.get_command(context, rest[0])
        if found is None:
            return f"there is no '{rest[0]}'"
        command, words = found, rest[1:]


@every_document
def test_every_target_of_make_is_in_the_makefile(document: Document) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(document.made()) - targets == set()


@every_document
def test_every_module_that_is_run_is_there(document: Document) -> None:
    missing = []
    for name in document.modules():
        found = importlib.util.find_spec(name)
        if found is None or (
            found.submodule_search_locations and not importlib.util.find_spec(f"{name}.__main__")
        ):
            missing.append(name)
    assert missing == []


@every_document
def test_every_test_that_is_named_is_there_and_runs(document: Document) -> None:
    wrong = [
        f"{file}::{test}"
        for file, test in nodes_named(document.text)
        if test.partition("[")[0] not in living(file)
    ]
    assert wrong == []


@functools.cache
def living(file: str) -> frozenset[str]:
    """The tests of a file that nothing skips."""
    path = files_of_tests().get(file)
    if path is None:
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(
        each.name
        for each in tree.body
        if isinstance(each, ast.FunctionDef)
        and each.name.startswith("test_")
        and not any(word in ast.unparse(mark) for mark in each.decorator_list for word in ("skip", "xfail"))
    )


@every_document
def test_every_name_in_backquotes_is_a_name_of_the_code(document: Document) -> None:
    spans = [span for span in document.spans if "::" not in span and not is_looked_up(document, span)]
    known = source_words() | OF_OTHERS
    assert sorted({f"{span}: {word}" for span in spans for word in words_of(span) - known}) == []


def is_looked_up(document: Document, span: str) -> bool:
    """Whether another test has looked the span up, or it is a program's that is not ours."""
    if span.split()[0] in PROGRAMS or span.startswith(FOR_OTHERS) or re.search(r"(^|/)dermakiosk ", span):
        return True
    return is_path(span) and finds(document, span)


@every_document
def test_every_constant_has_the_value_that_is_written(document: Document) -> None:
    for table in document.tables("constant"):
        for row in table:
            name = row["constant"].strip("`")
            module, _, attribute = name.rpartition(".")
            value = getattr(importlib.import_module(module), attribute)
            written = float(row["value"].split()[0].replace(",", ""))
            assert written == seconds_or_number(value), name


def seconds_or_number(value: object) -> float:
    if hasattr(value, "total_seconds"):
        return float(value.total_seconds())
    return float(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        "clinic opn",
        "clinic open --agian",
        "demo --debugging",
        "provision enrol --kiosks K",
        "sync statuses",
        "clinic quarantine list --json FILE",
        "clinic status --json",
        "analyse face --masks --parsing DIR",
        "sync status more",
    ],
)
def test_a_command_that_is_none_or_what_it_does_not_take_is_seen(words: str) -> None:
    assert wrong_with(words.split()) is not None


def test_every_command_of_a_document_is_found(tmp_path: Path) -> None:
    text = """Run `dermakiosk clinic status … --json FILE`, never `clinic opn` or a `scan`.
```
sudo -u dk /opt/dermakiosk/.venv/bin/dermakiosk demo \\
  --once > out  # then dermakiosk sync run …, dermakiosk board
```
"""
    (path := tmp_path / "page.md").write_text(text)
    assert sorted(Document(path).commands()) == [
        ["board"],
        ["clinic", "opn"],
        ["clinic", "status", "--json", "FILE"],
        ["demo", "--once"],
        ["sync", "run"],
    ]


def imported_by(folder: str) -> set[str]:
    """Every module of another room that a room, or one of the three parts of `sync`, imports."""
    found = set()
    own = folder.replace("/", ".")
    for path in modules(folder):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                found |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{each.name}" for each in node.names}
    return {name for name in found if name.split(".")[0] in ROOMS and not f"{name}.".startswith(f"{own}.")}


def test_the_readmes_table_of_rooms_is_what_they_import() -> None:
    for row in README.table("room"):
        room, permitted = row["room"].strip("`/"), in_code(row["imports"])
        imported = imported_by(room)
        beyond = {
            name for name in imported if not any(f"{name}.".startswith(f"{each}.") for each in permitted)
        }
        unused = {
            each for each in permitted if not any(f"{name}.".startswith(f"{each}.") for name in imported)
        }
        assert (room, beyond, unused) == (room, set(), set())


def test_every_room_is_in_the_readmes_table() -> None:
    assert {row["room"].strip("`").split("/")[0] for row in README.table("room")} == set(ROOMS)


@every_document
def test_every_document_is_linked_from_the_readme_or_its_rooms_own(document: Document) -> None:
    linked = {(each.path.parent / link).resolve() for each in DOCUMENTS for link in each.links}
    assert document == README or document.path in linked
