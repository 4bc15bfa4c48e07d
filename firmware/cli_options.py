"""The options that most commands of the firmware have: its board profile, its state folder."""

from __future__ import annotations

from pathlib import Path

import click

board_option = click.option(
    "--board",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Board profile (TOML), as those in hardware/boards.",
)
state_option = click.option(
    "--state",
    required=True,
    envvar="DERMAKIOSK_STATE",
    type=click.Path(file_okay=False, path_type=Path),
    help="The kiosk's state folder (or DERMAKIOSK_STATE).",
)
