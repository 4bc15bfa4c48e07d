"""Every test runs wherever the tests do: what is missing fails, and is not skipped."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SKIPPING = ("pytest.skip", "pytest.mark.skip", "pytest.importorskip", "pytest.xfail", "pytest.mark.xfail")


def skipping(text: str) -> list[int]:
    """The lines that have a test skipped, or expected to fail."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
    return [node.lineno for node in nodes if ast.unparse(node).startswith(SKIPPING)]


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_no_test_is_skipped(file: Path) -> None:
    assert skipping(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text", ["pytest.skip('no')", "@pytest.mark.skipif(True)\ndef test(): ...", "pytest.importorskip('x')"]
)
def test_a_skip_is_found(text: str) -> None:
    assert skipping(text) == [1]
