"""The documents of the tree, taken apart: their code spans, commands, links and tables."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kiosk_app.cli import COMMANDS
from tests.support.sources import ROOMS, ROOT

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.M | re.S)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
_COMMAND = re.compile(r"(?:^|\s|/bin/)dermakiosk ")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SOURCES = (".py", ".toml", ".cfg", ".html", ".js", ".css", ".service", ".conf", ".target", ".sh", ".txt")


@dataclass(frozen=True)
class Document:
    """One Markdown file of the checkout."""

    path: Path

    @functools.cached_property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def prose(self) -> str:
        """The text without its code blocks."""
        return _FENCE.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """What stands in backquotes within the text."""
        return _SPAN.findall(self.prose)

    @property
    def code_lines(self) -> list[str]:
        """The lines of the code blocks; a line that ends with a backslash goes on in the next."""
        return [
            line for block in _FENCE.findall(self.text) for line in block.replace("\\\n", " ").splitlines()
        ]

    @property
    def links(self) -> list[str]:
        """The files that it links to or shows, without the place within them."""
        found = ((link or picture).partition("#")[0] for link, picture in _LINK.findall(self.prose))
        return [target for target in found if target and "://" not in target]

    @property
    def places(self) -> list[tuple[str, str]]:
        """The places within documents that it links to: which document, which heading."""
        targets = (link.partition("#") for link, _ in _LINK.findall(self.prose) if "://" not in link)
        return [(file or self.path.name, anchor) for file, _, anchor in targets if anchor]

    @property
    def anchors(self) -> set[str]:
        """Its headings as they are linked to."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.M)
        return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    def commands(self) -> Iterator[list[str]]:
        """The arguments of every `dermakiosk` command, wherever it stands, also without its name."""
        for line in self.code_lines:
            for part in line.split("#"):  # what is done, and what is said of it
                yield from _commands(part)
        for span in self.spans:
            yield from _commands(f"dermakiosk {span}" if _is_a_command(span) else span)

    def made(self) -> Iterator[str]:
        """The targets of every `make`."""
        for text in (*self.code_lines, *self.spans):
            found = re.match(r"(?:.*&& )?(?:sudo )?make ([a-z-]+)\b", text)
            if found:
                yield found.group(1)

    def modules(self) -> Iterator[str]:
        """The modules of every `python -m`."""
        for text in (*self.code_lines, *self.spans):
            yield from re.findall(r"python3? -m ((?:models|tests|kiosk_app)[a-z_.]*)", text)

    def table(self, head: str) -> list[dict[str, str]]:
        """The rows of the first table whose first column is called `head`, by the names of its columns."""
        return next(self.tables(head))

    def tables(self, head: str) -> Iterator[list[dict[str, str]]]:
        """Every such table, in order."""
        lines = self.text.splitlines()
        for number, line in enumerate(lines[:-1]):
            columns = _cells(line)
            if columns[:1] == [head] and set(lines[number + 1]) <= set("|-: "):
                rows = []
                for row in lines[number + 2 :]:
                    if not row.startswith("|"):
                        break
                    rows.append(dict(zip(columns, _cells(row), strict=True)))
                yield rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []


def _is_a_command(span: str) -> bool:
    """Such as `clinic status`; one word alone may be anything."""
    first, *others = span.split() or [""]
    return first in COMMANDS and others != []


def _commands(text: str) -> Iterator[list[str]]:
    for command in _COMMAND.split(text)[1:]:
        yield _arguments(command)


def _arguments(text: str) -> list[str]:
    """The words of a command up to what the shell does with it; an … among them stands for others."""
    text = text.replace(" … ", " ")
    words = shlex.split(re.split(r"[|;&<>…]|\.\.\.", text)[0].replace("'", ""), comments=False)
    return [word for word in words if word]


def in_code(cell: str) -> list[str]:
    """What stands in backquotes in a table's cell."""
    return _SPAN.findall(cell)


def documents() -> list[Document]:
    """README.md, and everything in the rooms' docs folders."""
    paths = [ROOT / "README.md"]
    for room in ROOMS:
        paths += sorted((ROOT / room / "docs").rglob("*.md"))
    return [Document(path) for path in paths]


def cards() -> list[Document]:
    """What is said of each network."""
    return [Document(path) for path in sorted((ROOT / "models" / "cards").glob("*.md"))]


def document(name: str) -> Document:
    return Document(ROOT / name)


@functools.cache
def source_words() -> frozenset[str]:
    """Every word of the code, its tests, its settings and its templates."""
    files = [ROOT / name for name in ("Makefile", "setup.cfg", "pyproject.toml")]
    for folder in (*ROOMS, "tests"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in _SOURCES]
    return frozenset(word for path in files for word in _WORD.findall(path.read_text()))


def words_of(span: str) -> set[str]:
    """The words of a span that the code has to know: not a formula's letters, nor a number's unit."""
    return {word for word in _WORD.findall(span) if len(word) > 2}


def nodes_named(text: str) -> list[tuple[str, str]]:
    """The (file, test) of every `file.py::test` in backquotes; the file's bare name is enough."""
    nodes = (span.partition("::") for span in _SPAN.findall(text) if "::" in span)
    return [(file, test) for file, _, test in nodes]


@functools.cache
def files_of_tests() -> dict[str, Path]:
    """The files of tests by their bare name, each of which is there once, as well as by their whole one."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    by_name = {path.name: path for path in files}
    if len(by_name) < len(files):
        raise ValueError("Two files of tests have one name.")
    return by_name | {str(path.relative_to(ROOT)): path for path in files}
