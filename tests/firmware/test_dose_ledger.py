"""The dose ledger as a file: what becomes of it must not make anyone's dose smaller."""

from __future__ import annotations

import errno
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from firmware.lights import doses, witness
from firmware.lights.doses import (
    DAY_S,
    FAULT_UNKNOWN,
    LEDGER_NEW,
    UNKNOWN_SINCE,
    UV_ONLY,
    Dose,
    DoseLedger,
    DoseRefused,
    Moment,
)
from hardware.host.durable import write_whole
from hardware.profile import Limits

AT = Moment(1_800_000_000.0, 1_000.0, "boot")
ALL_OF_A_SCAN = Dose("p1", "s1", 150.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger in which a patient has had all the UV of a scan."""
    path = tmp_path / "doses.sqlite"
    ledger = DoseLedger(path)
    ledger.charge(ALL_OF_A_SCAN, 0.0, Limits(), AT)
    assert ledger.latched() is None
    ledger.close()
    return path


def reopened(path) -> DoseLedger:
    return DoseLedger(path)


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_lost_ledger_locks_every_light(path: Path, lose) -> None:
    """What was latched is not known: it may have been a lamp that does not go out."""
    lose(path)
    ledger = reopened(path)
    assert ledger.latched() == FAULT_UNKNOWN
    assert FAULT_UNKNOWN not in UV_ONLY
    ledger.clear("nurse", AT, only=FAULT_UNKNOWN)
    assert ledger.latched() == LEDGER_NEW
    ledger.refuse_unknown_day(AT)
    ledger.clear("nurse", AT)
    assert ledger.latched() is None
    ledger.close()
    assert reopened(path).latched() is None


def test_a_fault_that_locks_every_light_is_not_hidden_by_a_later_one_of_uv_alone(path: Path) -> None:
    path.unlink()
    ledger = reopened(path)
    ledger.latch("uv_unseen", AT)
    assert ledger.latched() == FAULT_UNKNOWN


@pytest.mark.parametrize(
    ("at", "known"),
    [
        (replace(AT, wall=AT.wall + 60, since_boot=AT.since_boot + 60), False),
        (replace(AT, wall=AT.wall + DAY_S - 1, boot="another"), False),
        (replace(AT, wall=AT.wall + 9 * DAY_S, since_boot=AT.since_boot + 60), False),
        (replace(AT, wall=AT.wall + DAY_S + 1, boot="another"), True),
        (replace(AT, wall=AT.wall + DAY_S + 1, since_boot=AT.since_boot + DAY_S + 1), True),
    ],
)
def test_the_day_before_a_lost_ledger_was_seen_to_is_known_again_a_day_later(path: Path, at, known) -> None:
    path.unlink()
    ledger = reopened(path)
    ledger.clear("nurse", AT)
    ledger.latch("uv_unseen", AT)
    ledger.clear("nurse", replace(AT, wall=AT.wall + 30))
    if known:
        ledger.refuse_unknown_day(at)
        return
    with pytest.raises(DoseRefused) as refused:
        ledger.refuse_unknown_day(at)
    assert refused.value.code == "ledger_new"


def test_a_ledger_that_was_never_lost_knows_its_day(path: Path) -> None:
    ledger = reopened(path)
    ledger.latch("uv_unseen", AT)
    ledger.clear("nurse", AT)
    ledger.refuse_unknown_day(AT)


def test_a_ledger_of_an_earlier_version_is_not_lost_unnoticed_either(path: Path) -> None:
    path.with_suffix(".made").unlink()
    with sqlite3.connect(path) as database:
        database.executescript("DROP TABLE past; PRAGMA user_version = 2")
    ledger = reopened(path)
    assert ledger.latched() is None
    ledger.close()
    path.unlink()
    assert reopened(path).latched() == FAULT_UNKNOWN


class Cut(BaseException):
    """The power goes."""


def cut_before_the_witness_hears(change, words=0) -> None:
    """The power goes when `change` is in the ledger, and its witness has heard so many `words` only."""
    left = [write_whole] * words

    def hear(*said) -> None:
        if not left:
            raise Cut
        left.pop()(*said)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(witness, "write_whole", hear)
        with pytest.raises(Cut):
            change()


def another_day(path) -> None:
    """What the patient, who has had all the UV of a day, may have by this ledger."""
    ledger = DoseLedger(path)
    try:
        ledger.charge(replace(ALL_OF_A_SCAN, session="s9"), 0.0, Limits(uv_dose_per_day_j_m2=150.0), AT)
    finally:
        ledger.close()


def charged(path) -> None:
    ledger = reopened(path)
    ledger.charge(Dose("p2", "s2", 1.0), 0.0, Limits(), AT)
    ledger.close()


def fault(path) -> None:
    ledger = reopened(path)
    ledger.latch("light_after_off", AT)
    ledger.close()


def owned_up(path) -> None:
    ledger = reopened(path)
    ledger.own_up(Dose("p2", "s2", 1.0), AT)
    ledger.close()


def renewed(path) -> None:
    ledger = reopened(path)
    ledger.renew("uv365", "nurse", AT)
    ledger.close()


@pytest.mark.parametrize("since", [charged, fault, owned_up, renewed])
@pytest.mark.parametrize("changes", [1, 3])
def test_an_older_copy_of_the_ledger_locks_every_light(path: Path, since, changes) -> None:
    """It does not know what was given, latched or put in since, be it one dose alone."""
    copy = path.read_bytes()
    for _ in range(changes):
        since(path)
    path.write_bytes(copy)
    ledger = reopened(path)
    assert ledger.latched() == FAULT_UNKNOWN
    ledger.clear("nurse", AT, only=FAULT_UNKNOWN)
    assert ledger.latched() == LEDGER_NEW
    assert ledger.renewed_at("uv365") is None
    ledger.clear("nurse", AT)
    with pytest.raises(DoseRefused, match="older copy"):
        ledger.refuse_unknown_day(AT)
    ledger.close()
    assert reopened(path).latched() is None


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE pulses SET dose_j_m2 = 1.0",
        "UPDATE pulses SET wall = wall - 90000, since_boot = 0, boot = 'another'",
        "UPDATE secret SET key = zeroblob(32)",
        "DELETE FROM pulses",
        "DELETE FROM faults",
        "UPDATE faults SET cleared_by = 'nobody'",
        "UPDATE past SET digest = 'x'",
    ],
)
def test_a_ledger_in_which_a_row_is_another_locks_every_light(path: Path, damage) -> None:
    """However well it may be read: a rotten bit can make a dose a believable smaller one."""
    fault(path)
    with sqlite3.connect(path) as database:
        database.execute(damage)
    assert reopened(path).latched() == FAULT_UNKNOWN


def test_a_copy_that_is_put_over_the_open_ledger_gives_nobody_a_second_dose(
    path: Path, tmp_path: Path
) -> None:
    copy = path.read_bytes()
    ledger = reopened(path)
    ledger.charge(Dose("p2", "s2", 150.0), 0.0, Limits(), AT)
    path.write_bytes(copy)
    with pytest.raises(DoseRefused) as refused:
        ledger.charge(Dose("p2", "s3", 150.0), 0.0, Limits(uv_dose_per_day_j_m2=150.0), AT)
    assert refused.value.code == "ledger_failed"
    assert ledger.latched() == FAULT_UNKNOWN


def test_a_lamp_of_which_an_older_copy_knows_may_have_been_renewed_since(path) -> None:
    """Until it is named as new once more, even where it was measured after the renewal of the copy."""
    renewed(path)
    copy = path.read_bytes()
    charged(path)
    path.write_bytes(copy)
    ledger = reopened(path)
    assert ledger.renewed_at("uv365") == UNKNOWN_SINCE
    ledger.renew("uv365", "nurse", AT)
    assert ledger.renewed_at("uv365") == AT.wall


@pytest.mark.parametrize("gone", [Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("before", [charged, lambda _: None])
def test_an_older_copy_locks_every_light_where_its_witness_is_gone_too(tmp_path, before, gone) -> None:
    """That this version has written it, it says itself, from its first opening on."""
    path = tmp_path / "doses.sqlite"
    ledger = reopened(path)
    assert ledger.latched() is None
    ledger.close()
    before(path)
    copy = path.read_bytes()
    charged(path)
    path.write_bytes(copy)
    gone(path.with_suffix(".made"))
    assert reopened(path).latched() == FAULT_UNKNOWN


@pytest.mark.parametrize(
    "steps", [("CREATE TABLE more (x TEXT)",), ("CREATE TABLE more (x TEXT)", "ANALYZE")]
)
def test_a_power_cut_between_a_step_of_the_schema_and_its_witness_locks_nothing(
    path, monkeypatch, steps
) -> None:
    charged(path)

    monkeypatch.setattr(doses, "_STEPS", (*doses._STEPS, *steps))
    for _ in range(2):
        cut_before_the_witness_hears(lambda: reopened(path).latched())
    assert reopened(path).latched() is None


def test_a_change_that_the_witness_has_not_heard_of_and_a_step_of_the_schema_lock_nothing(
    path, monkeypatch
) -> None:
    cut_before_the_witness_hears(lambda: charged(path))
    monkeypatch.setattr(doses, "_STEPS", (*doses._STEPS, "CREATE TABLE more (x TEXT)"))
    for _ in range(2):
        cut_before_the_witness_hears(lambda: reopened(path).latched())
    assert reopened(path).latched() is None


def test_a_power_cut_as_a_ledger_of_an_earlier_version_is_brought_up_locks_nothing(path) -> None:
    with sqlite3.connect(path) as database:
        database.executescript("DROP TABLE past; PRAGMA user_version = 2")
    path.with_suffix(".made").write_bytes(b"")
    for _ in range(2):
        cut_before_the_witness_hears(lambda: reopened(path).latched())
    assert reopened(path).latched() is None


def test_a_power_cut_between_the_first_two_words_of_a_witness_locks_nothing(tmp_path) -> None:
    path = tmp_path / "doses.sqlite"
    cut_before_the_witness_hears(lambda: reopened(path).latched(), words=1)
    assert reopened(path).latched() is None


def test_a_witness_that_is_no_file_is_named_and_not_the_ledger(path) -> None:
    made = path.with_suffix(".made")
    made.unlink()
    made.mkdir()
    with pytest.raises(DoseRefused, match="doses.made failed.*it is a folder, where a file has to be"):
        reopened(path).latched()


def test_what_a_power_cut_left_of_the_witness_is_deleted(path) -> None:
    left = path.with_name(".doses.made.0123abcd")
    left.write_bytes(b"half")
    assert reopened(path).latched() is None
    assert not left.exists()


@pytest.mark.parametrize("change", [charged, fault, owned_up, renewed])
def test_a_power_cut_between_the_ledger_and_its_witness_is_no_older_copy(
    path: Path, monkeypatch: pytest.MonkeyPatch, change
) -> None:
    """What was written counts, and nothing is locked for it, however often the power goes there."""

    for _ in range(2):
        cut_before_the_witness_hears(lambda: change(path))
    faults = {fault: "light_after_off", renewed: "uv_lamp_new"}
    assert reopened(path).latched() == faults.get(change)
    with pytest.raises(DoseRefused) as refused:
        another_day(path)
    assert refused.value.code == "dose_limit"


@pytest.mark.parametrize("said", [b"what no digest is", b"\xff" * 64])
def test_a_damaged_witness_locks_every_light(path: Path, said) -> None:
    path.with_suffix(".made").write_bytes(said)
    assert reopened(path).latched() == FAULT_UNKNOWN


def test_a_dose_that_the_witness_cannot_be_told_is_not_given_and_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    ledger = reopened(path)
    assert ledger.latched() is None
    with monkeypatch.context() as patch:
        patch.setattr(witness, "write_whole", full)
        with pytest.raises(DoseRefused, match="the disk is full") as refused:
            ledger.charge(Dose("p2", "s2", 150.0), 0.0, Limits(), AT)
    assert refused.value.code == "ledger_failed"
    with pytest.raises(DoseRefused) as refused:
        ledger.charge(Dose("p2", "s2", 1.0), 0.0, Limits(), AT)
    assert refused.value.code == "dose_limit"
    assert ledger.latched() is None


def test_a_ledger_whose_index_lost_a_row_allows_nothing(path: Path) -> None:
    database = sqlite3.connect(path)
    size = database.execute("PRAGMA page_size").fetchone()[0]
    root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'pulses_by_session'").fetchone()
    database.close()
    with path.open("r+b") as file:
        file.seek((root[0] - 1) * size + 3)
        file.write(b"\0\0")  # no cells on this page of the index
    with pytest.raises(DoseRefused) as refused:
        reopened(path).charge(ALL_OF_A_SCAN, 0.0, Limits(uv_dose_per_day_j_m2=450.0), AT)
    assert refused.value.code == "ledger_failed"


@pytest.mark.parametrize("junk", [b"no database at all " * 99, b"SQLite format 3\0" + bytes(4080)])
def test_a_ledger_that_is_no_database_allows_nothing(path: Path, junk) -> None:
    path.write_bytes(junk)
    for ask in (lambda ledger: ledger.charge(ALL_OF_A_SCAN, 0.0, Limits(), AT), DoseLedger.latched):
        with pytest.raises(DoseRefused):
            ask(reopened(path))


@pytest.mark.parametrize("key", [b"", b"cut short", "k" * 32, 32, 10**18])
def test_a_ledger_whose_key_is_damaged_allows_nothing(path: Path, key) -> None:
    """By another key nobody who had UV would be known again."""
    with sqlite3.connect(path) as database:
        database.execute("UPDATE secret SET key = ?", (key,))
    with pytest.raises(DoseRefused, match="the file is damaged: move it aside") as refused:
        reopened(path).charge(replace(ALL_OF_A_SCAN, session="s2"), 0.0, Limits(), AT)
    assert refused.value.code == "ledger_failed"


@pytest.mark.parametrize(
    "damage", ["dose_j_m2 = -150.0", "dose_j_m2 = 'x'", "wall = 'x'", "since_boot = 'x'", "reference = 'p1'"]
)
def test_a_ledger_with_a_row_that_is_no_pulse_allows_nothing(path: Path, damage) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE pulses SET {damage}")
    with pytest.raises(DoseRefused, match="the file is damaged: move it aside") as refused:
        reopened(path).charge(replace(ALL_OF_A_SCAN, session="s2"), 0.0, Limits(), AT)
    assert refused.value.code == "ledger_failed"


def test_a_ledger_that_does_not_say_when_a_lamp_was_put_in_allows_nothing(path: Path) -> None:
    """By another time the lamp could pass for one that was measured since."""
    ledger = reopened(path)
    ledger.renew("uv365", "nurse", AT)
    ledger.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE lamps SET wall = 'x'")
    with pytest.raises(DoseRefused, match="the file is damaged: move it aside") as refused:
        reopened(path).renewed_at("uv365")
    assert refused.value.code == "ledger_failed"


def test_the_ledger_forgets_what_no_limit_looks_back_to(tmp_path: Path) -> None:
    limits = Limits()
    ledger = DoseLedger(tmp_path / "doses.sqlite")
    for day in range(30):
        at = Moment(1_800_000_000.0 + day * DAY_S, day * DAY_S, "boot")
        ledger.charge(Dose("p1", f"s{day}", 1.0), 0.0, limits, at)
    ahead = Moment(1_800_000_000.0 + 400 * DAY_S, 30 * DAY_S, "boot")
    ledger.charge(Dose("p1", "later", 1.0), 0.0, limits, ahead)
    assert ledger._database.execute("SELECT count(*) FROM pulses").fetchone()[0] == 7 + 1
    ledger.close()
