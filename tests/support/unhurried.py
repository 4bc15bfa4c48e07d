"""The clinic's command, each of whose daemons has all the time for a stop that a busy machine may need."""

from __future__ import annotations

import sys

STOP_S = 120.0
_PROGRAM = f"""
from sync.clinic import cli
cli.STOP_S = {STOP_S}
from kiosk_app.cli import main
main()
"""
CLINIC = (sys.executable, "-c", _PROGRAM, "clinic")
