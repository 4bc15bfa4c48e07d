"""Every wait of the product has a deadline, and the deadline has a name."""

from __future__ import annotations

import ast
import functools
from collections import Counter

import pytest

from tests.support.sources import ROOT, code_of, modules, parsed

# By the name of what is called: the place of its deadline among the arguments, the word for it.
DEADLINES = {
    "accept": (0, "timeout"),
    "acquire": (1, "timeout"),
    "check_call": (None, "timeout"),
    "check_output": (None, "timeout"),
    "communicate": (1, "timeout"),
    "concurrent.futures.as_completed": (1, "timeout"),
    "concurrent.futures.wait": (1, "timeout"),
    "create_connection": (1, "timeout"),
    "exception": (0, "timeout"),
    "get": (1, "timeout"),
    "HTTPConnection": (None, "timeout"),
    "HTTPSConnection": (None, "timeout"),
    "hardware.host.sqlite.connect": (1, "wait_s"),
    "join": (0, "timeout"),
    "poll": (0, "timeout"),
    "receive": (0, "timeout"),
    "result": (0, "timeout"),
    "select": (0, "timeout"),
    "select.select": (3, "timeout"),
    "send": (2, "timeout"),
    "settimeout": (0, "timeout"),
    "sleep": (0, "seconds"),
    "SMTP": (None, "timeout"),
    "subprocess.call": (None, "timeout"),
    "subprocess.run": (None, "timeout"),
    "sqlite3.connect": (1, "timeout"),
    "urlopen": (2, "timeout"),
    "wait": (0, "timeout"),
    "wait_for": (1, "timeout"),
    "wait_for_publish": (0, "timeout"),
}
# What waits unless it is told not to, or with a deadline of its own: by a word among its arguments.
UNLESS = {
    "flock": ("LOCK_NB", "LOCK_UN"),
    "lockf": ("LOCK_NB", "LOCK_UN"),
    "waitpid": ("WNOHANG",),
    "waitid": ("WNOHANG",),
}
# A socket waits as long as it was told before.
OF_A_SOCKET = {"accept", "readline", "recv", "recv_into", "recvfrom", "recvmsg", "recvmsg_into"}
# Without a deadline these are no waits: a dictionary's `get`, a text's `join`, a log's `exception`.
NO_WAIT_WITH_ARGUMENTS = {"get", "join", "exception"}
# Ours, which are told before; and a process's `poll`, which looks only.
SET_BEFORE = {"send", "receive", "poll"}
POLLS = {"select.poll", "select.epoll"}
CONTEXTS = {"contextvars.ContextVar"}
LOCKS = ("threading.Lock", "threading.RLock", "threading.Condition", "threading.Semaphore")
NO_DEADLINE, NO_NAME = "has no deadline", "has a deadline without a name"
# One line each, with its reason; what stands twice in the code stands here twice.
ALLOWED = [
    ("firmware/cameras/picamera.py", "with self._turn", "the capture daemon lets one caller in"),
    ("firmware/cameras/picamera.py", "with self._turn", "the capture daemon lets one caller in"),
    ("firmware/lights/client.py", "with self._lock", "whoever holds it has a deadline for its answer"),
    ("firmware/lights/lamp_hours.py", "with self._has_written", "a condition lets go of it as it waits"),
    ("hardware/simulated/camera.py", "self._closed.wait()", "a simulated camera that hangs is to hang"),
    ("hardware/simulated/close_up.py", "self._closed.wait()", "a simulated camera that hangs is to hang"),
    (
        "hardware/simulated/pins.py",
        "fcntl.flock(fd, fcntl.LOCK_EX)",
        "a new file, which nobody else knows",
    ),
    ("kiosk_app/demo/heartbeats.py", "self._sockets[name].recv(4096)", "made without blocking"),
    ("sync/clinic/work/machines.py", "working.exception()", "of a task that has ended"),
]


