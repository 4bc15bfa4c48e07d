"""`dermakiosk demo` until it is told to stop: what it prints, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from firmware.capture.client import CaptureClient, CaptureFault
from hardware.board import BOARDS
from kiosk_app.demo.patient import DemoPatient, JourneyBroken
from tests.support.in_memory import shared_memory
from tests.support.system import small_system_board
from tests.support.waiting import wait_until
from tests.system.conftest import DERMAKIOSK, dermakiosk

# In the environment of a demo and of all that it starts: the folder it works in.
MARK = "DEMO_OF_A_TEST"


def marked(folder: Path) -> dict[str, str]:
    return os.environ | {MARK: str(folder)}


@contextmanager
def running_demo(
    state: Path, places: Mapping[str, Path] | None = None, simulation: str = ""
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command as a person runs it, once it has printed both addresses.

    `places` are the folders to use as `home`, `work` (current folder) and `tmp`.
    """
    board = small_system_board(state.with_name("board"), simulation)
    environment = marked(state)
    if places:
        environment |= {"HOME": str(places["home"]), "TMPDIR": str(places["tmp"])}
    process = subprocess.Popen(
        [DERMAKIOSK, "demo", "--state", str(state), "--board", str(board)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=places["work"] if places else None,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        addresses = {}
        for line in process.stdout:
            name, _, address = line.strip().partition("=")
            addresses[name] = address
            if {"kiosk", "clinic"} <= set(addresses):
                break
        yield process, addresses
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that a demo in the folder has started, except this one.

    Its command line names the folder, or it has the demo's environment: what a part starts need not name any.
    """
    names_it = re.compile(rf"{re.escape(str(folder))}(?![\w.-])").search
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or ()
        if process.pid != os.getpid() and any(
            map(names_it, (*words, (process.info["environ"] or {}).get(MARK, "")))
        ):
            found.append(process)
    return found


def everything_ended(state: Path) -> None:
    """Once the demo has ended, so has all that it started: nothing is waited for."""
    assert not [process for process in processes_of(state) if process.status() != psutil.STATUS_ZOMBIE]


def is_another_ones(file: Path, folder: Path) -> bool:
    """Whether a living process uses it that is none of the demo's in the folder."""
    ours = {process.pid for process in processes_of(folder)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mapped = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            if process.pid not in ours and any(line.split(maxsplit=5)[5:] == [str(file)] for line in mapped):
                return True
    return not file.exists()


def test_a_process_that_a_demo_left_behind_is_found_and_excuses_nothing(tmp_path: Path) -> None:
    """It names no folder; what it maps begins with the name of what another process maps."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="dk") as file:
        file.write(bytes(4096))
        file.flush()
        short = Path(file.name[:-1])
        short.write_bytes(bytes(4096))
        hold = (
            "import mmap, sys; file = open(sys.argv[1], 'r+b'); kept = mmap.mmap(file.fileno(), 0); "
            "print(flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", hold, file.name],
            env=marked(tmp_path / "demo"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as left:
            assert left.stdout is not None
            assert left.stdout.readline() == b"\n"
            try:
                assert [process.pid for process in processes_of(tmp_path / "demo")] == [left.pid]
                assert processes_of(tmp_path / "dem") == processes_of(tmp_path / "other") == []
                with pytest.raises(AssertionError):
                    everything_ended(tmp_path)
                assert not is_another_ones(Path(file.name), tmp_path / "demo")
                assert is_another_ones(Path(file.name), tmp_path / "other")
                assert not is_another_ones(short, tmp_path / "other")
            finally:
                short.unlink()
                left.kill()


def test_signals_stop_every_part_leave_nothing_outside_the_folder_and_a_second_start_goes_on(
    tmp_path: Path,
) -> None:
    """Home, working directory and temporary files are folders that must stay empty; shared memory too."""
    elsewhere = {name: tmp_path / name for name in ("home", "work", "tmp")}
    for folder in elsewhere.values():
        folder.mkdir()
    memory_before = shared_memory()
    identities, starts = [], []
    for number in (signal.SIGINT, signal.SIGTERM):
        with running_demo(tmp_path / "demo", elsewhere) as (process, addresses):
            for name in ("kiosk", "clinic"):
                with browser().open(addresses[name], timeout=60) as page:
                    assert page.status == 200
            assert len(processes_of(tmp_path / "demo")) >= 9
            if not identities:
                second = dermakiosk("demo", "--state", tmp_path / "demo")
                assert second.returncode == 2
                assert "Another demo runs" in second.stderr
            process.send_signal(number)
            assert process.wait(60) == 0
        everything_ended(tmp_path / "demo")
        starts.append((addresses["clinic"], next(line for line in addresses if "password" in line)))
        identities.append((tmp_path / "demo" / "kiosk" / "identity.json").read_bytes())
    left = [path for folder in elsewhere.values() for path in folder.rglob("*") if path.is_file()]
    assert left == []
    assert not {left for left in shared_memory() - memory_before if not is_another_ones(left, tmp_path)}
    assert identities[0] == identities[1]
    assert starts[0] == starts[1], "the clinic's address and account are those of the start before"


def headless(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [DERMAKIOSK, "demo", "--once", "--out", str(out), "--board", str(small_system_board(out.parent))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=marked(out),
        start_new_session=True,
    )


def test_a_scan_cut_short_ends_at_once_wherever_it_is_and_the_folder_can_be_used_again(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    for reached, number in (("authority/root.key", signal.SIGINT), ("kiosk/app/vault/*", signal.SIGTERM)):
        process = headless(out)
        wait_until(lambda name=reached: bool(list(out.glob(name))), reached)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert processes_of(out) == []


def test_a_part_that_dies_in_a_headless_scan_ends_it_and_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = headless(out)
    wait_until(lambda: bool(list((out / "kiosk" / "app" / "vault").glob("*"))), "pictures in the vault")
    victim = next(p for p in processes_of(out) if "ingest" in p.cmdline())
    victim.kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "ingest ended" in said
    assert processes_of(out) == []


def pids_of(state: Path, part: str) -> set[int]:
    """The part's own processes; a process that is just ending has no command line."""
    found = set()
    for process in processes_of(state):
        with contextlib.suppress(psutil.Error):
            if any(part in word for word in process.cmdline()):
                found.add(process.pid)
    return found


def test_a_part_that_dies_is_started_again_and_the_demo_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "demo"
    with running_demo(state) as (process, addresses):
        for part in ("lightd", "mosquitto"):
            before = pids_of(state, part)
            os.kill(min(before), signal.SIGKILL)
            wait_until(lambda part=part, old=before: bool(pids_of(state, part) - old), f"another {part}")
        assert process.poll() is None
        DemoPatient(addresses["kiosk"]).walk()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    everything_ended(tmp_path)


def test_a_capture_daemon_with_a_frozen_camera_is_started_again_and_the_demo_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "demo"
    with running_demo(state, simulation="camera_freezes_after = 0") as (process, addresses):
        before = pids_of(state, "captured")
        for _ in range(2):
            with pytest.raises(JourneyBroken, match="The camera did not answer"):
                DemoPatient(addresses["kiosk"]).walk()
        wait_until(lambda: bool(pids_of(state, "captured") - before), "another capture daemon")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    everything_ended(tmp_path)


def test_a_power_cut_on_request_ends_every_part_and_starts_all_of_them_anew(tmp_path: Path) -> None:
    state = tmp_path / "demo"
    with running_demo(state) as (process, addresses):
        before = {p.pid for p in processes_of(state)} - {process.pid}
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: not before & {p.pid for p in processes_of(state)}, "every part gone")
        wait_until(lambda: len(processes_of(state)) > len(before), "every part back")
        wait_until(lambda: serves(state, addresses["kiosk"]), "a kiosk that serves")
        DemoPatient(addresses["kiosk"]).walk()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    everything_ended(tmp_path)


def test_a_power_cut_while_the_demo_starts_does_not_end_it(tmp_path: Path) -> None:
    state, said = tmp_path / "demo", tmp_path / "said"
    with said.open("w") as errors:
        process = subprocess.Popen(
            [DERMAKIOSK, "demo", "--state", str(state)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=marked(state),
        )
    wait_until(lambda: (state / "authority" / "root.key").exists(), "the first of what is made")
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: process.poll() is not None or "power failed" in said.read_text(), "the power cut")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    everything_ended(tmp_path)


def browser() -> urllib.request.OpenerDirector:
    """What keeps cookies, as the kiosk's door wants it."""
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor())


def serves(state: Path, address: str) -> bool:
    """Whether the kiosk's page is there, and its camera behind it."""
    try:
        CaptureClient(state / "kiosk" / "run" / "capture.sock", timeout=60).status()
        with browser().open(address, timeout=60) as page:
            return bool(page.status == 200)
    except (OSError, CaptureFault):
        return False


def test_a_real_board_is_no_demo(tmp_path: Path) -> None:
    done = dermakiosk("demo", "--state", tmp_path / "demo", "--board", BOARDS / "raspberrypi5.toml")
    assert done.returncode == 2
    assert "not a simulated board" in done.stderr
    assert not (tmp_path / "demo").exists()


def test_a_supervisor_killed_outright_takes_its_parts_along(tmp_path: Path) -> None:
    with running_demo(tmp_path / "demo") as (process, _):
        process.kill()
        process.wait(60)
        wait_until(lambda: processes_of(tmp_path) == [], "every part gone")
