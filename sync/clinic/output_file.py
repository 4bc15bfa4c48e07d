"""OutputFile: an option's file, which a command that fails leaves as it was."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from sync.clinic.store.durable import write_whole
from sync.clinic.store.errors import ClinicError
from sync.clinic.store.one_line import one_line

STANDARD_OUTPUT = "-"
# Of a file that may be written: its folder takes no other one, or lets it not be replaced.
_NOT_TO_BE_REPLACED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)


class OutputUnwritable(ClinicError):
    """A file that could be written before the command did anything, and cannot be after it."""


class OutputFile(click.ParamType):  # type: ignore[type-arg]  # older clicks, which we take, have no parameter
    """The name of a file for `opened_output`; a place that takes none is refused before anything is done."""

    name = "filename"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            _require_writable(value)
        except OSError as error:
            shown = one_line(click.format_filename(value)) or "''"
            self.fail(
                f"{shown} cannot be written ({error.strerror}). Name a place that you can write to.",
                param,
                ctx,
            )
        return value


def require_apart(name: str | None, *own: Path) -> None:
    """Raises click.UsageError where `name` is one of a command's `own` files, or in one of its folders."""
    if name is None or name == STANDARD_OUTPUT:
        return
    target = Path(os.path.realpath(name))
    for each in own:
        if target.is_relative_to(os.path.realpath(each)):
            raise click.UsageError(
                f"{one_line(name)} is among what this command reads ({one_line(str(each))}): name another "
                "place for the file that it is to write."
            )


@contextlib.contextmanager
def opened_output(name: str) -> Iterator[IO[str]]:
    """Text for the file `name`, or for "-", which is standard output and gets it at once.

    A file is written once the block has ended well, all of it in one step: until then, and where the block
    raises, the one of before stays as it is. It keeps its mode; root lets it keep its owner too. Raises
    OutputUnwritable.
    """
    if _is_standard_output(name):
        yield sys.stdout
        return
    text = io.StringIO()
    yield text
    try:
        _write(name, text.getvalue())
    except OSError as error:
        raise OutputUnwritable(
            f"{one_line(name)} cannot be written ({error.strerror}): see to its disk, or name another file."
        ) from error


def _write(name: str, text: str) -> None:
    before = _facts(name)
    if before is not None and not (stat.S_ISREG(before.st_mode) and before.st_nlink == 1):
        _write_in_place(name, text)
        return
    mode = 0o666 & ~_umask() if before is None else stat.S_IMODE(before.st_mode)
    owner = None if before is None or os.geteuid() != 0 else (before.st_uid, before.st_gid)
    try:
        write_whole(Path(os.path.realpath(name)), text.encode(), mode, owner)
    except OSError as error:
        if before is None or error.errno not in _NOT_TO_BE_REPLACED:
            raise
        _write_in_place(name, text)


def _write_in_place(name: str, text: str) -> None:
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)


def _require_writable(name: str) -> None:
    """Raises OSError where `opened_output` could not write."""
    if name == STANDARD_OUTPUT:
        return
    before = _facts(name)
    if before is not None:
        if stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(name, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    elif os.path.basename(name) in ("", os.curdir, os.pardir):  # a folder's name, or none
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if before is None or stat.S_ISREG(before.st_mode):
        folder, last = os.path.split(os.path.realpath(name))
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{last}."):
                pass
        except OSError as error:
            if before is None or error.errno not in _NOT_TO_BE_REPLACED:
                raise


def _is_standard_output(name: str) -> bool:
    """What the shell appends to is not to be emptied or replaced."""
    return name in (STANDARD_OUTPUT, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def _facts(name: str) -> os.stat_result | None:
    try:
        return os.stat(name)
    except FileNotFoundError:
        return None


def _umask() -> int:
    """What a new file of this process is kept from being; there is no other way to ask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
