"""The process that measures says on its log what failed and where: never what was measured."""

from __future__ import annotations

import os
import subprocess
import sys
from uuid import uuid4

import numpy as np
import pytest

from hardware.capture import Capture, Frame, Spot
from models.analysis import child
from models.analysis.words import ENGLISH
from models.networks.manifest import ModelsError
from models.networks.runtime import DEFAULT_ENGINE, Network

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


def handed_over(data: bytes) -> int:
    handle = os.memfd_create("capture")
    os.write(handle, data)
    return handle


def close_ups(number: int) -> bytes:
    frame = Frame("x", np.full((64, 64, 3), 128, np.uint8), 0, 1.0, 1, "srgb")
    return Capture("test", ()).with_close_ups([(Spot(), frame)] * number).to_bytes()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "There is no Capture in the memory that was handed over."),
        (b"nonsense", "This is not a Capture: its first bytes are wrong."),
        (close_ups(1)[:-100], "This Capture in memory is damaged."),
    ],
)
def test_a_capture_that_cannot_be_read_is_told_of_in_our_own_words(data: bytes, said: str) -> None:
    for read in (
        child.check_close_up(handed_over(data), DEFAULT_ENGINE),
        child.run(handed_over(data), uuid4(), DEFAULT_ENGINE, ENGLISH),
    ):
        assert (read.error, read.sentence) == ("capture", said)


@pytest.mark.parametrize("number", [0, 2])
def test_one_close_up_is_looked_at_and_no_other_number(number: int) -> None:
    looked = child.check_close_up(handed_over(close_ups(number)), DEFAULT_ENGINE)
    assert looked.sentence == f"This Capture has {number} close-ups where one is looked at."


def test_a_close_up_is_refused_in_words_about_a_close_up() -> None:
    frame = Frame("closeup", np.full((8, 8, 3), 200, np.uint8), 0, 1.0, 0, "srgb")
    small = Capture("test", ()).with_close_ups([(Spot(), frame)]).to_bytes()
    refused = child.check_close_up(handed_over(small), DEFAULT_ENGINE)
    assert (refused.refused, refused.error) == ("too_small", None)
    assert "lesion" in refused.sentence and "face" not in refused.sentence


def test_what_the_measuring_of_a_close_up_raises_is_in_no_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ValueError(SECRET)

    monkeypatch.setattr(child, "require_lesion", broken)
    with pytest.raises(ValueError, match=SECRET):  # the process ends, and its log says only where
        child.check_close_up(handed_over(close_ups(1)), DEFAULT_ENGINE)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_what_an_engine_says_of_a_picture_is_in_no_sentence(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def broken(*_: object) -> list[np.ndarray]:
        raise kind(SECRET)

    parsing = Network("parsing", DEFAULT_ENGINE)
    monkeypatch.setattr(parsing._graph, "run", broken)
    with pytest.raises(ModelsError, match="The network 'parsing' failed") as error:
        parsing.run(np.zeros(parsing.input_shape, np.float32))
    assert SECRET not in str(error.value) and "models verify" in str(error.value)
