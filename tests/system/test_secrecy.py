"""Nothing of a patient is in the clear: not on the wire, not in any file of the kiosk or the broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from kiosk_app.demo.patient import DemoPatient
from kiosk_app.kept import vault
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.vault import Vault
from tests.support.secrecy import clear_pictures, findings_needles, frame_needles, search
from tests.support.system import running_system
from tests.support.waiting import wait_until
from tests.system.conftest import FinishedScan

# The clinic's database and what the opener exports are where results are meant to be read.
DESTINATIONS = ("clinic/clinic.sqlite", "opened/")


def files_on_the_way(root: Path) -> list[Path]:
    """Every file of kiosk, vault, broker, wire, logs and authority; only the destination is left out."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_socket())
    return [f for f in files if not str(f.relative_to(root)).startswith(DESTINATIONS)]


def needles(root: Path) -> Iterator[bytes]:
    """What must not be found: the newest scan's pixels, findings and patient reference."""
    app = root / "kiosk" / "app"
    records = Records(app / "records.sqlite", Keyring(app / "vault.key"))
    newest = records.latest()
    assert newest is not None
    yield from frame_needles(Vault(app / "vault").get_capture(newest.id, records.dek(newest.id)))
    measured = records.findings(newest.id)
    assert measured is not None
    yield from findings_needles(measured)
    reference = records.patient_reference(newest.id)
    assert reference is not None
    yield reference.encode()


def test_no_file_and_no_message_holds_a_frame_or_a_finding_in_the_clear(finished_scan: FinishedScan) -> None:
    files = files_on_the_way(finished_scan.folder)
    wanted = list(needles(finished_scan.folder))
    assert len(wanted) > 100
    assert any("wire" in str(path) for path in files)
    assert search(files, wanted) == []
    assert clear_pictures(files) == []


def test_private_files_can_be_read_by_their_owner_only(finished_scan: FinishedScan) -> None:
    keys = [*finished_scan.folder.rglob("*.key"), *finished_scan.folder.rglob("*.sqlite")]
    assert len(keys) > 10
    assert [str(path) for path in keys if path.stat().st_mode & 0o077] == []


@pytest.fixture(scope="module")
def unsealed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scan with encryption turned off in the kiosk application."""
    root = tmp_path_factory.mktemp("unsealed")
    without_encryption = [sys.executable, "-m", "tests.support.unsealed"]
    with running_system(root, replace={"app": without_encryption}, tapped=True) as running:
        DemoPatient(running.system.kiosk_url).walk()
        wait_until(lambda: bool(list((root / "wire").glob("*receipt*"))), "the receipt on the wire")
    return root


def test_the_same_search_finds_both_when_encryption_is_turned_off(
    unsealed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault, "decrypt", lambda scan, item, dek, data: data)
    found = search(files_on_the_way(unsealed_run), needles(unsealed_run))
    places = {str(Path(line.split(": ")[0]).relative_to(unsealed_run)).split("/")[0] for line in found}
    assert {"wire", "kiosk"} <= places, found
    assert any("/vault/" in line for line in found)
    assert any("records.sqlite" in line for line in found)
    assert clear_pictures(files_on_the_way(unsealed_run)), "overlays are PNG files in the vault"


def test_the_vault_names_scans_by_random_ids_alone(finished_scan: FinishedScan) -> None:
    folder = finished_scan.folder / "kiosk" / "app" / "vault"
    assert [UUID(path.name).version for path in folder.iterdir()] == [4]
