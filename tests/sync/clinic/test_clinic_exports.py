"""What an earlier version exported of a scan goes with the scan, under the name that it had then."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.wire import topics
from sync.wire.keys import OpeningKey
from sync.wire.messages import Message, Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, registered


@pytest.mark.parametrize("again", [False, True])
def test_what_an_earlier_version_exported_is_deleted_by_a_withdrawal_and_at_each_start(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, again: bool
) -> None:
    kiosk, out = registered(sqlite, SealingKiosk(opening_key), tmp_path), tmp_path / "opened"
    scan, result, other = uuid4(), uuid4(), uuid4()

    def open_all() -> None:
        opener = Opener(sqlite, [opening_key], out)
        opener.begin()
        while opener.open_next():
            pass

    def arrive(message: Message, message_id: UUID) -> None:
        data = kiosk.seal(message, message_id=message_id)
        with sqlite.writing() as session:
            take_envelope(session, kiosk.id, topics.up_kind(message.KIND), data, "ingest-1")
        open_all()

    arrive(kiosk.result(scan=scan), result)
    arrive(kiosk.result(), other)
    for message in (result, other):
        (out / f"{kiosk.id}.{message}.json").rename(out / f"{message}.json")
    (out / f"{result}.part").write_text("half of it")
    old = (out / f"{result}.json").read_text()
    word = uuid4()
    arrive(Withdraw(scan=scan, at=MOMENT, reason="patient"), word)
    if again:
        (out / f"{result}.json").write_text(old)  # as a restored backup of the folder brings it back
        open_all()
    assert {path.name for path in out.iterdir()} == {f"{other}.json", f"{kiosk.id}.{word}.json"}
