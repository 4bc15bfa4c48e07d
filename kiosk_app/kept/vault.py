"""The vault: what a scan keeps on this kiosk, encrypted item by item under the scan's own key."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import numpy as np
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from hardware.capture import CLOSE_UP, Capture, Frame, Spot
from hardware.host.durable import rename, sync_folder, write_new, write_whole
from hardware.host.errors import PlainError
from hardware.host.regular_file import read_regular_file
from kiosk_app.kept.reserve import DiskFull, Reserve

FORMAT = 1
CHUNK = 1 << 20
_ITEM = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")
# What a process that ended left of an item: an earlier version's, and what `write_whole` names so.
_HALF = re.compile(r"^\.[a-z0-9][a-z0-9._-]{0,63}\.(partial|cob\.[0-9a-f]{8})$")
_ADDED = ("overlay.", f"frame.{CLOSE_UP}")
_MEBIBYTE = 1 << 20
_LARGEST_ITEM = 1 << 30  # bytes: more than any frame


class VaultError(PlainError):
    """The vault could not keep or give back an item; nothing half-written is left."""


class VaultFull(VaultError, DiskFull):
    """There is no room left on the disk for this scan."""


def _context(scan: UUID, item: str) -> bytes:
    """What a ciphertext is bound to: it opens for this scan, this item and this format only."""
    return b"dermakiosk vault %d\0%s\0%s" % (FORMAT, scan.bytes, item.encode())


def new_key() -> bytes:
    """A fresh data key for one scan (256 bits)."""
    return Cobblestone256Encryptor.generate_key()


def _chunks(data: bytes | memoryview) -> Iterator[memoryview]:
    view = memoryview(data).cast("B")
    return (view[start : start + CHUNK] for start in range(0, len(view), CHUNK))


def encrypt(scan: UUID, item: str, dek: bytes, data: bytes | memoryview) -> Iterator[bytes]:
    """The ciphertext of one item, piece by piece: one Cobblestone-256 stream."""
    encryptor = Cobblestone256Encryptor(dek, _context(scan, item))
    for chunk in _chunks(data):
        yield encryptor.update(chunk)
    yield encryptor.finalize()


def decrypt(scan: UUID, item: str, dek: bytes, data: bytes) -> bytes:
    """The item in the ciphertext `data`. Raises VaultError when it is damaged or belongs elsewhere."""
    decryptor = Cobblestone256Decryptor(dek, _context(scan, item))
    try:
        pieces = [decryptor.update(chunk) for chunk in _chunks(data)]
        pieces.append(decryptor.finalize())
    except (InvalidTag, ValueError) as error:
        raise VaultError(f"'{item}' in the vault is damaged or was moved: it cannot be opened.") from error
    return b"".join(pieces)


class Vault:
    """Items in `folder`/<scan>/<item>.cob. Names and sizes can be seen; nothing else can without the key.

    The folder is not made here: where it is lost it is to be put back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reserve = Reserve(folder.with_name("reserve"), folder.with_name("records.sqlite"))

    def _scan_folder(self, scan: UUID) -> Path:
        return self.folder / str(scan)

    def free_mb(self) -> int:
        """Room left for the vault, in MiB. Raises VaultError where it cannot be used or written to."""
        try:
            stats = os.statvfs(self.folder)
        except OSError as error:
            raise VaultError(
                f"The vault {self.folder} cannot be used ({error.strerror}). Put its folder back; if that is"
                " lost for good, make an empty one for this user."
            ) from error
        if stats.f_flag & os.ST_RDONLY:
            raise VaultError(
                f"The vault {self.folder} cannot be written to: its disk is mounted read-only, as after an"
                " error of the disk. Check its health."
            )
        return stats.f_bavail * stats.f_frsize // _MEBIBYTE

    def put_all(self, scan: UUID, dek: bytes, items: dict[str, bytes | memoryview]) -> int:
        """Keep the first items of a scan, all or none of them; the size on disk in bytes.

        Raises VaultFull without leaving anything behind when the disk is full.
        """
        whole, partial = self._folders(scan)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(mode=0o700)
            size = sum(
                write_new(partial / _file(item), encrypt(scan, item, dek, data))
                for item, data in items.items()
            )
            sync_folder(partial)
            rename(partial, whole)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise _explain(error) from error
        return size

    def add(self, scan: UUID, dek: bytes, item: str, data: bytes | memoryview) -> int:
        """Keep one more item of a scan that the vault already holds; the size on disk in bytes."""
        try:
            return write_whole(self._scan_folder(scan) / _file(item), encrypt(scan, item, dek, data))
        except OSError as error:
            raise _explain(error) from error

    def get(self, scan: UUID, dek: bytes, item: str) -> bytes:
        """One item in the clear, in memory. Raises VaultError."""
        try:
            data = read_regular_file(self._scan_folder(scan) / f"{item}.cob", _LARGEST_ITEM)
        except FileNotFoundError as error:
            raise VaultError(f"The vault holds no '{item}' of this scan.") from error
        except OSError as error:
            raise VaultError(
                f"'{item}' in the vault cannot be read ({error.strerror}). Check the kiosk's storage."
            ) from error
        return decrypt(scan, item, dek, data)

    def holds(self, scan: UUID) -> bool:
        """Whether anything of a scan is here, half-written or whole."""
        with self._looking():
            return any(folder.exists() for folder in self._folders(scan))

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        """Raises VaultError where this user may not look through the vault, as after root put it back."""
        try:
            yield
        except PermissionError as error:
            raise VaultError(
                f"The vault {self.folder} cannot be looked through ({error.strerror}): give its folder, with"
                " all that is in it, to the user whom the records belong to."
            ) from error

    def _folders(self, scan: UUID) -> tuple[Path, Path]:
        return self._scan_folder(scan), self.folder / f".{scan}.partial"

    def items(self, scan: UUID) -> list[str]:
        """The names of the items that the vault holds of a scan."""
        return sorted(path.stem for path in self._scan_folder(scan).glob("*.cob"))

    def was_kept(self, scan: UUID) -> bool:
        """Whether something was added to a scan's pictures, as is done once the records call them kept."""
        return any(item.startswith(_ADDED) for item in self.items(scan))

    def size(self, scan: UUID) -> int:
        """How many bytes the vault holds of a scan; what is deleted meanwhile counts no more."""
        return sum(_size(path) for folder in self._folders(scan) for path in folder.glob("*"))

    def destroy(self, scan: UUID) -> list[str]:
        """Delete every item of a scan and say which. Their key is destroyed by `Records.forget`, which has
        `Keyring.destroy_old` do it.

        Raises VaultError where something of it is left.
        """
        gone = self.items(scan)
        for folder in self._folders(scan):
            shutil.rmtree(folder, ignore_errors=True)
            with self._looking():
                left = folder.exists()
            if left:
                raise VaultError("Not every picture of a scan could be deleted. Check the kiosk's storage.")
        try:
            sync_folder(self.folder)
        except FileNotFoundError:
            pass  # the vault is lost: what comes back with it of a scan that is gone is swept
        except OSError as error:
            raise VaultError(
                f"The pictures of a scan may come back after a power cut ({error.strerror}): delete it once"
                " more. Check the kiosk's storage."
            ) from error
        return gone

    def scans(self) -> list[UUID]:
        """The scans of which the vault holds items."""
        with self._looking():
            return scans_in(self.folder)

    def sweep(self, gone: Collection[UUID]) -> int:
        """Delete what a crash left half-written, and what is left of scans that are `gone`; how many.

        Nothing else: what no records know today may be known to records that were put aside. What was never
        whole is known to none.
        """
        with self._looking():
            strays = [path for path in map(self._scan_folder, gone) if path.exists()]
        strays += [path for path in self.folder.glob(".*.partial") if _scan_of(path.stem[1:])]
        for path in strays:
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("*/.*"):
            if _HALF.match(path.name) and _scan_of(path.parent.name) is not None:
                with contextlib.suppress(OSError):  # somebody's folder of that name
                    path.unlink()
        return sum(not path.exists() for path in strays)

    def put_capture(self, scan: UUID, dek: bytes, capture: Capture) -> int:
        """Keep a Capture: one stream for each frame, one for what describes them; the size on disk."""
        return self.put_all(scan, dek, _items(capture))

    def add_close_up(self, scan: UUID, dek: bytes, number: int, frame: Frame) -> int:
        """Add the frame of a marked spot, by its number among them; the added size.

        It is of the Capture once `add_spots` has described it. Whatever ends it before that, the Capture is
        whole, without it.
        """
        return self.add(scan, dek, f"frame.{CLOSE_UP}{number}", _pixels(frame))

    def add_spots(self, scan: UUID, dek: bytes, taken: Sequence[tuple[Spot, Frame | None]]) -> int:
        """Add marked spots to the kept Capture, whose frames are added already; the added size."""
        return self.add(scan, dek, "capture", _description(self.get_capture(scan, dek).with_close_ups(taken)))

    def get_capture(self, scan: UUID, dek: bytes) -> Capture:
        """The Capture of a scan, in memory. Raises VaultError."""
        description = self.get(scan, dek, "capture")
        try:
            header = json.loads(description)
            frames = []
            for entry in header.pop("frames"):
                shape, dtype = entry.pop("shape"), np.dtype(entry.pop("dtype"))
                pixels = np.frombuffer(self.get(scan, dek, f"frame.{entry['light']}"), dtype).reshape(shape)
                frames.append(Frame(pixels=pixels, **entry))
            return Capture.known(header, frames)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VaultError(
                "What the vault holds of this scan does not make a Capture; was it kept by another version?"
            ) from error


