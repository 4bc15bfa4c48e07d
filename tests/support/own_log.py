"""The log as a process of the product has it, in a test's own process for a while."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from kiosk_app import log

HOOKS = ((threading, "excepthook"), (sys, "unraisablehook"), (warnings, "showwarning"))


@contextmanager
def own_log() -> Iterator[None]:
    """Events are JSON lines on stderr; what configuring hooks into is the tests' own again afterwards."""
    before = [getattr(module, hook) for module, hook in HOOKS]
    log.configure(debug=False)
    try:
        yield
    finally:
        structlog.reset_defaults()
        for (module, hook), kept in zip(HOOKS, before, strict=True):
            setattr(module, hook, kept)