class Waits(ast.NodeVisitor):
    """Finds the waits in a module; `faults` are those without a deadline or without its name, and which."""

    def __init__(self) -> None:
        self.faults: list[tuple[str, str]] = []
        self._imported: dict[str, str] = {}
        self._polls: set[str] = set()
        self._contexts: set[str] = set()
        self._locks: set[str] = set()
        self._slow: set[str] = set()  # methods that wait, or that call one that does
        self._told: list[set[str]] = [set()]

    def visit_Import(self, node: ast.Import) -> None:
        self._imported |= {name.asname: name.name for name in node.names if name.asname}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._imported |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}

    def visit_Module(self, node: ast.Module) -> None:
        for within in ast.walk(node):
            if isinstance(within, ast.Import | ast.ImportFrom):
                self.visit(within)
        for within in ast.walk(node):
            if isinstance(within, ast.Assign | ast.AnnAssign) and isinstance(within.value, ast.Call):
                targets = within.targets if isinstance(within, ast.Assign) else [within.target]
                made = self._full_name(within.value)
                kinds = ((self._polls, POLLS), (self._contexts, CONTEXTS), (self._locks, LOCKS))
                for names, kind in kinds:
                    names |= {code_of(target) for target in targets if made in kind}
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """A socket is told its deadline in the function that waits for it."""
        told = set()
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                how = call.func.attr, code_of(call.args[0]) if call.args else ""
                if how[0] == "settimeout" and how[1] != "None" or how == ("setblocking", "False"):
                    told.add(code_of(call.func.value))
        self._told.append(told)
        self.generic_visit(node)
        self._told.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
        before, self._slow = self._slow, set()
        found = True
        while found:
            found = {f"self.{each.name}" for each in methods if self._takes_long(each)} - self._slow
            self._slow |= found
        self.generic_visit(node)
        self._slow = before

    def visit_With(self, node: ast.With) -> None:
        """A lock is waited for as long as its holder waits for something else."""
        locks = [item.context_expr for item in node.items if code_of(item.context_expr) in self._locks]
        if locks and any(self._takes_long(within) for within in node.body):
            self.faults += [(f"with {code_of(lock)}", NO_DEADLINE) for lock in locks]
        self.generic_visit(node)

    def _takes_long(self, within: ast.AST) -> bool:
        return any(code_of(call.func) in self._slow or self._is_wait(call) for call in calls_in(within))

    def _is_wait(self, call: ast.Call) -> bool:
        """Whether it waits, with a deadline or without."""
        full = self._full_name(call)
        name = next((name for name in DEADLINES if full == name or full.endswith(f".{name}")), None)
        if self._wrong_with(call) == NO_DEADLINE:
            return True
        if name is None or name == "settimeout" or is_constant(given(call, 0, "blocking"), False):
            return False
        place, word = DEADLINES[name]
        until = given(call, None if name in ("get", "join", "exception") else place, word)
        return until is not None and not is_constant(until, 0)

    def visit_Call(self, node: ast.Call) -> None:
        wrong = self._wrong_with(node)
        if wrong:
            self.faults.append((code_of(node), wrong))
        self.generic_visit(node)

    def _full_name(self, call: ast.Call) -> str:
        """What is called, as it is named where it comes from."""
        first, _, rest = code_of(call.func).partition(".")
        return self._imported.get(first, first) + (f".{rest}" if rest else "")

    def _wrong_with(self, call: ast.Call) -> str | None:
        full = self._full_name(call)
        short = full.rpartition(".")[2]
        if short in UNLESS:
            return None if any(word in code_of(call) for word in UNLESS[short]) else NO_DEADLINE
        if short in OF_A_SOCKET and (short != "accept" or not call.args):
            return self._wrong_with_socket(call)
        name = next((name for name in DEADLINES if full == name or full.endswith(f".{name}")), None)
        if full == "select.select":
            name = full
        elif full in POLLS or (short == "select" and isinstance(call.func, ast.Name)):
            return None  # it is made, and waited for later; a query of a database
        elif full in ("concurrent.futures.wait", "concurrent.futures.as_completed"):
            name = full
        if name is None:
            return None
        blocking = given(call, 0, "block" if name == "get" else "blocking")
        if name in ("acquire", "get") and is_constant(blocking, False):
            return None
        place, word = DEADLINES[name]
        if name == "get" and not is_constant(blocking, True):
            place = None  # a dictionary's default
        until = given(call, place, word)
        if until is None:
            return None if self._is_no_wait(name, call, blocking) else NO_DEADLINE
        return wrong_with_deadline(until)

    def _is_no_wait(self, name: str, call: ast.Call, blocking: ast.expr | None) -> bool:
        owner = code_of(call.func).rpartition(".")[0]
        if name == "get" and is_constant(blocking, True):
            return False
        if name == "poll":
            return owner not in self._polls
        if owner in self._contexts:
            return True
        return name in SET_BEFORE or (name in NO_WAIT_WITH_ARGUMENTS and bool(call.args))

    def _wrong_with_socket(self, call: ast.Call) -> str | None:
        if not isinstance(call.func, ast.Attribute):
            return None
        told = code_of(call.func.value) in self._told[-1] or "MSG_DONTWAIT" in code_of(call)
        return None if told else NO_DEADLINE


