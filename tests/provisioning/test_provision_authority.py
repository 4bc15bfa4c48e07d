"""The authority: what it vouches for, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from provisioning import certificates, files
from provisioning.authority import Authority
from provisioning.authority_files import AuthorityRefused
from provisioning.broker import AUDITOR
from tests.support.other_accounts import SOMEBODY, let_files_be_given_away


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "authority", "Practice Dr. Müller")
    made.make_broker(tmp_path / "broker", 18883)
    return made


def test_an_authority_is_never_overwritten(authority: Authority) -> None:
    before = (authority.folder / "root.key").read_bytes()
    with pytest.raises(AuthorityRefused, match="choose another folder"):
        Authority.create(authority.folder, "Another")
    assert (authority.folder / "root.key").read_bytes() == before


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "two\nlines"])
def test_a_clinic_without_a_proper_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AuthorityRefused, match="1 to 64"):
        Authority.create(tmp_path / "authority", name)
    assert not (tmp_path / "authority").exists()


def test_a_folder_without_an_authority_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(AuthorityRefused, match="dermakiosk provision authority"):
        Authority.load(tmp_path)


def test_every_private_file_is_private(authority: Authority, tmp_path: Path) -> None:
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    authority.make_opener(tmp_path / "clinic" / "opener")
    private = [path for path in tmp_path.rglob("*") if path.suffix == ".key" or b"PRIVATE" in content(path)]
    assert {path.name for path in private} == {
        *("root.key", "issuing.key", "manifest.key", "server.key", "tls.key", "receipt.key", "opening.key")
    }
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    assert {path.parent.stat().st_mode & 0o777 for path in private} == {0o700}


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize(("purpose", "chain"), [("sslserver", "server.crt"), ("sslclient", "tls.crt")])
def test_openssl_accepts_every_chain_in_strict_mode(
    authority: Authority, tmp_path: Path, purpose: str, chain: str
) -> None:
    authority.make_role(AUDITOR, tmp_path / "broker")
    root, leaf = authority.folder / "root.crt", tmp_path / "broker" / chain
    options = f"-x509_strict -purpose {purpose} -CAfile {root} -untrusted {leaf} {leaf}"
    done = subprocess.run(["openssl", "verify", *options.split()], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def in_days(monkeypatch: pytest.MonkeyPatch, days: int) -> datetime:
    """Let the authority's clock be `days` ahead; the time it shows."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=days)

    monkeypatch.setattr(certificates, "datetime", Later)
    return Later.now(timezone.utc)


def certified(authority: Authority) -> x509.Certificate:
    return authority.certify(certificates.make_request(certificates.generate_tls_key()), uuid4())


@pytest.mark.parametrize(("day", "lives"), [(0, 360), (370, 360), (400, 331), (730, 1)])
def test_a_certificate_lives_360_days_and_no_longer_than_its_issuer(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, day: int, lives: int
) -> None:
    now = in_days(monkeypatch, day)
    certificate = certified(authority)
    left = certificate.not_valid_after_utc - now
    assert abs(left - timedelta(days=lives)) < timedelta(minutes=1)
    assert certificate.not_valid_after_utc <= authority.issuing.not_valid_after_utc
    assert authority.issuing.not_valid_after_utc <= authority.root.not_valid_after_utc


