"""Throttle: how long a sign-in has to wait after wrong passwords, kept in the clinic's database."""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from sync.clinic.store.rows import put
from sync.clinic.store.tables import SignInTries

# Of one account: a few tries are free, then each wrong one makes the next wait longer, up to a bound that a
# person can sit out. At the bound that is under 3,000 guesses a day, against passwords of 99 bits.
FREE_TRIES = 5
FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=30)
# Of one address, where a whole clinic may sit: many tries are free, then one every few seconds.
FREE_TRIES_OF_ADDRESS = 50
WAIT_OF_ADDRESS = timedelta(seconds=5)
# Tries are forgotten when none has failed for so long.
REMEMBERED = timedelta(hours=1)
_ADDRESS = "address "


def keys_of(name: str, address: str, browser: str | None) -> tuple[str, ...]:
    """What a try counts under: the account, whether there is one or not, and the address.

    In a `browser` that this account has signed in from before, its tries count by themselves, so that
    nobody elsewhere can keep the account's owner out.
    """
    if browser is not None:
        return (f"browser {name} {browser}",)
    return (f"account {name}", f"{_ADDRESS}{_network(address)}")


def wait(session: Session, keys: tuple[str, ...], now: datetime) -> timedelta:
    """How long a try under these keys has to wait; nothing if it need not."""
    rows = [session.get(SignInTries, _hash(key)) for key in keys]
    waits = (row.until - now for row in rows if row is not None)
    # A longer one than is ever given was reckoned by a clock that has been set back since.
    return max((wait for wait in waits if wait <= LONGEST_WAIT), default=timedelta())


def failed(session: Session, keys: tuple[str, ...], now: datetime) -> None:
    """Note a wrong password under these keys."""
    forget_old(session, now)
    for key in keys:
        known = session.get(SignInTries, _hash(key))
        tries = (known.tries if known is not None else 0) + 1
        put(
            session,
            SignInTries(key_hash=_hash(key), tries=tries, at=now, until=now + _wait_after(key, tries)),
        )
        session.expire_all()


def forget_old(session: Session, now: datetime) -> None:
    """Forget tries that are long over."""
    session.execute(delete(SignInTries).where(SignInTries.at < now - REMEMBERED))


def succeeded(session: Session, keys: tuple[str, ...]) -> None:
    """Forget the tries of the account. Those of the address stay: it may be one who knows one password."""
    session.execute(
        delete(SignInTries).where(
            SignInTries.key_hash.in_([_hash(key) for key in keys if not key.startswith(_ADDRESS)])
        )
    )


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
