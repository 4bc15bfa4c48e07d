"""Commands of a user whom the system knows no account of, as in a container that is given a user id only."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sync.kiosk.outbox_file import open_file
from tests.support.mosquitto import BOARD, free_port
from tests.support.other_accounts import SOMEBODY, run_without_account


def said(*steps: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    """What commands say, one after the other, by the first two words of each."""
    done = run_without_account([sys.executable, "-m", "kiosk_app.demo.steps"], json.dumps(steps))
    assert (done.returncode, done.stderr) == (0, "")
    lines = map(json.loads, done.stdout.splitlines())
    return {step[:2]: line for step, line in zip(steps, lines, strict=True)}


def test_authority_clinic_and_outbox_are_made_and_asked_by_a_user_without_an_account(tmp_path: Path) -> None:
    authority, clinic, kiosk = (str(tmp_path / name) for name in ("authority", "clinic", "kiosk"))
    of_authority, of_clinic = ("--state", authority), ("--state", clinic)
    broker = ("--out", str(tmp_path / "broker"), "--port", str(free_port()))
    words = said(
        ("provision", "authority", *of_authority),
        ("provision", "broker", *of_authority, *broker),
        ("provision", "role", "ingest-1", *of_authority, "--out", f"{clinic}/ingest"),
        ("provision", "opener", *of_authority, "--out", f"{clinic}/opener"),
        ("provision", "enrol", *of_authority, "--kiosk", kiosk, "--board", str(BOARD)),
        ("provision", "list", *of_authority),
        ("clinic", "migrate", *of_clinic),
        ("clinic", "add-account", "doctor", *of_clinic),
        ("clinic", "quarantine", "list", *of_clinic),
        ("clinic", "status", *of_clinic, "--json", "-"),
    )
    assert "password=" in words["clinic", "add-account"]
    assert json.loads(words["clinic", "status"])["kiosks"] == []
    open_file(Path(kiosk) / "sync" / "outbox.sqlite").close()
    words = said(("sync", "status", "--state", kiosk, "--json"))
    assert json.loads(words["sync", "status"])["waiting"] == 0


def test_whoever_has_no_account_is_known_by_the_number() -> None:
    code = "from sync.clinic.cli_options import who; print(who())"
    done = run_without_account([sys.executable, "-c", code])
    assert (done.stdout, done.stderr) == (f"command:{SOMEBODY}\n", "")
