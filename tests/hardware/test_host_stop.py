"""A daemon ends on SIGTERM wherever in its waiting the signal meets it."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.support.sources import modules, parsed

MADE_BY = {
    "every daemon": "from hardware.host.stop import on_stop; stop = threading.Event(); on_stop(stop.set)",
    "the clinic": "from sync.clinic.cli import _stop_on_signal; stop = _stop_on_signal()",
}
# The signal comes where `stop.wait()` has taken the event's lock and does not wait yet.
IN_THE_WORST_MOMENT = """
with stop._cond:
    signal.raise_signal(signal.SIGTERM)
raise SystemExit(0 if stop.wait(60) else 1)
"""


@pytest.mark.parametrize("maker", MADE_BY)
def test_a_stop_that_comes_while_the_main_thread_holds_the_events_lock_is_heard(maker: str) -> None:
    program = f"import signal, threading\n{MADE_BY[maker]}\n{IN_THE_WORST_MOMENT}"
    assert subprocess.run([sys.executable, "-c", program], timeout=90).returncode == 0


def sets_an_event(handler: ast.AST) -> bool:
    calls = [node.func for node in ast.walk(handler) if isinstance(node, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr == "set" for call in calls)


def handlers(tree: ast.Module) -> list[ast.AST]:
    """What the calls of `signal.signal` in it are given, with the functions that they name."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    given = [
        node.args[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "signal.signal"
    ]
    return [functions.get(ast.unparse(each).removeprefix("self."), each) for each in given]


def test_no_handler_of_a_signal_sets_an_event_itself() -> None:
    found = {path: handlers(parsed(path)) for path in modules()}
    assert sum(map(len, found.values())) >= 5
    assert [path for path, each in found.items() if any(map(sets_an_event, each))] == []
