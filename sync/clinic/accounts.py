"""The staff accounts of the clinic's pages."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections import OrderedDict
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import ColumnElement, delete, or_

from .audit import note
from .database import Database, insert_once, now
from .errors import ClinicUsageError
from .tables import Account, WebSession

NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")
# Without letters that are easily taken for another: 20 of these 31 are 99 bits.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"

IDLE_LIMIT = timedelta(minutes=30)
SESSION_LIMIT = timedelta(hours=12)

FREE_TRIES = 5
FIRST_WAIT_SECONDS = 15.0
LONGEST_WAIT_SECONDS = 15 * 60.0
REMEMBERED = 10_000

_hasher = PasswordHasher()


class SignInRefused(Exception):
    """The name or the password is wrong, or there were too many tries; `wait_seconds` says which."""

    def __init__(self, wait_seconds: float = 0.0) -> None:
        super().__init__("Too many tries." if wait_seconds else "The name or the password is wrong.")
        self.wait_seconds = wait_seconds


class Throttle:
    """Failed tries by key, each key free for a few and then made to wait, longer each time."""

    def __init__(self) -> None:
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_seconds(self, key: str) -> float:
        """How long `key` must wait before its next try; 0 if it need not."""
        _, until = self._tries.get(key, (0, 0.0))
        return max(0.0, until - time.monotonic())

    def failed(self, key: str) -> None:
        tries = self._tries.pop(key, (0, 0.0))[0] + 1
        wait = 0.0
        if tries >= FREE_TRIES:
            # The exponent is bounded because 2.0 ** 1100 overflows.
            wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(tries - FREE_TRIES, 16), LONGEST_WAIT_SECONDS)
        self._tries[key] = (tries, time.monotonic() + wait)
        while len(self._tries) > REMEMBERED:
            self._tries.popitem(last=False)

    def succeeded(self, key: str) -> None:
        self._tries.pop(key, None)


class Accounts:
    """Signing in and out. One at a time: it bounds the memory that hashing takes, and the guesses."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._throttle = Throttle()
        self._turn = threading.Lock()
        # What an unknown name is checked against, so that the time taken does not tell who has an account.
        self._nobody = _hasher.hash(secrets.token_hex(16))

    def sign_in(self, name: str, password: str, address: str) -> str:
        """The token of a new session. Raises SignInRefused."""
        keys = (f"name {name}", f"address {address}")
        with self._turn:
            wait = max(self._throttle.wait_seconds(key) for key in keys)
            if wait:
                raise SignInRefused(wait)
            with self._database.reading() as session:
                account = session.get(Account, name)
                stored = account.password_hash if account else self._nobody
            if not _matches(stored, password) or account is None:
                for key in keys:
                    self._throttle.failed(key)
                with self._database.writing() as session:
                    note(session, "web", "sign-in-failed", name[:64] if account else None)
                raise SignInRefused
            for key in keys:
                self._throttle.succeeded(key)
        token = secrets.token_urlsafe(32)
        moment = now()
        with self._database.writing() as session:
            session.execute(delete(WebSession).where(_ended()))
            session.add(WebSession(token_hash=_hash(token), account=name, started_at=moment, seen_at=moment))
            note(session, name, "signed-in")
        return token

    def who(self, token: str | None) -> str | None:
        """The account that `token` belongs to, or None when there is none or its session has ended."""
        if not token:
            return None
        moment = now()
        with self._database.reading() as session:
            found = session.get(WebSession, _hash(token))
        if found is None or found.seen_at < moment - IDLE_LIMIT or found.started_at < moment - SESSION_LIMIT:
            return None
        if moment - found.seen_at > timedelta(minutes=1):
            with self._database.writing() as session:
                again = session.get(WebSession, found.token_hash)
                if again is None:
                    return None
                again.seen_at = moment
        return found.account

    def sign_out(self, token: str) -> None:
        """End the session; the token is worth nothing from here."""
        with self._database.writing() as session:
            found = session.get(WebSession, _hash(token))
            if found is not None:
                session.delete(found)
                note(session, found.account, "signed-out")


def add_account(database: Database, name: str) -> str:
    """Make an account and return its random password, which is kept nowhere."""
    if not NAME.fullmatch(name):
        raise ClinicUsageError(
            f"'{name}' is no account name: a small letter, then small letters, digits, '.', '_' or '-'."
        )
    letters = "".join(secrets.choice(ALPHABET) for _ in range(20))
    password = "-".join(letters[start : start + 5] for start in range(0, 20, 5))
    account = Account(name=name, password_hash=_hasher.hash(password), created_at=now())
    with database.writing() as session:
        if not insert_once(session, account):
            raise ClinicUsageError(f"There is an account '{name}' already: choose another name.")
        note(session, "command", "account-added", name)
    return password


def _ended() -> ColumnElement[bool]:
    moment = now()
    return or_(WebSession.seen_at < moment - IDLE_LIMIT, WebSession.started_at < moment - SESSION_LIMIT)


def _matches(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except VerificationError:
        return False


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
