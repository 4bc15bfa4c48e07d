"""The storage of one kiosk: its keys, its records and its vault in one folder, which belong together."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from hardware.counts import counted
from hardware.host.durable import sync_folder
from hardware.host.errors import PlainError
from hardware.host.folders import make_folder
from hardware.host.own_file import open_own
from kiosk_app.kept.keyring import RECORDS, Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import log_of
from kiosk_app.kept.states import ScanState, is_kept
from kiosk_app.kept.vault import Vault, scans_in

_VAULT, _LOCK = "vault", "serve.lock"


class StateRefused(PlainError):
    """The state folder cannot hold what the application keeps."""

    exit_status = 2


class RecordsLost(PlainError):
    """The vault holds scans, and there are no records that know any."""


class AlreadyServed(PlainError):
    """Another application works on what is kept here."""


@contextlib.contextmanager
def only_server(app: Path) -> Iterator[None]:
    """Be the only application over what `app` keeps; the kernel lets go when the process dies.

    It finishes and abandons what it finds begun, and that would be what another one's patient is at. Commands
    that list or delete scans do not ask for this. Where there is no folder none is made.
    Raises AlreadyServed, StateRefused.
    """
    with contextlib.ExitStack() as holding:
        try:
            handle = open_own(app / _LOCK, os.O_RDWR | os.O_CREAT)
            holding.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyServed(f"Another 'dermakiosk serve' runs on {app}: stop it first.") from error
        except FileNotFoundError:
            pass  # nothing is kept in what is no kiosk's folder; who starts here is told so
        except OSError as error:
            raise StateRefused(
                f"{app / _LOCK} cannot be used ({error.strerror}):"
                " it has to be a file that this user may write."
            ) from error
        yield


def open_storage(app: Path, *, as_it_is: bool = False) -> tuple[Records, Vault]:
    """What the application keeps in `app`; `as_it_is` for a command, which makes nothing of it.

    Raises RecordsLost where the vault holds scans and the records are not there, StateRefused.
    """
    path = app / RECORDS
    try:
        # Before anything is made: SQLite deletes the log beside records that are empty or not there.
        if not _has_content(path):
            _refuse_over_scans(path, "are empty" if has_records(app) else "are missing")
        if as_it_is and not has_records(app):
            raise StateRefused(f"{app} keeps no scan: there are no records in it. Check --state.")
        vault = Vault(app / _VAULT)
        keyring = Keyring(app / "vault.key")
        # Who wants to make room by deleting scans has to open the records first.
        records = vault.reserve.lend(lambda: Records(path, keyring, as_it_is=as_it_is))
        if not as_it_is:
            if not records.knows_any():
                _refuse_over_scans(path, "know no scan")
            _make_vault(vault, records)
    except OSError as error:
        raise _unusable(app, error) from error
    return records, vault


def _make_vault(vault: Vault, records: Records) -> None:
    """Make the vault's folder, but in the place of one that is lost: until that is back the kiosk rests."""
    if not vault.folder.is_dir() and not any(map(is_kept, records.states().values())):
        sync_folder(make_folder(vault.folder).parent)


def has_records(app: Path) -> bool:
    """Whether there are records in `app`. Raises StateRefused."""
    try:
        (app / RECORDS).stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unusable(app, error) from error
    return True


def unknown_scans(records: Records, vault: Vault) -> list[UUID]:
    """The scans that the vault holds and the records do not know, as after an older copy was put back.

    Or know from before there were pictures. The records that know them may come back: they stay until staff
    destroy them.
    """
    held = vault.scans()  # before the records are asked: a scan is known before it has pictures
    kept = {scan for scan in held if vault.was_kept(scan)}
    known = records.states()
    return [
        scan for scan in held if scan not in known or (known[scan] == ScanState.CONSENTED and scan in kept)
    ]


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _refuse_over_scans(path: Path, what: str) -> None:
    folder = path.with_name(_VAULT)
    held = len(scans_in(folder))
    if held:
        log = log_of(path)
        theirs = f" Their log {log.name} would ruin a copy of them: move it aside before you put one there."
        raise RecordsLost(
            f"The kiosk's records {path} {what}, but its vault holds {counted(held, 'scan')}: nothing was"
            f" deleted, and nothing can be served. Put the records back, or give the kiosk a new state folder"
            " and enrol it there: new records would use numbers again that the clinic knows."
            f"{theirs if log.exists() else ''}"
        )


def _unusable(app: Path, error: OSError) -> StateRefused:
    return StateRefused(
        f"{app} cannot be used ({error.strerror}): make it a folder that this user can write."
    )
