"""One line: what is said at a terminal, whatever the names in it hold."""

from __future__ import annotations

import re
import unicodedata

# Longer than any file's name; a path of many is cut in its middle.
_LONGEST_WORD = 300
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")
# Control, format (such as "from here on right to left"), private and half letters, ends of lines.
_UNSHOWN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def one_line(said: object) -> str:
    """`said` as one line that a terminal only shows: what would end it, or steer the terminal, is escaped."""
    line = "".join(map(_shown, str(said)))
    return _LONG_WORD.sub(_cut, line)


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in _UNSHOWN:
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def _cut(word: re.Match[str]) -> str:
    half = _LONGEST_WORD // 2
    return f"{word[0][:half]}…{word[0][-half:]}"
