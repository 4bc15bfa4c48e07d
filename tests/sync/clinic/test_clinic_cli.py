from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from sync.clinic import cli
from sync.clinic.cli import clinic
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.tables import (
    DISCARDED,
    ERASED,
    OPENED,
    QUARANTINED,
    RESEAL,
    STORED,
    Kiosk,
    Poison,
)
from sync.clinic.summary import as_text, summary
from sync.clinic.work.worker import Worker
from sync.wire.keys import dump_opening_keys, generate_opening_key
from tests.support.clinic import SealingKiosk, hold, miss, registered
from tests.support.waiting import unless_held_up
from tests.support.withdrawing import arrive, withdraw

WAIT_S = 60.0


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


ODD_NAMES = ["Kiosk\nquarantined       0", "\x1b[2J", "door\u202erood", "", "x" * 121, "\u2028", "\xad"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_kiosk_is_registered_by_the_names_that_it_can_be_enrolled_with(tmp_path: Path, name: str) -> None:
    state = ("--state", tmp_path / "clinic")
    run("migrate", *state)
    entry = tmp_path / "kiosk.json"
    entry.write_text(json.dumps(SealingKiosk(generate_opening_key()).registry_entry(name)))
    with pytest.raises(ClinicUsageError, match="is no file of an enrolled kiosk"):
        run("register-kiosk", entry, *state)
    assert json.loads(run("status", "--json", "-", *state).output)["kiosks"] == []


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if 0 < len(name) <= 120])
def test_a_name_that_an_older_version_took_steers_no_terminal(tmp_path: Path, name: str) -> None:
    state = ("--state", tmp_path)
    run("migrate", *state)
    database = Database.existing(tmp_path)
    kiosk = SealingKiosk(generate_opening_key())
    row = Poison(id=1, kiosk=kiosk.id, sha256=b"s", data=b"x", topic=name[:64], reason="x", received_at=now())
    with database.writing() as session:
        session.add_all([Kiosk(id=kiosk.id, name=name, registered_at=now()), row])
    database.close()
    for command in (("status",), ("quarantine", "list"), ("quarantine", "show", "1")):
        lines = run(*command, *state).output.removesuffix("\n").split("\n")
        assert all(line.isprintable() for line in lines)
        assert "quarantined       0" not in lines


def test_a_missing_key_is_in_the_status_until_it_is_retired(tmp_path: Path) -> None:
    state = ("--state", tmp_path)
    run("migrate", *state)
    database = Database.existing(tmp_path)
    lost = generate_opening_key()
    hold(database, lost)
    miss(database, generate_opening_key())
    database.close()
    name = lost.kid.hex()
    assert json.loads(run("status", "--json", "-", *state).output)["opening_keys_missing"] == [name]
    assert f"OPENING KEY MISSING  {name}" in run("status", *state).output
    assert name in run("retire-key", name, *state).output
    assert "MISSING" not in run("status", *state).output
    with pytest.raises(ClinicUsageError, match="is missing: 'dermakiosk clinic status'"):
        run("retire-key", name, *state)


@pytest.mark.parametrize("command", [("status",), ("add-account", "ann"), ("serve",)])
def test_before_the_migration_every_command_names_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(ClinicError, match="clinic migrate"):
        run(*command, "--state", tmp_path)


def test_what_nobody_will_ever_read_is_in_the_status_with_what_to_do_until_it_is_discarded(
    tmp_path: Path,
) -> None:
    state = ("--state", tmp_path / "clinic")
    run("migrate", *state)
    database = Database.existing(tmp_path / "clinic")
    lost, found = generate_opening_key(), generate_opening_key()
    kiosk = registered(database, SealingKiosk(lost), tmp_path)
    hold(database, lost)
    miss(database, found)
    message = arrive(database, kiosk, withdraw(uuid4()))
    assert "GIVEN UP" not in run("status", *state).output
    run("retire-key", lost.kid.hex(), *state)
    assert "GIVEN UP          1 envelope sealed to a key" in run("status", *state).output
    assert "clinic quarantine discard" in run("status", *state).output
    run("quarantine", "discard", message, "--reason", "sealed again", "--yes", *state)
    assert "GIVEN UP" not in run("status", *state).output
    database.close()


