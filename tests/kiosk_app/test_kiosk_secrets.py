"""The kiosk's secrets: an empty or short one is said at the start, a destroyed one is gone whatever ended."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import UUID

import pytest

from hardware.host.patience import waiting_at_most
from kiosk_app.kept import keyring, records, records_file
from kiosk_app.kept.keyring import Keyring, KeyringBusy, KeyringError
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsFull
from kiosk_app.scanning.identity import NotEnrolled
from kiosk_app.scanning.sealer import Sealer
from tests.support.full_disk import on_a_small_disk
from tests.support.impatience import pages_wait_briefly
from tests.support.killed_steps import killed_before_step
from tests.support.kiosk_bench import Bench
from tests.support.records import analysed
from tests.support.scanning import held, writing
from tests.support.visitor import Visitor


def opened(app: Path) -> Records:
    records = Records(app / "records.sqlite", Keyring(app / "vault.key"))
    records.finish_rewrap()
    return records


def test_a_destroyed_key_is_gone_after_the_next_start_wherever_the_shredding_was_killed(
    tmp_path: Path,
) -> None:
    step = 1
    while True:
        app = tmp_path / str(step)
        records = Records(app / "records.sqlite", Keyring(app / "vault.key"))
        gone, kept = analysed(records), analysed(records)
        with (app / "vault.key").open("rb") as old_blocks:
            old = old_blocks.read()
            killed = killed_before_step(step, lambda records=records, gone=gone: records.forget(gone))
            again = opened(app)
            assert again.findings(kept) is not None
            if again.scan(gone).state == "shredded":
                old_blocks.seek(0)
                assert not any(old_blocks.read()), f"killed before step {step}"
                key = old.split(b'"1": "')[1][:64]
                assert not any(key in path.read_bytes() for path in app.iterdir())
            assert {path.name for path in app.iterdir()} <= {
                *("vault.key", "vault.lock", "records.sqlite", "records.sqlite-wal", "records.sqlite-shm")
            }
        shutil.rmtree(app)
        if not killed:
            break
        step += 1
    assert step > 6


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b'{"generations": {"1": "00"}}'])
def test_a_vault_key_that_a_crash_left_short_is_said_at_the_start(tmp_path: Path, content: bytes) -> None:
    app = tmp_path / "app"
    analysed(opened(app))
    (app / "vault.key").write_bytes(content)
    with pytest.raises(KeyringError, match=r"vault\.key .*(damaged|usable).* Restore the file"):
        Keyring(app / "vault.key")
    assert (app / "vault.key").read_bytes() == content


def test_a_vault_key_that_is_a_link_is_to_be_the_file_itself(tmp_path: Path) -> None:
    Keyring(tmp_path / "elsewhere.key")
    (tmp_path / "vault.key").symlink_to(tmp_path / "elsewhere.key")
    with pytest.raises(KeyringError, match=r"\(it is a link, .*\): put the file itself there, for this user"):
        Keyring(tmp_path / "vault.key")


def test_whoever_may_not_use_the_keys_of_another_user_reads_as_whom_to_run_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, _flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(keyring, "open_own", refused)
    with pytest.raises(KeyringError, match="this user may not write it: run this as the user whose it is"):
        Keyring(tmp_path / "vault.key")


def test_an_empty_vault_key_is_made_anew_where_nothing_was_kept_under_it(tmp_path: Path) -> None:
    (tmp_path / "vault.key").touch()
    assert Keyring(tmp_path / "vault.key").generations() == [1]


@pytest.mark.parametrize("size", [0, 20])
def test_a_short_signing_key_is_said_at_the_start(bench: Bench, size: int) -> None:
    key = bench.state / "app" / "result.key"
    key.write_bytes(key.read_bytes()[:size])
    with pytest.raises(NotEnrolled, match="Enrol the kiosk again"):
        Sealer(bench.state, "test", simulated=True)


FULL = """
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsFull
from sync.kiosk.outbox import Outbox, OutboxError
from firmware.lights.doses import DoseLedger, Dose, DoseRefused, Moment
from uuid import uuid4
records = Records(disk / "records.sqlite", Keyring(disk / "vault.key"))
outbox = Outbox(disk / "outbox.sqlite")
ledger = DoseLedger(disk / "doses.sqlite")
scan = records.create({"a": "b"}, None)
fill()
def try_all():
    try:
        for _ in range(400):
            records.note(scan, **{uuid4().hex: "x" * 500})
    except RecordsFull as error:
        print("records:", error)
    try:
        for _ in range(400):
            outbox.put(uuid4(), "result", bytes(5000))
    except OutboxError as error:
        print("outbox:", error)
    try:
        for number in range(4000):
            ledger.own_up(Dose(f"p{number}", "s", 1.0), Moment.now())
    except DoseRefused as error:
        print("doses:", error)
