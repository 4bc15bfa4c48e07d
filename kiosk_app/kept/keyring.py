"""The vault's key-encryption keys: generations in one private file, the newest wraps every scan's key."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from hardware.host import sqlite
from hardware.host.durable import finish_wipe, replace_secret
from hardware.host.errors import PlainError
from hardware.host.folders import make_folder
from hardware.host.own_file import open_own
from hardware.host.patience import patience, so_long
from hardware.host.regular_file import SMALL_BYTES
from kiosk_app.kept.reserve import DiskFull

FORMAT = 2
_READS = (1, FORMAT)  # the first one holds a key for patient references besides, which none needs
KEY_BYTES = 32
# Longer than an honest holder needs. A shredding waits a moment for the records' file (records.ALONE_S), then
# wraps the key of every kept scan anew (100,000 of them in about 4 s on a Raspberry Pi) and syncs a dozen
# small writes to a card. Whoever makes a scan waits for that file up to its own deadline. A process that was
# stopped holds the keys for ever.
LOCKED_S, _LOOK_S = 60.0, 0.02
_SO_LONG = "See which 'dermakiosk' commands run, and end the one that hangs."
_NOT_YET = "Try again in a moment."
RECORDS = "records.sqlite"  # beside the key file: what its keys have been used for


class KeyringError(PlainError):
    """The vault's key file cannot be used; the message says why and what to do."""


class KeyringBusy(KeyringError):
    """Another process or thread held the keys for longer than whoever is at work here waits for them."""


class KeyringFull(KeyringError, DiskFull):
    """There is no room on the disk for a new key file."""


class KeyGone(KeyringError):
    """A data key was wrapped under a generation that has been destroyed."""


@dataclass(frozen=True)
class _Contents:
    generations: dict[int, bytes]

    @property
    def newest(self) -> int:
        return max(self.generations)

    @property
    def mark(self) -> bytes:
        return self.newest.to_bytes(4, "big")

    def wrap(self, dek: bytes) -> bytes:
        return self.mark + aes_key_wrap(self.generations[self.newest], dek)

    def unwrap(self, wrapped: bytes) -> bytes:
        kek = self.generations.get(int.from_bytes(wrapped[:4], "big"))
        if kek is None:
            raise KeyGone("This scan's key has been destroyed: nothing of the scan can be read any more.")
        try:
            return aes_key_unwrap(kek, wrapped[4:])
        except InvalidUnwrap as error:
            raise KeyringError("A scan's key in the local records is damaged. Restore it.") from error

    def rewrap(self, wrapped: bytes) -> bytes | None:
        try:
            return self.wrap(self.unwrap(wrapped))
        except KeyringError:
            return None

    def to_bytes(self) -> bytes:
        return json.dumps(
            {
                "format": FORMAT,
                "generations": {str(number): key.hex() for number, key in self.generations.items()},
            }
        ).encode()


class Keyring:
    """The generations of the key-encryption key (KEK) in the file `path`.

    The file is made when there are no records beside it yet; later its loss is an error.
    A wrapped data key (DEK) is the generation's number in four bytes, then AES-KW (RFC 3394). The file is
    read anew at each use, so that a key destroyed by another process is gone here too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent)
        with self.lock():
            finish_wipe(path)
            used = (path.parent / RECORDS).exists()
            if not used and (not path.exists() or path.stat().st_size == 0):
                self._write(_Contents({1: os.urandom(KEY_BYTES)}))
            self._read()  # a new key would make the loss of the old one look like damage

    @contextlib.contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold this around anything that pairs the key file with rows wrapped under it.

        The daemon and a command then never change the same keys. Raises KeyringBusy after LOCKED_S, or the
        caller's own patience.
        """
        handle = self._open_lock()
        try:
            self._take(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _open_lock(self) -> int:
        lock = self.path.with_suffix(".lock")
        try:
            return open_own(lock, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            failed = KeyringFull if sqlite.is_full(error, lock) else KeyringError
            raise failed(
                f"The lock of the vault's keys {lock} cannot be used: {sqlite.cause(error, lock)}."
            ) from error

    def _take(self, handle: int, lock: int) -> None:
        wait_s = patience(LOCKED_S)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, lock | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise KeyringBusy(
                        f"The vault's key file {self.path} has been held by another process for more than "
                        f"{so_long(wait_s)}. {_SO_LONG if wait_s >= LOCKED_S else _NOT_YET}"
                    ) from error
            time.sleep(_LOOK_S)

    def _read(self) -> _Contents:
        try:
            with open(open_own(self.path, os.O_RDONLY), "rb") as file:
                data = json.loads(file.read(SMALL_BYTES))
            if data["format"] not in _READS:
                raise KeyringError(self._unusable("is of another version of this software"))
            generations = {int(number): bytes.fromhex(key) for number, key in data["generations"].items()}
            contents = _Contents(generations)
        except FileNotFoundError as error:
            raise self._missing() from error
        except OSError as error:
            raise KeyringError(
                f"The vault's key file {self.path} cannot be read ({error.strerror}): "
                "put the file itself there, for this user to read."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise KeyringError(self._unusable("is damaged")) from error
        if not generations or any(len(key) != KEY_BYTES for key in generations.values()):
            raise KeyringError(self._unusable("holds no usable key"))
        return contents

    def _missing(self) -> KeyringError:
        return KeyringError(self._unusable("is missing"))

    def _unusable(self, why: str) -> str:
        return (
            f"The vault's key file {self.path} {why}: what the vault holds cannot be read. "
            "Restore the file, or give the kiosk a new state folder."
        )

    def _write(self, contents: _Contents) -> None:
        try:
            replace_secret(self.path, contents.to_bytes())
        except OSError as error:
            failed = KeyringFull if sqlite.is_full(error, self.path) else KeyringError
            raise failed(
                f"The vault's key file {self.path} cannot be written: {sqlite.cause(error, self.path)}."
            ) from error

    def generations(self) -> list[int]:
        """The numbers of the generations that exist, oldest first; more than one until a shred is over."""
        return sorted(self._read().generations)

    def mark(self) -> bytes:
        """What each data key begins with that is wrapped under the newest generation: four bytes."""
        return self._read().mark

    def wrap(self, dek: bytes) -> bytes:
        """`dek` wrapped under the newest generation."""
        return self._read().wrap(dek)

    def unwrap(self, wrapped: bytes) -> bytes:
        """The data key in `wrapped`. Raises KeyGone when its generation was destroyed."""
        return self._read().unwrap(wrapped)

    def rewrap(self, wrapped: Iterable[bytes]) -> list[bytes | None]:
        """The same data keys under the newest generation, with the file read once; None for a damaged one.

        Its scan cannot be read with this file, and must not keep others from being destroyed.
        """
        contents = self._read()
        return [contents.rewrap(each) for each in wrapped]

    def begin_generation(self, *, instead_of_newest: bool = False) -> None:
        """Add a new generation beside the old ones; wrap() uses it from now on.

        `instead_of_newest`: the newest of them, under which nothing is, is destroyed.
        """
        contents = self._read()
        kept = dict(contents.generations)
        if instead_of_newest:
            del kept[contents.newest]
        self._write(_Contents(kept | {contents.newest + 1: os.urandom(KEY_BYTES)}))

    def destroy_old(self) -> None:
        """Destroy every generation but the newest: what is wrapped under them is gone for good."""
        contents = self._read()
        if len(contents.generations) > 1:
            newest = {contents.newest: contents.generations[contents.newest]}
            self._write(_Contents(newest))
