"""OutputFile: an option's file. A command that fails leaves it as it was.

But for a failing disk, where a file cannot be replaced and is written where it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import itertools
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import click

from hardware.host.durable import write_whole
from hardware.host.errors import PlainError
from hardware.host.one_line import one_line

# Its twin is `sync.clinic.store.output_file`: neither of the two rooms may import the
# other, so a mend is one of both.
STANDARD_OUTPUT, _STANDARD_OUTPUT_FD = "-", 1
_LINKS = 40  # as many as Linux follows
# Of a file that may be written: its folder takes no other one, or lets it not be replaced.
_NOT_TO_BE_REPLACED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
# Of a disk that can set no room aside, as NFS before 4.2. EBADF is the C library's, which would do it itself,
# and cannot read what is open for writing only.
_SETS_NOTHING_ASIDE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EBADF)


class OutputUnwritable(PlainError):
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
    if name is not None and name != STANDARD_OUTPUT:
        require_all_apart([name], own)


def require_all_apart(names: Iterable[str | Path], own: Iterable[Path]) -> None:
    """`require_apart` of each of `names`."""
    names, own = list(names), list(own)
    for name, read in itertools.chain(_within(names, own), _also_in(names, own)):
        raise click.UsageError(
            f"{one_line(str(name))} is among what this command reads ({one_line(str(read))}): name another "
            "place for the file that it is to write."
        )


def require_outside(folders: Iterable[Path], *own: Path | None) -> None:
    """Raises click.UsageError where one of a command's `own` files lies in `folders`, which it makes anew."""
    for file, folder in _within((each for each in own if each is not None), folders):
        raise click.UsageError(
            f"{one_line(str(file))} lies in {one_line(str(folder))}, which this command makes anew: put the "
            "file elsewhere, or name another folder."
        )


def _within(
    names: Iterable[str | Path], places: Iterable[str | Path]
) -> Iterator[tuple[str | Path, str | Path]]:
    """Each of `names` that is one of `places` or lies in one, with that one."""
    all_known = {known: each for each in places for known in _known_by(each)}
    for name in names:
        place = Path(os.path.realpath(name))
        for known in (known for each in (place, *place.parents) for known in _known_by(each)):
            if known in all_known:
                yield name, all_known[known]


def _also_in(names: Iterable[str | Path], folders: Iterable[Path]) -> Iterator[tuple[str | Path, Path]]:
    """Each of `names` whose file has a name in one of `folders` too, or a link to it there, with that one."""
    files = {_number(name): name for name in names if os.path.isfile(name)}
    for folder in folders if files else ():
        for number in _numbers_in(folder):
            if number in files:
                yield files[number], folder


def _numbers_in(folder: Path) -> Iterator[tuple[int, int] | None]:
    """The numbers of all that is in `folder`, also by links."""
    seen = set[object]()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (number := _number(place)) in seen:
            folders.clear()  # a link leads back
        seen.add(number)
        yield from (_number(os.path.join(place, name)) for name in files)


def _known_by(path: str | Path) -> Iterator[object]:
    """What is the same whatever a file is called: its place, and its number if it is there."""
    yield os.path.realpath(path)
    if (number := _number(path)) is not None:
        yield number


