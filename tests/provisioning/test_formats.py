"""What earlier software wrote still opens, as the table of release.md says of each kind."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import sqlite3
from dataclasses import replace
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic.fields import FieldInfo

from firmware.cameras.calibration import read_calibration
from firmware.cameras.grey_card_check import why_not_to_scan
from firmware.lights.doses import Dose, DoseLedger, DoseRefused, Moment
from firmware.lights.lamp_hours import LampHours
from hardware.board import BOARDS, load_board
from hardware.profile import Limits
from kiosk_app.kept.keyring import FORMAT, Keyring, KeyringError
from kiosk_app.kept.records import Records
from kiosk_app.kept.vault import Vault
from kiosk_app.scanning.identity import Identity
from models.networks import manifest as manifest_module
from models.networks import signature
from models.networks.manifest import ModelsError
from provisioning.authority_files import Broker, Clinic, Entry, KeysListed, read_json
from sync.clinic.receiving.broker import Address
from sync.clinic.receiving.registry import RegistryEntry
from sync.clinic.store.tombstones import Tombstones
from sync.kiosk.identity import AgentIdentity as AgentsIdentity
from sync.kiosk.outbox import Outbox
from sync.wire import keys, topics
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.document import read_document
from sync.wire.envelope import open_envelope, verify
from sync.wire.messages import Result
from sync.wire.receipt import Receipt
from sync.wire.status import Status
from sync.wire.waiver import ResearchWaiver
from tests.support.documents import files_of_tests
from tests.support.sources import code_of, modules, parsed

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


# Where what is kept of a row has another name than the row.
KEPT = {
    "envelope": "result",
    "opening keys": "result",
    "records": "kept",
    "vault": "kept",
    "vault keys": "kept",
    "dose ledger": "doses",
    **dict.fromkeys(("clinic keys", "research waiver", "signed networks"), "enrolled"),
    **dict.fromkeys(("identity", "registry entry", "broker", "authority"), "enrolled"),
}
# What looks like a version that is written, and why no row is about it.
NO_ROW = {
    "kiosk_app.kept.records_file._SCHEMA": "the first of the _STEPS",
    "sync.kiosk.outbox_file._SCHEMA": "the first of the _STEPS",
    "models.analysis.redness.VERSION": "the name of a measure, which nobody opens anything by",
    "models.analysis.spots.VERSION": "the name of a measure, which nobody opens anything by",
    "sync.clinic.store.tables.Envelope.schema_version": "what the envelope in that row says",
    "sync.wire.envelope._MAX_SCHEMA": "a bound",
    "sync.wire.findings.Findings.schema_version": "that of the result or the records which carry them",
    "sync.wire.status.TYPE": "the version is the row's own field",
    "sync.wire.topics.CONTENT_TYPE": "what MQTT calls all of COSE",
}
A_VERSION = re.compile(r"_?([A-Z]+_)*(TYPE|SCHEMA|FORMAT|REVISION|CONTEXT)|_STEPS|VERSION|schema_version")


def versions_in_the_code() -> set[str]:
    """The dotted name of whatever a module or a class calls as the version of something is called."""
    found = set()
    for path in modules(training=False):
        module = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
        tree = parsed(path)
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for place, body in [(module, tree.body), *((f"{module}.{one.name}", one.body) for one in classes)]:
            names = [name for node in body for name in names_given(node)]
            found |= {f"{place}.{name}" for name in names if A_VERSION.fullmatch(name)}
    return found


def names_given(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        says = node.value is not None or "Literal[" in code_of(node.annotation)
        return [node.target.id] if says else []
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


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
        value = version_of(fields[name]) if name in fields else getattr(value, name)
    return str(len(value) if isinstance(value, tuple) else value)


def version_of(field: FieldInfo) -> object:
    """The newest one that a model's field takes."""
    return get_args(field.annotation)[-1] if field.is_required() else field.default


@pytest.mark.parametrize("row", table(), ids=lambda row: row.what)
def test_the_table_says_what_the_code_says(row: Row) -> None:
    assert in_the_code(row.code) == row.version or row.version == "no number"


@pytest.mark.parametrize("row", table(), ids=lambda row: row.what)
def test_each_row_names_a_test_that_opens_what_earlier_software_wrote(row: Row) -> None:
    path, _, name = row.test.partition("::")
    tree = parsed(files_of_tests()[path])
    tests = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name in tests
    if row.what == "clinic database":
        [marked] = tests[name].decorator_list
        assert isinstance(marked, ast.Call)
        tried = [ast.literal_eval(case)[0] for case in getattr(marked.args[1], "elts", ())]
        assert tried == row.before, "not each version before is tried"
        assert row.before == [f"{number:04}" for number in range(1, int(row.version))]
    elif row.what != "topics":
        kept = written(KEPT.get(row.what, row.what.replace(" ", "-")))
        needed = {*row.before, row.version} if row.version.isdigit() else {"1"}
        assert set(kept) >= needed, "what this version writes is not kept"


