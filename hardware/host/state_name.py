"""What a thing has come to, as one word of a few."""

from __future__ import annotations

from enum import Enum


class StateName(str, Enum):
    """A word of a state, which is what `str` gives of it."""

    def __str__(self) -> str:
        return str(self.value)
