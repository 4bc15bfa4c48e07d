"""`python -m kiosk_app.demo.steps`: `dermakiosk` commands one after the other, in one process.

Reads a JSON list of argument lists; prints what each command said as one JSON string a line. The first that
fails ends it, as it would end alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from kiosk_app.cli import main

if __name__ == "__main__":
    for arguments in json.load(sys.stdin):
        sys.argv = ["dermakiosk", *arguments]
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                main()
        except SystemExit as ended:
            if ended.code:
                raise
        print(json.dumps(said.getvalue()), flush=True)