def test_the_table_has_a_row_for_everything_that_has_versions() -> None:
    """Whatever the code names so: a new one has a row, or a line that says why it needs none."""
    rows = {row.what: row for row in table()}
    named = versions_in_the_code() - {row.code for row in rows.values()}
    for name in [name for name in named if name.startswith("sync.wire.messages.")]:
        message = name.rpartition(".")[0]
        row = rows[in_the_code(f"{message}.KIND")]
        assert in_the_code(f"{message}.VERSION") in {*row.before, row.version}, name
        named.discard(name)
    assert named == NO_ROW.keys()
    assert rows.keys() >= {*topics._KINDS["up"], "withdraw", "receipt", "topics"}


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


ENROLLED = FORMATS / "enrolled-1"
OF_KIOSK, OF_AUTHORITY = ENROLLED / "kiosk", ENROLLED / "authority"


def public_key(name: str) -> Ed25519PublicKey:
    return keys.load_public_key(bytes.fromhex((OF_KIOSK / name).read_text()))


def test_what_enrolment_left_is_read() -> None:
    entry = read_document(RegistryEntry, (OF_AUTHORITY / "kiosk.json").read_bytes())
    listed = read_json(OF_AUTHORITY / "kiosk.json", Entry)
    agents, applications = AgentsIdentity.load(OF_KIOSK), Identity.read(OF_KIOSK)
    assert {entry.kiosk, agents.kiosk, applications.kiosk} == {UUID(listed["kiosk"])}
    assert (entry.epoch, agents.epoch) == (applications.epoch, applications.epoch)
    assert (entry.name, applications.clinic, agents.broker.port) == ("Kiosk by the door", "Clinic", 8883)
    assert {key.purpose for key in entry.keys} == {"result", "status", "opening"}


def test_what_an_authority_keeps_is_read() -> None:
    assert read_json(OF_AUTHORITY / "clinic.json", Clinic)["clinic"] == "Clinic"
    assert (
        Address.read(OF_AUTHORITY / "ingest").host == read_json(OF_AUTHORITY / "broker.json", Broker)["host"]
    )
    signed = ClinicKeys.verify((OF_KIOSK / "clinic-keys.cose").read_bytes(), public_key("clinic-root.pub"))
    listed = read_json(OF_AUTHORITY / "clinic-keys.json", KeysListed)
    assert (signed.version, signed.seal_to.public.hex()) == (
        listed["version"],
        listed["opening"][-1]["public"],
    )
    assert [key.hex() for key in signed.receipt] == listed["receipt"]


def test_a_waiver_is_believed() -> None:
    waiver = (OF_KIOSK / "research-waiver.cose").read_bytes()
    read = ResearchWaiver.verify(waiver, public_key("clinic-manifest.pub"))
    assert (read.kiosk, read.reason) == (Identity.read(OF_KIOSK).kiosk, "a study")


def test_networks_that_were_signed_are_so_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = (FORMATS / "manifest-3.toml").read_bytes()
    monkeypatch.setattr(signature, "manifest_bytes", lambda: manifest)
    assert signature.check_signature(OF_KIOSK) == "signed"
    monkeypatch.setattr(signature, "manifest_bytes", lambda: manifest + b"#")
    with pytest.raises(ModelsError):
        signature.check_signature(OF_KIOSK)


@pytest.mark.parametrize("version", written("manifest"))
def test_a_manifest_of_every_version_is_read(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = (FORMATS / f"manifest-{version}.toml").read_bytes()
    monkeypatch.setattr(manifest_module, "manifest_bytes", lambda: known)
    assert len(manifest_module.load_manifest().networks) > 5


@pytest.mark.parametrize("version", written("board"))
def test_a_board_of_every_version_is_read(version: str) -> None:
    board = load_board(FORMATS / f"board-{version}.toml")
    assert (board.name, board.simulated) == ("simulated", True)


class NoPins:
    """Nothing is lit here."""

    def set(self, light: str, level: float) -> None: ...

    def all_low(self) -> None: ...


@pytest.mark.parametrize("form", written("lamp-hours"))
def test_hours_of_lamps_go_on_from_every_form(tmp_path: Path, form: str) -> None:
    shutil.copy(FORMATS / f"lamp-hours-{form}.json", tmp_path / "hours.json")
    hours = LampHours(NoPins(), tmp_path / "hours.json", lambda: 0.0)
    assert hours.hours() == {"white": 2.0, "uv365": 1.0}
    # Renewals were not counted at first.
    assert hours.renewals() == ({} if form == "1" else {"uv365": 1})


def test_a_grey_card_that_was_off_still_forbids_scanning(tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir()
    shutil.copy(FORMATS / "grey-card-1.json", tmp_path / "calibration" / "grey-card.json")
    [made, *_] = [read_calibration(folder) for folder in sorted((FORMATS / "calibration-1").iterdir())]
    of_then = replace(made, digest="1")
    said = why_not_to_scan(tmp_path, load_board(BOARDS / "simulated.toml"), of_then, NOON)
    assert said is not None
    assert "under white" in said


@pytest.mark.parametrize("form", written("tombstones"))
def test_a_withdrawn_scan_stays_so(form: str) -> None:
    stones = Tombstones(FORMATS / f"tombstones-{form}.lines").read()
    assert [(stone.scan.int, stone.unseen) for stone in stones] == [(2, False), (5, True)][: int(form)]
