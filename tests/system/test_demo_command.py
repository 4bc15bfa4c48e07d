"""`dermakiosk demo` until it is told to stop: what it prints, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from firmware.capture_client import CaptureClient, CaptureFault
from hardware.board import BOARDS
from kiosk_app.demo.patient import JourneyBroken, Patient
from tests.support.system import small_system_board
from tests.support.waiting import wait_until

from .conftest import DERMAKIOSK, dermakiosk


@contextmanager
def running_demo(
    state: Path, places: Mapping[str, Path] | None = None, simulation: str = ""
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command as a person runs it, once it has printed both addresses.

    `places` are the folders to use as `home`, `work` (current folder) and `tmp`.
    """
    board = small_system_board(state, simulation)
    environment = dict(os.environ)
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
            process.wait(10)


def processes_of(state: Path) -> list[psutil.Process]:
    """Every process that has the folder in its command line, except this one."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(str(state) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def everything_ended(state: Path) -> None:
    """Once the demo has ended, so has all that has the folder in its command line: nothing is waited for."""
    assert not [process for process in processes_of(state) if process.status() != psutil.STATUS_ZOMBIE]


def shared_memory() -> set[Path]:
    """The files of shared memory that are this user's."""
    return {file for file in Path("/dev/shm").iterdir() if is_mine(file)}


def is_mine(file: Path) -> bool:
    try:
        return file.lstat().st_uid == os.geteuid()
    except FileNotFoundError:  # another test's, which has ended
        return False


def is_mapped(file: Path) -> bool:
    """Whether a living process uses it; what a part of the demo left behind, none does."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if str(file) in Path(f"/proc/{process.pid}/maps").read_text():
                return True
    return not file.exists()


def test_signals_stop_every_part_leave_nothing_outside_the_folder_and_a_second_start_goes_on(
    tmp_path: Path,
) -> None:
    """Home, working directory and temporary files are folders that must stay empty; shared memory too."""
    elsewhere = {name: tmp_path / name for name in ("home", "work", "tmp")}
    for folder in elsewhere.values():
        folder.mkdir()
    memory_before = shared_memory()
    identities = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with running_demo(tmp_path / "demo", elsewhere) as (process, addresses):
            for name in ("kiosk", "clinic"):
                with browser().open(addresses[name], timeout=10) as page:
                    assert page.status == 200
            assert len(processes_of(tmp_path / "demo")) >= 9
            if not identities:
                second = dermakiosk("demo", "--state", tmp_path / "demo")
                assert second.returncode == 2
                assert "Another demo runs" in second.stderr
            process.send_signal(number)
            assert process.wait(30) == 0
        everything_ended(tmp_path / "demo")
        identities.append((tmp_path / "demo" / "kiosk" / "identity.json").read_bytes())
    left = [path for folder in elsewhere.values() for path in folder.rglob("*") if path.is_file()]
    assert left == []
    assert not {left for left in shared_memory() - memory_before if not is_mapped(left)}
    assert identities[0] == identities[1]


def headless(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [DERMAKIOSK, "demo", "--once", "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
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
        assert process.wait(20) == 128 + number
        assert processes_of(out) == []


def test_a_part_that_dies_in_a_headless_scan_ends_it_and_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = headless(out)
    wait_until(lambda: bool(list((out / "kiosk" / "app" / "vault").glob("*"))), "pictures in the vault")
    victim = next(p for p in processes_of(out) if "ingest" in p.cmdline())
    victim.kill()
    _, said = process.communicate(timeout=60)
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
        Patient(addresses["kiosk"]).walk()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    everything_ended(tmp_path)


def test_a_capture_daemon_with_a_frozen_camera_is_started_again_and_the_demo_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "demo"
    with running_demo(state, simulation="camera_freezes_after = 0") as (process, addresses):
        before = pids_of(state, "captured")
        for _ in range(2):
            with pytest.raises(JourneyBroken, match="The camera did not answer"):
                Patient(addresses["kiosk"]).walk()
        wait_until(lambda: bool(pids_of(state, "captured") - before), "another capture daemon")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    everything_ended(tmp_path)


def test_a_power_cut_on_request_ends_every_part_and_starts_all_of_them_anew(tmp_path: Path) -> None:
    state = tmp_path / "demo"
    with running_demo(state) as (process, addresses):
        before = {p.pid for p in processes_of(state)} - {process.pid}
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: not before & {p.pid for p in processes_of(state)}, "every part gone")
        wait_until(lambda: len(processes_of(state)) > len(before), "every part back")
        wait_until(lambda: serves(state, addresses["kiosk"]), "a kiosk that serves")
        Patient(addresses["kiosk"]).walk()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    everything_ended(tmp_path)


def test_a_power_cut_while_the_demo_starts_does_not_end_it(tmp_path: Path) -> None:
    state, said = tmp_path / "demo", tmp_path / "said"
    with said.open("w") as errors:
        process = subprocess.Popen(
            [DERMAKIOSK, "demo", "--state", str(state)], stdout=subprocess.DEVNULL, stderr=errors
        )
    wait_until(lambda: (state / "authority" / "root.key").exists(), "the first of what is made")
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: process.poll() is not None or "power failed" in said.read_text(), "the power cut")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    everything_ended(tmp_path)


def browser() -> urllib.request.OpenerDirector:
    """What keeps cookies, as the kiosk's door wants it."""
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor())


def serves(state: Path, address: str) -> bool:
    """Whether the kiosk's page is there, and its camera behind it."""
    try:
        CaptureClient(state / "kiosk" / "run" / "capture.sock", timeout=2).status()
        with browser().open(address, timeout=5) as page:
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
        process.wait(10)
        wait_until(lambda: processes_of(tmp_path) == [], "every part gone", 15)
