"""What earlier software wrote still opens, as the table of release.md says of each kind."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import sqlite3
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from firmware.cameras.calibration import read_calibration
from firmware.lights.doses import Dose, DoseLedger, DoseRefused, Moment
from hardware.profile import Limits
from kiosk_app.kept.keyring import FORMAT, Keyring, KeyringError
from kiosk_app.kept.records import Records
from kiosk_app.kept.vault import Vault
from sync.kiosk.outbox import Outbox
from sync.wire import keys, topics
from sync.wire.envelope import open_envelope, verify
from sync.wire.messages import Result
from sync.wire.receipt import Receipt
from sync.wire.status import Status

CHECKOUT = Path(__file__).parents[2]
FORMATS = Path(__file__).with_name("formats")
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=timezone.utc)
WIRE = json.loads((FORMATS / "wire.json").read_text())
KIOSK = UUID(WIRE["kiosk"])
MESSAGES = ("result", "withdraw", "reminder")


class Row(NamedTuple):
    """One row of the table."""

    what: str
    version: str
    code: str
    before: list[str]
    test: str


def table() -> list[Row]:
    rows = []
    for line in (CHECKOUT / "provisioning" / "docs" / "release.md").read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if len(cells) == 5 and "::" in cells[4]:
            what, version, code, before, test = cells
            rows.append(Row(what, version, code, re.findall(r"\d+", before), test))
    return rows


def written(kind: str) -> list[str]:
    """The versions of `kind` of which the folder has what was written."""
    names = [*WIRE["written"], *(path.stem for path in FORMATS.iterdir())]
    return sorted(name.rpartition("-")[2] for name in names if name.rpartition("-")[0] == kind)


def in_the_code(path: str) -> str:
    """The version that a dotted name of the code stands for."""
    module, found = path, None
    while found is None:
        module = module.rpartition(".")[0]
        with contextlib.suppress(ModuleNotFoundError):
            found = import_module(module)
    value: Any = found
    for name in path.removeprefix(f"{module}.").split("."):
        fields = getattr(value, "model_fields", {})
        value = fields[name].default if name in fields else getattr(value, name)
    return str(len(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("row", table(), ids=lambda row: row.what)
def test_the_table_says_what_the_code_says(row: Row) -> None:
    assert in_the_code(row.code) == row.version


@pytest.mark.parametrize("row", table(), ids=lambda row: row.what)
def test_each_row_names_a_test_that_opens_what_earlier_software_wrote(row: Row) -> None:
    path, _, name = row.test.partition("::")
    tree = ast.parse((CHECKOUT / path).read_text())
    tests = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name in tests
    if row.what == "clinic database":
        tried = "".join(map(ast.unparse, tests[name].decorator_list))
        assert repr(row.before[-1]) in tried, "the version before is not tried"
        assert int(row.version) == int(row.before[-1]) + 1
    elif row.version.isdigit():
        folder = {"records": "kept", "vault": "kept", "vault keys": "kept", "dose ledger": "doses"}
        kind = folder.get(row.what, row.what)
        assert set(written(kind)) >= {*row.before, row.version}, "what this version writes is not kept"


def test_the_table_has_a_row_for_everything_that_has_versions() -> None:
    kinds = {row.what for row in table()}
    assert {*topics._KINDS["up"], "withdraw", "receipt", "outbox", "records", "dose ledger"} <= kinds
    assert {"vault", "vault keys", "calibration", "clinic database", "envelope", "topics"} <= kinds


def bytes_of(name: str) -> bytes:
    return bytes.fromhex(WIRE["written"][name])


def named(kid: bytes, public: str) -> Ed25519PublicKey | None:
    key = keys.load_public_key(bytes.fromhex(public))
    return key if kid == keys.signing_kid(key) else None


@pytest.mark.parametrize("name", [name for name in WIRE["written"] if name.partition("-")[0] in MESSAGES])
def test_a_message_of_every_version_is_opened(name: str) -> None:
    verified = verify(bytes_of(name), lambda kiosk, kid: named(kid, WIRE["signing"]), KIOSK)
    message = open_envelope(verified, keys.load_opening_keys(WIRE["opening_keys"].encode()))
    kind, version = name.split("-")
    assert (message.kind, message.schema_version) == (kind, int(version))
    if isinstance(message, Result):
        assert [finding.value for finding in message.findings.findings] == [0, 1, 2]
        assert len(message.findings.spots) == (version != "1")


@pytest.mark.parametrize("version", written("status"))
def test_a_heartbeat_of_every_version_is_read(version: str) -> None:
    status = Status.verify(bytes_of(f"status-{version}"), lambda kid: named(kid, WIRE["signing"]))
    assert (status.kiosk, status.waiting, str(status.schema_version)) == (KIOSK, 2, version)


def test_a_receipt_of_the_first_software_is_believed() -> None:
    receipt = Receipt.verify(bytes_of("receipt-1"), lambda kid: named(kid, WIRE["receipts"]))
    assert (receipt.kiosk, receipt.status, receipt.at) == (KIOSK, "stored", NOON)


def restore(path: Path, store: str) -> Path:
    """The SQLite file of which `store` is a dump."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript((FORMATS / store).read_text())
    return path


