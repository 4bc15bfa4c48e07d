"""The order of the tests: the slow files first, so that all processes end together; one browser for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def pytest_configure() -> None:
    """Everything here talks to this computer only, so no proxy of the environment may come between."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ("system" not in item.path.parts, not item.path.stem.endswith("_browser")))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The one Chromium of a test process; each visit is a context of its own."""
    from tests.support.browser import chromium  # most tests need none

    with chromium() as started:
        yield started
