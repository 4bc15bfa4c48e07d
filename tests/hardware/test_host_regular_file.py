"""Small files of a state folder: read whole and within a bound, and nothing that stands there holds us up."""

from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from hardware.host.regular_file import (
    SMALL_BYTES,
    FileTooBig,
    NoRegularFile,
    read_regular_file,
    read_regular_text,
)
from sync.wire import regular_file as wire_file

NO_FILES: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    NO_FILES[kind](tmp_path / "vault.key")
    with pytest.raises(NoRegularFile) as refused:
        read_regular_file(tmp_path / "vault.key")
    assert refused.value.strerror == f"it is {kind}, where a file has to be"
    assert (refused.value.errno, refused.value.filename) == (errno.EINVAL, str(tmp_path / "vault.key"))


def test_a_file_is_read_whole_up_to_the_bound_and_no_longer_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_bytes(b"x" * SMALL_BYTES)
    assert read_regular_text(path) == "x" * SMALL_BYTES
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(FileTooBig, match=f"more than {SMALL_BYTES} bytes"):
        read_regular_file(path)


@pytest.mark.parametrize("read", [read_regular_file, wire_file.read_regular_file])
def test_a_file_takes_the_memory_of_what_it_holds_and_not_of_what_it_may(
    tmp_path: Path, read: Callable[[Path, int], bytes]
) -> None:
    held = os.urandom(3 * SMALL_BYTES)
    (tmp_path / "lines").write_bytes(held)
    tracemalloc.start()
    try:
        assert read(tmp_path / "lines", 1 << 30) == held
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * len(held)


def test_a_file_that_is_not_there_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / "note")
