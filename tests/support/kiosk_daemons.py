"""Real light and capture daemons as processes, on a small simulated board, for tests."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import cv2

from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.board import load_board
from hardware.simulated.pins import PinPageError, PinReader, Transition
from tests.support.stand_in_face import find_stand_in, portrait
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
SIMULATED = ROOT / "hardware" / "boards" / "simulated.toml"
# What tests of the sequence and of light safety ask for: UV too, whatever the measures read today.
EVERY_LIGHT = frozenset(load_board(SIMULATED).lights)


def consent() -> ConsentStamp:
    return ConsentStamp("1", "en", datetime.now(timezone.utc))


def uv_allowance(patient: str = "p1") -> UvAllowance:
    return UvAllowance(patient, True, time.time())


def small_board(folder: Path, extra: str = "", profile: Path = SIMULATED, **replaced: str) -> Path:
    """The simulated board with small pictures, `extra` TOML at its end, and `replaced` lines."""
    text = profile.read_text()
    text = text.replace("width = 1536, height = 2048", "width = 384, height = 512")
    text = text.replace("width = 480, height = 640", "width = 192, height = 256")
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "board.toml"
    path.write_text(text + extra)
    return path


def until(condition: Callable[[], object], what: str, deadline_s: float = 60.0) -> None:
    """Wait until `condition()` is true; fail after `deadline_s`."""
    wait_until(condition, what, deadline_s)


# The light daemon looks at no picture, and starts without the libraries for them.
_COMMANDS = {
    "lightd": ("-c", "from kiosk_app.cli import main; main()"),
    "captured": ("-m", "tests.support.kiosk_daemons"),
}


class Daemon:
    """One daemon process; its log is `log`, ready once it says so."""

    def __init__(self, command: str, board: Path, state: Path, *more: str) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.log = state / f"{command}.log"
        arguments = [sys.executable, *_COMMANDS[command], command]
        arguments += ["--board", str(board), "--state", str(state), *more]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(arguments, cwd=ROOT, stderr=log, stdout=log)
        end = time.monotonic() + 120
        while b'"ready"' not in self.log.read_bytes():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, then the exit status."""
        self.kill(signal.SIGTERM)
        return self.process.wait(60)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)


class Kiosk:
    """A light daemon with a capture daemon, both on `board`, in `state`."""

    def __init__(self, board: Path, state: Path) -> None:
        self.board, self.state = board, state
        self.pins = PinReader(state / "run" / "pins.page")
        self.lightd = Daemon("lightd", board, state)
        picture = state / "portrait.png"
        cv2.imwrite(str(picture), portrait()[:, :, ::-1])
        self.portrait = str(picture)
        self.captured = self.start_captured()
        self.since_ns = 0

    @property
    def capture_socket(self) -> Path:
        return self.state / "run" / "capture.sock"

    @property
    def light_socket(self) -> Path:
        return self.state / "run" / "light.sock"

    def start_captured(self) -> Daemon:
        return Daemon("captured", self.board, self.state, "--portrait", self.portrait)

    def lit(self) -> set[str]:
        return lit(self.pins)

    def history(self) -> list[Transition]:
        """What the pins did since `revive`."""
        return [item for item in self.pins.history() if item.at_ns >= self.since_ns]

    def revive(self) -> None:
        """Start again what a test has ended; what the pins did before is forgotten."""
        if self.lightd.process.poll() is not None:
            self.lightd = Daemon("lightd", self.board, self.state)
        if self.captured.process.poll() is not None:
            self.captured = self.start_captured()
        until(lambda: not self.lit(), "every light off")
        self.since_ns = time.monotonic_ns()

    def end(self) -> None:
        self.pins.close()
        self.captured.end()
        self.lightd.end()


@contextlib.contextmanager
def running_kiosk(board: Path, state: Path) -> Iterator[Kiosk]:
    kiosk = Kiosk(board, state)
    try:
        yield kiosk
    finally:
        kiosk.end()


def lit(pins: PinReader) -> set[str]:
    """The names of the pins that are high now, by their history."""
    levels: dict[str, float] = {}
    with contextlib.suppress(PinPageError):
        levels = {item.light: item.level for item in pins.history()}
    return {name for name, level in levels.items() if level > 0}


def dark_after(pins: PinReader, since_ns: int) -> float:
    """Wait until all pins are low; how many seconds after `since_ns` (monotonic) the last one fell."""
    until(lambda: not lit(pins), "every light off")
    falls = [item.at_ns for item in pins.history() if item.level == 0]
    return max(0.0, (max(falls, default=since_ns) - since_ns) / 1e9)


def intervals(history: list[Transition], light: str) -> list[float]:
    """How long `light` was high, each time, in seconds."""
    found, since = [], None
    for item in history:
        if item.light == light:
            if item.level > 0 and since is None:
                since = item.at_ns
            elif item.level == 0 and since is not None:
                found.append((item.at_ns - since) / 1e9)
                since = None
    return found


def main() -> None:
    """The `dermakiosk` command with the stand-in for the face networks."""
    from kiosk_app import cli

    with mock.patch.object(cli, "_face_finder", return_value=find_stand_in):
        cli.main()


if __name__ == "__main__":
    main()
