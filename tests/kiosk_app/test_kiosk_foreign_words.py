"""No sentence of the kiosk quotes an exception that is not ours: a library's words may quote anyone."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import sources

ROOMS = ("models", "kiosk_app", "firmware", "hardware")
OURS = (*ROOMS, "sync", "provisioning")
# Their words are the system's, of a file, a device or a package that is not there: they are what to mend.
OF_THE_SYSTEM = (OSError, ImportError)
SAYING = ("str", "repr", "ascii", "format", "print")
# Where the quoted words are known: of a file that is read before any picture, of a pin, or ours after all.
KNOWN = {
    "hardware/board.py load_board": "of TOML, about a board profile",
    "models/networks/runtime.py __init__": "of an engine, about a network's file",
    "firmware/cameras/picamera.py _camera_errors": "a KeyError's, the name of a field that a frame lacks",
    "firmware/pins/light_pins.py set": "of the driver of the pins",
    "firmware/pins/light_pins.py close": "of the driver of the pins",
    "firmware/pins/real.py _lgpio_factory": "of the driver of the pins",
    "firmware/pins/real.py _open_gpio": "of the driver of the pins",
    "firmware/pins/shroud.py closed": "of the driver of the shroud's switches",
    "kiosk_app/cli.py _engine_checker": "of a ModelsError, which is imported late",
}


def modules() -> Iterator[tuple[Path, ModuleType]]:
    for path in sources.modules(*ROOMS, training=False):  # that needs what no kiosk has
        name = ".".join(path.relative_to(sources.ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not name.endswith("__main__"):
            yield path, importlib.import_module(name)


def caught(handler: ast.ExceptHandler, module: ModuleType) -> Iterator[Any]:
    """The classes that a handler catches; where only the running code knows them, their expression."""
    wanted = handler.type
    for each in wanted.elts if isinstance(wanted, ast.Tuple) else [wanted]:
        assert each is not None
        try:
            found = eval(ast.unparse(each), vars(module))
        except (NameError, AttributeError):
            found = _imported_within(module, ast.unparse(each))
        yield from found if isinstance(found, tuple) else [found]


def _imported_within(module: ModuleType, name: str) -> Any:
    """The class that a function of the module imports for itself, or the name where there is none."""
    for node in ast.walk(sources.parsed(Path(str(module.__file__)))):
        if isinstance(node, ast.ImportFrom) and node.module and name in {each.name for each in node.names}:
            return getattr(importlib.import_module(node.module), name)
    return name


def foreign(kind: Any) -> bool:
    if isinstance(kind, str):
        return True
    return kind.__module__.split(".")[0] not in OURS and not issubclass(kind, OF_THE_SYSTEM)


def quotes(handler: ast.ExceptHandler) -> Iterator[int]:
    """The lines in which a handler puts the exception itself, or what it was made of, into words."""
    for node in ast.walk(handler):
        if any(isinstance(part, ast.Name) and part.id == handler.name for part in said(node)):
            yield node.lineno  # type: ignore[attr-defined]


def said(node: ast.AST) -> list[ast.AST]:
    """What an expression puts into words: in an f-string, by str, repr, %, format or print, or its args."""
    found: list[ast.AST] = []
    if isinstance(node, ast.FormattedValue) or (isinstance(node, ast.Attribute) and node.attr == "args"):
        found = [node.value]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        found = [node.right]
    elif isinstance(node, ast.Call):
        by_name = isinstance(node.func, ast.Name) and node.func.id in SAYING
        by_text = isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "format_map")
        if by_name or by_text:
            found = [*node.args, *(named.value for named in node.keywords)]
    return [part for each in found for part in parts_of(each)]


def parts_of(node: ast.AST) -> list[ast.AST]:
    """The expression itself; of a tuple, a list, a dict and of `one or other` all that may be said."""
    if isinstance(node, ast.BoolOp | ast.Dict):
        return list(node.values)
    if isinstance(node, ast.Tuple | ast.List):
        return list(node.elts)
    return [node.value] if isinstance(node, ast.Starred) else [node]


@pytest.mark.parametrize(
    "words",
    [
        'f"{error}"',
        'f"{error!r}"',
        "str(error)",
        "repr(error or None)",
        "print(error)",
        '"it said %s" % error',
        '"%s said %s" % (name, error)',
        '"it said %(why)s" % {"why": error}',
        '"it said {}".format(error)',
        '"it said {why}".format(why=error)',
        '"it said {}".format(*error.args)',
        'format(error, "")',
        "error.args[0]",
        '", ".join(map(str, error.args))',
    ],
)
def test_a_quotation_is_seen_however_it_is_put(words: str) -> None:
    quoted = ast.parse(f"try:\n    pass\nexcept ValueError as error:\n    said = {words}\n")
    silent = ast.parse(
        "try:\n    pass\nexcept OSError as error:\n"
        "    raise A('%s' % error.errno, f'{error.strerror}') from error\n"
    )
    found = [list(quotes(tree.body[0].handlers[0])) for tree in (quoted, silent)]  # type: ignore[attr-defined]
    assert (bool(found[0]), found[1]) == (True, [])


def function_of(path: Path, line: int) -> str:
    """The name of the innermost function around a line."""
    around = [
        node
        for node in ast.walk(sources.parsed(path))
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(around, key=lambda node: node.lineno).name if around else ""


def test_no_sentence_quotes_an_exception_that_is_not_ours() -> None:
    found: list[str] = []
    known: set[str] = set()
    handlers = 0
    for path, module in modules():
        for node in ast.walk(sources.parsed(path)):
            if not isinstance(node, ast.ExceptHandler) or not node.name:
                continue
            handlers += 1
            if any(foreign(kind) for kind in caught(node, module)):
                for line in quotes(node):
                    place = f"{path.relative_to(sources.ROOT)} {function_of(path, line)}"
                    (known.add if place in KNOWN else found.append)(place)
    assert handlers > 100
    assert found == []
    assert known == set(KNOWN), "what is no longer quoted needs no word here"
