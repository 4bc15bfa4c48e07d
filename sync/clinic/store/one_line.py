"""One line for a terminal, whatever an older version let into the database."""

from __future__ import annotations


def one_line(said: object) -> str:
    """`said` with everything escaped that would end the line, turn it round or steer the terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in str(said)
    )
