"""Counts: how many of a thing there are, or how much, as a sentence says it."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """The number and the English noun, in the plural unless there is one: "1 frame", "3 frames"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def rounded(amount: float, unit: str, decimals: int = 0) -> str:
    """The rounded amount with its unit; "less than 0.1 h" where it rounds to nothing."""
    least = 10.0**-decimals
    shown = f"{amount:.{decimals}f}"
    return f"{shown} {unit}" if float(shown) else f"less than {least:g} {unit}"