@functools.cache
def calls_in(node: ast.AST) -> list[ast.Call]:
    return [each for each in ast.walk(node) if isinstance(each, ast.Call)]


def given(call: ast.Call, place: int | None, word: str) -> ast.expr | None:
    """The argument at this place or by this word."""
    by_word = {keyword.arg: keyword.value for keyword in call.keywords}
    if word in by_word:
        return by_word[word]
    return call.args[place] if place is not None and len(call.args) > place else None


def is_constant(expression: ast.expr | None, value: object) -> bool:
    return isinstance(expression, ast.Constant) and expression.value is value


def wrong_with_deadline(until: ast.expr) -> str | None:
    """What is wrong with the deadline that a wait is given."""
    if isinstance(until, ast.IfExp):
        return wrong_with_deadline(until.body) or wrong_with_deadline(until.orelse)
    if isinstance(until, ast.BoolOp):
        return next(filter(None, map(wrong_with_deadline, until.values)), None)
    if any(isinstance(part, ast.Name | ast.Attribute | ast.Call) for part in ast.walk(until)):
        return None
    value = eval(compile(ast.Expression(until), "deadline", "eval"), {})
    if isinstance(value, int | float) and value is not True and value >= 0:
        return NO_NAME if value else None
    return NO_DEADLINE if value is None or isinstance(value, int | float) else None


def faults(tree: ast.AST) -> list[tuple[str, str]]:
    """The code of each wait without a deadline, or with one that has no name, and which of the two."""
    waits = Waits()
    waits.visit(tree)
    return waits.faults


def without_a_name(tree: ast.AST) -> list[str]:
    """The code of each wait of a test that does not say what it waits for."""
    return [
        code_of(call)
        for call in calls_in(tree)
        if code_of(call.func).rpartition(".")[2] == "wait_until" and given(call, 1, "what") is None
    ]


def test_every_wait_of_a_test_says_what_it_waits_for() -> None:
    found = [(path.name, code) for path in modules("tests") for code in without_a_name(parsed(path))]
    assert found == []


def test_a_wait_of_a_test_that_does_not_say_what_it_waits_for_is_found() -> None:
    named = "wait_until(done, 'the end')\nwait_until(done, what='the end', seconds=5)\n"
    assert without_a_name(ast.parse(named + "wait_until(done)\nwaiting.wait_until(done, seconds=5)")) == [
        "wait_until(done)",
        "waiting.wait_until(done, seconds=5)",
    ]


