"""The options that several commands of the firmware have."""

from __future__ import annotations

from pathlib import Path

import click

from hardware.host.peers import USER

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
peer_option = click.option(
    "--peer",
    "peers",
    multiple=True,
    type=USER,
    metavar="USER",
    help="User (name or id) that may connect, besides our own. Repeat for several.",
)
