"""`dermakiosk` with one more measure, which reads every light: as a kiosk is once a measure reads UV."""

from __future__ import annotations

from kiosk_app.cli import main
from models.analysis.lights import READS
from tests.support.kiosk_daemons import EVERY_LIGHT

if __name__ == "__main__":
    READS["a measure of these tests"] = EVERY_LIGHT
    main()
