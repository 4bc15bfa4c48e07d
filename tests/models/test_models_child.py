"""The process that measures says on its log what failed and where: never what was measured."""

from __future__ import annotations

import subprocess
import sys

import pytest

SECRET = "33.0 of ref-4711"


@pytest.mark.parametrize(
    ("code", "said", "status"),
    [
        ("work()", "analysis ended: ValueError at <string>:4", 1),
        ("t = threading.Thread(target=work); t.start(); t.join(60)", "analysis lost a thread: ValueError", 0),
        ("Thing = type('Thing', (), {'__del__': work}); Thing()", "analysis went on after: ValueError", 0),
        ("warnings.warn(SECRET)", "analysis warned: UserWarning at <string>:5", 0),
        ("import numpy; numpy.array([1.0]) / 0", "analysis warned: RuntimeWarning at <string>:5", 0),
    ],
)
def test_a_fault_has_no_words(code: str, said: str, status: int) -> None:
    lines = [
        "import sys, threading, warnings; from models.analysis.child import say_only_where",
        "say_only_where(); SECRET = bytes.fromhex(sys.argv[1]).decode()",
        "def work(*_):",
        "    raise ValueError(SECRET)",
        code,
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), SECRET.encode().hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    [line] = done.stderr.splitlines()
    assert line.startswith(said) and SECRET not in line
    assert done.returncode == status
