"""The order of the tests: the slow, whole-system files first, so that two processes end together."""

from __future__ import annotations

import os

import pytest


def pytest_configure() -> None:
    """Everything here talks to this computer only, so no proxy of the environment may come between."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "system" not in item.path.parts)
