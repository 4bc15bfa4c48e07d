"""The analysis as a process that looks for acne once, for tests of what becomes of a scan."""

from __future__ import annotations

import sys

from models.analysis import acne
from models.analysis.child import main

if __name__ == "__main__":
    acne.VIEWS = ()
    sys.exit(main())
