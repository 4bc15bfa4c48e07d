"""The product's own source, read and parsed once for all tests of a process that look at it."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("firmware", "hardware", "kiosk_app", "models", "provisioning", "sync")


def modules(*folders: str, training: bool = True) -> list[Path]:
    """The modules of these folders, or of all rooms, in order; without training's where it is not wanted."""
    found = [path for folder in folders or ROOMS for path in sorted((ROOT / folder).rglob("*.py"))]
    return found if training else [path for path in found if ROOT / "models" / "training" not in path.parents]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def code_of(node: ast.AST) -> str:
    """A node as it is written."""
    return ast.unparse(node)
