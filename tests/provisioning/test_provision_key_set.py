"""The clinic's key set: which keys are in it, and by what it is signed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from provisioning import files
from provisioning.authority import Authority
from provisioning.authority_files import AuthorityRefused
from provisioning.broker import AUDITOR, INGEST_WORKERS
from sync.wire import keys as wire_keys
from sync.wire.clinic_keys import MOST_KEYS, ClinicKeys


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "authority", "Practice Dr. Müller")
    made.make_broker(tmp_path / "broker", 18883)
    return made


def key_set(authority: Authority) -> ClinicKeys:
    return ClinicKeys.verify(authority.signed_keys(), authority.root_public)


def test_there_is_no_key_set_before_there_is_an_opening_and_a_receipt_key(
    authority: Authority, tmp_path: Path
) -> None:
    for role in ("ingest-1", AUDITOR):
        authority.make_role(role, tmp_path / "clinic" / role)
        with pytest.raises(AuthorityRefused, match="provision opener"):
            authority.signed_keys()
    authority.make_opener(tmp_path / "clinic" / "opener")
    assert key_set(authority).version == 2


def test_what_is_sealed_to_the_key_set_opens_with_the_openers_file(
    authority: Authority, tmp_path: Path
) -> None:
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    path = authority.make_opener(tmp_path / "clinic" / "opener")
    (opening,) = wire_keys.load_opening_keys(path.read_bytes())
    sealed = key_set(authority).seal_to.seal(b"result", b"header")
    assert opening.open(sealed, b"header") == b"result"
    assert opening.suite == "X-Wing"


def test_every_worker_has_a_receipt_key_of_its_own(authority: Authority, tmp_path: Path) -> None:
    authority.make_opener(tmp_path / "clinic" / "opener")
    kids = set()
    for number, name in enumerate(INGEST_WORKERS[:3], start=2):
        authority.make_role(name, tmp_path / "clinic" / name)
        key = wire_keys.load_signing_key((tmp_path / "clinic" / name / "receipt.key").read_bytes())
        kids.add(wire_keys.signing_kid(key))
        assert key_set(authority).version == number
    assert all(key_set(authority).receipt_key(kid) for kid in kids)
    assert len(kids) == 3


@pytest.mark.parametrize("purpose", ["receipt", "opening"])
def test_no_more_keys_are_made_than_kiosks_take_and_everything_else_goes_on(
    authority: Authority, tmp_path: Path, purpose: str
) -> None:
    def made(number: int) -> Path:
        out = tmp_path / "clinic" / str(number)
        if purpose == "receipt":
            authority.make_role("ingest-1", out)
        else:
            authority.make_opener(out)
        return out / f"{purpose}.key"

    authority.make_opener(tmp_path / "clinic" / "opener")
    authority.make_role("ingest-2", tmp_path / "clinic" / "ingest-2")
    first, *_ = (made(number) for number in range(1, MOST_KEYS))
    with pytest.raises(AuthorityRefused, match=f"lists {MOST_KEYS} {purpose} keys, .* {purpose}.key of a"):
        made(MOST_KEYS)
    authority.make_role("ingest-2", tmp_path / "clinic" / "ingest-2")
    assert key_set(authority).version == MOST_KEYS + 1
    assert not list((tmp_path / "clinic" / str(MOST_KEYS)).iterdir())
    if purpose == "receipt":
        # As the refusal says.
        shutil.copy(first, tmp_path / "clinic" / str(MOST_KEYS))
        made(MOST_KEYS)


def test_a_role_made_again_gets_a_new_certificate_but_keeps_its_receipt_key(
    authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "clinic" / "ingest"
    authority.make_opener(tmp_path / "clinic" / "opener")
    authority.make_role("ingest-1", folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    authority.make_role("ingest-1", folder)
    second = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in first if first[name] != second[name]} == {"tls.key", "tls.crt"}
    assert key_set(authority).version == 2


def test_an_opening_key_is_never_replaced(authority: Authority, tmp_path: Path) -> None:
    path = authority.make_opener(tmp_path / "opener")
    before = path.read_bytes()
    with pytest.raises(AuthorityRefused, match="keep it"):
        authority.make_opener(tmp_path / "opener")
    assert path.read_bytes() == before


def test_an_opening_key_that_a_crash_left_unlisted_is_listed(authority: Authority, tmp_path: Path) -> None:
    folder = files.make_folder(tmp_path / "opener")
    left = wire_keys.generate_opening_key()
    files.write(folder / "opening.key", wire_keys.dump_opening_keys([left]), files.PRIVATE)
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    authority.make_opener(folder)
    assert key_set(authority).seal_to.kid == left.kid


def test_a_version_that_a_crash_left_unsigned_is_signed(authority: Authority, tmp_path: Path) -> None:
    authority.make_opener(tmp_path / "opener")
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    (authority.folder / "clinic-keys.cose").unlink()
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    assert key_set(authority).version == 2


def test_the_key_set_does_not_change_while_the_root_key_is_away(authority: Authority, tmp_path: Path) -> None:
    authority.make_opener(tmp_path / "opener")
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    before = authority.signed_keys()
    shutil.move(authority.folder / "root.key", tmp_path / "medium")
    with pytest.raises(AuthorityRefused, match="bring the medium"):
        authority.make_role("ingest-2", tmp_path / "clinic" / "ingest-2")
    with pytest.raises(AuthorityRefused, match="bring the medium"):
        authority.make_opener(tmp_path / "second")
    assert authority.signed_keys() == before
    assert not list((tmp_path / "second").iterdir())
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")


def test_a_key_set_of_another_clinic_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", "Another clinic")
    other.make_broker(tmp_path / "other-broker", 18884)
    other.make_opener(tmp_path / "other-opener")
    other.make_role("ingest-1", tmp_path / "other-clinic" / "ingest")
    shutil.copy(other.folder / "clinic-keys.cose", authority.folder / "clinic-keys.cose")
    with pytest.raises(AuthorityRefused, match="another clinic's"):
        authority.signed_keys()


@pytest.mark.parametrize("copied_before", ["the last key", "another key came in its place"])
def test_no_key_is_listed_in_an_older_copy_of_the_list_than_the_one_that_is_signed(
    authority: Authority, tmp_path: Path, copied_before: str
) -> None:
    authority.make_opener(tmp_path / "opener")
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    listed, signed = authority.folder / "clinic-keys.json", authority.folder / "clinic-keys.cose"
    older = listed.read_bytes()
    authority.make_role("ingest-2", tmp_path / "clinic" / "ingest-2")
    newer = signed.read_bytes()
    listed.write_bytes(older)
    if copied_before == "another key came in its place":
        signed.unlink()
        authority.make_role("ingest-3", tmp_path / "clinic" / "ingest-3")
        signed.write_bytes(newer)
    for name in ("ingest-1", "ingest-4"):
        with pytest.raises(AuthorityRefused, match="is older than .*bring back the newest copy of both"):
            authority.make_role(name, tmp_path / "clinic" / name)
    with pytest.raises(AuthorityRefused, match="is older than"):
        authority.make_opener(tmp_path / "another")
    assert signed.read_bytes() == newer


def test_two_commands_do_not_change_the_key_set_at_once(authority: Authority, tmp_path: Path) -> None:
    with files.locked(authority.folder), pytest.raises(files.FolderBusy, match="again"):
        authority.make_opener(tmp_path / "opener")
    authority.make_opener(tmp_path / "opener-2")
