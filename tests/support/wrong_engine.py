"""An engine that computes wrongly: what the child says that asks it for the known answers."""

from __future__ import annotations

import pytest

from kiosk_app.scanning import engine_check

SAID = "No scan can be measured here. The engine computes wrongly."


def have_the_engine_compute_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine_check.subprocess.run
    wrong = "import sys; sys.exit('The engine computes wrongly.')"
    monkeypatch.setattr(
        engine_check.subprocess, "run", lambda command, **how: run([command[0], "-c", wrong], **how)
    )