def _file(item: str) -> str:
    """The name of the file that holds an item."""
    if not _ITEM.match(item):
        raise ValueError(f"'{item}' cannot name an item of the vault.")
    return f"{item}.cob"


def scans_in(folder: Path) -> list[UUID]:
    """The scans of which the vault `folder` holds items; none where there is no such folder."""
    if not folder.is_dir():
        return []
    named = ((_scan_of(path.name), path) for path in sorted(folder.iterdir()))
    return [scan for scan, path in named if scan is not None and any(path.glob("*.cob"))]


def _scan_of(name: str) -> UUID | None:
    """The scan whose folder has this name; None for what is no scan's."""
    try:
        scan = UUID(name)
    except ValueError:
        return None
    return scan if str(scan) == name else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _items(capture: Capture) -> dict[str, bytes | memoryview]:
    """What is kept of a Capture, by item."""
    frames = {f"frame.{frame.light}": _pixels(frame) for frame in capture.frames}
    return {"capture": _description(capture), **frames}


def _description(capture: Capture) -> bytes:
    frames = [
        frame.header() | {"shape": list(frame.pixels.shape), "dtype": frame.pixels.dtype.name}
        for frame in capture.frames
    ]
    return json.dumps(capture.header() | {"frames": frames}).encode()


def _pixels(frame: Frame) -> memoryview:
    return np.ascontiguousarray(frame.pixels).data.cast("B")


def _explain(error: OSError) -> VaultError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return VaultFull(
            "The kiosk's storage is full, so this scan was not kept. Ask staff to shred scans that are no "
            "longer needed, or to enlarge the storage."
        )
    return VaultError(f"The kiosk's storage did not accept the scan ({error.strerror}), so it was not kept.")
