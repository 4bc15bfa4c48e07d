"""The services of the clinic's server that the document shows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sync.clinic.cli import STOP_S
from sync.clinic.receiving.handing_over import HAND_OVER_S
from sync.clinic.receiving.opener import LAST_SCRUB_S
from sync.clinic.store.engine import DEADLINES
from tests.support.documents import document

UNIT = re.compile(r"^```ini\n(.*?)^```", re.M | re.S)
ROW = re.compile(r"^\| `clinic (\w+)` \| ((?:`[\w.]+` ?)+)\| (\d+) \|$", re.M)
OURS = "/opt/dermakiosk/.venv/bin/dermakiosk"
STATE = "/var/lib/dermakiosk-clinic"
# Whose each secret in the state folder is.
SECRETS = {"opener": "open", "ingest": "ingest", "web": "serve", "auditor": "tap", "broker.json": "ingest"}


def units() -> dict[str, str]:
    """The unit of each command, put together as the document says."""
    text = document("sync/docs/running-a-clinic.md").text
    unit, closed = UNIT.findall(text)
    rows = {
        command: (f"clinic {command} ", hidden(re.findall(r"`([\w.]+)`", names)), f"CPUWeight={weight}\n")
        for command, names, weight in ROW.findall(text)
    }
    shown = rows["ingest"]
    assert [unit.count(part) for part in shown] == [1, 1, 1]
    open_ = {command: with_parts(unit, shown, parts) for command, parts in rows.items()}
    return {
        command: text if command == "ingest" else text.replace("\n[Install]", f"{closed}\n[Install]")
        for command, text in open_.items()
    }


def with_parts(unit: str, shown: Sequence[str], parts: Sequence[str]) -> str:
    for before, after in zip(shown, parts, strict=True):
        unit = unit.replace(before, after)
    return unit


def hidden(names: list[str]) -> str:
    return "InaccessiblePaths=" + " ".join(f"-{STATE}/{name}" for name in names) + "\n"


def settings_of(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", unit, re.M))


def test_each_of_the_four_has_a_unit() -> None:
    assert sorted(units()) == ["ingest", "open", "serve", "work"]


@pytest.mark.parametrize("command", ["ingest", "open", "serve", "work"])
def test_a_unit_is_one_of_systemds_and_waits_longer_than_any_step(tmp_path: Path, command: str) -> None:
    text = units()[command]
    settings = settings_of(text)
    assert settings["Type"] == "notify" and settings["NotifyAccess"] == "main"
    assert settings["Restart"] == "always"
    gone_s = DEADLINES["connect_timeout"] + DEADLINES["tcp_user_timeout"] / 1000
    minutes = int(settings["WatchdogSec"].removesuffix("min"))
    assert minutes * 60 > gone_s * 1.25
    assert max(HAND_OVER_S, LAST_SCRUB_S) < STOP_S
    assert int(settings["TimeoutStopSec"].removesuffix("s")) > 1.25 * STOP_S
    unit = tmp_path / f"dermakiosk-clinic-{command}.service"
    unit.write_text(text.replace(OURS, "/bin/true"))
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["ingest", "open", "serve", "work"])
def test_no_service_reaches_the_keys_of_another(command: str) -> None:
    settings = settings_of(units()[command])
    assert f" clinic {command} --state {STATE}" in settings["ExecStart"]
    others = {f"-{STATE}/{name}" for name, owner in SECRETS.items() if owner != command}
    assert set(settings["InaccessiblePaths"].split()) == others
    # Else processes of one user look into each other by /proc, where nothing is hidden.
    assert settings["PrivateUsers"] == "yes"


@pytest.mark.parametrize("command", ["ingest", "open", "serve", "work"])
def test_keys_and_results_reach_neither_a_core_file_nor_a_swap(command: str) -> None:
    settings = settings_of(units()[command])
    assert (settings["LimitCORE"], settings["MemorySwapMax"]) == ("0", "0")


def test_only_the_way_to_the_broker_leads_out_of_the_machine() -> None:
    ways = {command: settings_of(unit) for command, unit in units().items()}
    assert {
        command: (settings.get("IPAddressDeny"), settings.get("IPAddressAllow"))
        for command, settings in ways.items()
    } == {
        "ingest": (None, None),
        "open": ("any", "localhost"),
        "serve": ("any", "localhost"),
        "work": ("any", "localhost"),
    }


def test_a_backlog_leaves_the_pages_three_times_its_share_of_the_processors() -> None:
    weights = {command: int(settings_of(unit)["CPUWeight"]) for command, unit in units().items()}
    assert weights == {"ingest": 33, "open": 33, "serve": 100, "work": 100}