def test_an_issuer_that_has_ended_issues_nothing_until_it_is_renewed(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_days(monkeypatch, 732)
    for issue in (
        lambda: certified(authority),
        lambda: authority.make_role("ingest-1", tmp_path / "ingest"),
        lambda: authority.make_broker(tmp_path / "broker", 18883),
    ):
        with pytest.raises(certificates.CertificateRefused, match="run 'dermakiosk provision renew-issuer'"):
            issue()
    authority.renew_issuing()
    renewed = Authority.load(authority.folder)
    assert certified(renewed).not_valid_after_utc < renewed.issuing.not_valid_after_utc


def test_what_was_issued_before_a_renewal_is_good_under_both(authority: Authority, tmp_path: Path) -> None:
    authority.make_role(AUDITOR, tmp_path / "old")
    authority.renew_issuing()
    Authority.load(authority.folder).make_role(AUDITOR, tmp_path / "new")
    for leaf in ("old", "new"):
        for issuer in ("old", "new"):
            verified = (
                f"-x509_strict -CAfile {authority.folder}/root.crt -untrusted {tmp_path}/{issuer}/tls.crt"
            )
            subprocess.run(["openssl", "verify", *verified.split(), tmp_path / leaf / "tls.crt"], check=True)


def test_an_issuer_is_renewed_with_the_root_key_and_never_past_the_roots_own_end(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_days(monkeypatch, 3600)
    assert authority.renew_issuing().issuing.not_valid_after_utc == authority.root.not_valid_after_utc
    in_days(monkeypatch, 3654)
    with pytest.raises(certificates.CertificateRefused, match="make a new authority"):
        authority.renew_issuing()
    shutil.move(authority.folder / "root.key", tmp_path / "medium")
    with pytest.raises(AuthorityRefused, match="bring the medium"):
        authority.renew_issuing()


def test_the_authority_gives_the_name_whatever_the_request_says(authority: Authority) -> None:
    key = certificates.generate_tls_key()
    wish = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, AUDITOR)])
    request = x509.CertificateSigningRequestBuilder(wish).sign(key, hashes.SHA256())
    kiosk = uuid4()
    certificate = authority.certify(request.public_bytes(serialization.Encoding.DER), kiosk)
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert [name.value for name in names] == [str(kiosk)]


