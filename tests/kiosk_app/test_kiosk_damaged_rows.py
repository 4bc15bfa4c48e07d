"""One damaged row of the records: the other scans go on, and its own can be deleted."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from kiosk_app.kept.keyring import KeyGone
from kiosk_app.kept.records_file import RecordsError
from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning.shred import shred
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_commands import run
from tests.support.scanning import consented, do

DAMAGE = pytest.mark.parametrize(
    "damage",
    [
        "figures = '[1'",
        "figures = '[1]'",
        f"figures = '{'[' * 100_000}'",
        "figures = CAST(x'7b22fa223a317d' AS TEXT)",
        "consent = '1'",
        "created = 'then'",
        "created = CAST(x'ff' AS TEXT)",
        "reason = CAST(x'ff' AS TEXT)",
        "state = 'zzz'",
        "state = CAST(x'ff' AS TEXT)",
    ],
    ids=[
        "no JSON",
        "another shape",
        "too deep",
        "no text",
        "no consent",
        "no time",
        "no text of a time",
        "no text of a reason",
        "another state",
        "no text of a state",
    ],
)


def damage_row(bench: Bench, scan: object, damage: str) -> None:
    with bench.kiosk.records._file.transaction() as db:
        db.execute(f"UPDATE scans SET {damage} WHERE id = ?", (str(scan),))


@DAMAGE
@pytest.mark.parametrize("state", [ScanState.CAPTURED, ScanState.UNREADABLE])
@pytest.mark.parametrize("damaged", [0, 1])
def test_a_damaged_row_keeps_no_other_scan_from_going_on(
    bench: Bench, damage: str, state: ScanState, damaged: int
) -> None:
    bench.analyst.fail = OSError("no memory")
    scans = [consented(bench) for _ in range(2)]
    for scan in scans:
        do(bench, scan)
        damage_row(bench, scan, f"state = '{state}'")
    given_up = consented(bench)
    bench.analyst.fail = None
    damage_row(bench, scans[damaged], damage)
    kiosk = bench.again()
    with pytest.raises(RecordsError):
        kiosk.records.scan(scans[damaged])
    kiosk.work.recover()
    kiosk.work.go_on()
    other = kiosk.records.state(scans[1 - damaged])
    assert other not in (ScanState.CAPTURED, ScanState.UNREADABLE, ScanState.ANALYSED)
    assert kiosk.records.state(given_up) == ScanState.ABANDONED
    assert kiosk.closed_because() is None


@DAMAGE
def test_a_scan_whose_row_is_damaged_is_deleted_and_so_is_another(bench: Bench, damage: str) -> None:
    scans = [consented(bench) for _ in range(2)]
    for scan in scans:
        do(bench, scan)
    damage_row(bench, scans[1], damage)
    listed = run("scans", "list", "--state", bench.state, "--json")
    assert sorted(json.loads(line)["scan"] for line in listed.stdout.splitlines()) == sorted(map(str, scans))
    records = bench.kiosk.records
    for scan in scans:
        done = run("shred", scan, "--state", bench.state)
        assert done.returncode == 0, done.stderr
        assert records.state(scan) == ScanState.SHREDDED and not bench.kiosk.vault.holds(scan)
        with pytest.raises(KeyGone):
            records.dek(scan)


@DAMAGE
@pytest.mark.parametrize("by", ["patient", "staff"])
def test_the_clinic_is_told_of_the_deletion_of_a_scan_whose_row_is_damaged(
    bench: Bench, damage: str, by: str
) -> None:
    scan = consented(bench)
    do(bench, scan)
    bench.kiosk.courier.run_once()
    [result] = bench.outbox.submitted
    bench.outbox.states[result] = "stored"
    damage_row(bench, scan, damage)
    kiosk = bench.kiosk
    shred(scan, kiosk.records, kiosk.vault, kiosk.courier.run_once, kiosk.outbox, by=by)
    bench.again().courier.run_once()
    [withdrawal] = [each for each in bench.kiosk.records.messages.in_states() if each.kind == "withdraw"]
    assert withdrawal.scan == scan and withdrawal.id in bench.outbox.submitted


def test_a_row_whose_id_is_no_text_keeps_no_other_scan_from_being_deleted(bench: Bench) -> None:
    bench.analyst.fail = OSError("no memory")  # a scan without a message, to whose id nothing holds
    damaged, deleted = (consented(bench) for _ in range(2))
    for scan in (damaged, deleted):
        do(bench, scan)
    records = bench.kiosk.records
    damage_row(bench, damaged, "id = CAST(x'ff' AS TEXT)")
    assert run("shred", deleted, "--state", bench.state).returncode == 0
    assert not bench.kiosk.vault.holds(deleted)
    assert len(records.keyring.generations()) == 1
    with records._file.connection() as db:
        (wrapped,) = db.execute("SELECT wrapped_dek FROM scans WHERE id = CAST(x'ff' AS TEXT)").fetchone()
    assert records.keyring.unwrap(wrapped)


@pytest.mark.parametrize(
    "damage", ["id = 'x'", "id = CAST(x'ff' AS TEXT)", "state = 'zzz'", "kind = CAST(x'ff' AS TEXT)"]
)
def test_a_scan_whose_message_has_a_damaged_row_is_destroyed_and_nobody_is_told_that_it_was_not_sent(
    bench: Bench, damage: str
) -> None:
    scan = consented(bench)
    do(bench, scan)
    with bench.kiosk.records._file.transaction() as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(f"UPDATE messages SET {damage} WHERE scan = ?", (str(scan),))
    for _ in range(2):
        done = run("shred", scan, "--state", bench.state)
        assert (done.returncode, "may have been sent" in done.stdout) == (0, True), done.stderr
    assert not bench.kiosk.vault.holds(scan)


@pytest.mark.parametrize("damage", ["id = 'x'", "id = CAST(x'ff' AS TEXT)", "kind = CAST(x'ff' AS TEXT)"])
def test_a_damaged_row_of_a_message_keeps_no_other_from_being_handed_over(bench: Bench, damage: str) -> None:
    bench.outbox.there = False
    scans = [consented(bench) for _ in range(2)]
    for scan in scans:
        do(bench, scan)
    with bench.kiosk.records._file.transaction() as db:
        db.execute(f"UPDATE messages SET {damage} WHERE scan = ?", (str(scans[0]),))
    bench.outbox.there = True
    with capture_logs() as logs:
        kiosk = bench.again()
        for _ in range(2):
            kiosk.courier.run_once()
    assert kiosk.records.state(scans[1]) == ScanState.HANDED_OVER
    assert kiosk.records.state(scans[0]) == ScanState.SEALED
    assert [each["log_level"] for each in logs if each["event"] == "message_damaged"] == ["error"]
    assert [each.scan for each in kiosk.records.messages.in_states(MessageState.SUBMITTED)] == [scans[1]]