def test_nobody_is_told_to_discard_what_a_kiosk_let_go_of_before_its_key_was_lost(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "clinic")
    run("migrate", *state)
    database = Database.existing(tmp_path / "clinic")
    lost, found = generate_opening_key(), generate_opening_key()
    kiosk = registered(database, SealingKiosk(lost), tmp_path)
    hold(database, lost)
    arrive(database, kiosk, withdraw(uuid4()))  # its receipt says that it is stored
    miss(database, found)
    run("retire-key", lost.kid.hex(), *state)
    Opener(database, [found]).begin()
    while Opener(database, [found]).open_next():
        pass
    said = run("status", *state).output
    assert "GIVEN UP" not in said
    assert "ONLY COPY         1 envelope sealed to a key" in said
    assert "opener/opening.key" in said
    database.close()


@pytest.mark.parametrize("state", [STORED, OPENED, QUARANTINED, ERASED, DISCARDED, RESEAL])
def test_the_status_counts_an_envelope_whatever_became_of_it(sqlite: Database, state: str) -> None:
    with sqlite.reading() as session:
        counts = summary(session)
    assert counts["envelopes"][state] == 0
    counts["envelopes"][state] = 1234
    assert as_text(counts).count("1234") == 1


def test_missing_sequence_numbers_are_counted_in_each_epoch(tmp_path: Path) -> None:
    state = tmp_path / "clinic"
    database = Database.at(state)
    database.migrate()
    kiosk = SealingKiosk(generate_opening_key())
    entry = tmp_path / "kiosk.json"
    entry.write_text(json.dumps(kiosk.registry_entry()))
    run("register-kiosk", entry, "--state", state)
    hold(database, kiosk.opening)
    with database.writing() as session:
        for epoch, sequence in ((1, 1), (1, 4), (2, 1), (2, 2)):
            data = kiosk.seal(epoch=epoch, sequence=sequence)
            take_envelope(session, kiosk.id, "result", data, "ingest-1")
    counts = json.loads(run("status", "--json", "-", "--state", state).output)
    assert counts["kiosks"][0]["missing"] == 2
    assert {state: count for state, count in counts["envelopes"].items() if count} == {"stored": 4}
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
    argv = [sys.executable, "-c", "from kiosk_app.cli import main; main()", "clinic", command]
    argv += ["--state", str(tmp_path), *options]
    unless_held_up(lambda: says_ready_and_stops(argv, command))


def says_ready_and_stops(argv: list[str], command: str) -> None:
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        ready = json.loads(process.stderr.readline())
        assert ready["event"] == "ready"
        lower = cli._BEHIND_PAGES if command == "open" else 0
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(ours + lower, 19)
        if command == "serve":
            address = f"http://127.0.0.1:{ready['port']}/healthz"
            with urllib.request.urlopen(address, timeout=WAIT_S) as answer:
                assert json.load(answer) == {"ok": True}
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
        assert time.monotonic() - asked < 5
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(("command", "works"), [("work", Worker), ("open", Opener)])
def test_a_process_hears_a_stop_before_it_says_that_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, works: type[Any]
) -> None:
    state, told = tmp_path / "clinic", dict[str, list[str]]()
    run("migrate", "--state", state)
    (state / "opener").mkdir()
    (state / "opener" / "opening.key").write_bytes(dump_opening_keys([generate_opening_key()]))
    for for_a_whole_process in ("_settle", "_let_pages_go_first"):
        monkeypatch.setattr(cli, for_a_whole_process, lambda: None)
    with capture_logs() as log:

        def so_far(step: str) -> None:
            told[step] = [line["event"] for line in log]

        monkeypatch.setattr(cli, "_stop_on_signal", lambda: so_far("hears"))
        monkeypatch.setattr(works, "run", lambda *_: so_far("works"))
        run(command, "--state", state)
    assert told == {"hears": [], "works": ["ready"]}


def test_where_no_process_may_step_back_the_backlog_is_worked_off_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(_: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "nice", forbidden)
    cli._let_pages_go_first()


