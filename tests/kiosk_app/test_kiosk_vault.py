"""The vault: what is kept is encrypted, bound to its place, whole or absent."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from hardware.capture import Capture, Frame
from hardware.host.folders import make_folder
from kiosk_app.kept import vault as vaults
from kiosk_app.kept.vault import Vault, VaultError, VaultFull
from tests.support.full_disk import on_a_small_disk


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(make_folder(tmp_path / "vault"))


def small_capture() -> Capture:
    pixels = np.arange(40 * 30 * 3, dtype=np.uint16).reshape(40, 30, 3)
    frames = tuple(
        Frame(light=light, pixels=pixels + step, exposure_us=1000, gain=1.0, timestamp_ns=step)
        for step, light in enumerate(("white", "cross", "uv365"))
    )
    return Capture(board="test", frames=frames, calibration="c", simulated=True, missing={"dir0": "no pin"})


def test_a_capture_comes_back_as_it_went_in(vault: Vault) -> None:
    scan, dek, capture = uuid4(), vaults.new_key(), small_capture()
    size = vault.put_capture(scan, dek, capture)
    back = vault.get_capture(scan, dek)
    assert vault.items(scan) == ["capture", "frame.cross", "frame.uv365", "frame.white"]
    assert size == sum(path.stat().st_size for path in (vault.folder / str(scan)).iterdir())
    assert back.missing == capture.missing
    for frame in capture.frames:
        kept = back.frame(frame.light)
        assert kept is not None
        assert np.array_equal(kept.pixels, frame.pixels)
        assert kept.header() == frame.header()


def test_a_picture_that_is_deleted_while_sizes_are_asked_for_has_none(vault: Vault) -> None:
    scan = uuid4()
    size = vault.put_all(scan, vaults.new_key(), {"a": b"first"})
    (vault.folder / str(scan) / "deleted.cob").symlink_to("nowhere")  # listed, and not there any more
    assert vault.size(scan) == size


def test_nothing_kept_can_be_found_in_the_clear(vault: Vault) -> None:
    scan, dek, capture = uuid4(), vaults.new_key(), small_capture()
    vault.put_capture(scan, dek, capture)
    kept = b"".join(path.read_bytes() for path in vault.folder.rglob("*") if path.is_file())
    assert capture.frames[0].pixels.tobytes()[200:232] not in kept
    assert b"exposure_us" not in kept


def test_an_item_opens_only_in_its_own_place(vault: Vault) -> None:
    one, other, dek = uuid4(), uuid4(), vaults.new_key()
    vault.put_all(one, dek, {"a": b"first", "b": b"second"})
    vault.put_all(other, dek, {"a": b"third"})
    folder = vault.folder / str(one)
    (folder / "b.cob").write_bytes((folder / "a.cob").read_bytes())
    with pytest.raises(VaultError, match="damaged or was moved"):
        vault.get(one, dek, "b")
    (folder / "a.cob").write_bytes((vault.folder / str(other) / "a.cob").read_bytes())
    with pytest.raises(VaultError, match="damaged or was moved"):
        vault.get(one, dek, "a")


@pytest.mark.parametrize("change", ["flip", "truncate", "extend", "empty"])
def test_a_damaged_item_is_refused(vault: Vault, change: str) -> None:
    scan, dek = uuid4(), vaults.new_key()
    vault.put_all(scan, dek, {"a": bytes(50_000)})
    path = vault.folder / str(scan) / "a.cob"
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[30_000] ^= 1
    changed = {"truncate": data[:20_000], "extend": data + b"\0", "empty": b""}.get(change, data)
    path.write_bytes(changed)
    with pytest.raises(VaultError):
        vault.get(scan, dek, "a")


def test_files_are_for_this_user_alone(vault: Vault) -> None:
    scan = uuid4()
    vault.put_all(scan, vaults.new_key(), {"a": b"x"})
    assert vault.folder.stat().st_mode & 0o777 == 0o700
    assert (vault.folder / str(scan) / "a.cob").stat().st_mode & 0o777 == 0o600


def test_an_item_cannot_be_named_out_of_its_folder(vault: Vault) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        vault.put_all(uuid4(), vaults.new_key(), {"../escape": b"x"})


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A real small file system in a mount namespace of its own, so that nothing is left mounted."""
    script = """
from uuid import uuid4
from kiosk_app.kept import vault as vaults
(disk / "vault").mkdir()
vault = vaults.Vault(disk / "vault")
dek, kept, lost = vaults.new_key(), uuid4(), uuid4()
vault.put_all(kept, dek, {"a": bytes(300_000)})
try:
    vault.put_all(lost, dek, {"a": bytes(300_000), "b": bytes(900_000)})
except vaults.VaultFull as error:
    print(error)
try:
    vault.add(kept, dek, "overlay.zones", bytes(900_000))
except vaults.VaultFull as error:
    print("again")
assert [path.name for path in vault.folder.iterdir()] == [str(kept)], list(vault.folder.iterdir())
assert [path.name for path in (vault.folder / str(kept)).iterdir()] == ["a.cob"]
assert vault.get(kept, dek, "a") == bytes(300_000)
"""
    said = on_a_small_disk(tmp_path, script, "1m")
    assert "storage is full" in said
    assert "again" in said


