"""Wrong passwords: each makes the next wait longer, and nobody else's keep the right one out for long."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select, update
from waitress.proxy_headers import proxy_headers_middleware

from sync.clinic.app import make_app
from sync.clinic.people import accounts, throttle
from sync.clinic.people.accounts import Accounts, SignInRefused, add_account
from sync.clinic.store.database import Database, moment_at
from sync.clinic.store.tables import Account, SignInTries
from tests.support.signing_in import sign_in


class Clock:
    """The time as sign-ins see it: it stands still unless a test lets it pass."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self._begun = accounts.now()

    def __call__(self) -> datetime:
        return self._begun + self.ahead

    def pass_by(self, time: timedelta) -> None:
        self.ahead += time


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(accounts, "now", made)
    monkeypatch.setattr(accounts, "moment_at", lambda _: made())
    monkeypatch.setattr(accounts, "REFUSAL_S", 0)
    return made


@pytest.fixture
def password(sqlite: Database) -> str:
    return add_account(sqlite, "ann")


@pytest.fixture
def site(sqlite: Database) -> FlaskClient:
    return browser(sqlite)


def browser(database: Database, address: str = "10.0.0.1") -> FlaskClient:
    """A browser at `address` that the clinic does not know yet; a process of its own serves it."""
    client = make_app(database, b"k" * 32).test_client()
    client.environ_base["REMOTE_ADDR"] = address
    return client


class Guesser:
    """Tries wrong passwords of one account from many addresses, each as soon as it may, and never twice."""

    def __init__(self, database: Database, clock: Clock, addresses: Sequence[str], name: str = "ann") -> None:
        self.checked = 0
        self._staff, self._clock, self._name = Accounts(database), clock, name
        self._may_ask = dict.fromkeys(addresses, clock())
        self._said = 0

    def guess_for(self, time: timedelta) -> None:
        """Go on until the clock is so much further."""
        end = self._clock() + time
        while (moment := min(self._may_ask.values())) < end:
            self._clock.pass_by(moment - self._clock())
            for address in [each for each, at in self._may_ask.items() if at <= moment]:
                self._may_ask[address] = moment + timedelta(seconds=self._wait_after_one(address))
        self._clock.pass_by(end - self._clock())

    def _wait_after_one(self, address: str) -> float:
        self._said += 1
        with pytest.raises(SignInRefused) as refused:
            self._staff.sign_in(self._name, f"guess-{self._said}", address)
        self.checked += not refused.value.wait_s
        return refused.value.wait_s or 0.01


FEW = [f"10.9.0.{number}" for number in range(1, 6)]
MANY = [f"2001:db8:0:{number:x}::1" for number in range(60)]


@pytest.mark.parametrize("addresses", [FEW[:1], FEW, MANY], ids=len)
def test_whoever_guesses_keeps_no_new_browser_out_that_has_the_right_password(
    sqlite: Database, password: str, clock: Clock, addresses: list[str]
) -> None:
    guesser = Guesser(sqlite, clock, addresses)
    for seconds in (0.5, 1, 29, 30, 47.2, 300):
        guesser.guess_for(timedelta(seconds=seconds))
        assert sign_in(browser(sqlite, "192.0.2.9"), "ann", "mistyped").status_code == 429
        assert sign_in(browser(sqlite, "192.0.2.9"), "ann", password).status_code == 302
        assert sign_in(browser(sqlite, addresses[0]), "ann", password).status_code == 302


def test_whoever_tries_many_names_keeps_nobody_out_behind_the_same_address(
    sqlite: Database, password: str
) -> None:
    site = browser(sqlite)
    for number in range(throttle.FREE_TRIES_OF_ADDRESS + 1):
        sign_in(site, f"name{number}", "wrong")
    assert sign_in(site, "ann", "mistyped").status_code == 429
    assert sign_in(browser(sqlite), "ann", password).status_code == 302


