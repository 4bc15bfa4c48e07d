"""The `provision` command as a script calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

import pytest

from kiosk_app.cli import main
from tests.support.documents import document
from tests.support.mosquitto import BOARD, Mosquitto, free_port
from tests.support.mqtt import connected

# Root has to say as whom mosquitto runs.
OWNER = ("--user", "root") if os.geteuid() == 0 else ()
COMMAND = Path(sys.executable).with_name("dermakiosk")


def dermakiosk(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def provision(*arguments: object) -> subprocess.CompletedProcess[str]:
    return dermakiosk("provision", *arguments)


def succeeds(*arguments: object) -> str:
    done = provision(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def refuses(sentence: str, *arguments: object) -> None:
    done = provision(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, "one plain line"


def test_a_clinic_is_made_from_nothing_by_five_commands(tmp_path: Path) -> None:
    authority, clinic, kiosk = tmp_path / "authority", tmp_path / "clinic", tmp_path / "kiosk"
    port, state = free_port(), ("--state", authority)
    succeeds("authority", *state, "--clinic", "Practice Dr. Müller")
    succeeds("broker", *state, "--out", tmp_path / "broker", "--port", port, *OWNER)
    succeeds("role", "ingest-1", *state, "--out", clinic / "ingest")
    succeeds("opener", *state, "--out", clinic / "opener")
    enrolled = json.loads(succeeds("enrol", *state, "--kiosk", kiosk, "--board", BOARD, "--json"))
    succeeds("enrol", *state, "--kiosk", tmp_path / "second", "--board", BOARD, "--name", "Hall")

    entries = [json.loads(line) for line in succeeds("list", *state, "--json", "-").splitlines()]
    assert enrolled in entries
    assert sorted(entry["name"] for entry in entries) == ["Hall", "kiosk"]
    table = succeeds("list", *state)
    assert enrolled["kiosk"] in table
    assert "Hall" in table

    registry = authority / "kiosks" / f"{enrolled['kiosk']}.json"
    for command in (("migrate",), ("register-kiosk", registry)):
        done = dermakiosk("clinic", *command, "--state", clinic)
        assert done.returncode == 0, done.stderr

    topic = f"clinic/v1/{enrolled['kiosk']}/up/result"
    with (
        Mosquitto(tmp_path / "broker" / "mosquitto.conf", port) as broker,
        connected(broker, clinic / "ingest") as ingest,
        connected(broker, kiosk / "sync") as client,
    ):
        ingest.subscribe("clinic/v1/+/up/result")
        assert client.publish(topic, b"sealed") == 0
        assert ingest.message() == (topic, b"sealed")


def test_the_issuer_is_renewed_by_one_command(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "authority")
    refuses("dermakiosk provision authority", "renew-issuer", *state)
    succeeds("authority", *state)
    before = (tmp_path / "authority" / "issuing.crt").read_bytes()
    assert "renew it again in a year" in succeeds("renew-issuer", *state)
    assert (tmp_path / "authority" / "issuing.crt").read_bytes() != before


def test_json_lines_go_to_a_file(tmp_path: Path) -> None:
    succeeds("authority", "--state", tmp_path / "authority")
    assert succeeds("list", "--state", tmp_path / "authority", "--json", tmp_path / "kiosks.json") == ""
    assert (tmp_path / "kiosks.json").read_text() == ""


def test_nobody_is_enrolled_where_the_file_for_it_cannot_be_opened(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "authority")
    kiosk = ("--kiosk", tmp_path / "kiosk", "--board", BOARD)
    succeeds("authority", *state)
    succeeds("broker", *state, "--out", tmp_path / "broker", *OWNER)
    succeeds("role", "ingest-1", *state, "--out", tmp_path / "ingest")
    succeeds("opener", *state, "--out", tmp_path / "opener")
    refuses("Is a directory", "enrol", *state, *kiosk, "--json", tmp_path)
    refuses("No such file or directory", "enrol", *state, *kiosk, "--json", tmp_path / "no" / "file")
    assert not (tmp_path / "kiosk").exists()
    done = provision("enrol", *state, *kiosk, "--json", "/dev/full")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Everything is done, but /dev/full cannot be written (No space left on device)" in done.stderr
    assert succeeds("list", *state, "--json").count("\n") == 1


def test_the_wrong_order_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "authority")
    refuses("dermakiosk provision authority", "broker", *state, "--out", tmp_path / "broker")
    succeeds("authority", *state)
    refuses("dermakiosk provision broker", "role", "ingest-1", *state, "--out", tmp_path / "ingest")
    refuses("dermakiosk provision opener", "enrol", *state, "--kiosk", tmp_path / "kiosk", "--board", BOARD)
    assert not (tmp_path / "kiosk").exists()


_DAMAGED = (b"", b"\xff\xfe", b"garbage", b"{}", b"[]", b"null", b'{"clinic": 1}')


def test_a_file_of_the_authority_that_is_damaged_is_named_in_a_sentence_by_whatever_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, clinic, number = tmp_path / "authority", tmp_path / "clinic", count()
    state = ("--state", authority)
    succeeds("authority", *state)
    succeeds("broker", *state, "--out", tmp_path / "broker", *OWNER)
    succeeds("role", "ingest-1", *state, "--out", clinic / "ingest")
    succeeds("opener", *state, "--out", clinic / "opener")
    succeeds("enrol", *state, "--kiosk", tmp_path / "kiosk", "--board", BOARD)
    enrol = ("enrol", *state, "--kiosk", "{new}", "--board", BOARD)
    role = ("role", "ingest-2", *state, "--out", "{new}/ingest")
    (entry,) = (authority / "kiosks").iterdir()
    waive = ("waive", *state, "--kiosk", tmp_path / "kiosk", "--by", "a", "--reason", "b", "--until")
    today = datetime.now(timezone.utc).date().isoformat()
    read_by = {
        "clinic.json": (role, enrol, ("list", *state)),
        "root.crt": (role, enrol, ("list", *state)),
        "issuing.crt": (role, enrol, ("list", *state)),
        "broker.json": (role, enrol, ("broker", *state, "--out", "{new}", *OWNER)),
        "clinic-keys.json": (role, ("opener", *state, "--out", "{new}")),
        "clinic-keys.cose": (role, enrol),
        "manifest.pub": (enrol, (*waive, today)),
        "manifest.key": ((*waive, today),),
        "issuing.key": (role, enrol),
        "root.key": (role, ("renew-issuer", *state)),
        f"kiosks/{entry.name}": (("list", *state),),
    }
    for name, commands in read_by.items():
        path = authority / name
        before = path.read_bytes()
        for data in _DAMAGED:
            for command in commands:
                new = tmp_path / "new" / str(next(number))
                arguments = [str(each).format(new=new) for each in command]
                kept = {each: each.read_bytes() for each in authority.glob("clinic-keys.*")}
                path.write_bytes(data)
                monkeypatch.setattr(sys, "argv", ["dermakiosk", "provision", *arguments])
                with pytest.raises(SystemExit) as ended:
                    main()
                said = capsys.readouterr().err
                case = f"{name} is {data!r}, {command[0]}: {said}"
                assert ended.value.code == 2, case
                assert said.startswith(f"Error: {path} is damaged") and said.count("\n") == 1, case
                for each, data_before in (*kept.items(), (path, before)):
                    each.write_bytes(data_before)


@pytest.mark.parametrize("port", ["0", "65536", "mqtt"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    refuses("--port", "broker", "--state", tmp_path, "--out", tmp_path, "--port", port)


def test_every_command_explains_itself() -> None:
    for command in ("authority", "renew-issuer", "broker", "role", "opener", "enrol", "list"):
        assert "Usage: dermakiosk provision" in succeeds(command, "--help")


@pytest.mark.parametrize("command", ["authority", "list"])
def test_a_path_too_long_is_refused_in_a_sentence(tmp_path: Path, command: str) -> None:
    refuses("choose a shorter path", command, "--state", tmp_path / ("x" * 300))


def test_a_folder_that_cannot_be_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    refuses("/proc/xx cannot be used (No such file or directory): choose", "authority", "--state", "/proc/xx")
    state = ("--state", tmp_path / "authority")
    succeeds("authority", *state)
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "server.key").mkdir(parents=True)
    broker = ("broker", *state, *OWNER, "--out")
    refuses("/proc/xx cannot be used", *broker, "/proc/xx")
    refuses("choose a path where no file is", *broker, tmp_path / "file" / "broker")
    refuses("server.key cannot be used (Is a directory)", *broker, tmp_path / "taken")
    refuses("choose a shorter path", *broker, tmp_path / ("x" * 300))
    succeeds(*broker, tmp_path / "broker")
    refuses("/proc/xx cannot be used", "role", "ingest-1", *state, "--out", "/proc/xx")
    refuses("/proc/self/receipt.key cannot be used", "role", "ingest-1", *state, "--out", "/proc/self")
    refuses("/proc/xx cannot be used", "opener", *state, "--out", "/proc/xx")
    succeeds("role", "ingest-1", *state, "--out", tmp_path / "ingest")
    succeeds("opener", *state, "--out", tmp_path / "opener")
    refuses("/proc/xx cannot be used", "enrol", *state, "--kiosk", "/proc/xx", "--board", BOARD)
    assert succeeds("list", *state).count("\n") == 1, "nobody was enrolled"


def test_the_page_for_the_first_time_does_what_it_says_in_its_order(tmp_path: Path) -> None:
    board, clinic = tmp_path / "board.toml", tmp_path / "CLINIC"
    shutil.copy(BOARD, board)
    (tmp_path / "ANOTHER").mkdir()
    here = {
        "sudo -u dk-clinic /opt/dermakiosk/.venv/bin/": "",
        "/etc/dermakiosk/board.toml": str(board),
        "/var/lib/dermakiosk-broker --user mosquitto": " ".join(("BROKER", *OWNER)),
        "2027-02-28": datetime.now(timezone.utc).date().isoformat(),
        "ID.json": "AUTHORITY/kiosks/*.json",
    }
    done = []
    for line in document("provisioning/docs/first-time.md").code_lines:
        for said, meant in here.items():
            line = line.replace(said, meant)
        if line.startswith(("dermakiosk ", "mv ", "install ")):
            done.append(line)
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    script = "\n".join(("set -e", *done))
    ran = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, timeout=120
    )
    assert (ran.returncode, ran.stderr) == (0, b""), ran.stderr
    assert not (tmp_path / "AUTHORITY" / "root.key").exists()
    assert {path.name for path in clinic.iterdir() if path.is_dir()} == {"ingest", "opener", "web"}
    status = dermakiosk("clinic", "status", "--state", clinic).stdout
    assert "front: never heard" in status
