"""A pipe or a device where a command reads a file: it is refused at once, and says what stands there."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hardware.board import BOARDS
from kiosk_app.cli import main
from sync.clinic.store.database import Database
from sync.wire.keys import generate_opening_key
from tests.support.clinic import SealingKiosk
from tests.support.commands import refused

BOARD = str(BOARDS / "simulated.toml")
ENROL = f"provision enrol --state authority --kiosk new --board {BOARD}"
WAIVE = "provision waive --state authority --kiosk kiosk --by x --reason y --until 2027-01-01"
IN_PLACE: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(params=IN_PLACE)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a clinic and a kiosk of it, in one folder."""
    folder = tmp_path_factory.mktemp("made")
    state, clinic = ["--state", str(folder / "authority")], folder / "clinic"
    user = ["--user", "root"] if os.geteuid() == 0 else []
    for command in (
        ["provision", "authority", *state],
        ["provision", "broker", *state, "--out", str(folder / "broker"), *user],
        ["provision", "role", "ingest-1", *state, "--out", str(clinic / "ingest")],
        ["provision", "role", "auditor", *state, "--out", str(clinic / "auditor")],
        ["provision", "opener", *state, "--out", str(clinic / "opener")],
        ["provision", "enrol", *state, "--kiosk", str(folder / "kiosk"), "--board", BOARD],
        ["clinic", "migrate", "--state", str(clinic)],
    ):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "argv", ["dermakiosk", *command])
            main()
        assert ended.value.code == 0, command
    return folder


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("file", "clinic register-kiosk file --state clinic"),
        ("file", "models sign --key file --state kiosk"),
        ("file", "board wiring file --out new.svg"),
        ("file", "provision enrol --state authority --kiosk new --board file"),
        ("authority/clinic.json", "provision list --state authority"),
        ("authority/issuing.crt", "provision list --state authority"),
        ("authority/kiosks/x.json", "provision list --state authority"),
        ("authority/issuing.key", ENROL),
        ("authority/broker.json", ENROL),
        ("authority/clinic-keys.cose", ENROL),
        ("authority/manifest.pub", ENROL),
        ("kiosk/clinic-manifest.pub", WAIVE),
        ("kiosk/identity.json", WAIVE),
        ("clinic/broker.json", "clinic ingest --state clinic"),
        ("clinic/ingest/receipt.key", "clinic ingest --state clinic"),
        ("clinic/ingest/tls.crt", "clinic ingest --state clinic"),
        ("clinic/ingest/tls.key", "clinic ingest --state clinic"),
        ("clinic/ingest/ca.crt", "clinic ingest --state clinic"),
        ("clinic/auditor/tls.key", "clinic tap --state clinic --out new"),
        ("clinic/opener/opening.key", "clinic open --state clinic"),
    ],
)
def test_what_is_no_file_is_refused_at_once(
    made: Path,
    tmp_path: Path,
    kind: str,
    file: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "all"
    shutil.copytree(made, folder)
    (folder / file).unlink(missing_ok=True)
    IN_PLACE[kind](folder / file)
    monkeypatch.chdir(folder)
    line = refused(command.split(), monkeypatch, capsys)
    assert Path(file).name in line
    assert kind in line or "is no " in line or "names nobody" in line


def test_a_clinic_whose_list_of_the_withdrawn_is_no_file_says_so(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Database.at(tmp_path).migrate()
    IN_PLACE[kind](tmp_path / "withdrawn.lines")
    monkeypatch.setattr(sys, "argv", ["dermakiosk", "clinic", "status", "--state", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert f"withdrawn.lines cannot be read (it is {kind}, where a file has to be)" in capsys.readouterr().err


def test_an_entry_that_is_larger_than_any_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Database.at(tmp_path).migrate()
    entry = SealingKiosk(generate_opening_key()).registry_entry() | {"more": "x" * (1 << 20)}
    (tmp_path / "entry.json").write_text(json.dumps(entry))
    command = ["clinic", "register-kiosk", str(tmp_path / "entry.json"), "--state", str(tmp_path)]
    assert "it has more than 1048576 bytes" in refused(command, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("tls.crt", "no certificate", "tls.crt is not there or names nobody"),
        ("ca.crt", "no certificate", "ca.crt holds no certificate"),
        ("tls.key", "no key", "tls.key holds no private key"),
        ("tls.key", "../auditor/tls.key", "tls.key is not the key of"),
        ("ca.crt", None, "ca.crt cannot be read (No such file or directory)"),
    ],
)
def test_a_bad_tls_file_is_named_with_what_to_do(
    made: Path,
    tmp_path: Path,
    file: str,
    content: str | None,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "all"
    shutil.copytree(made, folder)
    role = folder / "clinic" / "ingest"
    if content is None:
        (role / file).unlink()
    elif "/" in content:
        shutil.copy(role / content, role / file)
    else:
        (role / file).write_text(content)
    line = refused(["clinic", "ingest", "--state", str(folder / "clinic")], monkeypatch, capsys)
    assert why in line
    assert "dermakiosk provision role" in line


def test_a_tap_whose_folder_cannot_be_made_says_so(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["clinic", "tap", "--state", str(made / "clinic"), "--out", "/proc/x"]
    assert "No file can be made in /proc/x, which --out names" in refused(command, monkeypatch, capsys)
