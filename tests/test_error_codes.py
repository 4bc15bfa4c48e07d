"""Errors that programs tell from others by a code: all are Faults, with a sentence for people besides."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardware.host.errors import Fault
from hardware.picture_file.unreadable import PictureError, Unreadable
from kiosk_app.scanning import finishing
from models.analysis.refusal import SENTENCES, Refused
from sync.kiosk.outbox import NumberUsed, OutboxError

ROOT = Path(__file__).parent.parent
ROOMS = ("firmware", "hardware", "kiosk_app", "models", "provisioning", "sync")


def classes_with_a_code(text: str) -> Iterator[str]:
    """The classes that give themselves a `code`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and any(sets_a_code(part) for part in ast.walk(node)):
            yield node.name


def sets_a_code(node: ast.AST) -> bool:
    is_set = isinstance(node, ast.Attribute) and node.attr == "code" and isinstance(node.ctx, ast.Store)
    return is_set and isinstance(node.value, ast.Name) and node.value.id == "self"


def test_only_their_base_keeps_the_code_of_an_error() -> None:
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    assert [name for path in files for name in classes_with_a_code(path.read_text())] == [Fault.__name__]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (OutboxError("full", "The outbox is full."), "full", "The outbox is full."),
        (NumberUsed(7), "used", "Another message had this sequence number before: seal it with a new one."),
        (Refused("no_face"), "no_face", SENTENCES["no_face"]),
        (Unreadable("Cut short.", "too_big"), "too_big", "Cut short."),
        (PictureError(Path("a.png"), "too_big", "Cut short."), "too_big", "a.png: Cut short."),
        (finishing.PicturesRefused("no_face", "No face."), "no_face", "No face."),
        (finishing.ScanGone(), "deleted", "This scan was deleted while it was worked on."),
        (
            finishing.ScanUnreadable(),
            "unreadable",
            "What is kept of this scan cannot be read: there is no result of it.",
        ),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else "",
)
def test_an_error_with_a_code_has_a_sentence_besides(error: Fault, code: str, sentence: str) -> None:
    assert isinstance(error, Fault)
    assert (error.code, str(error)) == (code, sentence)
