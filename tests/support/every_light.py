"""`dermakiosk` with one more measure, which reads every light: as a kiosk is once a measure reads UV.

Its patients read each page at once: what a page takes to be read is another test's business.
"""

from __future__ import annotations

from kiosk_app.cli import main
from kiosk_app.web import showings
from models.analysis.lights import READS
from tests.support.kiosk_daemons import EVERY_LIGHT

if __name__ == "__main__":
    showings.READ_S = 0.0
    READS["a measure of these tests"] = EVERY_LIGHT
    main()
