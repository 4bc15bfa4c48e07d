"""ExistingPath: an option's file or folder, which must be there; if it cannot be looked at, it says why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class ExistingPath(click.Path):
    """As click.Path(exists=True), which says of whatever it cannot look at that it does not exist."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=True, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            os.stat(value)
        except FileNotFoundError:
            pass  # whose sentence is click's own
        except OSError as error:
            name = click.format_filename(value)
            self.fail(
                f"{self.name.title()} '{name}' cannot be read ({error.strerror}): name another.", param, ctx
            )
        return super().convert(value, param, ctx)
