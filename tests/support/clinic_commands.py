"""The clinic's commands, each of which may fail, over a clinic of a test's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kiosk_app.cli import main
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import Poison
from sync.wire.keys import dump_opening_keys, generate_opening_key
from tests.support.clinic import SealingKiosk
from tests.support.own_log import own_log

WRITING = ("add-account", "register-kiosk", "discard", "retry", "open")
READING = ("status", "list", "show")


def made(state: Path, url: str | None = None) -> dict[str, Sequence[str]]:
    """A clinic in `state` with one payload in quarantine; each command that may fail there."""
    database = Database.at(state, url)
    database.migrate()
    kiosk = SealingKiosk(generate_opening_key())
    row = Poison(id=1, kiosk=kiosk.id, sha256=b"s", data=b"x", reason="not_cose", received_at=now())
    with database.writing() as session:
        session.add(row)
    database.close()
    entry = state / "kiosk.json"
    entry.write_text(json.dumps(kiosk.registry_entry()))
    (state / "opener").mkdir()
    (state / "opener" / "opening.key").write_bytes(dump_opening_keys([kiosk.opening]))
    where = ("--state", str(state), *(("--db", url) if url else ()))
    return {
        "migrate": ("migrate", *where),
        "add-account": ("add-account", "ann", *where),
        "register-kiosk": ("register-kiosk", str(entry), *where),
        "discard": ("quarantine", "discard", "1", "--reason", "a test", "--yes", *where),
        "retry": ("quarantine", "retry", "1", *where),
        "open": ("open", *where),
        "status": ("status", *where),
        "list": ("quarantine", "list", *where),
        "show": ("quarantine", "show", "1", *where),
    }


def said(capsys: pytest.CaptureFixture[str], command: Sequence[str]) -> tuple[Any, str]:
    """The exit status of a clinic command, and what it says on stderr."""
    capsys.readouterr()
    with own_log(), pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["dermakiosk", "clinic", *command])
        main()
    return ended.value.code, capsys.readouterr().err