@pytest.mark.parametrize(("addresses", "hours"), [(FEW[:1], 1.0), (MANY, 0.25)], ids=["one", "many"])
def test_of_one_account_fewer_than_3000_guesses_a_day_are_checked(
    sqlite: Database, password: str, clock: Clock, addresses: list[str], hours: float
) -> None:
    guesser = Guesser(sqlite, clock, addresses)
    guesser.guess_for(timedelta(hours=hours))
    # The first ones come quicker, once.
    assert 100 * hours < guesser.checked - 10 < 3000 * hours / 24


def test_guesses_that_come_at_once_are_checked_no_faster(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_account(database, "ann")
    processes = [Accounts(database) for _ in range(4)]
    checked, together = [], threading.Barrier(len(processes), timeout=20)

    def check(stored: str, password: str) -> bool:
        checked.append(password)
        return False

    def guess(process: Accounts) -> None:
        together.wait()
        with pytest.raises(SignInRefused):
            process.sign_in("ann", "wrong", "10.0.0.1")

    monkeypatch.setattr(accounts, "_matches", check)
    with ThreadPoolExecutor(len(processes)) as pool:
        for _ in range(4):
            list(pool.map(guess, processes))
    assert len(checked) == throttle.FREE_TRIES


def test_tries_of_many_names_and_addresses_at_once_get_in_each_others_way_in_no_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "moment_at", moment_at)
    monkeypatch.setattr(throttle, "REMEMBERED", timedelta(milliseconds=20))
    password = add_account(database, "ann")

    def try_all(seed: int) -> None:
        staff, choice = Accounts(database), random.Random(seed)
        for _ in range(60):
            right, address = choice.random() < 0.3, f"10.0.0.{choice.randrange(4)}"
            name = "ann" if right else choice.choice(["ann", "bob", "cyd"])
            with contextlib.suppress(SignInRefused):
                staff.sign_in(name, password if right else "wrong", address)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(try_all, range(5)))


def test_a_try_that_is_turned_away_has_its_turn_too(
    sqlite: Database, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "REFUSAL_S", 0.05)
    staff = Accounts(sqlite)
    waits = []

    def guess(_: int) -> None:
        with pytest.raises(SignInRefused) as refused:
            staff.sign_in("ann", "wrong", "10.0.0.1")
        waits.append(refused.value.wait_s)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(guess, range(throttle.FREE_TRIES)))
        began = time.monotonic()
        list(pool.map(guess, range(8)))
    assert len([wait for wait in waits if wait]) == 8
    assert time.monotonic() - began >= 8 * 0.05


def test_a_right_password_is_let_in_past_those_that_ask_all_the_time(
    sqlite: Database, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "TURN_S", 60.0)
    staff, over = Accounts(sqlite), threading.Event()

    def ask_all_the_time() -> None:
        while not over.is_set():
            with pytest.raises((SignInRefused, accounts.SignInBusy)):
                staff.sign_in("ann", "wrong", "10.0.0.1")

    crowd = [threading.Thread(target=ask_all_the_time) for _ in range(3)]
    for each in crowd:
        each.start()
    try:
        assert all(staff.sign_in("ann", password, "10.0.0.1") for _ in range(10))
    finally:
        over.set()
        for each in crowd:
            each.join(60)


def test_a_browser_that_asks_too_early_is_told_how_long_and_the_waits_grow_to_half_a_minute(
    site: FlaskClient, password: str, clock: Clock
) -> None:
    waits = []
    for _ in range(30):
        while (answer := sign_in(site, "ann", "wrong")).status_code == 429:
            found = re.search(r"Please wait (\d+) second", answer.text)
            assert found is not None
            waits.append(int(found[1]))
            clock.pass_by(timedelta(seconds=int(found[1])))
    assert waits[:6] == [1, 2, 4, 8, 16, 30]
    assert max(waits) == 30


def test_an_account_of_an_earlier_version_is_let_in_like_any_other_once_it_has_signed_in(
    sqlite: Database, password: str, clock: Clock
) -> None:
    with sqlite.writing() as session:
        session.execute(update(Account).values(mark=None))
    Guesser(sqlite, clock, FEW).guess_for(timedelta(minutes=1))
    clock.pass_by(throttle.LONGEST_WAIT)
    assert sign_in(browser(sqlite), "ann", password).status_code == 302
    Guesser(sqlite, clock, FEW).guess_for(timedelta(minutes=1))
    assert sign_in(browser(sqlite), "ann", password).status_code == 302


