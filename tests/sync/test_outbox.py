"""The outbox: what it keeps, through receipts, restarts, kills, full disks."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from firmware.lights.doses import DoseLedger
from hardware.host.errors import PlainError
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from sync.kiosk import outbox as module
from sync.kiosk import outbox_file
from sync.kiosk.outbox import NumberUsed, Outbox, OutboxError
from sync.wire.keys import generate_opening_key
from sync.wire.receipt import Receipt
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


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    opened = Outbox(tmp_path / "outbox.sqlite")
    yield opened
    opened.close()


def put(outbox: Outbox, envelope: bytes | None = None) -> tuple[UUID, bytes]:
    message = uuid4()
    envelope = envelope if envelope is not None else message.bytes * 10
    outbox.put(message, "result", envelope)
    return message, envelope


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


def test_the_side_tables_are_bounded(outbox: Outbox, monkeypatch) -> None:
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


def test_only_its_owner_can_read_the_file(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


STORES: dict[str, Callable[[Path], object]] = {
    "outbox": Outbox,
    "records": lambda path: Records(path, Keyring(path.with_name("vault.key"))),
    "doses": lambda path: DoseLedger(path).renewed_at("uv365"),
}


NO_FILES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to("/dev/full"),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("what", NO_FILES)
def test_a_store_that_is_no_file_is_told_for_what_it_is(tmp_path: Path, what: str, store: str) -> None:
    path = tmp_path / "store.sqlite"
    NO_FILES[what](path)
    with pytest.raises(Exception, match=f"it is a .*{what}.*, where a file has to be") as failed:
        STORES[store](path)
    assert isinstance(failed.value, PlainError)


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0" + b"\xff" * 5000, b"no database" * 1000])
def test_a_damaged_file_is_left_alone(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(damage)
    if not damage:
        Outbox(path).close()
        return
    with pytest.raises(OutboxError, match="move it aside.* a new outbox is given it"):
        Outbox(path)
    assert path.read_bytes() == damage


def test_an_outbox_with_a_time_that_is_none_is_told_as_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    message, envelope = put(outbox)
    outbox.accept_receipt(PARTY.receipt(message, envelope))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE history SET at = replace(at, '20', '2\x10')")
    with pytest.raises(OutboxError, match="the file is damaged: move it aside"):
        outbox.counts()
    outbox.close()


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["gone", "emptied"])
def test_a_file_that_is_lost_without_what_stands_beside_it_is_begun_anew(
    tmp_path: Path, lose: Callable[[Path], object]
) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    outbox = Outbox(tmp_path / "outbox.sqlite")
    message, envelope = put(outbox)
    for file in tmp_path.glob("outbox.sqlite*"):
        shutil.copy(file, killed)
    outbox.close()
    assert (killed / "outbox.sqlite-wal").stat().st_size
    lose(killed / "outbox.sqlite")
    anew = Outbox(killed / "outbox.sqlite")
    assert anew.state(message) == "unknown"
    anew.put(message, "result", envelope, may_have_left=True)
    assert (anew.state(message), anew.unreceipted()) == ("sent", [message])
    assert anew.discard(message) == "sent"
    anew.close()


def test_an_outbox_of_newer_software_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    Outbox(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="schema is 99"):
        Outbox(path)


def test_an_outbox_of_an_early_version_knows_how_full_it_is(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    kept = Outbox(path)
    message, _ = put(kept, bytes(700))
    put(kept, bytes(300))
    kept.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE used")
        db.execute("DROP TABLE places")
        db.execute("DROP TABLE unvouched")
        db.execute("DROP INDEX envelopes_by_state")
        db.execute("PRAGMA user_version = 2")
    again = Outbox(path, capacity=1000)
    assert again.counts().bytes == 1000
    with pytest.raises(OutboxError, match="full"):
        put(again, b"x")
    again.discard(message)
    assert again.counts().bytes == 300
    again.close()


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


def test_whoever_reads_the_outbox_keeps_what_is_discarded_in_the_files_and_holds_up_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_file, "LOCKED_SECONDS", 1000.0)  # a wait for it would end the test
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    given = [put(outbox) for _ in range(5)]
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM envelopes").fetchone()
        assert [outbox.discard(message) for message, _ in given] == ["waiting"] * 5
        assert outbox.unreceipted() == []
        assert not outbox.empty_log()
    assert outbox.empty_log()
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert [envelope for _, envelope in given if envelope in files] == []
    outbox.close()


def test_what_a_process_that_was_killed_had_left_in_the_files_the_next_one_takes_out(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    message, envelope = put(outbox)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM envelopes").fetchone()
        outbox.discard(message)
        again = Outbox(path)
    assert again.empty_log()
    assert envelope not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
    again.close()
    outbox.close()


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


class OutboxMachine(RuleBasedStateMachine):
    """Any order of events, compared with a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.outbox = Outbox(Path(self.folder.name) / "outbox.sqlite")
        self.waiting: dict[UUID, bytes] = {}
        self.states: dict[UUID, str] = {}
        self.bytes_of: dict[UUID, bytes] = {}
        self.never_left: set[UUID] = set()

    def pick(self, data: st.DataObject) -> UUID:
        return data.draw(st.sampled_from(sorted(self.bytes_of, key=str)))

    @rule(seed=st.integers(0, 2**64))
    def put_new(self, seed: int) -> None:
        message, envelope = UUID(int=seed), seed.to_bytes(9, "big") * 7
        self.outbox.put(message, "result", envelope)
        if message not in self.bytes_of:
            self.bytes_of[message] = envelope
            self.waiting[message] = envelope
            self.states[message] = "waiting"

    @precondition(lambda self: self.bytes_of)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        message = self.pick(data)
        taken = self.outbox.take_to_send(message)
        if self.states[message] in ("waiting", "sent"):
            assert taken is not None
            assert taken.envelope == self.waiting[message]
            self.states[message] = "sent"
        else:
            assert taken is None

    @precondition(lambda self: self.bytes_of)
    @rule(
        data=st.data(),
        status=st.sampled_from(["stored", "duplicate", "quarantined", "reseal"]),
        right_bytes=st.booleans(),
    )
    def receive(self, data: st.DataObject, status, right_bytes: bool) -> None:
        message = self.pick(data)
        envelope = self.bytes_of[message] if right_bytes else b"other"
        receipt: Receipt = PARTY.receipt(message, envelope, status)
        outcome = self.outbox.accept_receipt(receipt)
        right = right_bytes and message not in self.never_left
        assert outcome == ("accepted" if right else "mismatch")
        if not right:
            return
        before = self.states[message]
        if before in ("waiting", "sent", "reseal"):
            self.states[message] = {"duplicate": "stored"}.get(status, status)
            if status != "reseal":
                del self.waiting[message]
        elif before == "quarantined" and status in ("stored", "duplicate"):
            self.states[message] = "stored"

    @precondition(lambda self: self.bytes_of)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        message = self.pick(data)
        before = "waiting" if message in self.never_left else self.states[message]
        assert self.outbox.discard(message) == before
        if before == "waiting":
            self.never_left.add(message)
        if self.waiting.pop(message, None) is not None:
            self.states[message] = "discarded"

    @rule()
    def start_anew(self) -> None:
        """Of what is found then nobody knows whether it has left."""
        self.outbox.close()
        self.outbox = Outbox(Path(self.folder.name) / "outbox.sqlite")
        for message, state in self.states.items():
            self.states[message] = "sent" if state == "waiting" else state

    @invariant()
    def agrees(self) -> None:
        assert {m: self.outbox.state(m) for m in self.states} == self.states
        to_send = [m for m in self.waiting if self.states[m] != "reseal"]
        assert self.outbox.unreceipted() == to_send
        assert self.outbox.counts().bytes == sum(map(len, self.waiting.values()))

    def teardown(self) -> None:
        self.outbox.close()
        self.folder.cleanup()


OutboxMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


TestAnyOrderOfEvents = OutboxMachine.TestCase
