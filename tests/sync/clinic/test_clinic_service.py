"""The service of the clinic's server that the document shows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from sync.clinic.store.engine import DEADLINES
from tests.support.documents import document

UNIT = re.compile(r"^```ini\n(.*?)^```", re.M | re.S)
OURS = "/opt/dermakiosk/.venv/bin/dermakiosk"


def test_the_unit_that_is_shown_is_one_of_systemds_and_waits_longer_than_any_step(tmp_path: Path) -> None:
    (text,) = UNIT.findall(document("sync/docs/running-a-clinic.md").text)
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
    assert settings["Type"] == "notify" and settings["NotifyAccess"] == "main"
    assert settings["Restart"] == "always" and settings["LimitCORE"] == "0"
    gone_s = DEADLINES["connect_timeout"] + DEADLINES["tcp_user_timeout"] / 1000
    minutes = int(settings["WatchdogSec"].removesuffix("min"))
    assert minutes * 60 > gone_s * 1.25
    unit = tmp_path / "dermakiosk-clinic-ingest.service"
    unit.write_text(text.replace(OURS, "/bin/true"))
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