def test_a_mark_is_of_one_account_and_opens_nothing(sqlite: Database, password: str) -> None:
    add_account(sqlite, "bob")
    with sqlite.writing() as session:
        session.execute(update(Account).values(mark=accounts._mark("bob", "guess")))
    assert accounts._mark("ann", "guess") != accounts._mark("bob", "guess")
    answers = [sign_in(browser(sqlite), "bob", "guess").status_code for _ in range(7)]
    assert answers == [403] * 5 + [429] * 2


def test_a_clock_that_ran_ahead_and_was_set_right_keeps_nobody_waiting(
    site: FlaskClient, password: str, clock: Clock
) -> None:
    clock.pass_by(timedelta(days=5000))
    for _ in range(throttle.FREE_TRIES):
        sign_in(site, "ann", "wrong")
    assert sign_in(site, "ann", "wrong").status_code == 429
    clock.pass_by(timedelta(days=-5000))
    assert sign_in(site, "ann", "wrong").status_code == 403


def test_tries_are_forgotten_after_an_hour_also_those_of_a_clock_that_ran_ahead(
    sqlite: Database, password: str, clock: Clock
) -> None:
    def kept() -> int:
        with sqlite.reading() as session:
            return session.scalar(select(func.count()).select_from(SignInTries)) or 0

    for ahead in (timedelta(), timedelta(days=5000)):
        clock.pass_by(ahead)
        for number in range(20):
            sign_in(browser(sqlite, f"2001:db8:0:{number:x}::1"), f"name{number}", "wrong")
        assert kept() == 40
        clock.pass_by(throttle.REMEMBERED + timedelta(seconds=1) - ahead)
        sign_in(browser(sqlite), "another", "wrong")
        assert kept() == 2
        clock.pass_by(throttle.REMEMBERED + timedelta(seconds=1))


def test_a_session_begun_by_a_clock_that_ran_ahead_ends_once_it_is_set_right(
    site: FlaskClient, password: str, clock: Clock
) -> None:
    clock.pass_by(timedelta(days=5000))
    assert sign_in(site, "ann", password).status_code == 302
    assert site.get("/").status_code == 200
    clock.pass_by(timedelta(days=-5000))
    assert site.get("/").status_code == 302


def test_an_account_that_does_not_exist_waits_as_one_that_does(site: FlaskClient, password: str) -> None:
    def answers(name: str) -> list[tuple[int, str]]:
        said = [sign_in(site, name, "wrong") for _ in range(8)]
        return [(one.status_code, re.sub(r'value="[^"]*"', "", one.text)) for one in said]

    assert answers("ann") == answers("bob")


def test_five_wrong_passwords_lock_nobody_else_out_behind_the_same_address(
    sqlite: Database, site: FlaskClient, password: str
) -> None:
    other = add_account(sqlite, "bob")
    for _ in range(6):
        sign_in(site, "ann", "wrong")
    assert sign_in(site, "ann", "wrong").status_code == 429
    assert sign_in(site, "bob", "mistyped").status_code == 403
    assert sign_in(browser(sqlite), "bob", other).status_code == 302


def test_an_attack_on_an_account_does_not_touch_the_browser_that_its_owner_uses(
    sqlite: Database, password: str
) -> None:
    owner = browser(sqlite)
    assert sign_in(owner, "ann", password).status_code == 302
    owner.delete_cookie("clinic")
    for number in range(40):
        sign_in(browser(sqlite, f"10.1.0.{number}"), "ann", "wrong")
    assert sign_in(browser(sqlite, "10.2.0.1"), "ann", "mistyped").status_code == 429
    assert sign_in(owner, "ann", "mistyped").status_code == 403


def test_a_known_browser_guesses_no_faster(sqlite: Database, password: str) -> None:
    owner = browser(sqlite)
    sign_in(owner, "ann", password)
    owner.delete_cookie("clinic")
    answers = [sign_in(owner, "ann", "wrong").status_code for _ in range(7)]
    assert answers == [403] * 5 + [429] * 2


