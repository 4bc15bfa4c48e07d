from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sync.clinic.cli import clinic
from sync.clinic.database import Database
from sync.clinic.errors import ClinicError, ClinicUsageError
from sync.clinic.intake import take_envelope
from sync.wire.keys import dump_opening_keys, generate_opening_key
from tests.support.clinic import SealingKiosk

WAIT_SECONDS = 30.0


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(clinic, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_from_an_empty_folder_to_a_registered_kiosk_and_an_account(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "clinic")
    kiosk = SealingKiosk(generate_opening_key())
    entry = tmp_path / "kiosk.json"
    entry.write_text(json.dumps(kiosk.registry_entry("Kiosk by the door")))
    assert "revision" in run("migrate", *state).output
    assert str(kiosk.id) in run("register-kiosk", entry, *state).output
    lines = run("add-account", "ann", *state).output.splitlines()
    assert lines[0] == "account=ann" and lines[1].startswith("password=")
    counts = json.loads(run("status", "--json", "-", *state).output)
    assert counts["kiosks"] == [
        {
            "kiosk": str(kiosk.id),
            "name": "Kiosk by the door",
            "last_seen": None,
            "waiting_there": None,
            "missing": 0,
        }
    ]
    assert "never heard" in run("status", *state).output


@pytest.mark.parametrize("command", [("status",), ("add-account", "ann"), ("serve",)])
def test_before_the_migration_every_command_names_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(ClinicError, match="clinic migrate"):
        run(*command, "--state", tmp_path)


def test_missing_sequence_numbers_are_counted_in_each_epoch(tmp_path: Path) -> None:
    state = tmp_path / "clinic"
    database = Database.at(state)
    database.migrate()
    kiosk = SealingKiosk(generate_opening_key())
    entry = tmp_path / "kiosk.json"
    entry.write_text(json.dumps(kiosk.registry_entry()))
    run("register-kiosk", entry, "--state", state)
    with database.writing() as session:
        for epoch, sequence in ((1, 1), (1, 4), (2, 1), (2, 2)):
            data = kiosk.seal(epoch=epoch, sequence=sequence)
            take_envelope(session, kiosk.id, data, "ingest-1")
    counts = json.loads(run("status", "--json", "-", "--state", state).output)
    assert counts["kiosks"][0]["missing"] == 2
    assert counts["envelopes"] == {"stored": 4, "opened": 0, "quarantined": 0}
    assert counts["receipts_unsent"] == 4


def test_pages_without_tls_are_for_loopback_only(tmp_path: Path) -> None:
    run("migrate", "--state", tmp_path)
    with pytest.raises(ClinicUsageError, match="--behind-tls"):
        run("serve", "--host", "0.0.0.0", "--state", tmp_path)


@pytest.mark.parametrize("command", ["serve", "open"])
def test_a_daemon_says_ready_and_stops_at_a_word(tmp_path: Path, command: str) -> None:
    run("migrate", "--state", tmp_path)
    (tmp_path / "opener").mkdir()
    (tmp_path / "opener" / "opening.key").write_bytes(dump_opening_keys([generate_opening_key()]))
    options = ["--port", "0"] if command == "serve" else []
    process = subprocess.Popen(
        [sys.executable, "-c", "from kiosk_app.cli import main; main()", "clinic", command]
        + ["--state", str(tmp_path), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        ready = json.loads(process.stderr.readline())
        assert ready["event"] == "ready"
        if command == "serve":
            address = f"http://127.0.0.1:{ready['port']}/healthz"
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert json.load(answer) == {"ok": True}
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
        assert time.monotonic() - asked < 5
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
