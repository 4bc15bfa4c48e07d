"""`dermakiosk` with one measure more, which reads every light: as a kiosk is once a measure reads UV.

All else of a scan is quick.
"""

from __future__ import annotations

from kiosk_app.cli import main
from models.analysis.lights import READS
from tests.support.kiosk_daemons import EVERY_LIGHT
from tests.support.quick_kiosk import quicken

if __name__ == "__main__":
    quicken()
    READS["a measure of these tests"] = EVERY_LIGHT
    main()
