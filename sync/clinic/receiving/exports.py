"""What was opened, as files in the folder that the clinic names; they go when their scan goes."""

from __future__ import annotations

import contextlib
import errno
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import structlog
from sqlalchemy import delete, exists, select, tuple_, union_all
from sqlalchemy.orm import Session

from sync.clinic.receiving import withdrawals
from sync.clinic.receiving.erasing import IDS_AT_ONCE
from sync.clinic.receiving.export_folder import ExportFolder, OpenFolder
from sync.clinic.receiving.results import Key
from sync.clinic.receiving.sealed import Sealed, Seals, among, has_key
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicError
from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import ERASED, OPENED, STORED, Envelope, OwedFile, WithdrawnMessage
from sync.wire.messages import Message

# What is half written of messages.
Halves = Mapping[Key, Sequence[str]]

# Between two words to the watchdog.
OWED_AT_ONCE = 25
# How what is written and not named yet ends, and what is.
_WRITTEN, _NAMED = ".part", ".json"
_IS_HERE = (Envelope.kiosk == WithdrawnMessage.kiosk) & (Envelope.message_id == WithdrawnMessage.message_id)


log = structlog.get_logger()


class ExportsUnusable(ClinicError):
    """The folder of the exports is away or cannot be written now, or a file in it not be named or deleted."""


class Exports:
    """The files of what one opener opens, in `folder`; where that is None there are none.

    Before a message is opened its file is on the disk, whole, under another name; after the transaction in
    which it is, the file gets its own name, or goes if the message was not opened after all. So nobody who
    would write to the database waits for this folder's disk; on PostgreSQL only those do who would change the
    very envelopes that the opener has claimed, or their scans. Wherever between these steps a process ends,
    each message that was opened has its file, at the latest once an opener has begun with this folder again.
    A file can come a second time. Of a withdrawal that could not wait for its own file that comes later, here
    or where another opener writes, as soon as any can.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else ExportFolder(folder)
        self._unsettled: set[Key] = set()

    def require_usable(self) -> None:
        """Before an opener begins: raises ClinicUsageError where no file can be made in the folder.

        It is made if it is not there, and from now on is the only one that is used.
        """
        if self.folder is not None:
            self.folder.begin()

    def write(self, messages: Iterable[tuple[Key, Message]]) -> None:
        """Have the files of these messages on the disk, under another name. Raises ExportsUnusable."""
        if self.folder is None:
            return
        with self._opened(self.folder) as folder:
            try:
                for key, message in messages:
                    self._unsettled.add(key)
                    text = message.model_dump_json(indent=2) + "\n"
                    _write(folder, _stem(key) + _WRITTEN, text.encode())
            except OSError as error:
                raise ExportsUnusable(
                    f"The folder {self.folder.path} of the exports cannot be written ({error.strerror}), and "
                    "no message is opened before its file is there: make room on its disk, or have it be a "
                    "folder that this user may write."
                ) from error

    def owe(self, session: Session, row: Sealed) -> None:
        """In the transaction that opens a message, if it does: have its file come with `write_owed`."""
        opened = exists().where(has_key(row.key), Envelope.state == OPENED)
        if self.folder is not None and session.scalar(select(opened)):
            insert_once(session, OwedFile(kiosk=row.kiosk, message_id=row.message_id, data=row.data))

    def write_owed(self, database: Database, seals: Seals) -> None:
        """Have files that any opener owes be settled, a few at once, as far as `seals` open what is in them.

        Raises ExportsUnusable.
        """
        if self.folder is None:
            return
        owed = (
            select(OwedFile.kiosk, OwedFile.message_id, OwedFile.data)
            .join(Envelope, (Envelope.kiosk == OwedFile.kiosk) & (Envelope.message_id == OwedFile.message_id))
            .where(Envelope.recipient.in_(seals.kids))
            .order_by(Envelope.received_at)
        )
        with database.reading() as session:
            found = session.execute(owed.limit(OWED_AT_ONCE)).all()
        if not found:
            return
        contents = [((kiosk, message_id), seals.content(kiosk, data)) for kiosk, message_id, data in found]
        self.write([(key, content) for key, content in contents if isinstance(content, Message)])
        for key, content in contents:
            if not isinstance(content, Message):
                log.error("file_not_written", message=str(key[1]), reason=content.reason)
        with database.writing(gives_way=True) as session:
            keys = tuple_(OwedFile.kiosk, OwedFile.message_id)
            session.execute(delete(OwedFile).where(keys.in_([key for key, _ in contents])))

    def require_deletable(self, keys: Collection[Key]) -> None:
        """Raises ExportsUnusable where one of these may have a file, and none can be deleted now."""
        if self.folder is None or not keys:
            return
        with self._opened(self.folder) as folder:
            try:
                if folder.takes_writing():
                    return
                halves = _halves(folder.names())
                for name in (name for key in keys for name in _names(key, halves)):
                    if folder.is_there(name):
                        path = str(self.folder.path / name)
                        raise PermissionError(errno.EACCES, "its folder cannot be written", path)
            except OSError as error:
                raise _unsettleable(error) from error

    def note_erased(self, kiosk: UUID, messages: Iterable[UUID]) -> None:
        """The files of these messages of one kiosk go, once their erasure is committed."""
        if self.folder is not None:
            self._unsettled.update((kiosk, message) for message in messages)

    def settle(self, database: Database) -> None:
        """After a transaction: name the files of what was opened, delete those of what was not or is erased.

        Raises ExportsUnusable; what could not be done, and only that, is done by the next call.
        """
        if self.folder is None or not self._unsettled:
            return
        keys, failed = list(self._unsettled), dict[Key, OSError]()
        halves: Halves | None = None
        with self._opened(self.folder) as folder:
            for start in range(0, len(keys), IDS_AT_ONCE):
                some = keys[start : start + IDS_AT_ONCE]
                for key, state in _states(database, some).items():
                    try:
                        if halves is None and state == ERASED:
                            halves = _halves(folder.names())
                        _settle(folder, key, state, halves or {})
                    except OSError as error:
                        failed[key] = error
                try:
                    folder.sync()
                except OSError as error:
                    failed |= dict.fromkeys(some, error)
                self._unsettled.difference_update(set(some) - failed.keys())
        if failed:
            first = next(iter(failed.values()))
            raise _unsettleable(first) from first

    def catch_up(self, database: Database) -> None:
        """Before an opener begins: find in the folder what any process has left to `settle`.

        Raises ExportsUnusable.
        """
        if self.folder is None:
            return
        self.forget_withdrawn(database)
        with self._opened(self.folder) as folder:
            try:
                names = folder.names()
                for half in (half for halves in _halves(names).values() for half in halves):
                    folder.delete(half)
            except OSError as error:
                raise _unsettleable(error) from error
        written = (_key(name.removesuffix(_WRITTEN)) for name in names if name.endswith(_WRITTEN))
        self._unsettled.update(key for key in written if key is not None)

    def forget_withdrawn(self, database: Database) -> None:
        """Delete the files of whatever is withdrawn; those that cannot be deleted are left to `settle`.

        An opener with another folder may have erased it, or an old copy of this one brought it back; and what
        came after the copy that the database was brought back from is known by its withdrawal only.
        """
        if self.folder is None:
            return
        erased = select(Envelope.kiosk, Envelope.message_id).where(Envelope.state == ERASED)
        named = select(WithdrawnMessage.kiosk, WithdrawnMessage.message_id).where(~exists().where(_IS_HERE))
        with database.reading() as session:
            keys = [(kiosk, message) for kiosk, message in session.execute(union_all(erased, named))]
        try:
            with self._opened(self.folder) as folder:
                halves = _halves(folder.names())
                for key in keys:
                    try:
                        _delete(folder, key, halves)
                    except OSError:
                        self._unsettled.add(key)
        except (OSError, ExportsUnusable):
            self._unsettled.update(keys)

    @contextmanager
    def _opened(self, named: ExportFolder) -> Iterator[OpenFolder]:
        """Raises ExportsUnusable where another folder is in its place, as where its disk is away."""
        until = "Until then no message is opened, and no withdrawal of what has a file is acted on."
        with ExitStack() as closing:
            try:
                folder = closing.enter_context(named.opened())
            except OSError as error:
                raise ExportsUnusable(
                    f"The folder {named.path} of the exports cannot be opened ({error.strerror}): have it "
                    f"be a folder that this user may read, or mount its disk anew. {until}"
                ) from error
            if folder is None:
                raise ExportsUnusable(
                    f"At {named.path} is not the folder of the exports that this opener began with: mount "
                    f"its disk again, or start the opener anew with what is there. {until}"
                )
            yield folder


def _unsettleable(error: OSError) -> ExportsUnusable:
    return ExportsUnusable(
        f"{error.filename} among the exports cannot be read, renamed or deleted "
        f"({error.strerror}), so that what was opened lacks its file, or what was withdrawn still has "
        "one: correct the rights of it and of its folder, or have its disk take writing."
    )


def _stem(key: Key) -> str:
    """The name of a message's file, but for its end; two kiosks can have used the same id."""
    return f"{key[0]}.{key[1]}"