def test_every_wait_has_a_deadline_with_a_name() -> None:
    found = Counter(
        (path.relative_to(ROOT).as_posix(), code)
        for path in modules(training=False)
        for code, _ in faults(parsed(path))
    )
    allowed = Counter((file, code) for file, code, _ in ALLOWED)
    assert found - allowed == Counter()
    assert allowed - found == Counter(), "what is allowed is not there any more"


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
        "fcntl.lockf(file, fcntl.LOCK_EX)",
        "os.waitpid(pid, 0)",
        "stop.wait(None)",
        "stop.wait(-1)",
        "stop.wait(5 * 60)",
        "stop.wait(timeout=60.0 + 1)",
        "stop.wait(STOP_S if stopping else None)",
        "stop.wait(seconds or 5)",
        "queue.get(True)",
        "queue.get(block=True)",
        "queue.get(True, 5)",
        "lock.acquire(True)",
        "lock.acquire(True, -1)",
        "poller = select.poll()\npoller.poll()",
        "self._poller = select.epoll()\nself._poller.poll(-1)",
        "from select import poll\nwaiting: object = poll()\nwaiting.poll(None)",
        "select.select([one], [], [])",
        "select.select([one], [], [], None)",
        "from select import select\nselect([one], [], [])",
        "import select as s\ns.select([one], [], [], 5)",
        "selector.select()",
        "self._selector.select(None)",
        "condition.wait_for(done)",
        "condition.wait_for(done, 5)",
        "concurrent.futures.wait(answers)",
        "from concurrent.futures import wait\nwait(answers)",
        "from concurrent import futures\nfutures.wait(answers, timeout=None)",
        "from concurrent.futures import as_completed\nlist(as_completed(answers))",
        "answer.result(None)",
        "answer.exception()",
        "turn = threading.Lock()\nwith turn:\n    stop.wait(STOP_S)",
        "turn = threading.Lock()\nwith open(path) as file, turn:\n    child.wait(PATIENCE_S)",
        "class Work:\n    def __init__(self):\n        self._turn = threading.RLock()\n"
        "    def do(self):\n        with self._turn:\n            self._run()\n"
        "    def _run(self):\n        self._wait()\n"
        "    def _wait(self):\n        self._child.wait(PATIENCE_S)",
        "def take(self):\n    return self._socket.recv(10)",
        "def take(one):\n    one.settimeout(None)\n    return one.recv(10)",
        "def take(one, other):\n    other.settimeout(T)\n    return one.accept()",
        "def take(one):\n    return one.makefile().readline()",
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
        "facts.get(name, 5)",
        "import contextvars\npatience = contextvars.ContextVar('patience')\npatience.get()",
        "turn = threading.Lock()\nwith turn:\n    facts.get(name)",
        "with open(path) as file:\n    thread.join(STOP_S)",
        "facts.get(name, {})",
        "queue.get(timeout=max(0.0, until - now))",
        "lock.acquire(blocking=False)",
        "subprocess.run(command, timeout=STEP_S)",
        "urlopen(address, timeout=PAGE_S)",
        "poller.poll(0)",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "os.waitpid(pid, os.WNOHANG)",
        "queue.get(True, PATIENCE_S)",
        "queue.get(False)",
        "lock.acquire(False)",
        "process.poll()",
        "poller = select.poll()\npoller.poll(PATIENCE_MS)",
        "select.select([one], [], [], 0)",
        "select.select([one], [], [], PATIENCE_S)",
        "from sqlalchemy import select\nselect(Kiosk, Scan, Finding)",
        "selector.select(self.next_tick_s())",
        "condition.wait_for(done, PATIENCE_S)",
        "from concurrent.futures import wait\nwait(answers, PATIENCE_S)",
        "log.exception('it failed')",
        "def take(one):\n    one.settimeout(PATIENCE_S)\n    return one.recv(10)",
        "def take(one):\n    one.setblocking(False)\n    return one.accept()",
        "listener.accept(PATIENCE_S)",
    ],
)
def test_a_wait_with_a_named_deadline_and_what_is_no_wait_are_left_alone(code: str) -> None:
    assert list(faults(ast.parse(code))) == []
