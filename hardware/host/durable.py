"""Durable files: written whole or not at all, private from their first byte, old secrets wiped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from hardware.host.folders import opened_folder
from hardware.host.own_file import PRIVATE, open_own_in

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# Of a name's beginning: with what is added to it none is longer than the 255 bytes of a longest name.
_BEGINNING_BYTES = 200
# What a file is to hold: at once, as text, or piece by piece.
Data = bytes | str | Iterable[bytes]


@contextlib.contextmanager
def folder_if_used(folder: Path) -> Iterator[None]:
    """Have `folder`, with its parents, for this block; those made for it that are empty then are gone again.

    But for one that another process has locked (flock). Raises OSError.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    made: list[Path] = []
    try:
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another process made it at this moment
                each.mkdir()
                made.append(each)
        folder.mkdir(exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # something is in it, or it is another one's
            for each in reversed(made):
                _remove_unlocked(each)


def _remove_unlocked(folder: Path) -> None:
    """Remove an empty folder. Raises OSError, also where another process has locked it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.rmdir()
    finally:
        os.close(handle)


def sync_folder(folder: Path, dir_fd: int | None = None) -> None:
    """Make the names in `folder` durable: a rename is not on disk before its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(path: Path, to: Path) -> None:
    """Give `path` the name `to` in the same folder, for good, in the place of a file of that name.

    Raises OSError.
    """
    os.replace(path, to)
    sync_folder(to.parent)


def write_new(path: Path, data: Data) -> int:
    """Write `data` to the new file `path`, private, and to the disk; how many bytes it has.

    Its name is there for good once its folder is, see `sync_folder`. Raises OSError, which names `path`; a
    part of it may be there then.
    """
    with _naming(path), opened_folder(path.parent) as (folder, _):
        return _fill(os.open(path.name, _NEW, PRIVATE, dir_fd=folder), data, PRIVATE)


def write_whole(path: Path, data: Data, mode: int = PRIVATE, owner: tuple[int, int] | None = None) -> int:
    """Replace `path` by `data` in one step: after a power cut there is the old file or the new one, whole.

    It belongs to `owner`, a user id and a group id, else to whoever calls this. Text is UTF-8, but for what a
    path in it has of other bytes. Pieces are asked for one after the other, and written as they come; what
    they raise leaves the old file. How many bytes the new one has. Raises OSError, which names `path`.
    A process that dies meanwhile leaves a file beside it: `.NAME.` and eight hexadecimal digits.
    """
    beginning = path.name.encode(errors="ignore")[:_BEGINNING_BYTES].decode(errors="ignore")
    name = f".{beginning}.{secrets.token_hex(4)}"
    with _naming(path), opened_folder(path.parent) as (folder, _):
        handle = os.open(name, _NEW, PRIVATE, dir_fd=folder)
        try:
            size = _fill(handle, data, mode, owner)
            os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise
        sync_folder(Path("."), dir_fd=folder)
    return size


def replace_secret(path: Path, data: bytes) -> None:
    """`write_whole` (mode 0600), and the replaced file's own blocks are overwritten before this returns.

    The file stays its owner's and its group's, whoever replaces it. Where that cannot be, nothing changes,
    nor where what would be overwritten is a link: root does this in the folder of an account that may have
    put one there.
    A process that dies in between leaves what `finish_wipe` completes. Flash storage may still keep older
    copies of a block; only a key store in hardware can promise more. Raises OSError.
    """
    with _naming(path), opened_folder(path.parent) as (folder, _):
        name, (new, old) = path.name, _beside(path.name)
        _finish_wipe(folder, name)
        before = _facts(folder, name)
        if before is not None:
            os.close(open_own_in(folder, name, os.O_RDWR))
        handle = os.open(new, _NEW, PRIVATE, dir_fd=folder)
        try:
            _keep_owner(handle, before)
        except BaseException:
            os.close(handle)
            os.unlink(new, dir_fd=folder)
            raise
        _fill(handle, data, PRIVATE)
        if before is not None:
            # By this name the old blocks are found again, whatever ends this process.
            os.link(name, old, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
        sync_folder(Path("."), dir_fd=folder)
        _finish_wipe(folder, name)


def finish_wipe(path: Path) -> None:
    """Complete what a `replace_secret` of `path` that was ended half-way left undone. Raises OSError."""
    with _naming(path), opened_folder(path.parent) as (folder, _):
        _finish_wipe(folder, path.name)


def _finish_wipe(folder: int, name: str) -> None:
    left = [rest for rest in _beside(name) if _facts(folder, rest) is not None]
    if left:
        # Else a power cut could bring back the name of what is wiped below.
        sync_folder(Path("."), dir_fd=folder)
    for rest in left:
        now, old = _facts(folder, name), _facts(folder, rest)
        if not (now and old and os.path.samestat(now, old)):  # else it was linked, and not yet replaced
            with open(open_own_in(folder, rest, os.O_RDWR), "r+b") as file:
                file.write(bytes(os.fstat(file.fileno()).st_size))
                file.flush()
                os.fsync(file.fileno())
        os.unlink(rest, dir_fd=folder)
    if left:
        sync_folder(Path("."), dir_fd=folder)


def _facts(folder: int, name: str) -> os.stat_result | None:
    """What is at `name` itself in the open folder; None where nothing is."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError names `path`, and no name beside it that nobody asked for."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _keep_owner(handle: int, before: os.stat_result | None) -> None:
    """Give the open file to the owner and the group of the one that it replaces, if there is one."""
    if before is not None:
        ours = os.fstat(handle)
        if (ours.st_uid, ours.st_gid) != (before.st_uid, before.st_gid):
            os.fchown(handle, before.st_uid, before.st_gid)


def _beside(name: str) -> tuple[str, str]:
    return f".{name}.new", f".{name}.old"


def _fill(handle: int, data: Data, mode: int, owner: tuple[int, int] | None = None) -> int:
    with open(handle, "wb") as file:
        size = sum(file.write(piece) for piece in _pieces(data))
        file.flush()
        if owner is not None:
            # By the open file: to whom the folder belongs may have put another one under its name.
            os.fchown(file.fileno(), *owner)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    return size


def _pieces(data: Data) -> Iterable[bytes]:
    if isinstance(data, str):
        return [data.encode(errors="surrogateescape")]
    return [data] if isinstance(data, bytes) else data
