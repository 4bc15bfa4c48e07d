"""What `make check` leaves out: a test that starts a server or a browser, and is not marked `long`, fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import browser, clinic, long_tests, mosquitto, system


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (lambda folder: mosquitto.running_broker(folder), "a broker"),
        (lambda folder: mosquitto.Mosquitto(folder / "mosquitto.conf", 1).start(), "a broker"),
        (lambda folder: system.running_system(folder), "a whole system"),
        (lambda _: browser.chromium(), "a browser"),
        (lambda _: clinic.running_postgresql(), "a database server"),
    ],
)
def test_a_short_test_starts_no_server(start: Callable[[Path], object], what: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=f"starts {what}, which takes too long for 'make check'"):
        start(tmp_path)


def test_a_file_that_names_what_starts_a_server_is_long(request: pytest.FixtureRequest) -> None:
    assert not long_tests.is_long(request.node)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request.module, "Broker", mosquitto.Broker, raising=False)
        assert long_tests.is_long(request.node)
