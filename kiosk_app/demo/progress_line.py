"""The line on a terminal that says how far a row of pictures is."""

from __future__ import annotations

import sys

import click


def show_progress(light: str, done: int, of: int) -> None:
    """Say that `done` of `of` pictures are there and `light` is next; nothing where nobody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r{done}/{of} {light:<10}", err=True, nl=done == of)