def test_a_request_that_is_damaged_is_refused(authority: Authority) -> None:
    request = bytearray(certificates.make_request(certificates.generate_tls_key()))
    signed = x509.load_der_x509_csr(bytes(request)).tbs_certrequest_bytes
    start = request.index(signed)
    for position in range(start, start + len(signed)):
        request[position] ^= 1
        with pytest.raises(certificates.CertificateRefused):
            authority.certify(bytes(request), uuid4())
        request[position] ^= 1


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
    ids=["RSA", "P-384"],
)
def test_only_p256_keys_are_certified(
    authority: Authority, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    with pytest.raises(certificates.CertificateRefused, match="P-256"):
        authority.certify(request.public_bytes(serialization.Encoding.DER), uuid4())


def test_what_root_makes_again_belongs_to_the_account_that_the_folder_was_given_to(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_files_be_given_away(monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    clinic = tmp_path / "clinic"
    authority.make_role("ingest-1", clinic / "ingest")
    (clinic / "opener").mkdir()
    for path in (clinic, *clinic.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    authority.make_role("ingest-1", clinic / "ingest")
    authority.make_opener(clinic / "opener")
    (clinic / "ingest" / "receipt.key").unlink()
    address = authority.broker | {"host": "another.example"}
    (authority.folder / "broker.json").write_text(json.dumps(address))
    authority.make_role("ingest-1", clinic / "ingest")
    assert json.loads((clinic / "broker.json").read_text()) == address
    assert {path.name: os.stat(path).st_uid for path in clinic.rglob("*")} == dict.fromkeys(
        ("broker.json", "ingest", "receipt.key", "tls.key", "tls.crt", "ca.crt", "opener", "opening.key"),
        SOMEBODY,
    )


def test_a_role_does_not_take_anothers_folder(authority: Authority, tmp_path: Path) -> None:
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    with pytest.raises(AuthorityRefused, match="belongs to ingest-1"):
        authority.make_role(AUDITOR, tmp_path / "clinic" / "ingest")


@pytest.mark.parametrize(
    "name", ["ingest", "ingest-0", "ingest-9", "root", "+", "../x", "58e7c494-16e1-4718-ae64-262b2ab1affe"]
)
def test_only_the_clinics_roles_get_a_certificate(authority: Authority, tmp_path: Path, name: str) -> None:
    with pytest.raises(AuthorityRefused, match="is no role"):
        authority.make_role(name, tmp_path / "clinic" / "role")
    assert not (tmp_path / "clinic").exists()


def test_no_authority_takes_the_place_of_one_that_has_lost_a_file(
    authority: Authority, tmp_path: Path
) -> None:
    (authority.folder / "clinic.json").unlink()
    before = {path: path.read_bytes() for path in authority.folder.rglob("*") if path.is_file()}
    with pytest.raises(AuthorityRefused, match="restore that from a copy of it"):
        Authority.load(authority.folder)
    with pytest.raises(AuthorityRefused, match="restore that from a copy of it"):
        Authority.create(authority.folder, "Test clinic")
    assert {path: path.read_bytes() for path in authority.folder.rglob("*") if path.is_file()} == before


def test_an_authority_that_a_crash_left_half_made_is_made(tmp_path: Path) -> None:
    folder = Authority.create(tmp_path / "authority", "Test clinic").folder
    for name in ("clinic.json", "issuing.crt"):
        (folder / name).unlink()
    Authority.create(folder, "Test clinic")
    assert Authority.load(folder).clinic == "Test clinic"


@pytest.mark.parametrize("name", ["root", "issuing", "manifest"])
def test_the_medium_of_another_clinic_is_refused_and_nothing_is_signed_with_its_key(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    authority.make_opener(tmp_path / "opener")
    authority.make_role("ingest-1", tmp_path / "clinic" / "ingest")
    other = Authority.create(tmp_path / "other", "Another clinic")
    shutil.copy(other.folder / f"{name}.key", authority.folder / f"{name}.key")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    signing = {
        "root": [
            authority.renew_issuing,
            lambda: authority.make_opener(tmp_path / "second"),
            lambda: authority.make_role("ingest-2", tmp_path / "clinic" / "ingest-2"),
        ],
        "issuing": [
            lambda: authority.make_role("ingest-1", tmp_path / "clinic" / "ingest"),
            lambda: authority.make_role("ingest-2", tmp_path / "clinic" / "ingest-2"),
            lambda: authority.make_broker(tmp_path / "broker", 18885),
        ],
        "manifest": [lambda: authority.manifest_key],
    }
    for sign in signing[name]:
        with pytest.raises(AuthorityRefused, match="bring this clinic's own"):
            sign()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_certificate_that_names_nobody_is_no_roles(authority: Authority, tmp_path: Path) -> None:
    key, nobody = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder(nobody, nobody, key.public_key(), 1, now, now + timedelta(days=1))
    (tmp_path / "tls.crt").write_bytes(certificates.pem(made.sign(key, hashes.SHA256())))
    with pytest.raises(certificates.CertificateRefused, match="remove or restore"):
        authority.make_role("ingest-1", tmp_path)


def test_a_new_broker_certificate_keeps_the_workers_group(authority: Authority, tmp_path: Path) -> None:
    before = authority.broker
    certificate = (tmp_path / "broker" / "server.crt").read_bytes()
    authority.make_broker(tmp_path / "broker", 18885, hosts=("broker.clinic.test",))
    assert authority.broker == {"host": "broker.clinic.test", "port": 18885, "share": before["share"]}
    assert (tmp_path / "broker" / "server.crt").read_bytes() != certificate


def test_a_role_tells_the_clinic_where_the_broker_is(authority: Authority, tmp_path: Path) -> None:
    authority.make_role(AUDITOR, tmp_path / "clinic" / "auditor")
    path = tmp_path / "clinic" / "broker.json"
    assert json.loads(path.read_text()) == authority.broker
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "facts.json"
    files.write(target, "old", files.PUBLIC)
    with pytest.raises(TypeError):
        files.write(target, object(), files.PUBLIC)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["facts.json"]
