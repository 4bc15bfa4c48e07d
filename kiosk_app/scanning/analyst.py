"""The analysis of a Capture, run in a child process that is given pictures and no key."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from hardware.capture import Capture
from hardware.host.errors import PlainError
from hardware.host.memory import in_memory
from hardware.host.patience import patience, so_long, time_left
from models.analysis.request import Request
from models.analysis.result import AnalysisResult, ResultError, read_result
from models.analysis.words import ENGLISH, Words
from sync.wire.findings import Findings

# What a Raspberry Pi 4 may need, throttled and with three close-ups. A child that uses no processor for
# STILL_S hangs, and is ended long before.
DEADLINE_S = 90.0
STILL_S, LOOK_S = 20.0, 0.25
# For its turn: two others may be measured first, a patient's and one of before.
TURN_S = 2 * DEADLINE_S
# Of a close-up, whose patient waits: its turn, and its check; less where the page has less left.
CHECK_TURN_S, CHECK_S = 5.0, 15.0
CHILD = "models.analysis.child"
# The child's whole environment: nothing of ours, so no key, no address and no token can be in it.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "OMP_NUM_THREADS")


class AnalysisFailed(PlainError):
    """The analysis gave no answer; the pictures are still in the vault and can be measured again."""


@dataclass(frozen=True)
class AnalysisOutcome:
    """What the analysis says: Findings with overlay pictures (PNG), or a refusal with its reason."""

    findings: Findings | None
    overlays: dict[str, bytes] = field(default_factory=dict)
    refused: str | None = None
    sentence: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0


@contextlib.contextmanager
def _memory(name: str, blocks: Iterable[bytes | memoryview] = ()) -> Iterator[int]:
    """A file in memory that has no name on any disk."""
    handle = in_memory(name, blocks)
    try:
        yield handle
    finally:
        os.close(handle)


def _read_all(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    pieces, offset = [], 0
    while offset < size:
        piece = os.pread(handle, size - offset, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def _status(child: subprocess.Popen[bytes], deadline_s: float) -> int:
    """The exit status of `child`. Raises AnalysisFailed where it is late, or hangs."""
    began = moved = time.monotonic()
    used = ""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(min(LOOK_S, max(0.0, began + deadline_s - time.monotonic())))
        now, before = time.monotonic(), used
        used = _processor_time(child.pid)
        if used != before:
            moved = now
        if now - began > deadline_s:
            raise AnalysisFailed(f"The analysis was not done within {so_long(deadline_s)}; it was stopped.")
        if now - moved > STILL_S:
            raise AnalysisFailed(f"The analysis did nothing for {STILL_S:g} s; it was stopped.")


def _processor_time(pid: int) -> str:
    """What a process has used so far, as /proc has it: in user and in system mode."""
    _, _, after_the_name = (
        Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
    )
    return " ".join(after_the_name.split()[11:13])


class Analyst:
    """Measures one Capture at a time with the named engine. close() ends a child that is still at work.

    `state` is the kiosk's, whose clinic must have signed the networks; None where there is no kiosk.
    """

    def __init__(self, engine: str, state: Path | None = None, deadline_s: float = DEADLINE_S) -> None:
        self._engine = engine
        self._state = state
        self._deadline_s = deadline_s
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def measure(self, capture: Capture, scan: UUID, words: Words = ENGLISH) -> AnalysisOutcome:
        """The AnalysisOutcome for `capture`, its overlays in `words`.

        Raises AnalysisFailed when the child cannot be started, dies, is late or talks nonsense.
        """
        result = self._answer(capture, scan, words, self._deadline_s, TURN_S)
        return AnalysisOutcome(
            findings=result.findings,
            overlays=dict(result.overlays),
            refused=result.refused,
            sentence=result.sentence,
            seconds=dict(result.seconds),
            peak_rss_mb=result.peak_rss_mb,
        )

    def _answer(
        self, capture: Capture, scan: UUID, words: Words, deadline_s: float, turn_s: float, *more: str
    ) -> AnalysisResult:
        turn_s = patience(turn_s)
        if not self._turn.acquire(timeout=turn_s):
            raise AnalysisFailed(
                f"The analysis was at work on other pictures for more than {so_long(turn_s)}."
            )
        try:
            answer = self._ask(capture, scan, words, time_left(deadline_s), *more)
        except OSError as error:
            raise AnalysisFailed(
                f"The analysis could not be started ({error.strerror or error}). Look at the memory in use."
            ) from error
        finally:
            self._turn.release()
        try:
            result = read_result(answer)
        except ResultError as error:
            raise AnalysisFailed(f"The analysis's answer is not understood: {error}") from error
        if result.error is not None:
            raise AnalysisFailed(f"The analysis could not be done: {result.sentence}")
        return result

    def refuses(self, close_up: Capture, scan: UUID) -> str | None:
        """Why nothing can be said of this close-up, or None. Raises AnalysisFailed as `measure` does, but
        within CHECK_TURN_S and CHECK_S, and the caller's own patience.
        """
        return self._answer(close_up, scan, ENGLISH, CHECK_S, CHECK_TURN_S, "--close-up").refused

    def _ask(self, capture: Capture, scan: UUID, words: Words, deadline_s: float, *more: str) -> bytes:
        """What the child wrote into the memory that is for its answer."""
        asked = Request(scan=scan, words=words).model_dump_json().encode()
        with (
            _memory("request", [asked]) as request,
            _memory("capture", capture.blocks()) as pictures,
            _memory("result") as answer,
        ):
            self._run(request, pictures, answer, deadline_s, *more)
            return _read_all(answer)

    def _run(self, request: int, pictures: int, answer: int, deadline_s: float, *more: str) -> None:
        command = [sys.executable, "-m", CHILD, "--engine", self._engine]
        command += ["--request-fd", str(request), "--capture-fd", str(pictures), "--result-fd", str(answer)]
        command += ["--state", str(self._state.resolve())] if self._state else []
        command += more
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        with subprocess.Popen(
            command,
            pass_fds=(request, pictures, answer),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ) as child:
            self._child = child
            try:
                status = _status(child, deadline_s)
            except BaseException:
                child.kill()  # told to stop: leaving the block would wait for the child's own end
                raise
            finally:
                self._child = None
        if status != 0:
            raise AnalysisFailed(f"The analysis ended with status {status}; its log says why.")

    def close(self) -> None:
        """End a child that is still at work; what it measured is measured again after the next start."""
        child = self._child  # the thread that waits for it may see its end meanwhile
        if child is not None:
            child.kill()
