"""Errors of the wire and of the clinic: as those of `hardware.host.errors`, which they must not know."""

from __future__ import annotations


class PlainError(Exception):
    """What str() says may stand on a terminal, in a log and on a page: one plain sentence that quotes nobody.

    A command that it ends has the `exit_status` 1, something failed, or 2: the input or the command is wrong.
    """

    exit_status = 1
