"""The folder of the exports: known again by a mark in it, whatever is at its place meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sync.clinic.store.durable import PRIVATE, TAKES_NOTHING, require_writable, write_whole_in
from sync.clinic.store.errors import ClinicUsageError

# Nothing but a number that was drawn for this folder: its disk can come back under another one of its own.
MARK = ".dermakiosk-exports"
_MARK_MODE = 0o644
_IS_MARK = re.compile(rb"[0-9a-f]{32}\n")


class ExportFolder:
    """The folder at `path`, as it is when an opener begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # None as long as there is none: a full disk takes it later.
        self._mark: bytes | None = None
        self._numbers: tuple[int, int, int] | None = None

    def begin(self) -> None:
        """Make it, and its mark, where they are not there. Raises ClinicUsageError where no file can be made.

        Raises OSError where its disk takes not even a file with nothing in it.
        """
        require_writable(self.path, "--export")
        try:
            with contextlib.closing(OpenFolder(self.path)) as folder:
                self._numbers = folder.numbers
                self._mark = folder.mark()
                if self._mark is None:
                    self._mark = folder.make_mark(_new_mark())
        except OSError as error:
            if error.errno in TAKES_NOTHING:
                return
            raise ClinicUsageError(
                f"{self.path / MARK}, by which the folder that --export names is known again, cannot be made "
                f"({error.strerror}): delete what is there, or name a folder that you may write to."
            ) from error

    @contextmanager
    def opened(self) -> Iterator[OpenFolder | None]:
        """The same folder as when this began; None where another is at its place, or none.

        Raises OSError where what is there cannot be opened.
        """
        try:
            folder = OpenFolder(self.path)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        with contextlib.closing(folder):
            yield folder if self._is_the_same(folder) else None

    def _is_the_same(self, folder: OpenFolder) -> bool:
        found, numbers = folder.mark(), folder.numbers
        if found is None or self._mark is None:
            # Deleted by somebody, or without room until now. Numbers say less: another disk can get them.
            if numbers != self._numbers:
                return False
            if found is None:
                # Where it cannot be made now the next look does.
                with contextlib.suppress(OSError):
                    found = folder.make_mark(self._mark or _new_mark())
        elif found != self._mark:
            return False
        self._mark, self._numbers = found or self._mark, numbers
        return True


def _new_mark() -> bytes:
    return f"{uuid4().hex}\n".encode()


class OpenFolder:
    """What is in a folder. Raises OSError that names the file, wherever something cannot be done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        os.close(self._handle)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Its disk's, its own there and its file system's, as they are until the disk is mounted anew."""
        facts = os.fstat(self._handle)
        return facts.st_dev, facts.st_ino, os.fstatvfs(self._handle).f_fsid

    def mark(self) -> bytes | None:
        """What it is known again by; None where there is nothing of the kind that can be read."""
        try:
            handle = os.open(MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._handle)
            with os.fdopen(handle, "rb") as file:
                found = file.read(100)
        except OSError:
            return None
        return found if _IS_MARK.fullmatch(found) else None

    def make_mark(self, mark: bytes) -> bytes:
        """Have it known by `mark`, or by the one that another opener has made meanwhile; which it is."""
        half = f"{MARK}.{uuid4().hex}"
        self.write(half, mark, _MARK_MODE)
        try:
            with contextlib.suppress(OSError):  # one is there, or this disk knows no links
                os.link(half, MARK, src_dir_fd=self._handle, dst_dir_fd=self._handle, follow_symlinks=False)
            found = self.mark()
            if found is None:
                with _naming(self.path / MARK):
                    os.replace(half, MARK, src_dir_fd=self._handle, dst_dir_fd=self._handle)
        finally:
            self.delete(half)
        self.sync()
        return found or mark

    def names(self) -> list[str]:
        with _naming(self.path), os.scandir(self._handle) as entries:
            return [entry.name for entry in entries]

    def takes_writing(self) -> bool:
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._handle)

    def is_there(self, name: str) -> bool:
        with _naming(self.path / name):
            try:
                os.stat(name, dir_fd=self._handle, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def write(self, name: str, data: bytes, mode: int = PRIVATE) -> None:
        """Have it on the disk, whole."""
        with _naming(self.path / name):
            write_whole_in(self._handle, name, data, mode)

    def rename(self, name: str, to: str) -> None:
        with _naming(self.path / name):
            os.rename(name, to, src_dir_fd=self._handle, dst_dir_fd=self._handle)

    def delete(self, name: str) -> None:
        """Delete it, if it is there."""
        # A disk that takes no writing refuses even to delete what is not there.
        if self.is_there(name):
            with _naming(self.path / name):
                try:
                    os.unlink(name, dir_fd=self._handle)
                except FileNotFoundError:
                    return

    def sync(self) -> None:
        """Have its names on the disk."""
        with _naming(self.path):
            os.fsync(self._handle)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
