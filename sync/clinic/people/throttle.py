"""Throttle: how long a sign-in has to wait after wrong passwords, kept in the clinic's database."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from sync.clinic.store.rows import insert_new
from sync.clinic.store.tables import SignInTries

# Of one account: a few tries are free, then each wrong one makes the next wait longer, up to a bound that a
# person can sit out. At the bound under 3,000 guesses a day are checked, against passwords of 99 bits.
FREE_TRIES = 5
FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=30)
# Of one address, where a whole clinic may sit: many tries are free, then one every few seconds.
FREE_TRIES_OF_ADDRESS = 50
WAIT_OF_ADDRESS = timedelta(seconds=5)
# Tries are forgotten when none has failed for so long.
REMEMBERED = timedelta(hours=1)
_ADDRESS = "address "


def keys_of(name: str, address: str, browser: str | None, *, marked: bool = False) -> tuple[str, ...]:
    """What a try counts under: the account, whether there is one or not, and the address.

    With a password that is `marked` as the account's, and in a `browser` that the account has signed in from
    before, its tries count by themselves: nobody who guesses, from wherever, keeps the account's owner out.
    """
    if marked:
        return (f"marked {name}",)
    if browser is not None:
        return (f"browser {name} {browser}",)
    return (f"account {name}", f"{_ADDRESS}{_network(address)}")


def wait(session: Session, keys: tuple[str, ...], now: datetime) -> timedelta:
    """How long a try under these keys has to wait; nothing if it need not."""
    return _longest((session.get(SignInTries, _hash(key)) for key in keys), now)


def take(session: Session, keys: tuple[str, ...], now: datetime) -> timedelta:
    """The same; a try that need not wait is counted, as a wrong one until it `succeeded`.

    It is counted before it is checked: of tries that come at once, to any number of processes, no more are
    checked than of those that come one after the other.
    """
    hashes = {_hash(key): key for key in keys}
    # In one order, so that no two of them wait for each other's rows.
    new = [{"key_hash": each, "tries": 0, "at": now, "until": now} for each in sorted(hashes)]
    insert_new(session, SignInTries, new)
    of_these = select(SignInTries).where(SignInTries.key_hash.in_(hashes)).order_by(SignInTries.key_hash)
    rows = session.scalars(of_these.with_for_update()).all()
    wait = _longest(rows, now)
    if not wait:
        for row in rows:
            row.tries = 1 if abs(now - row.at) > REMEMBERED else row.tries + 1
            row.at, row.until = now, now + _wait_after(hashes[row.key_hash], row.tries)
    return wait


def forget_old(session: Session, now: datetime) -> None:
    """Forget tries that are long over, and those of a clock that has been set back since.

    It waits for nobody, and comes last in a transaction, so that nobody who waits for it keeps it waiting.
    """
    old = or_(SignInTries.at < now - REMEMBERED, SignInTries.at > now + REMEMBERED)
    free = select(SignInTries.key_hash).where(old).with_for_update(skip_locked=True)
    session.execute(delete(SignInTries).where(SignInTries.key_hash.in_(free)))


def succeeded(session: Session, keys: tuple[str, ...]) -> None:
    """Forget the tries of the account. Those of the address stay: it may be one who knows one password."""
    session.execute(
        delete(SignInTries).where(
            SignInTries.key_hash.in_([_hash(key) for key in keys if not key.startswith(_ADDRESS)])
        )
    )


def _longest(rows: Iterable[SignInTries | None], now: datetime) -> timedelta:
    waits = (row.until - now for row in rows if row is not None)
    # A longer one than is ever given was reckoned by a clock that has been set back since.
    return max((wait for wait in waits if timedelta() < wait <= LONGEST_WAIT), default=timedelta())


def _wait_after(key: str, tries: int) -> timedelta:
    if key.startswith(_ADDRESS):
        return WAIT_OF_ADDRESS if tries >= FREE_TRIES_OF_ADDRESS else timedelta()
    if tries < FREE_TRIES:
        return timedelta()
    # The exponent is bounded because 2 ** 1100 is no timedelta.
    wait: timedelta = FIRST_WAIT * 2 ** min(tries - FREE_TRIES, 16)
    return min(wait, LONGEST_WAIT)


def _network(address: str) -> str:
    """An IPv6 address stands for its network, of which whoever has one has 2^64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


def _hash(key: str) -> bytes:
    # People type passwords where the name belongs.
    return hashlib.sha256(key.encode()).digest()