@pytest.mark.parametrize(
    "command",
    [("status",), ("open",), ("serve",), ("ingest",), ("add-account", "ann"), ("register-kiosk", "f")],
)
@pytest.mark.parametrize("with_url", [False, True])
def test_a_mistyped_state_is_refused_and_nothing_is_made(
    tmp_path: Path, command: tuple[str, ...], with_url: bool
) -> None:
    state = tmp_path / "clinik"
    (tmp_path / "role").mkdir()
    (tmp_path / "broker.json").write_text('{"host": "127.0.0.1", "port": 1, "share": "s"}')
    database = ("--db", f"sqlite:///{tmp_path}/x.sqlite") if with_url else ()
    with pytest.raises(ClinicUsageError, match="There is no clinic at .*clinic migrate --state") as refused:
        run(*command, "--state", state, *database)
    assert refused.value.exit_status == 2
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broker.json", "role"]


def test_a_mistyped_database_url_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    run("migrate", "--state", tmp_path / "clinic")
    with pytest.raises(ClinicUsageError, match="no clinic at"):
        run("status", "--state", tmp_path / "clinic", "--db", f"sqlite:///{tmp_path}/x.sqlite")
    assert not (tmp_path / "x.sqlite").exists()


def test_a_state_that_cannot_be_made_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for state in ("/proc/clinic", tmp_path / ("x" * 300)):
        with pytest.raises(ClinicUsageError, match="cannot be made .*: name another --state"):
            run("migrate", "--state", state)
        with pytest.raises(ClinicUsageError):
            run("status", "--state", state)


@pytest.mark.parametrize("command", ["status", "migrate"])
def test_a_database_server_that_is_away_is_told_in_one_line_without_the_password(
    tmp_path: Path, command: str
) -> None:
    url = "postgresql://nobody:127.0.0.1@127.0.0.1:1/x"
    with pytest.raises(ClinicError) as failed:
        run(command, "--state", tmp_path, "--db", url)
    sentence = str(failed.value)
    assert sentence.startswith("The clinic's database cannot be")
    # The password here is what the driver says anyway.
    assert "127.0.0.1" not in sentence and "\n" not in sentence
    assert not sentence.endswith("?.")


@pytest.mark.parametrize("proxy", ["proxy.example", "*", "10.0.0.0/8", "10.0.0.1:443", ""])
def test_a_proxy_that_is_no_address_is_refused_before_anybody_is_believed(tmp_path: Path, proxy: str) -> None:
    run("migrate", "--state", tmp_path)
    with pytest.raises(ClinicUsageError, match="--trusted-proxy"):
        run("serve", "--state", tmp_path, "--behind-tls", "--trusted-proxy", proxy)


@pytest.mark.parametrize(
    "name", ["https://clinic.example", "clinic.example:443", "clinic.example/x", "", "[::1]"]
)
def test_a_name_that_no_request_can_have_is_refused(tmp_path: Path, name: str) -> None:
    run("migrate", "--state", tmp_path)
    with pytest.raises(ClinicUsageError, match="--allow-host"):
        run("serve", "--state", tmp_path, "--allow-host", name)


def test_the_served_pages_answer_to_their_own_names_only(tmp_path: Path) -> None:
    run("migrate", "--state", tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", "from kiosk_app.cli import main; main()", "clinic", "serve"]
        + ["--state", str(tmp_path), "--host", "127.0.0.2", "--port", "0", "--allow-host", "Clinic.example"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        port = json.loads(process.stderr.readline())["port"]

        def asked_for(name: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.2", port, timeout=WAIT_S)
            with contextlib.closing(connection):
                connection.request("GET", "/healthz", headers={"Host": name})
                return connection.getresponse().status

        for name in (f"127.0.0.2:{port}", f"localhost:{port}", f"[::1]:{port}", "clinic.example"):
            assert asked_for(name) == 200, name
        for name in (f"evil.example:{port}", "127.0.0.3", "clinic.example.evil.example", "localhost@evil"):
            assert asked_for(name) == 400, name
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