@pytest.mark.parametrize("version", written("outbox"))
def test_an_outbox_of_every_version_gives_back_what_waits(tmp_path: Path, version: str) -> None:
    outbox = Outbox(restore(tmp_path / "outbox.sqlite", f"outbox-{version}.sql"))
    waiting = [outbox.take_to_send(message) for message in outbox.unreceipted()]
    assert [entry.envelope for entry in waiting if entry] == [b"sealed", b"sealed too"]
    assert outbox.next_heartbeat_number() > 0
    assert outbox.counts().bytes == len(b"sealedsealed too")
    outbox.close()


@pytest.mark.parametrize("version", written("kept"))
def test_what_every_version_kept_of_a_scan_opens(tmp_path: Path, version: str) -> None:
    folder = FORMATS / f"kept-{version}"
    shutil.copy(folder / "vault.key", tmp_path)
    restore(tmp_path / "records.sqlite", f"kept-{version}/records.sql")
    records = Records(tmp_path / "records.sqlite", Keyring(tmp_path / "vault.key"))
    [scan] = records.scans()
    findings = records.findings(scan.id)
    assert (scan.state, findings and [found.value for found in findings.findings]) == ("analysed", [0, 1, 2])
    assert records.patient_reference(scan.id) == "patient-1"
    (tmp_path / "vault" / str(scan.id)).mkdir(parents=True)
    shutil.copy(folder / "frame.white.cob", tmp_path / "vault" / str(scan.id))
    assert Vault(tmp_path / "vault").get(scan.id, records.dek(scan.id), "frame.white") == b"a picture"


def test_keys_of_another_format_are_left_alone(tmp_path: Path) -> None:
    known = json.loads((FORMATS / "kept-1" / "vault.key").read_text())
    newer = json.dumps({"format": FORMAT + 1, "keys": known["generations"]})
    (tmp_path / "vault.key").write_text(newer)
    with pytest.raises(KeyringError, match="another version"):
        Keyring(tmp_path / "vault.key")
    assert (tmp_path / "vault.key").read_text() == newer


@pytest.mark.parametrize("version", written("doses"))
def test_a_dose_ledger_of_every_version_knows_its_doses(tmp_path: Path, version: str) -> None:
    """The dose that was given counts against the day's limit, and the fault is still latched."""
    witness = FORMATS / f"witness-{version}.txt"  # since version 3 it says what the ledger holds
    (tmp_path / "doses.made").write_bytes(witness.read_bytes() if witness.exists() else b"")
    ledger = DoseLedger(restore(tmp_path / "doses.sqlite", f"doses-{version}.sql"))
    later = Moment(2e9 + 60, 160.0, "boot", known=True)
    limits = Limits(uv_dose_per_day_j_m2=2.0)
    assert ledger.latched() == "stuck_on"
    with pytest.raises(DoseRefused) as refused:
        ledger.charge(Dose("ref", "another session", 1.0), 0.0, limits, later)
    assert refused.value.code == "dose_limit"
    # That one was lost before is kept since version 2.
    with contextlib.nullcontext() if version < "2" else pytest.raises(DoseRefused, match="was lost"):
        ledger.refuse_unknown_day(later)
    ledger.charge(Dose("somebody else", "a third", 1.0), 0.0, limits, later)
    ledger.close()


@pytest.mark.parametrize("version", written("calibration"))
def test_a_calibration_of_every_version_is_read(version: str) -> None:
    made = [read_calibration(folder) for folder in sorted((FORMATS / f"calibration-{version}").iterdir())]
    assert made
    for calibration in made:
        assert (calibration.board, calibration.made_at, calibration.still) == ("simulated", NOON, (32, 24))
        assert calibration.gains["white"].shape == (3, 4, 3)
        assert calibration.lamps_mm["dir0"] == (1.0, 2.0, 3.0)
    # Lamps were not counted at first.
    assert [calibration.lamp_hours for calibration in made] == [{"white": 12.5}, {}]