def _number(path: str | Path) -> tuple[int, int] | None:
    """What a file or a folder has on its disk whatever it is called; None where it cannot be looked at."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


@contextlib.contextmanager
def opened_output(name: str) -> Iterator[IO[str]]:
    """Text for the file `name`, or for "-", which is standard output and gets it at once.

    A file is written once the block has ended well: until then, and where the block raises, the one of before
    stays as it is. All of it is replaced in one step, and keeps its mode; root lets it keep its owner too.
    What cannot be replaced is written where it is, see `write_output`. Raises OutputUnwritable.
    """
    if _is_standard_output(name):
        yield sys.stdout
        return
    text = io.StringIO()
    yield text
    try:
        write_output(name, text.getvalue().encode(errors="surrogateescape"))
    except OSError as error:
        raise _unwritable(name, error) from error


@contextlib.contextmanager
def streamed_output(name: str) -> Iterator[Callable[[str], None]]:
    """What writes text to the file `name`, or to "-", at once; a file of before stays until the first text.

    Raises OutputUnwritable.
    """
    if _is_standard_output(name):
        yield _at_once(sys.stdout)
        return
    descriptor = _descriptor(name)
    file = (
        click.open_file(name, "w", encoding="utf-8", errors="surrogateescape", lazy=True)
        if descriptor is None
        else os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="surrogateescape")
    )

    def write(text: str) -> None:
        try:
            _at_once(file)(text)
        except (OSError, click.FileError) as error:
            raise _unwritable(name, error) from error

    try:
        yield write
    finally:
        # All of it has been flushed; what could not be has been told.
        with contextlib.suppress(OSError):
            file.close()


def _at_once(file: IO[str]) -> Callable[[str], None]:
    def write(text: str) -> None:
        file.write(text)
        file.flush()

    return write


def write_output(name: str | Path, data: bytes) -> None:
    """Replace the file `name` in one step by `data`, which a pipe or a device gets. Raises OSError.

    A file that has another name too, or that its folder does not let be replaced, is written where it is: a
    disk that fails meanwhile, or a power cut, can leave a part of it. What is open already gets `data` more.
    """
    descriptor = _descriptor(name)
    if descriptor is not None:
        with open(os.dup(descriptor), "wb") as file:
            file.write(data)
        return
    before = _facts(name)
    if before is not None and not (stat.S_ISREG(before.st_mode) and before.st_nlink == 1):
        _write_in_place(name, data)
        return
    mode = 0o666 & ~_umask() if before is None else stat.S_IMODE(before.st_mode)
    owner = None if before is None or os.geteuid() != 0 else (before.st_uid, before.st_gid)
    try:
        write_whole(Path(os.path.realpath(name)), data, mode, owner)
    except OSError as error:
        if before is None or error.errno not in _NOT_TO_BE_REPLACED:
            raise
        _write_in_place(name, data)


def _write_in_place(name: str | Path, data: bytes) -> None:
    """Write over the file of before, which loses nothing where the disk says first that it has no room."""
    handle = os.open(name, os.O_WRONLY | os.O_CLOEXEC)
    with open(handle, "wb") as file:
        before = os.fstat(handle)
        is_regular = stat.S_ISREG(before.st_mode)
        if is_regular and data:
            try:
                os.posix_fallocate(handle, 0, len(data))
            except OSError as error:
                os.ftruncate(handle, before.st_size)
                if error.errno not in _SETS_NOTHING_ASIDE:
                    raise
        file.write(data)
        file.flush()
        if is_regular:
            file.truncate(len(data))
            os.fsync(handle)


def _unwritable(name: str, error: OSError | click.FileError) -> OutputUnwritable:
    why = error.strerror if isinstance(error, OSError) else error.message
    return OutputUnwritable(
        f"{one_line(name)} cannot be written ({why}): see to its disk, or name another file."
    )


def _require_writable(name: str) -> None:
    """Raises OSError where `opened_output` could not write."""
    if name == STANDARD_OUTPUT:
        return
    descriptor = _descriptor(name)
    if descriptor is not None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
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
        try:
            with tempfile.NamedTemporaryFile(dir=os.path.dirname(os.path.realpath(name)), prefix="."):
                pass
        except OSError as error:
            if before is None or error.errno not in _NOT_TO_BE_REPLACED:
                raise


def _is_standard_output(name: str) -> bool:
    return name == STANDARD_OUTPUT or _descriptor(name) == _STANDARD_OUTPUT_FD


def _descriptor(name: str | Path) -> int | None:
    """The number of the open file that `name` is another name of, such as /dev/stderr, or a link to it.

    What the shell appends to is not to be emptied or replaced, as it would be by its name. Else None.
    """
    path, own = Path(name), os.path.realpath("/proc/self")
    for _ in range(_LINKS):
        folder = os.path.realpath(path.parent)
        if re.fullmatch(rf"{own}(/task/[0-9]+)?/fd/[0-9]{{1,9}}", f"{folder}/{path.name}"):
            return int(path.name)
        try:
            path = Path(folder, os.readlink(path))
        except OSError:  # no link, or nothing at all
            return None
    return None


def _facts(name: str | Path) -> os.stat_result | None:
    try:
        return os.stat(name)
    except FileNotFoundError:
        return None


def _umask() -> int:
    """What a new file of this process is kept from being; there is no other way to ask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
