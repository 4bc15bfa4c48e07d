"""An enrolled kiosk runs only networks of a manifest that its clinic signed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hardware.capture import Capture, Frame
from models.analysis import child
from models.analysis.words import ENGLISH
from models.cli import analyse, models
from models.networks import manifest
from models.networks.manifest import ModelsError
from models.networks.signature import SigningRefused, check_signature, sign_manifest


def key_file(path: Path, key=None) -> Path:
    key = key or Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@pytest.fixture
def kiosk(tmp_path: Path) -> Path:
    """The state of an enrolled kiosk whose clinic's manifest key is manifest.key beside it."""
    key = Ed25519PrivateKey.generate()
    key_file(tmp_path / "manifest.key", key)
    state = tmp_path / "kiosk"
    state.mkdir()
    (state / "identity.json").write_text("{}")
    (state / "clinic-manifest.pub").write_text(key.public_key().public_bytes_raw().hex() + "\n")
    return state


@pytest.fixture
def signed(kiosk: Path) -> Path:
    done = CliRunner().invoke(
        models, ["sign", "--key", str(kiosk.parent / "manifest.key"), "--state", str(kiosk)]
    )
    assert done.exit_code == 0, done.output
    return kiosk


def forget_the_manifest() -> None:
    manifest.manifest_bytes.cache_clear()
    manifest.load_manifest.cache_clear()


@pytest.fixture
def other_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A manifest that differs in one byte of a comment."""
    (tmp_path / "manifest.toml").write_bytes(
        manifest.MANIFEST.read_bytes().replace(b"# Every", b"# every", 1)
    )
    monkeypatch.setattr(manifest, "MANIFEST", tmp_path / "manifest.toml")
    forget_the_manifest()
    yield
    forget_the_manifest()


def test_a_checkout_is_unsigned_and_says_so(tmp_path: Path) -> None:
    assert check_signature(None) == "unsigned"
    assert check_signature(tmp_path) == "unsigned"
    done = CliRunner().invoke(models, ["verify"], env={"DERMAKIOSK_STATE": ""})
    assert done.exit_code == 0
    assert "manifest" in done.output and "unsigned" in done.output


def test_a_signed_manifest_is_verified(signed: Path) -> None:
    assert check_signature(signed) == "signed"
    done = CliRunner().invoke(models, ["verify"], env={"DERMAKIOSK_STATE": str(signed)})
    assert done.exit_code == 0
    assert " signed" in done.output and "unsigned" not in done.output


def test_an_enrolled_kiosk_without_a_signature_runs_nothing(kiosk: Path) -> None:
    with pytest.raises(ModelsError, match="has not signed .*dermakiosk models sign"):
        check_signature(kiosk)


def test_an_enrolled_kiosk_cannot_be_made_a_checkout_by_removing_the_key(signed: Path) -> None:
    (signed / "clinic-manifest.pub").unlink()
    with pytest.raises(ModelsError, match="Enrol the kiosk again"):
        check_signature(signed)


def test_nothing_is_signed_for_a_folder_that_is_no_kiosks(tmp_path: Path) -> None:
    with pytest.raises(SigningRefused, match="is no enrolled kiosk's state") as refused:
        sign_manifest(key_file(tmp_path / "manifest.key"), tmp_path)
    assert refused.value.exit_status == 2
    assert list(tmp_path.glob("*.sig")) == []


def test_a_manifest_signed_by_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    other, elsewhere = Ed25519PrivateKey.generate(), tmp_path / "other"
    elsewhere.mkdir()
    (elsewhere / "clinic-manifest.pub").write_text(other.public_key().public_bytes_raw().hex())
    sign_manifest(key_file(tmp_path / "other.key", other), elsewhere)
    (signed / "models.sig").write_bytes((elsewhere / "models.sig").read_bytes())
    with pytest.raises(ModelsError, match="not the one that this kiosk's clinic signed, so none is loaded"):
        check_signature(signed)
    done = CliRunner().invoke(models, ["verify", "--state", str(signed)])
    assert isinstance(done.exception, ModelsError) and done.exception.exit_status == 1
    assert str(done.exception).count("\n") == 0


def test_a_manifest_with_one_other_byte_is_refused(signed: Path, other_manifest: None) -> None:
    with pytest.raises(ModelsError, match="not the one that this kiosk's clinic signed"):
        check_signature(signed)


def test_a_manifest_put_back_after_another_was_loaded_is_still_refused(
    signed: Path, other_manifest: None
) -> None:
    used = manifest.load_manifest()
    altered = manifest.MANIFEST.read_bytes()
    manifest.MANIFEST.write_bytes(altered.replace(b"# every", b"# Every", 1))
    assert manifest.load_manifest() is used
    with pytest.raises(ModelsError, match="not the one that this kiosk's clinic signed"):
        check_signature(signed)


@pytest.mark.parametrize("content", ["", "00", "nonsense", "0" * 128])
def test_a_damaged_signature_is_refused(signed: Path, content: str) -> None:
    (signed / "models.sig").write_text(content)
    with pytest.raises(ModelsError, match="models sign"):
        check_signature(signed)


def test_a_key_of_another_clinic_signs_nothing(kiosk: Path, tmp_path: Path) -> None:
    with pytest.raises(SigningRefused, match="is not the manifest key of the clinic"):
        sign_manifest(key_file(tmp_path / "other.key"), kiosk)
    assert not (kiosk / "models.sig").exists()


@pytest.mark.parametrize("way", ["by its name", "through a link", "as a link"])
def test_a_key_that_lies_where_its_signature_is_to_be_is_not_lost(
    way: str, signed: Path, tmp_path: Path
) -> None:
    key, place = tmp_path / "manifest.key", signed / "models.sig"
    place.unlink()
    if way == "as a link":
        place.symlink_to(key)
    else:
        key.rename(place)
        key.symlink_to(place)
    before = place.read_bytes()
    with pytest.raises(SigningRefused, match="give the key a name elsewhere") as refused:
        sign_manifest(key if way == "through a link" else place, signed)
    assert refused.value.exit_status == 2
    assert place.read_bytes() == before


def test_what_is_no_signing_key_is_refused_without_a_word_of_it(kiosk: Path, tmp_path: Path) -> None:
    (tmp_path / "text.key").write_text("secret words")
    key_file(tmp_path / "curve.key", generate_ec_key(SECP256R1()))
    for name in ("text.key", "curve.key", "absent.key"):
        with pytest.raises(SigningRefused, match="Name the manifest key") as refused:
            sign_manifest(tmp_path / name, kiosk)
        assert refused.value.exit_status == 2
        assert "secret" not in str(refused.value)


def test_the_commands_and_the_analysis_of_a_scan_refuse_what_is_not_signed(
    kiosk: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(analyse, ["face", str(tmp_path / "x.png"), "--state", str(kiosk)])
    assert isinstance(done.exception, ModelsError)
    frame = Frame("white", np.zeros((48, 64, 3), np.uint16), 8000, 1.0, timestamp_ns=0)
    pictures = os.memfd_create("capture")
    for block in Capture("test", (frame,), simulated=True).blocks():
        os.write(pictures, block)
    result = child.run(pictures, uuid4(), "ai-edge-litert", ENGLISH, kiosk)
    assert (result.error, result.findings) == ("models", None)
    assert "has not signed" in str(result.sentence)
