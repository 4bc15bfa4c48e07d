"""Supervisor: starts parts as processes, watches them, and starts again what ended or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from hardware.host.errors import PlainError
from kiosk_app.demo.heartbeats import Heartbeats

log = structlog.get_logger()

START_S = 60.0
STOP_S = 8.0
ACCEPT_S = 1.0
# A part that cannot say that it lives is asked so often, and has so long to begin to answer.
ASK_S, ANSWER_S = 10.0, 2.0
LOOK_S = 0.05
STEP_S = 120.0
# As the units' RestartSec; a part that ends more often than that is not mended by another start.
RESTART_S = 1.0
RESTARTS, RESTARTS_WITHIN_S = 5, 60.0
# With this status a part asks for a new start: it cannot mend what befell it, and did no wrong.
START_ME_AGAIN = os.EX_TEMPFAIL


class PartFailed(PlainError):
    """A part died or did not become ready; the message says which, and what it said last."""


@dataclass(frozen=True)
class Part:
    """One process: its name, its command line, and the question whether what it logged says ready.

    It says again and again that it lives, as to systemd, and is killed when it falls silent for `watchdog_s`.
    What is not ours says nothing: then `answers` is how it is asked.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[bytes], bool]
    watchdog_s: float = 20.0
    answers: Callable[[], bool] | None = None


def logged_ready(log_text: bytes) -> bool:
    """True once the part has logged its event `ready`."""
    return b'"event": "ready"' in log_text


def accepts(port: int) -> Callable[[bytes], bool]:
    """A readiness question: does something accept connections on this loopback port?"""

    def ready(_: bytes) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=ACCEPT_S).close()
        except OSError:
            return False
        return True

    return ready


def greets(port: int, authority: Path) -> Callable[[], bool]:
    """A question whether it lives: does what listens on this loopback port with TLS say its part of it?

    The kernel accepts a connection for a process that hangs. What `authority`, a file of certificates, does
    not vouch for has answered all the same: another start mends no certificate.
    """

    def answers() -> bool:
        try:
            context = ssl.create_default_context(cafile=str(authority))
            with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as raw:
                context.wrap_socket(raw, server_hostname="127.0.0.1").close()
        except ssl.SSLError:
            return True
        except OSError:
            return False
        return True

    return answers


def free_port(rather: int | None = None, but: Collection[int] = ()) -> int:
    """A loopback port that nobody listens on now, `rather` this one, and none of those in `but`.

    From below the range that the kernel gives to outgoing connections: one of those, made before our part
    listens, would take a port from that range away again.
    """
    for port in (rather, *random.sample(range(20_000, 32_000), 100)):
        if port is None or port in but:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As our servers do: what is left of connections of the start before is nobody's.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise PartFailed("No loopback port is free between 20000 and 32000: stop what listens there.")


class Stopped(PlainError):
    """Somebody wants an end: Ctrl-C or SIGTERM; `exit_status` is the shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__("Stopped.")
        self.exit_status = 128 + number


def stop_on_signals() -> None:
    """From now on Ctrl-C and SIGTERM raise Stopped in the main thread, whatever it is doing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _told_to_stop)


def _told_to_stop(number: int, _: object) -> None:
    _heed_no_stop()
    if _waiting is not None:
        _waiting.append(number)
        return
    raise Stopped(number)


