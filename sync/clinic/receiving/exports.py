"""What was opened, as files in the folder that the clinic names; they go when their scan goes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from sync.clinic.receiving.results import Key
from sync.clinic.store.durable import sync_folder
from sync.wire.messages import Message

# What a process that was killed leaves there.
_HALF_WRITTEN = ".part"


def write(export: Path | None, key: Key, message: Message) -> None:
    """Write what was opened, where there is a folder for it.

    It comes before the commit, so that a crash leaves none out.
    """
    if export is None:
        return
    path = exported(export, *key)
    export.mkdir(parents=True, exist_ok=True, mode=0o700)
    # By a name that the next try, or a withdrawal, finds again.
    temporary = path.with_suffix(_HALF_WRITTEN)
    descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(message.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(export)


def forget_exports(export: Path | None, kiosk: UUID, messages: Iterable[UUID]) -> None:
    """Delete what was written of these messages of one kiosk."""
    if export is not None:
        for message in messages:
            # An earlier version named no kiosk, so its file may be another's: better gone than left.
            for path in (exported(export, kiosk, message), export / f"{message}.json"):
                path.unlink(missing_ok=True)
                path.with_suffix(_HALF_WRITTEN).unlink(missing_ok=True)


def exported(export: Path, kiosk: UUID, message: UUID) -> Path:
    """The file of a message; two kiosks can have used the same id."""
    return export / f"{kiosk}.{message}.json"
