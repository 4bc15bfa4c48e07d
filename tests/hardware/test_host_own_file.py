"""What root opens in the folder of another account: that account leads it nowhere else by a link."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from firmware.lights.daemon import _own
from firmware.lights.doses import DoseLedger
from hardware.host import durable, own_file, sqlite
from hardware.host.durable import replace_secret, write_whole
from hardware.host.errors import PlainError
from hardware.host.folders import make_folder, real_path
from hardware.host.own_file import open_own
from kiosk_app.demo.supervisor import free_port
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.reserve import Reserve
from kiosk_app.kept.vault import Vault, new_key
from provisioning.authority import Authority
from sync.kiosk.cli import _only_agent
from sync.kiosk.outbox import Outbox
from tests.support.other_accounts import let_files_be_given_away

SOMEBODY = 54_321  # a user id without an account
OTHERS = b"of somebody else"


def keys(folder: Path) -> None:
    Keyring(folder / "vault.key")


def records(folder: Path) -> None:
    Records(folder / "records.sqlite", Keyring(folder / "vault.key")).create({"text": "2026-11"}, None)


def outbox(folder: Path) -> None:
    kept = Outbox(folder / "outbox.sqlite")
    kept.put(uuid4(), "result", b"sealed")
    kept.close()


def doses(folder: Path) -> None:
    DoseLedger(folder / "doses.sqlite").renewed_at("uv365")


def agent(folder: Path) -> None:
    with _only_agent(folder / "agent.lock"):
        pass


def one_more_item(folder: Path) -> None:
    vault, scan = Vault(folder.parent), uuid4()
    folder.rename(folder.parent / str(scan))
    vault.add(scan, new_key(), "spot", b"pixels")


# The file in an account's folder -> who opens it.
FILES: dict[str, Callable[[Path], object]] = {
    "vault.lock": keys,
    "vault.key": keys,
    "records.sqlite": records,
    "records.sqlite-wal": records,
    "records.sqlite-shm": records,
    "reserve": lambda folder: Reserve(folder / "reserve", folder / "records.sqlite").fill(),
    "spot.cob": one_more_item,
    "outbox.sqlite": outbox,
    "outbox.sqlite-wal": outbox,
    "agent.lock": agent,
    "doses.sqlite": doses,
    "doses.sqlite-journal": doses,
    "doses.made": doses,
    "owner.lock": lambda folder: os.close(_own(folder / "owner.lock")),
    "whole": lambda folder: write_whole(folder / "whole", b"new"),
    "secret": lambda folder: replace_secret(folder / "secret", b"new"),
}


@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing yet"])
@pytest.mark.parametrize("name", FILES)
def test_no_link_in_the_place_of_a_file_leads_to_another_one(tmp_path: Path, name: str, there: bool) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    if there:
        elsewhere.write_bytes(OTHERS)
    (folder / name).symlink_to(elsewhere)
    with contextlib.suppress(PlainError, OSError):
        FILES[name](folder)
        # Nobody goes on with what the link leads to: where nothing is refused, the link is gone.
        assert not (folder / name).is_symlink()
    assert elsewhere.read_bytes() == OTHERS if there else not elsewhere.exists()


@pytest.mark.parametrize("open_store", [records, outbox, doses])
def test_no_link_that_comes_while_a_store_is_opened_leads_to_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_store: Callable[[Path], None]
) -> None:
    """SQLite follows what it finds when it opens the file; it was looked at before."""
    elsewhere, check = tmp_path / "elsewhere", own_file.check_own
    elsewhere.write_bytes(b"")  # to SQLite a new store, in which it would make its tables

    def then_replaced(path: Path) -> None:
        check(path)
        path.unlink()
        path.symlink_to(elsewhere)

    monkeypatch.setattr(sqlite, "check_own", then_replaced)
    with pytest.raises(PlainError, match="it is a link, where a file has to be: move it aside"):
        open_store(make_folder(tmp_path / "folder"))
    assert elsewhere.read_bytes() == b""


@pytest.mark.parametrize("write", [write_whole, replace_secret])
def test_a_folder_in_whose_place_a_link_comes_meanwhile_is_still_the_one_that_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]
) -> None:
    folder, elsewhere = make_folder(tmp_path / "folder"), make_folder(tmp_path / "elsewhere")
    write(folder / "secret", b"old")
    (elsewhere / "secret").write_bytes(OTHERS)
    fill = durable._fill

    def then_replaced(*arguments: Any) -> None:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(elsewhere)
        fill(*arguments)

    monkeypatch.setattr(durable, "_fill", then_replaced)
    write(folder / "secret", b"new")
    for where, content in (("elsewhere", OTHERS), ("moved", b"new")):
        assert {path.name: path.read_bytes() for path in (tmp_path / where).iterdir()} == {"secret": content}


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    let_files_be_given_away(monkeypatch)


def of_somebody(path: Path) -> Path:
    os.lchown(path, SOMEBODY, SOMEBODY)
    return path


def role(folder: Path) -> None:
    authority = Authority.create(folder.parent / "authority", "Clinic")
    authority.make_broker(folder.parent / "broker", free_port())
    authority.make_role("ingest-1", folder)


def opener(folder: Path) -> None:
    Authority.create(folder.parent / "authority", "Clinic").make_opener(folder)


# Who writes into a folder that is named to them.
WRITERS = [
    keys,
    records,
    outbox,
    doses,
    role,
    opener,
    make_folder,
    *(FILES[name] for name in ("whole", "secret")),
]


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize("into", ["the folder", "one above it"])
@pytest.mark.parametrize("writes", WRITERS)
def test_no_link_of_another_account_leads_root_into_another_folder(
    tmp_path: Path, writes: Callable[[Path], object], into: str
) -> None:
    theirs, roots = tmp_path / "theirs", tmp_path / "roots"
    roots.mkdir()
    theirs.mkdir()
    of_somebody(theirs)
    (theirs / "link").symlink_to(roots)
    of_somebody(theirs / "link")
    with pytest.raises((PlainError, OSError)) as refused:
        writes(theirs / "link" if into == "the folder" else theirs / "link" / "below")
    assert list(roots.iterdir()) == []
    assert not (tmp_path / "broker.json").exists()  # which a role writes beside its folder
    causes = [refused.value, refused.value.__cause__]
    assert any("another account's link on the way leads out of its folders" in str(cause) for cause in causes)


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize("whose", ["theirs", "roots"])
@pytest.mark.parametrize("writes", WRITERS)
def test_a_folder_is_reached_by_a_link_of_its_owner_or_of_roots(
    tmp_path: Path, writes: Callable[[Path], object], whose: str
) -> None:
    link, folder = tmp_path / "state", of_somebody(make_folder(tmp_path / "elsewhere" / "state"))
    link.symlink_to(folder)
    if whose == "theirs":
        of_somebody(link)
    writes(make_folder(link / "app"))
    assert real_path(link / "app") == folder / "app"
    assert writes is make_folder or list((folder / "app").iterdir())


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize("make", [role, opener])
@pytest.mark.parametrize("what", [Path.symlink_to, Path.hardlink_to])
def test_a_key_that_was_linked_there_is_not_taken_for_the_clinics(
    tmp_path: Path, make: Callable[[Path], None], what: Callable[[Path, Path], None]
) -> None:
    folder = make_folder(tmp_path / "folder")
    name = "receipt.key" if make is role else "opening.key"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(OTHERS)
    what(folder / name, elsewhere)
    if what is Path.hardlink_to:
        of_somebody(folder)
    with pytest.raises(OSError, match="where a file has to be|another account's file"):
        make(folder)
    assert elsewhere.read_bytes() == OTHERS
    assert not (tmp_path / "authority" / "clinic-keys.json").exists()


def test_what_keeps_a_file_from_being_made_is_said_and_not_that_it_is_missing() -> None:
    nobody_makes_files_there = Path("/sys")
    with pytest.raises(OSError, match="/sys/lock") as refused:
        open_own(nobody_makes_files_there / "lock", os.O_RDWR | os.O_CREAT)
    assert refused.value.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    with pytest.raises(PlainError, match="it has to be a file that this user may write"):
        agent(nobody_makes_files_there)


def test_a_folder_on_the_way_is_asked_for_as_one_so_that_what_is_mounted_at_its_use_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An automount stays empty for whoever asks only what stands there."""
    make_folder(tmp_path / "a")
    (tmp_path / "link").symlink_to("a")
    opened, opens = dict[str, int](), os.open

    def watched(name: str, flags: int, *rest: int, dir_fd: int | None = None) -> int:
        handle = opens(name, flags, *rest, dir_fd=dir_fd)
        opened[name] = flags & os.O_DIRECTORY
        return handle

    monkeypatch.setattr(os, "open", watched)
    make_folder(tmp_path / "link" / "b")
    assert {name for name, as_folder in opened.items() if not as_folder} == {"link"}


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT):
        with pytest.raises(OSError, match="a pipe, a socket or a device") as refused:
            open_own(tmp_path / "pipe", flags)
        assert refused.value.filename == str(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("to", "number"), [("itself", errno.ELOOP), ("nothing", errno.ENOENT), ("file/x", errno.EEXIST)]
)
def test_a_link_that_leads_nowhere_is_no_folder_and_none_is_made_there(
    tmp_path: Path, to: str, number: int
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "itself").symlink_to(to)
    with pytest.raises(OSError, match=str(tmp_path)) as refused:
        make_folder(tmp_path / "itself" / "below")
    assert refused.value.errno == number
    assert {path.name for path in tmp_path.iterdir()} == {"file", "itself"}


def test_a_folder_has_the_path_that_the_kernel_gives_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a" / "b")
    (tmp_path / "to a").symlink_to("a")
    (folder / "up").symlink_to("../..")
    (tmp_path / "there").symlink_to(tmp_path / "to a" / "b" / "up" / "to a")
    for way in ("there/b", "there/b/up/there/../to a/./b", "to a/b/../../a/b"):
        assert real_path(tmp_path / way) == folder.resolve() == (tmp_path / way).resolve()


def test_no_way_leaves_anything_open(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(tmp_path)
    gc.collect()  # what others left open is not closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for name in ("loop", "link/loop/x", "link/link", "nothing"):
        with contextlib.suppress(OSError):
            real_path(tmp_path / name)
        with contextlib.suppress(OSError):
            open_own(tmp_path / name / "file", os.O_RDONLY)
    assert len(os.listdir("/proc/self/fd")) == before
