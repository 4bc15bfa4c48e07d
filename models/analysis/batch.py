"""A batch: one JSON line for each input, in order, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from hardware.host import output_file
from hardware.host.durable import folder_if_used
from hardware.host.errors import PlainError
from hardware.host.one_line import one_line

# What is said of one input, as JSON.
Row = dict[str, object]


class BatchError(PlainError, ValueError):
    """No input of the batch could be used, or the command names them wrongly."""

    exit_status = 2


def run_batch(
    paths: Sequence[Path],
    work: Callable[[Path], Row],
    json_path: str,
    names_outputs: bool = False,
) -> None:
    """Write `work(path)` for each path, as it comes, as a JSON line to `json_path` ("-": standard output).

    A row with "error" or "refused" counts as failed; its sentence goes to standard error. Raises BatchError
    when every path failed (with one path, with that path's own sentence), or when `names_outputs`, since each
    path's stem names a file that `work` writes, and two paths share one; OutputUnwritable. The first line
    replaces a file of before: hours may lie between two, and whoever stops the batch keeps what there is.
    """
    if names_outputs:
        _require_different_stems(paths)
    sentences = []
    with output_file.streamed_output(json_path) as write, _progress(paths) as rows:
        for path in rows:
            row = work(path)
            write(json.dumps(row, allow_nan=False) + "\n")
            if "error" in row or "refused" in row:
                sentences.append(f"{path}: {row.get('sentence') or row.get('error')}")
    if len(paths) == 1 and sentences:
        raise BatchError(sentences[0])
    for sentence in sentences:
        click.echo(one_line(sentence), err=True)
    if len(sentences) == len(paths):
        raise BatchError(f"None of {len(paths)} inputs could be used.")


def _require_different_stems(paths: Sequence[Path]) -> None:
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise BatchError(
                f"{stems[path.stem]} and {path} have the same stem, so one's pictures would overwrite the "
                "other's. Rename one of them."
            )
        stems[path.stem] = path


def _unwritable(where: object, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{where} cannot be written: {reason}. Name a place that you can write to."


@contextlib.contextmanager
def output_folders(folders: Sequence[Path]) -> Iterator[None]:
    """Have `folders` for this block; one that was missing and stays empty is gone after it.

    Raises BatchError.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            try:
                stack.enter_context(folder_if_used(folder))
            except OSError as error:
                raise BatchError(_unwritable(folder, error)) from error
        yield


def write_output(path: Path, data: bytes) -> None:
    """Write `data` to `path`. Raises BatchError."""
    try:
        output_file.write_output(path, data)
    except OSError as error:
        raise BatchError(_unwritable(path, error)) from error


@contextlib.contextmanager
def _progress(paths: Sequence[Path]) -> Iterator[Iterator[Path]]:
    """The paths, with a progress bar on standard error if that is a terminal and they are several."""
    if len(paths) < 2 or not sys.stderr.isatty():
        yield iter(paths)
        return
    with click.progressbar(paths, file=sys.stderr, label="Pictures", show_pos=True) as bar:
        yield iter(bar)
