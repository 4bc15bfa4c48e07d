"""Standard output, which says of itself that it cannot be written."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hardware.host.errors import PlainError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_FD = 1


class OutputClosed(PlainError):
    """There is no standard output."""

    exit_status = 2


class OutputFailed(PlainError):
    """Standard output took less than it was given."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"Standard output cannot be written ({error.strerror}), so what this command says is lost: send "
            "it to a file on a disk with room, or to a program that reads all of it."
        )


class _Output(io.FileIO):
    """No OSError, which would be taken for one of whatever file a command is at."""

    failed = False

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failed = True
            raise OutputFailed(error) from error


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Whatever is printed within is written out at its end. Raises OutputClosed or OutputFailed."""
    if sys.stdout is None:
        # Python prints nothing then and says nothing of it, and the next file that is opened would be it.
        raise OutputClosed(
            "Nothing can be written to standard output, which is closed: leave '>&-' away, or write "
            "'>/dev/null'."
        )
    output = _Output(_FD, "w", closefd=False)
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(output),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=sys.stdout.line_buffering,
        )
    try:
        yield
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        # What was not taken until then nobody is to read any more: what it tells of may be undone.
        output.failed = True
        raise
    finally:
        if output.failed:
            # Python tries once more as it ends, would wait, and say in its own words that it failed.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), _FD)
