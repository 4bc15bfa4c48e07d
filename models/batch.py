"""A batch: one JSON line for each input, in order, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import click


class BatchError(ValueError):
    """No input of the batch could be used, or the command names them wrongly."""

    exit_status = 2


def run_batch(paths: Sequence[Path], work: Callable[[Path], dict[str, Any]], json_path: str) -> None:
    """Write `work(path)` for each path as one JSON line to `json_path` ("-" is standard output).

    A row with "error" or "refused" counts as failed. Raises BatchError when two paths share a stem (masks
    would overwrite each other), or when every path failed: with one path, with that path's own sentence.
    """
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise BatchError(f"{stems[path.stem]} and {path} have the same stem. Rename one of them.")
        stems[path.stem] = path
    sentences = []
    with _output(json_path) as out, _progress(paths) as rows:
        for path in rows:
            row = work(path)
            out.write(json.dumps(row, allow_nan=False) + "\n")
            out.flush()
            if "error" in row or "refused" in row:
                sentences.append(f"{path}: {row.get('sentence') or row.get('error')}")
    if len(sentences) == len(paths):
        raise BatchError(sentences[0] if len(paths) == 1 else f"None of {len(paths)} inputs could be used.")
    for sentence in sentences:
        click.echo(sentence, err=True)


@contextlib.contextmanager
def _output(json_path: str) -> Iterator[IO[str]]:
    if json_path == "-":
        yield sys.stdout
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(json_path).open("w"))
        except OSError as error:
            raise BatchError(f"{json_path} cannot be written: {error.strerror}.") from error
        yield file


@contextlib.contextmanager
def _progress(paths: Sequence[Path]) -> Iterator[Iterator[Path]]:
    """The paths, with a progress bar on standard error if that is a terminal and they are several."""
    if len(paths) < 2 or not sys.stderr.isatty():
        yield iter(paths)
        return
    with click.progressbar(paths, file=sys.stderr, label="Pictures", show_pos=True) as bar:
        yield iter(bar)