def test_a_disk_that_fails_is_said_plainly(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(VaultError, match="Input/output error") as caught:
        vault.put_all(uuid4(), vaults.new_key(), {"a": b"x"})
    assert not isinstance(caught.value, VaultFull)
    assert list(vault.folder.iterdir()) == []


def test_a_sweep_removes_what_a_crash_left_half_written_and_what_is_gone_and_nothing_else(
    vault: Vault,
) -> None:
    kept, gone = uuid4(), uuid4()
    for scan in (kept, gone):
        vault.put_all(scan, vaults.new_key(), {"a": b"x"})
    (vault.folder / f".{uuid4()}.partial").mkdir()
    for half in (".b.partial", ".b.cob.0123abcd"):  # an earlier version's, and ours
        (vault.folder / str(kept) / half).write_bytes(b"half")
    others = [
        Path(str(kept), ".a.cob.Xy12zZ"),
        Path(str(kept), ".c.partial"),
        Path("lost+found", ".b.partial"),
    ]
    (vault.folder / "lost+found").mkdir()
    (vault.folder / others[0]).write_bytes(b"while staff put a vault back")
    (vault.folder / others[1]).mkdir()
    (vault.folder / others[2]).write_bytes(b"another program's")
    assert vault.sweep([gone, uuid4()]) == 2
    assert {path.name for path in vault.folder.iterdir()} == {str(kept), "lost+found"}
    left = {path.relative_to(vault.folder) for path in vault.folder.glob("*/*")}
    assert left == {Path(str(kept), "a.cob"), *others}
    assert vault.scans() == [kept]


def test_a_vault_that_this_user_may_not_look_through_is_said_plainly(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after root put it back."""

    def refused(path: Path, *_flags: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    scan = uuid4()
    monkeypatch.setattr(Path, "iterdir", refused)
    monkeypatch.setattr(Path, "exists", refused)
    looks: list[Callable[[], object]] = [
        vault.scans,
        lambda: vault.holds(scan),
        lambda: vault.sweep([scan]),
        lambda: vault.destroy(scan),
    ]
    for look in looks:
        with pytest.raises(
            VaultError, match=r"cannot be looked through \(Permission denied\): give its folder"
        ):
            look()


def test_an_item_that_the_disk_does_not_give_back_is_said_plainly(vault: Vault) -> None:
    scan, dek = uuid4(), vaults.new_key()
    vault.put_capture(scan, dek, small_capture())
    item = vault.folder / str(scan) / "frame.white.cob"
    item.unlink()
    item.mkdir()
    with pytest.raises(VaultError, match=r"'frame.white' in the vault cannot be read \(it is a folder"):
        vault.get_capture(scan, dek)


@pytest.mark.parametrize(
    "description", [b"{", b"[]", b"{}", b'{"frames": [{}]}', b'{"frames": [], "new": 1}']
)
def test_a_capture_with_another_description_is_said_plainly(vault: Vault, description: bytes) -> None:
    scan, dek = uuid4(), vaults.new_key()
    vault.put_all(scan, dek, {"capture": description})
    with pytest.raises(VaultError, match="does not make a Capture"):
        vault.get_capture(scan, dek)