def test_a_browsers_cookie_cannot_be_made_up(sqlite: Database, password: str) -> None:
    for _ in range(6):
        sign_in(browser(sqlite), "ann", "wrong")
    forger = browser(sqlite)
    forger.set_cookie("clinic-browser", "WyJ4IixbImFubiJdXQ.c2lnbmVk")
    assert sign_in(forger, "ann", "wrong").status_code == 429


def test_one_address_that_tries_many_names_is_slowed_down(sqlite: Database, clock: Clock) -> None:
    site = browser(sqlite)
    for number in range(throttle.FREE_TRIES_OF_ADDRESS):
        assert sign_in(site, f"name{number}", "wrong").status_code == 403
    assert sign_in(site, "another", "wrong").status_code == 429
    assert sign_in(browser(sqlite, "10.0.0.2"), "another", "wrong").status_code == 403
    clock.pass_by(throttle.WAIT_OF_ADDRESS)
    assert sign_in(site, "another", "wrong").status_code == 403


def test_an_ipv6_address_stands_for_its_network(sqlite: Database) -> None:
    for number in range(throttle.FREE_TRIES_OF_ADDRESS):
        sign_in(browser(sqlite, f"2001:db8::{number:x}"), f"name{number}", "wrong")
    assert sign_in(browser(sqlite, "2001:db8::ffff"), "another", "wrong").status_code == 429
    assert sign_in(browser(sqlite, "2001:db8:0:1::1"), "another", "wrong").status_code == 403


def test_waits_outlive_a_restart_and_hold_for_every_worker_but_not_for_ever(
    sqlite: Database, password: str, clock: Clock
) -> None:
    for _ in range(6):
        sign_in(browser(sqlite), "ann", "wrong")
    assert sign_in(browser(sqlite), "ann", "wrong").status_code == 429
    clock.pass_by(throttle.REMEMBERED + timedelta(seconds=1))
    for _ in range(5):
        assert sign_in(browser(sqlite), "ann", "wrong").status_code == 403
    with sqlite.reading() as session:
        assert len(session.scalars(select(SignInTries)).all()) == 2


def test_whose_turn_does_not_come_is_not_told_that_they_tried_too_often(
    sqlite: Database, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "TURN_S", 0.01)
    site = browser(sqlite)
    turn = site.application.config["ACCOUNTS"]._turn
    with turn:
        answer = sign_in(site, "ann", password)
    assert answer.status_code == 503
    assert "Others are signing in" in answer.text and "too often" not in answer.text
    assert sign_in(site, "ann", password).status_code == 302


def test_what_was_typed_as_a_name_is_not_kept(sqlite: Database, site: FlaskClient, tmp_path: Path) -> None:
    sign_in(site, "hunter2-typed-in-the-wrong-field", "wrong")
    stored = b"".join(path.read_bytes() for path in (tmp_path / "clinic").glob("clinic.sqlite*"))
    assert b"hunter2" not in stored


def test_only_the_trusted_proxy_is_believed_about_who_asks(sqlite: Database, password: str) -> None:
    app = make_app(sqlite, b"k" * 32)
    app.wsgi_app = proxy_headers_middleware(  # type: ignore[method-assign]
        app.wsgi_app, trusted_proxy="127.0.0.1", trusted_proxy_headers={"x-forwarded-for"}
    )

    def tries(through: str, says: str) -> list[int]:
        client = app.test_client()
        client.environ_base["REMOTE_ADDR"] = through
        headers = {"X-Forwarded-For": says}
        made = range(throttle.FREE_TRIES_OF_ADDRESS + 1)
        return [
            client.post("/login", data=form(client, f"{says}{number}"), headers=headers).status_code
            for number in made
        ]

    def form(client: FlaskClient, name: str) -> dict[str, str]:
        page = client.get("/login").text
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
        assert found is not None
        return {"csrf_token": found[1], "name": name, "password": "wrong"}

    assert tries("127.0.0.1", "192.0.2.1")[-1] == 429
    assert tries("127.0.0.1", "192.0.2.2")[0] == 403
    assert tries("203.0.113.5", "192.0.2.3")[-1] == 429
    assert tries("203.0.113.5", "192.0.2.4")[0] == 429
