"""Whose the broker is: the user who makes it, whatever the environment says, account or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mosquitto import running_broker
from tests.support.mqtt import connected

SOMEBODY = 54_321  # a user id without an account


def test_a_broker_starts_for_root_who_came_by_su(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    with running_broker(tmp_path / "the 1st system, 100 % ours") as broker:
        folder = tmp_path / "kiosk"
        kiosk = broker.enrol(folder)
        with connected(broker, broker.ingest) as ingest, connected(broker, folder / "sync") as client:
            ingest.subscribe("clinic/v1/+/up/result")
            assert client.publish(f"clinic/v1/{kiosk}/up/result", b"sealed") == 0


def test_a_broker_starts_for_a_user_without_an_account(tmp_path: Path) -> None:
    command = ["unshare", "--user", f"--map-user={SOMEBODY}", f"--map-group={SOMEBODY}"]
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.support.mosquitto import running_broker\n"
        "with running_broker(Path(sys.argv[1])):\n"
        "    print(os.geteuid())\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "LOGNAME", "USER")
    }
    done = subprocess.run(
        [*command, sys.executable, "-c", code, str(tmp_path / "system")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(SOMEBODY)]
