"""A scan with something broken in it: never two records, never none, and the patient always has a way on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sync.kiosk.client import OutboxClient
from tests.support.secrecy import clear_pictures
from tests.support.system import QUICK, RunningSystem, running_system
from tests.support.visits import Visit, capturing, everything_arrived_once, measuring
from tests.support.waiting import wait_until

DISK_MB = 400
CLINIC_PARTS = ("ingest", "opener", "clinic")


@pytest.fixture(scope="module")
def running(running_with_uv: RunningSystem) -> RunningSystem:
    """With UV: the longest way through a scan."""
    return running_with_uv


def test_a_broker_that_is_absent_delays_the_result_and_loses_nothing(tmp_path: Path) -> None:
    absent = ("broker", *CLINIC_PARTS)
    options, quick = {"sync": ("--resend-first", "1.5")}, {"app": QUICK}
    with running_system(tmp_path, without=absent, extra=options, replace=quick) as running:
        assert Visit(running).end() is None
        outbox = OutboxClient(running.system.kiosk / "run" / "outbox.sock")
        assert outbox.status()["waiting"] == 1
        running.start("broker")
        running.start(*CLINIC_PARTS)
        everything_arrived_once(running)
        wait_until(lambda: outbox.status()["waiting"] == 0, "an empty outbox")


@pytest.mark.parametrize(
    ("part", "moment", "way_on"),
    [
        ("captured", capturing, "again"),
        ("lightd", capturing, "again"),
        ("app", capturing, "again"),
        ("app", measuring, "again"),
        ("sync", measuring, "same visit"),
        ("broker", measuring, "same visit"),
        ("ingest", measuring, "same visit"),
        ("opener", measuring, "same visit"),
    ],
)
def test_a_part_killed_in_a_scan_costs_at_most_a_new_try(
    part: str,
    moment: Callable[[RunningSystem], Callable[[], bool]],
    way_on: str,
    running: RunningSystem,
) -> None:
    before = len(running.clinic_scans())
    reached = moment(running)
    visit = Visit(running)
    wait_until(reached, moment.__name__)
    running.supervisor.kill(part)
    said = visit.end() if way_on == "same visit" else None
    running.start(part)
    if way_on == "again":
        said = visit.end()
        assert said, "the patient was told nothing"
        assert Visit(running).end() is None
    else:
        assert said is None
    everything_arrived_once(running)
    recovered = 2 if moment is measuring and way_on == "again" else 1
    assert len(running.clinic_scans()) == before + recovered
    files = [path for path in running.system.root.rglob("*") if path.is_file()]
    assert clear_pictures(files) == []


@pytest.mark.parametrize("left", [0, 48 * 1024])
def test_a_disk_that_fills_up_in_a_scan_ends_it_with_a_sentence_and_leaves_nothing_half_kept(
    tmp_path: Path, left: int
) -> None:
    """With no byte `left`, or with room for what describes the pictures and for a part of the first one."""
    vault = tmp_path / "kiosk" / "app" / "vault"
    on_a_small_disk = (
        *("unshare", "--mount", "--map-root-user", "sh", "-c"),
        f'mkdir -p "$0" && mount -t tmpfs -o size={DISK_MB}m,mode=700 tmpfs "$0" && exec "$@"',
        *(str(vault), *QUICK),
    )
    with running_system(tmp_path, replace={"app": on_a_small_disk}) as running:
        inside = Path(f"/proc/{running.supervisor.pid('app')}/root{vault}")
        something_else = inside / "something-else"

        def fill_up() -> None:
            with something_else.open("ab", buffering=0) as file:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(1 << 20))
                file.truncate(file.tell() - left)
            assert room(inside) == left

        # The scan has begun with room enough; the camera is asked once the disk is full, however fast it is.
        said = Visit(running, fill_up, "/position").end()
        assert said is not None
        assert "no room" in said
        assert list(inside.iterdir()) == [something_else]
        assert room(inside) == left
        assert running.clinic_scans() == []

        said = Visit(running).end()
        assert said is not None, "no scan is begun that cannot be kept"
        assert "no room" in said or "full" in said

        something_else.unlink()
        assert Visit(running).end() is None
        everything_arrived_once(running)
        assert len(running.clinic_scans()) == 1


def room(folder: Path) -> int:
    """How many bytes the disk of the folder still takes."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
