"""The log as a process of the product has it, in a test's own process for a while."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from kiosk_app import log

HOOKS = ((threading, "excepthook"), (sys, "unraisablehook"), (warnings, "showwarning"))


@contextmanager
def given_back() -> Iterator[None]:
    """What is configured of the log within is the tests' own again afterwards."""
    configuration = structlog.get_config()
    before = [getattr(module, hook) for module, hook in HOOKS]
    try:
        yield
    finally:
        structlog.configure(**configuration)
        for (module, hook), kept in zip(HOOKS, before, strict=True):
            setattr(module, hook, kept)


@contextmanager
def own_log() -> Iterator[None]:
    """Events are JSON lines on stderr; what configuring hooks into is the tests' own again afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []  # configuring would close them
    with given_back():
        log.configure(debug=False)
        try:
            yield
        finally:
            root.handlers = handlers
            root.setLevel(level)
