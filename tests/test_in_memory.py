"""Where the tests write: nobody else's folder is removed, and none is left in memory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.full_disk import on_a_small_disk
from tests.support.in_memory import PREFIX, OwnFolder, remove_what_killed_runs_left, shared_memory
from tests.support.sources import ROOT

RUN = """
import sys
from pathlib import Path
from tests.support.in_memory import OwnFolder
folder = OwnFolder(Path(sys.argv[1]))
(folder.path / "t").mkdir()
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_run_left_is_removed_and_nothing_that_one_at_work_writes(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}not-ours").mkdir()
    own = OwnFolder(tmp_path)
    (own.path / "mine").touch()
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as another:
        assert another.stdout is not None
        folder = Path(another.stdout.readline().strip())
        for at_work in (True, False):
            remove_what_killed_runs_left(tmp_path)
            assert (folder / "t").exists() is at_work
            another.send_signal(signal.SIGKILL)
            another.wait(60)
    assert (own.path / "mine").exists()
    own.remove()
    assert [path.name for path in tmp_path.iterdir()] == [f"{PREFIX}not-ours"]


NOTHING_RUNS = """
import subprocess
from tests.support import in_memory
in_memory.MEMORY, in_memory.ROOM_BYTES = disk, 0
for how in ("exec", "noexec"):
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)
    print(in_memory.has_room())
"""


def test_memory_where_nothing_can_be_run_is_left_alone(tmp_path: Path) -> None:
    """Tests write there what stands in for programs."""
    assert on_a_small_disk(tmp_path, NOTHING_RUNS) == "True\nFalse\n"


def test_another_run_that_begins_meanwhile_is_no_shared_memory_of_a_demo() -> None:
    before = shared_memory()
    own = OwnFolder()
    try:
        assert own.path.exists()
        assert own.path not in shared_memory() - before
    finally:
        own.remove()
