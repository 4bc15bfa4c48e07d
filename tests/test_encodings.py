"""Whoever opens a text says that it is UTF-8: the locale of a kiosk or a clinic's server decides nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.sources import ROOMS, ROOT, code_of, modules, parsed

_MODES = frozenset("rwaxbt+")
# Where the mode stands, by what is opened: a path's method, a name or a number, a nameless file.
_MODE_AT = {".open": 0, "open": 1, "os.fdopen": 1, "tempfile.NamedTemporaryFile": 0, "NamedTemporaryFile": 0}


def left_to_the_locale(tree: ast.AST) -> Iterator[str]:
    """The calls in `tree` that read, write or exchange text and do not say how it is encoded."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if is_text(call) and all(each.arg != "encoding" for each in call.keywords):
            yield f"{call.lineno}: {code_of(call.func)}"


def is_text(call: ast.Call) -> bool:
    function, positional = code_of(call.func), len(call.args)
    if function.endswith((".read_text", ".write_text", "TextIOWrapper")):
        return positional <= (not function.endswith(".read_text"))
    if function.startswith("subprocess."):
        return any(each.arg in ("text", "universal_newlines") for each in call.keywords)
    method = function.endswith(".open") and function != "os.open"
    if not method and function not in _MODE_AT:
        return False
    at = _MODE_AT[".open" if method else function]
    by_name = [each.value for each in call.keywords if each.arg == "mode"]
    mode = by_name[0] if by_name else call.args[at] if positional > at else None
    if mode is None:
        return "TemporaryFile" not in function
    # What is opened in another sense, as an envelope or a picture is, is handed no mode.
    is_mode = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and set(mode.value) <= _MODES
    return is_mode and "b" not in mode.value


@pytest.mark.parametrize("room", ROOMS)
def test_no_text_is_left_to_the_locale(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{call}"
        for path in modules(room)
        for call in left_to_the_locale(parsed(path))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "path.read_text()",
        "path.read_text(errors='replace')",
        "path.write_text(text)",
        "path.open()",
        "path.open('w')",
        "path.open(newline='')",
        "open(path)",
        "open(path, 'a')",
        "os.fdopen(handle, 'w')",
        "NamedTemporaryFile('w')",
        "io.TextIOWrapper(raw)",
        "subprocess.run(command, text=True)",
    ],
)
def test_a_call_that_leaves_its_text_to_the_locale_is_seen(source: str) -> None:
    assert list(left_to_the_locale(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "path.read_text('utf-8')",
        "path.write_text(text, encoding='utf-8')",
        "path.open('rb')",
        "path.open('w', encoding='utf-8')",
        "os.open(path, flags)",
        "os.fdopen(handle, 'wb')",
        "key.open(ciphertext, info)",
        "Image.open(file)",
        "NamedTemporaryFile(dir=folder)",
        "subprocess.run(command, capture_output=True)",
        "subprocess.run(command, text=True, encoding='utf-8')",
    ],
)
def test_a_call_that_says_its_encoding_or_has_bytes_is_let_be(source: str) -> None:
    assert list(left_to_the_locale(ast.parse(source))) == []
