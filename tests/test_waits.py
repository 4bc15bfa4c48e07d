"""Every wait of the product has a deadline, and the deadline has a name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("firmware", "hardware", "kiosk_app", "models", "provisioning", "sync")
# By the name of what is called: the place of its deadline among the arguments, the word for it.
DEADLINES = {
    "accept": (0, "timeout"),
    "acquire": (1, "timeout"),
    "check_call": (None, "timeout"),
    "check_output": (None, "timeout"),
    "communicate": (1, "timeout"),
    "create_connection": (1, "timeout"),
    "get": (None, "timeout"),
    "HTTPConnection": (None, "timeout"),
    "HTTPSConnection": (None, "timeout"),
    "join": (0, "timeout"),
    "receive": (0, "timeout"),
    "result": (0, "timeout"),
    "select": (0, "timeout"),
    "send": (2, "timeout"),
    "settimeout": (0, "timeout"),
    "sleep": (0, "seconds"),
    "SMTP": (None, "timeout"),
    "subprocess.call": (None, "timeout"),
    "subprocess.run": (None, "timeout"),
    "sqlite3.connect": (1, "timeout"),
    "urlopen": (2, "timeout"),
    "wait": (0, "timeout"),
    "wait_for_publish": (0, "timeout"),
}
# With arguments these are no waits: a dictionary's `get`, a text's `join`.
OTHERWISE_NO_WAIT = {"get", "join", "result"}
# A socket's or a selector's own; the one that is meant is given a deadline, or had it set before.
SET_BEFORE = {"select", "send", "receive"}
NO_DEADLINE, NO_NAME = "has no deadline", "has a deadline without a name"
ALLOWED = {
    ("hardware/simulated/camera.py", "self._closed.wait()"): "a simulated camera that hangs is to hang",
    ("hardware/simulated/close_up.py", "self._closed.wait()"): "a simulated camera that hangs is to hang",
    ("hardware/simulated/pins.py", "fcntl.flock(fd, fcntl.LOCK_EX)"): "a new file, which nobody else knows",
    ("sync/clinic/pages/server.py", "stop.wait()"): "serves until it is told to stop",
    ("sync/clinic/tombstones.py", "fcntl.flock(file, fcntl.LOCK_EX)"): "held for one line that is written",
    ("firmware/channel.py", "self._socket.accept()"): "settimeout in the line before",
}


def called(call: ast.Call) -> str:
    """What is called; with its module where the name alone says too little."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id
    if not isinstance(function, ast.Attribute):
        return ""
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    return f"{owner}.{function.attr}" if f"{owner}.{function.attr}" in DEADLINES else function.attr


def deadline(call: ast.Call) -> ast.expr | None:
    """The deadline that is given with a call of DEADLINES."""
    place, word = DEADLINES[called(call)]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if word in given:
        return given[word]
    if "blocking" in given:
        return given["blocking"]
    return call.args[place] if place is not None and len(call.args) > place else None


def wrong_with(call: ast.Call) -> str | None:
    """What is wrong with a call that waits."""
    name = called(call)
    if name == "flock":
        return None if any(how in ast.unparse(call) for how in ("LOCK_NB", "LOCK_UN")) else NO_DEADLINE
    if name not in DEADLINES:
        return None
    until = deadline(call)
    if until is None:
        no_wait = name in SET_BEFORE or (name in OTHERWISE_NO_WAIT and call.args)
        return None if no_wait else NO_DEADLINE
    if not isinstance(until, ast.Constant):
        return None
    if until.value is None or until.value is True:
        return NO_DEADLINE
    return NO_NAME if until.value else None


def faults(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The code of each wait without a deadline, or with one that has no name, and which of the two."""
    for node in ast.walk(tree):
        wrong = wrong_with(node) if isinstance(node, ast.Call) else None
        if wrong:
            yield ast.unparse(node), wrong


def waits(path: Path) -> Iterator[tuple[str, str]]:
    return faults(ast.parse(path.read_text(), str(path)))


def product() -> list[Path]:
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in files if "training" not in path.parts]


def test_every_wait_has_a_deadline_with_a_name() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), code): wrong for path in product() for code, wrong in waits(path)
    }
    assert {place: wrong for place, wrong in found.items() if place not in ALLOWED} == {}
    assert set(ALLOWED) <= set(found), "what is allowed is not there any more"


@pytest.mark.parametrize(
    "code",
    [
        "thread.join()",
        "stop.wait()",
        "queue.get()",
        "queue.get(timeout=5)",
        "lock.acquire()",
        "turn.acquire(timeout=2.0)",
        "answer.result()",
        "process.communicate()",
        "subprocess.run(command, check=True)",
        "subprocess.check_output(command)",
        "urllib.request.urlopen(address)",
        "urlopen(address, data)",
        "socket.create_connection((host, port))",
        "http.client.HTTPSConnection(host)",
        "sqlite3.connect(path)",
        "time.sleep(0.1)",
        "one.settimeout(None)",
        "fcntl.flock(file, fcntl.LOCK_SH)",
    ],
)
def test_a_wait_without_a_deadline_or_without_its_name_is_found(code: str) -> None:
    assert list(faults(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "thread.join(STOP_S)",
        "', '.join(names)",
        "folder.join(name)",
        "facts.get(name)",
        "facts.get(name, 0)",
        "queue.get(timeout=max(0.0, until - now))",
        "lock.acquire(blocking=False)",
        "subprocess.run(command, timeout=STEP_SECONDS)",
        "urlopen(address, timeout=PAGE_SECONDS)",
        "poller.poll(0)",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    ],
)
def test_a_wait_with_a_named_deadline_and_what_is_no_wait_are_left_alone(code: str) -> None:
    assert list(faults(ast.parse(code))) == []
