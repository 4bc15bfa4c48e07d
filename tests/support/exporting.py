"""An opener that writes files, and a disk of the exports that is watched, full, or cut off."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from sync.clinic.receiving.export_folder import MARK
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.wire.keys import OpeningKey
from tests.support.clinic import SealingKiosk
from tests.support.withdrawing import a_reminder, arrive, withdraw

# What a script of `on_a_small_disk` begins with: a clinic's database beside the disk, and its kiosk.
ON_A_DISK = """
from uuid import uuid4
from structlog.testing import capture_logs
from sync.clinic.receiving import opener as opener_module
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.clinic.store.tables import Scan
from sync.wire.keys import generate_opening_key
from tests.support.clinic import SealingKiosk, registered
from tests.support.exporting import files
from tests.support.withdrawing import arrive, count, envelope, withdraw
opener_module.EXPORTS_WAIT_S = 0.0
database = Database.at(disk.parent / "clinic")
database.migrate()
opening = generate_opening_key()
kiosk = registered(database, SealingKiosk(opening), disk.parent)
"""


class Killed(BaseException):
    """The process ends here."""


def before_each_act(patch: pytest.MonkeyPatch, folder: Path, do: Callable[[str], None]) -> None:
    """Have `do` be called, with the file's name, before anything is done to the disk in `folder`."""

    def watched(act: Callable[..., Any]) -> Callable[..., Any]:
        def instead(which: int | str | Path, *given: Any, **named: Any) -> Any:
            handle = which if isinstance(which, int) else named.get("src_dir_fd", named.get("dir_fd"))
            path = Path() if handle is None else Path(f"/proc/self/fd/{handle}").readlink()
            path = path if which == handle else path / str(which)
            if path.is_relative_to(folder):
                do(path.name)
            return act(which, *given, **named)

        return instead

    for name in ("fsync", "replace", "rename", "unlink"):
        patch.setattr(os, name, watched(getattr(os, name)))


def is_killed_at(act: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do `work`, which ends before it does so much to the disk in `folder`; False if it does not so much."""
    left = act

    def count_down(_: str) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        before_each_act(patch, folder, count_down)
        try:
            work()
        except Killed:
            return True
    return False


def of_every_kind(database: Database, kiosk: SealingKiosk) -> set[UUID]:
    """Let messages come that are opened together, or alone, or not at all; those that have a file at last."""
    first, gone, unnamed, twice = uuid4(), uuid4(), uuid4(), uuid4()
    arrive(database, kiosk, kiosk.result(twice), first)
    carried = arrive(database, kiosk, kiosk.result(gone))
    arrive(database, kiosk, kiosk.result(unnamed))
    stay = [
        arrive(database, kiosk, kiosk.result()),
        arrive(database, kiosk, a_reminder(None)),
        first,
        arrive(database, kiosk, kiosk.result(twice, supersedes=first)),
        arrive(database, kiosk, withdraw(gone, carried)),
        arrive(database, kiosk, withdraw(unnamed)),
    ]
    arrive(database, kiosk, kiosk.result(twice))
    return set(stay)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def events(logged: Iterable[Mapping[str, Any]], level: str) -> set[str]:
    return {each["event"] for each in logged if each["log_level"] == level}


def begun(database: Database, key: OpeningKey, out: Path) -> Opener:
    opener = Opener(database, [key], out)
    opener.begin()
    return opener


def files(folder: Path) -> set[str]:
    """But for the one by which it is known again."""
    return {path.name for path in folder.iterdir()} - {MARK} if folder.exists() else set()
