"""The staff accounts of the clinic's pages."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import ColumnElement, delete, or_, update
from sqlalchemy.orm import Session

from sync.clinic.audit.log import note
from sync.clinic.people import throttle
from sync.clinic.store.database import Database, moment_at, now
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import Account, WebSession
from sync.wire.errors import PlainError

NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")
# Without letters that are easily taken for another: 20 of these 31 are 99 bits.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
# Nobody hits so many bytes by guessing; and since each password is made here, of 99 random bits, nobody who
# reads them finds one by trying, however fast.
MARK_BYTES = 8

IDLE_LIMIT = timedelta(minutes=30)
SESSION_LIMIT = timedelta(hours=12)

TURN_S = 5.0
# Even a try that is turned away has its turn for so long: a process looks at no more than 8.64 million
# passwords a day, whoever asks from wherever, which is a chance of 1 in 7 × 10²² to see one of 99 bits.
REFUSAL_S = 0.01

_hasher = PasswordHasher()


class SignInRefused(PlainError):
    """The name or the password is wrong, or there were too many tries; `wait_s` says which."""

    def __init__(self, wait_s: float = 0.0) -> None:
        super().__init__("Too many tries." if wait_s else "The name or the password is wrong.")
        self.wait_s = wait_s


class SignInBusy(PlainError):
    """Others are signing in, and the turn did not come in time: no fault of whoever tries."""


class NotShown(ClinicError):
    """The password of a new account could not be shown."""


class Accounts:
    """Signing in and out. One at a time: it bounds the memory that hashing takes, and the guesses."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        # What an unknown name is checked against, so that the time taken does not tell who has an account.
        self._nobody = _hasher.hash(secrets.token_hex(16))

    def sign_in(self, name: str, password: str, address: str, browser: str | None = None) -> str:
        """The token of a new session. Raises SignInRefused or SignInBusy.

        `browser` is the id of a browser that this account has signed in from before. The right password is
        known by its mark, and is not kept waiting by whoever guesses.
        """
        mark = _mark(name, password)
        if not self._turn.acquire(timeout=TURN_S):
            raise SignInBusy("Others are signing in: try again in a few seconds.")
        try:
            with self._database.reading() as session:
                account = session.get(Account, name)
                known = account.mark if account else None
                marked = known is not None and hmac.compare_digest(known, mark)
                keys = throttle.keys_of(name, address, browser, marked=marked)
                wait = throttle.wait(session, keys, moment_at(session))
            if not wait:
                with self._database.writing() as session:
                    wait = throttle.take(session, keys, moment_at(session))
            if wait:
                time.sleep(REFUSAL_S)
                raise SignInRefused(wait.total_seconds())
            stored = account.password_hash if account else self._nobody
            right = _matches(stored, password) and account is not None
        finally:
            self._turn.release()
        if not right:
            with self._database.writing() as session:
                note(session, "web", "sign_in_failed", name[:64] if account else None)
                throttle.forget_old(session, moment_at(session))
            raise SignInRefused
        token = secrets.token_urlsafe(32)
        moment = now()
        with self._database.writing() as session:
            throttle.succeeded(session, keys)
            if not marked:
                session.execute(update(Account).where(Account.name == name).values(mark=mark))
            forget_ended(session)
            session.add(WebSession(token_hash=_hash(token), account=name, started_at=moment, seen_at=moment))
            note(session, name, "signed_in")
        return token

    def who(self, token: str | None) -> str | None:
        """The account that `token` belongs to, or None when there is none or its session has ended."""
        if not token:
            return None
        moment = now()
        with self._database.reading() as session:
            found = session.get(WebSession, _hash(token))
        if found is None:
            return None
        # Either way: a session begun by a clock that was set back since would otherwise outlast all others.
        if abs(moment - found.seen_at) > IDLE_LIMIT or abs(moment - found.started_at) > SESSION_LIMIT:
            return None
        if moment - found.seen_at > timedelta(minutes=1):
            with self._database.writing() as session:
                again = session.get(WebSession, found.token_hash, with_for_update=True)
                if again is None:
                    return None
                again.seen_at = moment
        return found.account

    def sign_out(self, token: str) -> None:
        """End the session; the token is worth nothing from here."""
        with self._database.writing() as session:
            found = session.get(WebSession, _hash(token), with_for_update=True)
            if found is not None:
                session.delete(found)
                note(session, found.account, "signed_out")


def forget_ended(session: Session) -> None:
    """Forget the sessions that are over."""
    session.execute(delete(WebSession).where(_ended()))


def add_account(database: Database, name: str, show: Callable[[str], object] = str) -> str:
    """Make an account and return its random password, which is kept nowhere.

    `show` is given the password of an account that is made, and of no other; where it raises the account goes
    again, for nobody could use one whose password nobody has read. Raises ClinicError.
    """
    if not NAME.fullmatch(name):
        raise ClinicUsageError(
            f"'{name}' is no account name: a small letter, then small letters, digits, '.', '_' or '-'."
        )
    letters = "".join(secrets.choice(ALPHABET) for _ in range(20))
    password = "-".join(letters[start : start + 5] for start in range(0, 20, 5))
    account = Account(
        name=name, password_hash=_hasher.hash(password), mark=_mark(name, password), created_at=now()
    )
    try:
        with database.writing() as session:
            if not insert_once(session, account):
                raise ClinicUsageError(f"There is an account '{name}' already: choose another name.")
            note(session, "command", "account_added", name)
        # Not within the transaction: a terminal that is stopped would keep everybody from writing.
        try:
            show(password)
        except Exception as error:
            raise NotShown(f"No account '{name}' was made: {error}") from error
    except (NotShown, KeyboardInterrupt):
        _take_back(database, account)
        raise
    return password


def _take_back(database: Database, account: Account) -> None:
    itself = (Account.name == account.name) & (Account.password_hash == account.password_hash)
    with database.writing() as session:
        if session.execute(delete(Account).where(itself).returning(Account.name)).first() is not None:
            note(session, "command", "account_taken_back", account.name)


def _ended() -> ColumnElement[bool]:
    moment = now()
    return or_(
        WebSession.seen_at < moment - IDLE_LIMIT,
        WebSession.seen_at > moment + IDLE_LIMIT,
        WebSession.started_at < moment - SESSION_LIMIT,
        WebSession.started_at > moment + SESSION_LIMIT,
    )


def _matches(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except VerificationError:
        return False


def _mark(name: str, password: str) -> bytes:
    return hashlib.sha256(f"{name} {password}".encode()).digest()[:MARK_BYTES]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
