"""Counts: how many of a thing there are, as a sentence says it."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """The number and the English noun, in the plural unless there is one: "1 frame", "3 frames"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
