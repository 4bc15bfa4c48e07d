"""The outbox: what it keeps, through receipts, restarts, kills, full disks."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from sync.kiosk import outbox as module
from sync.kiosk.outbox import NumberUsed, Outbox, OutboxError
from sync.wire.keys import generate_opening_key
from tests.support.outbox import put
from tests.support.wire import Party

PARTY = Party()


KILLS = 5


# Puts envelopes for ever and says each id only after `put` has returned.
WRITER = """
import sys
from pathlib import Path
from uuid import uuid4
from sync.kiosk.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
while True:
    message = uuid4()
    outbox.put(message, "result", message.bytes * 300)
    print(message, flush=True)
"""


def test_an_envelope_waits_in_the_order_in_which_it_came(outbox: Outbox) -> None:
    messages = [put(outbox) for _ in range(5)]
    assert outbox.unreceipted() == [message for message, _ in messages]
    assert [outbox.state(message) for message, _ in messages] == ["waiting"] * 5
    taken = outbox.take_to_send(messages[2][0])
    assert taken is not None
    assert (taken.message_id, taken.kind, taken.envelope) == (messages[2][0], "result", messages[2][1])
    assert outbox.state(messages[2][0]) == "sent"
    assert len(outbox.unreceipted()) == 5


def test_the_same_envelope_a_second_time_changes_nothing(outbox: Outbox) -> None:
    message, envelope = put(outbox)
    outbox.put(message, "result", envelope)
    assert outbox.unreceipted() == [message]
    outbox.accept_receipt(PARTY.receipt(message, envelope))
    outbox.put(message, "result", envelope)
    assert outbox.unreceipted() == []
    assert outbox.state(message) == "stored"


def test_an_id_is_never_given_to_two_envelopes(outbox: Outbox) -> None:
    message, envelope = put(outbox)
    for _ in range(2):
        with pytest.raises(OutboxError) as caught:
            outbox.put(message, "result", b"other")
        assert caught.value.code == "conflict"
        outbox.accept_receipt(PARTY.receipt(message, envelope))


@pytest.mark.parametrize("status", ["stored", "duplicate"])
def test_a_receipt_lets_an_envelope_go(outbox: Outbox, status) -> None:
    message, envelope = put(outbox)
    other, _ = put(outbox)
    assert outbox.accept_receipt(PARTY.receipt(message, envelope, status)) == "accepted"
    assert outbox.unreceipted() == [other]
    assert outbox.state(message) == "stored"
    assert outbox.take_to_send(message) is None
    assert outbox.counts().last_receipt_at is not None


@pytest.mark.parametrize("status", ["stored", "duplicate", "quarantined", "reseal"])
def test_a_receipt_for_other_bytes_changes_nothing(outbox: Outbox, status) -> None:
    message, _ = put(outbox)
    assert outbox.accept_receipt(PARTY.receipt(message, b"other", status)) == "mismatch"
    assert outbox.unreceipted() == [message]
    assert outbox.state(message) == "waiting"


def test_a_receipt_for_nothing_that_is_here_is_unknown(outbox: Outbox) -> None:
    assert outbox.accept_receipt(PARTY.receipt(uuid4(), b"")) == "unknown"


def test_a_quarantined_message_is_kept_aside_and_can_still_become_stored(outbox: Outbox) -> None:
    message, envelope = put(outbox)
    outbox.accept_receipt(PARTY.receipt(message, envelope, "quarantined"))
    assert outbox.state(message) == "quarantined"
    assert outbox.unreceipted() == []
    counts = outbox.counts()
    assert (counts.quarantined, counts.bytes) == (1, 0)
    outbox.accept_receipt(PARTY.receipt(message, envelope, "stored"))
    assert outbox.state(message) == "stored"
    assert outbox.counts().quarantined == 0
    outbox.accept_receipt(PARTY.receipt(message, envelope, "quarantined"))
    assert outbox.state(message) == "stored"


def test_the_side_tables_are_bounded(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUARANTINE_ROWS", 3)
    monkeypatch.setattr(module, "HISTORY_ROWS", 5)
    messages = [put(outbox) for _ in range(8)]
    for message, envelope in messages:
        outbox.accept_receipt(PARTY.receipt(message, envelope, "quarantined"))
    assert outbox.counts().quarantined == 3
    states = [outbox.state(message) for message, _ in messages]
    assert states == ["unknown"] * 3 + ["quarantined"] * 5


def test_a_message_to_be_sealed_again_is_kept_but_not_sent(outbox: Outbox) -> None:
    message, envelope = put(outbox)
    outbox.accept_receipt(PARTY.receipt(message, envelope, "reseal"))
    assert outbox.state(message) == "reseal"
    assert outbox.unreceipted() == []
    assert outbox.take_to_send(message) is None
    assert outbox.counts().bytes == len(envelope)
    assert outbox.discard(message) == "reseal"
    assert outbox.counts().bytes == 0


def test_a_discarded_envelope_is_gone_and_stays_gone(outbox: Outbox, tmp_path: Path) -> None:
    message, envelope = put(outbox, b"a sealed envelope that is looked for" * 20)
    sent, _ = put(outbox)
    outbox.take_to_send(sent)
    assert outbox.discard(message) == "waiting"
    assert outbox.discard(sent) == "sent"
    assert outbox.discard(uuid4()) == "unknown"
    assert outbox.unreceipted() == []
    outbox.put(message, "result", envelope)
    assert outbox.unreceipted() == []
    assert outbox.state(message) == "discarded"
    assert b"looked for" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_a_full_outbox_refuses_and_drops_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite", capacity=1000)
    messages = [put(outbox, bytes(300)) for _ in range(3)]
    assert outbox.counts().fill == 0.9
    with pytest.raises(OutboxError) as caught:
        put(outbox, bytes(300))
    assert caught.value.code == "full"
    assert outbox.unreceipted() == [message for message, _ in messages]
    outbox.accept_receipt(PARTY.receipt(*messages[0]))
    put(outbox, bytes(300))
    outbox.close()


def test_a_full_disk_refuses_and_keeps_what_is_there(outbox: Outbox) -> None:
    kept = [put(outbox)[0] for _ in range(3)]
    pages = outbox._db.execute("PRAGMA page_count").fetchone()[0]
    outbox._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(OutboxError) as caught:
        for _ in range(5):
            put(outbox, bytes(5000))
    assert caught.value.code == "storage"
    assert outbox.unreceipted()[:3] == kept
    outbox._db.execute("PRAGMA max_page_count = 100000")
    put(outbox, bytes(5000))


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    waiting, sent, stored, resealed = (put(outbox) for _ in range(4))
    outbox.take_to_send(sent[0])
    outbox.accept_receipt(PARTY.receipt(*stored))
    outbox.accept_receipt(PARTY.receipt(*resealed, "reseal"))
    outbox.close()
    outbox = Outbox(path)
    assert [outbox.state(m) for m, _ in (waiting, sent, stored, resealed)] == [
        "sent",
        "sent",
        "stored",
        "reseal",
    ]
    assert outbox.unreceipted() == [waiting[0], sent[0]]
    assert (outbox.counts().waiting, outbox.counts().sent) == (1, 1)
    outbox.close()


def test_of_nothing_that_is_found_in_the_file_it_is_said_that_it_never_left(tmp_path: Path) -> None:
    """It may be an older copy of it."""
    path, copy = tmp_path / "outbox.sqlite", tmp_path / "copy.sqlite"
    outbox = Outbox(path)
    message, _ = put(outbox)
    with closing(sqlite3.connect(copy)) as to:
        outbox._db.backup(to)
    outbox.take_to_send(message)
    outbox.close()
    older = Outbox(copy)
    assert older.found == {message}
    since, _ = put(older)
    assert [older.state(each) for each in (message, since)] == ["sent", "waiting"]
    assert [older.discard(each) for each in (message, since)] == ["sent", "waiting"]
    assert [older.discard(each) for each in (message, since)] == ["discarded", "waiting"]
    older.close()


def test_no_number_is_taken_for_two_messages(outbox: Outbox) -> None:
    envelope = b"an envelope"
    first, second, late = (uuid4() for _ in range(3))
    outbox.put(first, "result", envelope, place=(7, 12))
    outbox.put(first, "result", envelope, place=(7, 12))
    for again in range(2):
        with pytest.raises(NumberUsed) as caught:
            outbox.put(second, "result", envelope, place=(7, 12))
        assert (caught.value.code, caught.value.highest, outbox.state(second)) == ("used", 12, "unknown")
        if not again:
            outbox.accept_receipt(PARTY.receipt(first, envelope))
    outbox.put(late, "result", envelope, place=(7, 11))  # not every message comes in the order of its number
    outbox.put(second, "result", envelope, place=(8, 12))
    assert outbox.unreceipted() == [late, second]


def test_a_number_far_below_all_that_are_remembered_was_used(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLACES", 10)
    for sequence in range(1, 31):
        outbox.put(uuid4(), "result", b"an envelope", place=(7, sequence))
    assert outbox._db.execute("SELECT count(*) FROM places").fetchone() == (10,)
    for sequence in (1, 20, 30):
        with pytest.raises(NumberUsed) as caught:
            outbox.put(uuid4(), "result", b"another", place=(7, sequence))
        assert caught.value.highest == 30


def test_what_finds_no_room_has_taken_no_number(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite", capacity=10)
    with pytest.raises(OutboxError, match="full"):
        outbox.put(uuid4(), "result", bytes(11), place=(7, 1))
    outbox.put(uuid4(), "result", bytes(9), place=(7, 1))
    outbox.close()


def test_nothing_looks_through_all_envelopes_to_keep_one_or_to_let_one_go(outbox: Outbox) -> None:
    said: list[str] = []
    outbox._db.set_trace_callback(said.append)
    message, envelope = put(outbox)
    outbox.take_to_send(message)
    outbox.accept_receipt(PARTY.receipt(message, envelope))
    outbox.discard(put(outbox)[0])
    outbox._db.set_trace_callback(None)
    plans = [
        step[3]
        for statement in said
        if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")
        for step in outbox._db.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert any("envelopes" in step for step in plans)
    of_one_row = ("SCAN used", "SCAN heartbeats", "SCAN CONSTANT ROW")
    assert [step for step in plans if step.startswith("SCAN") and step not in of_one_row] == []


def test_a_message_is_sealed_again_only_to_another_key(outbox: Outbox) -> None:
    message, envelope = PARTY.envelope()
    outbox.put(message, "result", envelope)
    refused = PARTY.receipt(message, envelope, "reseal")
    assert outbox.accept_receipt(refused, PARTY.opening.kid) == "same_key"
    assert (outbox.unreceipted(), outbox.state(message)) == ([message], "waiting")
    assert outbox.accept_receipt(refused, generate_opening_key().kid) == "accepted"
    assert outbox.state(message) == "reseal"


def test_to_count_and_to_list_reads_past_no_envelope(outbox: Outbox) -> None:
    put(outbox)
    said: list[str] = []
    outbox._db.set_trace_callback(said.append)
    outbox.counts()
    outbox.unreceipted()
    outbox._db.set_trace_callback(None)
    plans = [step[3] for each in said for step in outbox._db.execute(f"EXPLAIN QUERY PLAN {each}")]
    of_envelopes = [step for step in plans if "envelopes" in step]
    assert len(of_envelopes) == 2
    assert all("COVERING INDEX" in step for step in of_envelopes), of_envelopes


def test_what_was_discarded_before_it_was_given_here_is_not_taken_any_more(outbox: Outbox) -> None:
    """Whoever gives it may have read it before somebody else deleted it."""
    message = uuid4()
    assert outbox.discard(message) == "unknown"
    outbox.put(message, "result", b"an envelope")
    assert (outbox.unreceipted(), outbox.state(message)) == ([], "discarded")


@pytest.mark.parametrize(("before", "again"), [("unknown",) * 2, ("waiting",) * 2, ("sent", "discarded")])
def test_who_discards_again_is_told_again_whether_anything_can_have_left(
    outbox: Outbox, before: str, again: str
) -> None:
    message = uuid4()
    if before != "unknown":
        outbox.put(message, "result", b"an envelope")
    if before == "sent":
        outbox.take_to_send(message)
    assert [outbox.discard(message) for _ in range(3)] == [before, again, again]


def test_what_was_acknowledged_survives_kill_9_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    acknowledged: list[UUID] = []
    for round_number in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert writer.stdout is not None
        for _ in range(20 + 7 * round_number):
            acknowledged.append(UUID(writer.stdout.readline().strip()))
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        acknowledged.extend(UUID(line) for line in rest if len(line) == 36)
        assert writer.wait(60) == -signal.SIGKILL

        outbox = Outbox(path)
        assert outbox._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = outbox.unreceipted()
        # At most the one that was being written when the kill came was not acknowledged.
        assert set(acknowledged) <= set(kept)
        assert len(kept) <= len(acknowledged) + round_number + 1
        for message in kept:
            taken = outbox.take_to_send(message)
            assert taken is not None
            assert taken.envelope == message.bytes * 300
        outbox.close()
