"""Pages that give up soon what they wait for, as long as a test holds it up and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kiosk_app.patient import app

SOON_S = 0.05


@contextmanager
def pages_wait_briefly() -> Iterator[None]:
    """Within this a page gives up soon what another holds; what is done before and after has its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "KEYS_S", SOON_S)
        yield
