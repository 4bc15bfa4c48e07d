"""The folder of the exports, by a handle: also where something else is at its place since that was opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sync.clinic.store.durable import write_whole_in


class OpenFolder:
    """What is in a folder. Raises OSError that names the file, wherever something cannot be done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        os.close(self._handle)

    @property
    def place(self) -> tuple[int, int]:
        """Its disk and its number there, as they are until the disk is mounted anew."""
        facts = os.fstat(self._handle)
        return facts.st_dev, facts.st_ino

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

    def write(self, name: str, data: bytes) -> None:
        """Have it on the disk, whole."""
        with _naming(self.path / name):
            write_whole_in(self._handle, name, data)

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