def _heed_no_stop() -> None:
    """Once is enough: the way out must not be interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _told_to_stop:
            signal.signal(number, signal.SIG_IGN)


_waiting: list[int] | None = None  # signals that came while a stop had to wait


@contextlib.contextmanager
def _stop_waits() -> Iterator[None]:
    """Let a stop that comes within this wait for its end: a part that nobody knows of would stay behind."""
    global _waiting
    came: list[int] = []
    _waiting = came
    try:
        yield
    finally:
        _waiting = None
    if came:
        raise Stopped(came[0])


class Supervisor:
    """Starts parts in the order given, watches them, and stops them in reverse order.

    Its user calls `check` or `mend` a few times a second.
    """

    def __init__(self, log_folder: Path) -> None:
        """`log_folder` gets one file a part; those of an earlier run are deleted."""
        log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in log_folder.glob("*.log"):
            old.unlink()
        self._log_folder = log_folder
        self._heartbeats = Heartbeats()
        self._seen: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._parts: dict[str, Part] = {}
        self._due: dict[str, float] = {}
        self._ask_at: dict[str, float] = {}
        self._restarts: dict[str, list[float]] = {}

    def start(self, *parts: Part) -> None:
        """Start `parts` side by side and wait until all of them are ready. Raises PartFailed."""
        for part in parts:
            self._launch(part)
        deadline = time.monotonic() + START_S
        for part in parts:
            while not part.ready(self._log_text(part.name)):
                self.check()
                if time.monotonic() > deadline:
                    late = f"{part.name} was not ready after {START_S:.0f} s"
                    raise PartFailed(f"{late}; see {self._log_file(part.name)}.")
                time.sleep(LOOK_S)

    def _launch(self, part: Part) -> None:
        # The kernel ends the part if this supervisor dies, even by SIGKILL; its own session
        # keeps a Ctrl-C in the terminal for us alone, so that the stop is an orderly one.
        with self._log_file(part.name).open("ab") as output, _stop_waits():
            self._seen[part.name] = output.tell()
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *part.argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | self._heartbeats.environment(part.name, part.watchdog_s),
            )
            self._running[part.name], self._parts[part.name] = process, part
            if part.answers is None:
                self._heartbeats.await_word(part.name, more_s=START_S)
        log.debug("launched", part=part.name, pid=process.pid)

    def _log_file(self, name: str) -> Path:
        return self._log_folder / f"{name}.log"

    def _log_text(self, name: str) -> bytes:
        """What the part has logged since it was launched."""
        return self._log_file(name).read_bytes()[self._seen[name] :]

    def pid(self, name: str) -> int:
        """The process id of a started part."""
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """End one part at once, as a crash would (SIGKILL)."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)

    def kill_all(self) -> None:
        """End every part at once, as a power cut would: none of them can do anything about it."""
        for process in self._running.values():
            _kill_group(process)
        for process in self._running.values():
            process.wait(STOP_S)
        self._running.clear()
        self._due.clear()

    def check(self) -> None:
        """Start again what asked for it (START_ME_AGAIN). Raises PartFailed if any other part has died."""
        self._look(lambda status: status == START_ME_AGAIN)

    def mend(self) -> None:
        """Start again every part that has ended, as systemd would.

        Raises PartFailed for one that has ended too often of late.
        """
        self._look(lambda status: True)

    def _look(self, starts_again: Callable[[int], bool]) -> None:
        self._ask()
        for name in self._heartbeats.silent():
            if name in self._running:
                log.warning("killed_since_silent", part=name)
                _kill_group(self._running[name])
        for name, process in list(self._running.items()):
            status = process.poll()
            if status is None:
                continue
            if not starts_again(status):
                raise PartFailed(self._epitaph(name, status))
            now = time.monotonic()
            if name not in self._due:
                _kill_group(process)
                self._count_restart(name, status, now)
                self._due[name] = now + RESTART_S
            elif now >= self._due[name]:
                del self._due[name]
                self._launch(self._parts[name])

    def _ask(self) -> None:
        """Ask those that cannot say that they live: the first question without an answer begins a silence."""
        for name in self._running:
            answers = self._parts[name].answers
            if answers is None or time.monotonic() < self._ask_at.get(name, 0.0):
                continue
            if answers():
                self._heartbeats.answered(name)
            else:
                self._heartbeats.await_word(name)
            self._ask_at[name] = time.monotonic() + ASK_S

    def _count_restart(self, name: str, status: int, now: float) -> None:
        """Raises PartFailed when this is one too many."""
        log.warning("starts_again", part=name, status=status, asked=status == START_ME_AGAIN)
        since = now - RESTARTS_WITHIN_S
        late = [at for at in self._restarts.get(name, []) if at > since]
        if len(late) >= RESTARTS:
            often = f"{name} was started {RESTARTS} times within {RESTARTS_WITHIN_S:.0f} s to no avail: "
            raise PartFailed(often + self._epitaph(name, status))
        self._restarts[name] = [*late, now]

    def peak_rss_mb(self) -> dict[str, float]:
        """The largest resident memory of each running part so far, in MB (VmHWM of /proc)."""
        peaks = {}
        for name, process in self._running.items():
            if process.poll() is not None:
                continue
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            peaks[name] = round(kib / 1024, 1)
        return peaks

    def stop(self) -> None:
        """Stop every part, the last started first: SIGTERM, and SIGKILL to what has not gone in time.

        A signal that tells us to stop says nothing new from here on: what ended it all is still said.
        """
        _heed_no_stop()
        for name, process in reversed(self._running.items()):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                log.warning("killed", part=name)
            _kill_group(process)
            process.wait(STOP_S)
        self._running.clear()
        self._due.clear()
        self._heartbeats.close()

    def _epitaph(self, name: str, status: int) -> str:
        lines = self._log_text(name).decode(errors="replace").strip().splitlines()
        last = "".join(c for c in lines[-1][:300] if c.isprintable()) if lines else "it said nothing"
        return f"{name} ended with status {status}, so everything was stopped; its last word was: {last}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a part: itself, and whatever it left in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def dermakiosk(*arguments: object) -> list[str]:
    """The command line that runs this installation's own `dermakiosk` with `arguments`."""
    return [str(Path(sys.executable).with_name("dermakiosk")), *map(str, arguments)]


def run_step(*arguments: object) -> str:
    """Run one `dermakiosk` command as `run_steps` does; its stdout."""
    (said,) = run_steps(arguments)
    return said


def run_steps(*steps: Sequence[object]) -> list[str]:
    """Run `dermakiosk` commands one after the other, with absolute paths in them; the stdout of each.

    Raises PartFailed, with its sentence, at the first that fails.
    """
    asked = [[str(argument) for argument in step] for step in steps]
    names = [f"'{' '.join(step[:2])}'" for step in asked]
    try:
        # Its own session: a Ctrl-C is ours to answer, and no step is cut short by it.
        done = subprocess.run(
            [sys.executable, "-m", "kiosk_app.demo.steps"],
            input=json.dumps(asked),
            capture_output=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
            timeout=STEP_S * len(asked),
            check=False,
            start_new_session=True,
            cwd=Path(__file__).parents[2],  # where `-m` looks first
        )
    except subprocess.TimeoutExpired as error:
        raise PartFailed(f"{', '.join(names)} took longer than {error.timeout:g} s") from error
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        reason = words[-1].removeprefix("Error: ") if words else f"it ended with status {done.returncode}"
        # Each that succeeded has its line.
        failed = names[min(len(done.stdout.splitlines()), len(names) - 1)]
        raise PartFailed(f"{failed} failed: {reason}")
    return [str(json.loads(line)) for line in done.stdout.splitlines()]
