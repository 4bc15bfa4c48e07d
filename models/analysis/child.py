"""The analysis as a process of its own, without keys: a Capture comes in as memory, a Result goes out.

    python -m models.analysis.child --request-fd R --capture-fd N --result-fd M --engine E
        [--state DIR] [--close-up]

The numbers are inherited file descriptors: R a memfd with a Request as JSON, N one with Capture.to_bytes, M a
memfd or a pipe for the Result. A command line is for everybody to read, so nothing of the scan is in it. DIR
is the kiosk's state, of which only the clinic's signature of the networks is read. With --close-up the
Capture is one close-up, and the Result only says whether it is refused.
Exit status 0 means that a whole Result was written, a refusal included; 1 that the process itself failed.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from uuid import UUID

from hardware.capture import Capture, CaptureError
from models.analysis.capture import analyse_capture
from models.analysis.marked_spots import require_lesion
from models.analysis.refusal import Refused
from models.analysis.request import Request
from models.analysis.result import AnalysisResult, png, write_result
from models.analysis.words import Words
from models.networks.manifest import ModelsError
from models.networks.runtime import DEFAULT_ENGINE, ENGINES
from models.networks.signature import check_signature


def run(capture_fd: int, scan: UUID, engine: str, words: Words, state: Path | None = None) -> AnalysisResult:
    """The AnalysisResult for the Capture in `capture_fd`."""
    started = time.monotonic()
    try:
        capture = _read(capture_fd)
    except CaptureError as error:
        return AnalysisResult(error="capture", sentence=str(error))
    try:
        check_signature(state)
        analysis = analyse_capture(capture, scan, engine, words)
    except Refused as refused:
        return AnalysisResult(refused=refused.code, sentence=refused.sentence, seconds=_total({}, started))
    except ModelsError as error:
        return AnalysisResult(error="models", sentence=str(error))
    encoding = time.monotonic()
    overlays = {name: png(picture) for name, picture in analysis.overlays.items()}
    seconds = analysis.seconds | {"encode": round(time.monotonic() - encoding, 4)}
    return AnalysisResult(analysis.findings, overlays, seconds=_total(seconds, started))


def check_close_up(capture_fd: int, engine: str, state: Path | None = None) -> AnalysisResult:
    """Whether something can be said of the one close-up in `capture_fd`: an empty result, or refused."""
    started = time.monotonic()
    try:
        close_ups = _read(capture_fd).close_ups
        if len(close_ups) != 1:
            raise CaptureError(f"This Capture has {len(close_ups)} close-ups where one is looked at.")
    except CaptureError as error:
        return AnalysisResult(error="capture", sentence=str(error))
    try:
        check_signature(state)
        require_lesion(close_ups[0], engine)
    except Refused as refused:
        return AnalysisResult(refused=refused.code, sentence=refused.sentence, seconds=_total({}, started))
    except ModelsError as error:
        return AnalysisResult(error="models", sentence=str(error))
    return AnalysisResult(seconds=_total({}, started))


def _read(capture_fd: int) -> Capture:
    """The Capture in the memory `capture_fd`. Raises CaptureError, whose words are ours."""
    try:
        # Never closed: the frames are views into it, and this process ends when they are measured.
        memory = mmap.mmap(capture_fd, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CaptureError("There is no Capture in the memory that was handed over.") from error
    return Capture.from_bytes(memoryview(memory))


def _total(seconds: dict[str, float], started: float) -> dict[str, float]:
    return seconds | {"total": round(time.monotonic() - started, 4)}


def peak_rss_mb() -> float:
    """The most memory this process held since it was started, in MB.

    From the kernel's VmHWM: ru_maxrss would begin with what the parent process held.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--request-fd", type=int, required=True)
    parser.add_argument("--capture-fd", type=int, required=True)
    parser.add_argument("--result-fd", type=int, required=True)
    parser.add_argument("--engine", choices=list(ENGINES), default=DEFAULT_ENGINE)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--close-up", action="store_true")
    given = parser.parse_args()
    with os.fdopen(given.request_fd, "rb") as asked:
        request = Request.model_validate_json(asked.read())
    if given.close_up:
        result = check_close_up(given.capture_fd, given.engine, given.state)
    else:
        result = run(given.capture_fd, request.scan, given.engine, request.words, given.state)
    with os.fdopen(given.result_fd, "wb") as out:
        out.write(write_result(replace(result, peak_rss_mb=peak_rss_mb())))
    return 0


def say_only_where() -> None:
    """Let no error and no warning of this process say more than its kind and its place.

    Its words may quote a measurement, and stderr is a log.
    """
    sys.excepthook = lambda kind, _, trace: _say("ended", kind, trace)
    threading.excepthook = lambda hook: _say("lost a thread", hook.exc_type, hook.exc_traceback)
    sys.unraisablehook = lambda hook: _say("went on after", hook.exc_type, hook.exc_traceback)
    warnings.showwarning = lambda _, kind, file, line, *__: _write(f"warned: {kind.__name__}", file, line)


def _say(what: str, kind: type[BaseException], trace: TracebackType | None) -> None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    said = f"{what}: {kind.__name__}"
    _write(said, *((trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else ("nowhere", 0)))


def _write(said: str, file: str, line: int) -> None:
    print(f"analysis {said} at {Path(file).name}:{line}", file=sys.stderr)


if __name__ == "__main__":
    say_only_where()
    sys.exit(main())
