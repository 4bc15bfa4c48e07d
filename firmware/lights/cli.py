"""The command of the light daemon, which needs none of the libraries for pictures."""

from __future__ import annotations

from pathlib import Path

import click

from firmware.cli_options import board_option, peer_option, state_option
from hardware.board import load_board
from hardware.host.secrecy import keep_memory_to_ourselves


@click.command()
@board_option
@state_option
@peer_option
def lightd(board: Path, state: Path, peers: tuple[int, ...]) -> None:
    """Run the light daemon: sole owner of every light pin, keeper of the dose ledger."""
    from firmware.lights.daemon import LightDaemon

    keep_memory_to_ourselves()
    LightDaemon(load_board(board), state, peers).run()