try_all()
(disk / "filler").unlink()
records.note(scan, after=1)
outbox.put(uuid4(), "result", bytes(5000))
ledger.own_up(Dose("p", "s", 1.0), Moment.now())
print("all go on")
"""


def test_every_store_of_the_kiosk_says_that_the_disk_is_full_and_goes_on_when_it_is_not(
    tmp_path: Path,
) -> None:
    said = on_a_small_disk(tmp_path, FULL).splitlines()
    assert [line.split(":")[0] for line in said] == ["records", "outbox", "doses", "all go on"]
    assert all("the disk is full: make room" in line for line in said[:3])
    assert "rollback" not in " ".join(said)


def test_a_patient_at_a_full_disk_reads_what_to_do(
    bench: Bench, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> UUID:
        raise RecordsFull("The disk is full.")

    visitor.walk_to("consent")
    monkeypatch.setattr(bench.kiosk.records, "create", full)
    page = visitor.tap()
    assert (page.status, page.name, page.body["data-reason"]) == (503, "closed", "no_room")


def test_a_process_that_hangs_with_the_keys_in_its_hand_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, its = Keyring(tmp_path / "vault.key"), Keyring(tmp_path / "vault.key")
    monkeypatch.setattr(keyring, "LOCKED_S", 0.1)
    for shared in (True, False):
        with its.lock(), pytest.raises(KeyringError, match="held by another process for more than 0.1 s"):  # noqa: SIM117
            with mine.lock(shared=shared):
                raise AssertionError("nobody may hold it beside the other")
    with its.lock(shared=True), mine.lock(shared=True):
        assert mine.generations() == [1]
    with mine.lock():
        pass


@pytest.mark.parametrize("wait_s", [0.0, 0.02])
def test_who_had_no_time_left_for_the_keys_is_not_told_of_so_many_seconds(
    tmp_path: Path, wait_s: float
) -> None:
    mine, its = Keyring(tmp_path / "vault.key"), Keyring(tmp_path / "vault.key")
    with its.lock(), waiting_at_most(wait_s), pytest.raises(KeyringError) as refused:  # noqa: SIM117
        with mine.lock():
            raise AssertionError("nobody may hold it beside the other")
    assert "for more than the moment that was left. Try again" in str(refused.value)


def test_a_shredding_of_many_scans_holds_the_keys_no_longer_than_others_wait_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It waits for the file of the records, and has to write beside that.
    assert keyring.LOCKED_S >= records.ALONE_S + 30
    assert keyring.LOCKED_S > records_file.LOCKED_S  # as whoever makes a scan waits for it
    read, reads = Keyring._read, []

    def counting(keys: Keyring) -> object:
        reads.append(keys)
        return read(keys)

    monkeypatch.setattr(Keyring, "_read", counting)
    store = opened(tmp_path)
    often = []
    for _ in range(2):
        scans = [store.create({"version": "1"}, None) for _ in range(20)]
        reads.clear()
        store.forget(scans[0])
        often.append(len(reads))
    # Not once for each key that is wrapped anew.
    assert often[0] == often[1] < 10
    assert len(store.dek(scans[1])) == len(store.dek(scans[-1]))


def test_who_waits_with_a_patient_gives_up_early_and_what_works_behind_the_pages_does_not(
    tmp_path: Path,
) -> None:
    mine, its, had = Keyring(tmp_path / "vault.key"), Keyring(tmp_path / "vault.key"), threading.Event()

    def behind() -> None:
        with mine.lock():
            had.set()

    thread = threading.Thread(target=behind)
    with its.lock(), waiting_at_most(0.05):
        thread.start()
        for _ in range(2):
            with (
                pytest.raises(KeyringBusy, match="more than the moment that was left. Try again in a moment"),
                mine.lock(),
            ):
                raise AssertionError("nobody may hold it beside the other")
    assert had.wait(60)
    thread.join(60)


@pytest.mark.parametrize(
    "held_up",
    [lambda bench: bench.kiosk.records.keyring.lock(), writing],
    ids=["keys", "records"],
)
@pytest.mark.parametrize(("page", "action"), [("consent", "/consent"), ("delete", "/delete")])
def test_a_patient_whose_answer_has_to_wait_is_told_that_nothing_was_done(
    bench: Bench,
    visitor: Visitor,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    action: str,
    held_up: Callable[[Bench], AbstractContextManager[object]],
) -> None:
    visitor.walk_to("result" if page == "delete" else page)
    if page == "delete":
        visitor.look("/delete")
    before = [scan.state for scan in bench.kiosk.records.scans()]
    with held_up(bench), pages_wait_briefly():
        said = visitor.tap(action, consent="agree")
    assert (said.status, said.name) == (503, "kiosk_busy")
    assert "what you chose has not been done yet" in said.words
    assert [scan.state for scan in bench.kiosk.records.scans()] == before
    assert visitor.look(said.way_on).name == page
    visitor.tap(action, consent="agree")
    after = bench.kiosk.records.scans()[-1].state
    assert after == ("shredded" if page == "delete" else "consented")


@pytest.mark.parametrize("address", ["/result", "/result/zones.png", "/delivery"])
def test_a_page_that_has_to_wait_for_the_records_is_no_fault_of_ours(
    bench: Bench, visitor: Visitor, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    visitor.walk_to("result")
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records, "_one", held)
        said = visitor.look(address)
    assert (said.status, said.name) == (503, "kiosk_busy")
    assert "this page cannot be shown yet" in said.words and said.way_on == address


@pytest.mark.parametrize("address", ["/result", "/result?picture=zones"])
def test_a_page_that_has_to_wait_for_the_keys_does_not_speak_of_a_choice(
    bench: Bench, visitor: Visitor, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    visitor.walk_to("result")
    with bench.kiosk.records.keyring.lock(), pages_wait_briefly():
        said = visitor.look(address)
        picture = visitor.client.get("/result/zones.png")
    assert (said.status, said.name, picture.status_code) == (503, "kiosk_busy", 503)
    assert "this page cannot be shown yet" in said.words and "chose" not in said.words
    assert said.way_on == address
    assert visitor.look(said.way_on).name == "result"
