"""Errors of ours: their words are one plain sentence, which was made to be read and quotes nobody.

Those of the wire and of the clinic, which stand alone, have a base of their own in `sync.wire.errors`.
"""

from __future__ import annotations


class PlainError(Exception):
    """What str() says may stand on a terminal, in a log and on a page.

    A command that it ends has the `exit_status` 1, something failed, or 2: the input or the command is wrong.
    """

    exit_status = 1


class Fault(PlainError):
    """One that programs tell from others by its `code`."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code, self.sentence = code, sentence

    def __str__(self) -> str:
        return self.sentence
