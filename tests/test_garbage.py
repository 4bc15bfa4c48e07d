"""Garbage is looked for where some can be: among nothing that was imported, of the tests or of a command."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

# Of each room that its daemons start from; what it says is whether garbage is looked for, and where.
LOADED = """
import gc, sys
looked = []
gc.callbacks.append(lambda phase, _: looked.append(phase))
from kiosk_app.cli import COMMANDS, cli
before = len(looked)
cli.get_command(None, sys.argv[1])
during = len(looked) - before
module, attribute, _ = COMMANDS[sys.argv[1]]
command = getattr(sys.modules[module], attribute)
print(during, gc.isenabled(), any(each is command for each in gc.get_objects()))
"""


def test_no_look_at_garbage_goes_through_the_tests_that_were_collected() -> None:
    this = test_no_look_at_garbage_goes_through_the_tests_that_were_collected
    assert gc.isenabled() and not any(each is this for each in gc.get_objects())


@pytest.mark.parametrize("command", ["serve", "lightd", "clinic"])
def test_no_look_at_garbage_goes_through_the_modules_of_a_command(command: str) -> None:
    said = subprocess.check_output([sys.executable, "-c", LOADED, command], text=True, timeout=120)
    assert said.split() == ["0", "True", "False"]


def test_what_an_earlier_command_left_is_garbage_after_the_next_one_is_loaded() -> None:
    code = """
import gc, weakref
from kiosk_app.cli import cli
class Left:
    pass
cli.get_command(None, "lightd")
one = Left()
one.itself = one
gone = weakref.ref(one)
del one
cli.get_command(None, "clinic")
gc.collect()
print(gone() is None)
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=120) == "True\n"
