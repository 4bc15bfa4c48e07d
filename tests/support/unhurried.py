"""The clinic's command, each of whose daemons has all the time for a stop that a busy machine may need."""

from __future__ import annotations

import sys

STOP_SECONDS = 120.0
_PROGRAM = f"""
from sync.clinic import cli
cli.STOP_SECONDS = {STOP_SECONDS}
from kiosk_app.cli import main
main()
"""
CLINIC = (sys.executable, "-c", _PROGRAM, "clinic")
