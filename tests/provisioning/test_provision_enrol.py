"""Enrolment: what a kiosk has afterwards, what the authority has seen of it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hardware.board import BoardError
from provisioning import files
from provisioning.authority import Authority
from provisioning.authority_files import AuthorityRefused
from provisioning.enrol import enrol
from sync.wire import keys as wire_keys
from sync.wire.clinic_keys import ClinicKeys
from tests.support.mosquitto import BOARD

COMMAND = Path(sys.executable).with_name("dermakiosk")
PRIVATE = {"app/result.key", "app/opening.key", "sync/status.key", "sync/tls.key"}
PUBLIC = {
    *("identity.json", "clinic-root.pub", "clinic-keys.cose", "clinic-manifest.pub"),
    *("sync/tls.crt", "sync/ca.crt"),
}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "authority", "Test clinic")
    made.make_broker(tmp_path / "broker", 18883)
    made.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    made.make_opener(tmp_path / "clinic" / "opener")
    return made


@pytest.fixture
def kiosk(tmp_path: Path) -> Path:
    return tmp_path / "kiosk"


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mode & 0o777
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_enrolled_kiosk_has_its_keys_and_the_clinics_public_ones(
    authority: Authority, kiosk: Path
) -> None:
    enrol(authority, kiosk, board=BOARD)
    assert modes(kiosk) == dict.fromkeys(PRIVATE, 0o600) | dict.fromkeys(PUBLIC, 0o644)
    assert {path.stat().st_mode & 0o777 for path in (kiosk, kiosk / "app", kiosk / "sync")} == {0o700}


def test_the_identity_names_kiosk_clinic_board_and_broker(authority: Authority, kiosk: Path) -> None:
    entry = enrol(authority, kiosk, board=BOARD)
    identity = json.loads((kiosk / "identity.json").read_text())
    assert identity == {
        "kiosk": entry["kiosk"],
        "clinic": "Test clinic",
        "epoch": entry["epoch"],
        "broker": {"host": "127.0.0.1", "port": 18883},
        "board": str(BOARD),
    }
    assert str(UUID(identity["kiosk"])) == identity["kiosk"]


def test_the_kiosk_can_verify_the_key_set_with_the_root_it_was_given(
    authority: Authority, kiosk: Path
) -> None:
    enrol(authority, kiosk, board=BOARD)
    root = wire_keys.load_public_key(bytes.fromhex((kiosk / "clinic-root.pub").read_text()))
    keys = ClinicKeys.verify((kiosk / "clinic-keys.cose").read_bytes(), root)
    assert keys.seal_to.suite == "X-Wing"


def test_the_kiosk_is_given_the_public_half_of_the_manifest_key(authority: Authority, kiosk: Path) -> None:
    enrol(authority, kiosk, board=BOARD)
    manifest_key = wire_keys.load_signing_key((authority.folder / "manifest.key").read_bytes())
    given = bytes.fromhex((kiosk / "clinic-manifest.pub").read_text())
    assert given == wire_keys.public_bytes(manifest_key)


def test_the_authority_never_sees_a_private_key_of_the_kiosk(
    authority: Authority, kiosk: Path, tmp_path: Path
) -> None:
    enrol(authority, kiosk, board=BOARD)
    secrets = list(private_values(kiosk))
    assert len(secrets) == 4
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        if str(path).startswith(str(kiosk)) and path.suffix == ".key":
            continue
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content
            assert secret.hex().encode() not in content


def private_values(kiosk: Path) -> list[bytes]:
    (opening,) = wire_keys.load_opening_keys((kiosk / "app" / "opening.key").read_bytes())
    tls = serialization.load_pem_private_key((kiosk / "sync" / "tls.key").read_bytes(), None)
    assert isinstance(tls, ec.EllipticCurvePrivateKey)
    signing = (
        wire_keys.load_signing_key((kiosk / name).read_bytes())
        for name in ("app/result.key", "sync/status.key")
    )
    return [
        opening.seed,
        tls.private_numbers().private_value.to_bytes(32, "big"),
        *(key.private_bytes_raw() for key in signing),
    ]


def test_the_registry_entry_has_the_public_halves(authority: Authority, kiosk: Path) -> None:
    entry = enrol(authority, kiosk, board=BOARD, name="Waiting room 2")
    assert json.loads((authority.folder / "kiosks" / f"{entry['kiosk']}.json").read_text()) == entry
    keys = {key["purpose"]: key for key in entry["keys"]}
    result = wire_keys.load_signing_key((kiosk / "app" / "result.key").read_bytes())
    status = wire_keys.load_signing_key((kiosk / "sync" / "status.key").read_bytes())
    (opening,) = wire_keys.load_opening_keys((kiosk / "app" / "opening.key").read_bytes())
    for purpose, key in (("result", result), ("status", status)):
        assert keys[purpose]["public"] == wire_keys.public_bytes(key).hex()
        assert keys[purpose]["kid"] == wire_keys.signing_kid(key).hex()
    assert wire_keys.OpeningPublicKey("X-Wing", bytes.fromhex(keys["opening"]["public"])) == opening.public
    assert keys["opening"]["kid"] == opening.kid.hex()
    certificate = x509.load_pem_x509_certificate(entry["certificate"].encode())
    assert certificate.not_valid_after_utc.isoformat() == entry["certificate_until"]
    assert (entry["name"], entry["board"]) == ("Waiting room 2", "simulated")


def test_two_kiosks_share_nothing(authority: Authority, tmp_path: Path) -> None:
    one, two = (enrol(authority, tmp_path / name, board=BOARD) for name in ("one", "two"))
    assert one["kiosk"] != two["kiosk"]
    publics = [key["public"] for entry in (one, two) for key in entry["keys"]]
    assert len(set(publics)) == 6
    assert [entry["kiosk"] for entry in authority.kiosks()] in (
        [one["kiosk"], two["kiosk"]],
        [two["kiosk"], one["kiosk"]],
    )


def test_an_enrolled_kiosk_is_not_enrolled_again(authority: Authority, kiosk: Path) -> None:
    enrol(authority, kiosk, board=BOARD)
    before = (kiosk / "app" / "result.key").read_bytes()
    with pytest.raises(AuthorityRefused, match="enrolled already"):
        enrol(authority, kiosk, board=BOARD)
    assert (kiosk / "app" / "result.key").read_bytes() == before
    assert len(authority.kiosks()) == 1


def test_no_kiosk_is_made_in_the_authoritys_own_folder(authority: Authority) -> None:
    before = modes(authority.folder)
    with pytest.raises(AuthorityRefused, match="choose another folder"):
        enrol(authority, authority.folder, board=BOARD)
    assert modes(authority.folder) == before


@pytest.mark.parametrize("name", ["", "   ", "a line\n", "x" * 121])
def test_a_kiosk_has_a_name_that_can_be_read(authority: Authority, kiosk: Path, name: str) -> None:
    with pytest.raises(AuthorityRefused, match="printable"):
        enrol(authority, kiosk, board=BOARD, name=name)
    assert not kiosk.exists()


FILES = (
    "app/result.key",
    "sync/tls.key",
    "sync/tls.crt",
    "clinic-root.pub",
    "clinic-keys.cose",
    "identity.json",
)


@pytest.mark.parametrize("missing", FILES)
def test_an_enrolment_that_was_cut_short_is_begun_again_and_is_one_kiosk(
    authority: Authority, kiosk: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    write = files.write

    def cut_short(path: Path, data: bytes | str, mode: int) -> None:
        if path == kiosk / missing:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data, mode)

    with monkeypatch.context() as full:
        full.setattr(files, "write", cut_short)
        with pytest.raises(OSError, match="No space"):
            enrol(authority, kiosk, board=BOARD)
    entry = enrol(authority, kiosk, board=BOARD)
    assert authority.kiosks() == [entry]
    assert json.loads((kiosk / "identity.json").read_text())["kiosk"] == entry["kiosk"]
    certificate = x509.load_pem_x509_certificate((kiosk / "sync" / "tls.crt").read_bytes())
    key = serialization.load_pem_private_key((kiosk / "sync" / "tls.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rdns[-1].rfc4514_string() == f"CN={entry['kiosk']}"


def test_nothing_is_made_while_the_clinic_has_no_keys(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "Test clinic")
    authority.make_broker(tmp_path / "broker", 18883)
    with pytest.raises(AuthorityRefused, match="provision opener"):
        enrol(authority, tmp_path / "kiosk", board=BOARD)
    assert not (tmp_path / "kiosk").exists()


def test_a_board_that_is_none_is_refused_before_anything_is_made(
    authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(BoardError):
        enrol(authority, tmp_path / "kiosk", board=tmp_path / "absent.toml")
    assert not (tmp_path / "kiosk").exists()
    assert authority.kiosks() == []


def test_a_board_whose_path_no_kiosk_could_read_again_is_refused(
    authority: Authority, kiosk: Path, tmp_path: Path
) -> None:
    board = tmp_path / "no letter \udcff.toml"
    board.write_bytes(BOARD.read_bytes())
    with pytest.raises(AuthorityRefused, match="rename it"):
        enrol(authority, kiosk, board=board)
    assert not kiosk.exists() and not authority.kiosks()


def test_an_enrolment_waits_for_no_pipe_that_lies_in_the_place_of_a_certificate(
    authority: Authority, kiosk: Path
) -> None:
    (kiosk / "sync").mkdir(parents=True)
    os.mkfifo(kiosk / "sync" / "tls.crt")
    where = ["--state", authority.folder, "--kiosk", kiosk, "--board", BOARD]
    done = subprocess.run([COMMAND, "provision", "enrol", *map(str, where)], timeout=60)
    assert done.returncode == 0
    assert modes(kiosk)["sync/tls.crt"] == 0o644
