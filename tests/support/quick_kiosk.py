"""`dermakiosk` whose analysis is one look, and whose patients read each page at once.

What becomes of a scan is the same; how it is measured, and what a page takes to be read, are other tests'.
"""

from __future__ import annotations

from kiosk_app.cli import main
from kiosk_app.scanning import analyst
from kiosk_app.web import showings


def quicken() -> None:
    analyst.CHILD = "tests.support.one_look"
    showings.READ_S = 0.0


if __name__ == "__main__":
    quicken()
    main()