def _key(stem: str) -> Key | None:
    try:
        kiosk, message = map(UUID, stem.split("."))
    except ValueError:  # somebody else's file, or one of an earlier version, which named no kiosk
        return None
    return kiosk, message


def _halves(names: Iterable[str]) -> Halves:
    """What among these is being written, or was when a process was killed, of each message."""
    halves = defaultdict[Key, list[str]](list)
    for name in names:
        stem, written, _ = name.removeprefix(".").rpartition(f"{_WRITTEN}.")
        if name.startswith(".") and written and (key := _key(stem)) is not None:
            halves[key].append(name)
    return halves


def _write(folder: OpenFolder, name: str, data: bytes) -> None:
    try:
        folder.write(name, data)
    except FileNotFoundError:
        # Another opener here took what was half written for a killed one's.
        folder.write(name, data)


def _states(database: Database, keys: Sequence[Key]) -> dict[Key, str]:
    """What has become of these; a withdrawn message that is not here may have been, and counts as erased."""
    which = select(Envelope.kiosk, Envelope.message_id, Envelope.state).where(among(keys))
    with database.reading() as session:
        states = {(kiosk, message): state for kiosk, message, state in session.execute(which)}
        unknown = set(keys) - states.keys()
        named = withdrawals.named_among(session, [message for _, message in unknown])
    return states | dict.fromkeys(unknown & named, ERASED)


def _settle(folder: OpenFolder, key: Key, state: str, halves: Halves) -> None:
    written = _stem(key) + _WRITTEN
    if state == OPENED:
        # None is there where it has its name, or its scan was withdrawn meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if folder.is_there(written):
                folder.rename(written, _stem(key) + _NAMED)
    elif state == ERASED:
        _delete(folder, key, halves)
    elif state != STORED:
        folder.delete(written)


def _delete(folder: OpenFolder, key: Key, halves: Halves) -> None:
    for name in _names(key, halves):
        folder.delete(name)


def _names(key: Key, halves: Halves) -> Iterator[str]:
    """What there may be of a message."""
    # Deleted in this order it is gone even if another opener names it at this moment.
    yield from halves.get(key, ())
    # What an earlier version wrote without a kiosk may be another's: better gone than left.
    for stem in (_stem(key), str(key[1])):
        yield stem + _WRITTEN
        yield stem + _NAMED
