"""Who signs in, for how long, and that nothing is shown to anybody else."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from sync.clinic.app import make_app, secret_key
from sync.clinic.people import accounts
from sync.clinic.people.accounts import Accounts, add_account
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.tables import Account, WebSession
from tests.support.full_disk import on_a_small_disk
from tests.support.signing_in import sign_in, token


def test_a_guess_costs_as_much_as_rfc_9106_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    parameters = accounts._hasher
    assert parameters.memory_cost >= 64 * 1024 and parameters.time_cost >= 3


def test_every_page_asks_a_stranger_to_sign_in(site: FlaskClient, sqlite: Database) -> None:
    scan = uuid4()
    assert site.get("/").headers["Location"] == "/login"
    assert site.get(f"/scans/{scan}").headers["Location"] == f"/login?next=/scans/{scan}"


def test_after_signing_in_one_comes_back_to_the_scan(site: FlaskClient, password: str) -> None:
    scan = uuid4()
    answer = sign_in(site, "ann", password, next=f"/scans/{scan}")
    assert answer.headers["Location"] == f"/scans/{scan}"


@pytest.mark.parametrize("target", ["https://elsewhere.example/", "//elsewhere.example", "/\\x", "/scans/x"])
def test_signing_in_leads_nowhere_else(site: FlaskClient, password: str, target: str) -> None:
    assert sign_in(site, "ann", password, next=target).headers["Location"] == "/"


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(site: FlaskClient) -> None:
    wrong, unknown = sign_in(site, "ann", "wrong"), sign_in(site, "bob", "wrong")
    assert wrong.status_code == unknown.status_code == 403
    strip = re.compile(r'value="[^"]*"')
    assert strip.sub("", wrong.text) == strip.sub("", unknown.text)


def test_signing_out_ends_the_session_for_whoever_kept_the_cookie(staff: FlaskClient) -> None:
    kept = staff.get_cookie("clinic")
    assert kept is not None
    staff.post("/logout", data={"csrf_token": token(staff.get("/").text)})
    staff.set_cookie("clinic", kept.value)
    assert staff.get("/").status_code == 302


def test_a_session_ends_when_nobody_has_used_it_for_long(staff: FlaskClient, sqlite: Database) -> None:
    with sqlite.writing() as session:
        row = session.scalars(select(WebSession)).one()
        row.seen_at -= accounts.IDLE_LIMIT
    assert staff.get("/").status_code == 302


def test_whoever_signs_out_while_a_page_of_theirs_is_asked_for_has_it_and_no_other(
    database: Database,
) -> None:
    people = Accounts(database)
    token = people.sign_in("ann", add_account(database, "ann"), "127.0.0.1")
    with database.writing() as session:
        session.execute(update(WebSession).values(seen_at=now() - timedelta(minutes=5)))
    signing_out = threading.Thread(target=people.sign_out, args=(token,))

    def meanwhile(*_: object) -> None:
        if signing_out.ident is None:
            signing_out.start()
            signing_out.join(0.5)  # it is over by then, or it waits

    event.listen(Session, "before_flush", meanwhile)
    try:
        assert people.who(token) == "ann"
    finally:
        event.remove(Session, "before_flush", meanwhile)
        signing_out.join(30)
    assert people.who(token) is None


def test_the_database_holds_neither_password_nor_session_token(
    staff: FlaskClient, sqlite: Database, password: str, tmp_path: Path
) -> None:
    with staff.session_transaction() as cookie:
        secret = cookie["token"]
    with sqlite.reading() as session:
        assert session.scalars(select(Account.password_hash)).one().startswith("$argon2id$")
    stored = b"".join(path.read_bytes() for path in (tmp_path / "clinic").glob("clinic.sqlite*"))
    assert password.encode() not in stored
    assert secret.encode() not in stored


def test_a_form_without_its_token_changes_nothing(staff: FlaskClient) -> None:
    answer = staff.post("/logout")
    assert answer.status_code == 400
    assert "open for too long" in answer.text
    assert staff.get("/").status_code == 200


def test_the_cookie_is_for_the_server_alone(site: FlaskClient) -> None:
    cookie = site.get("/login").headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie


def test_behind_tls_the_cookie_never_leaves_it(sqlite: Database) -> None:
    answer = make_app(sqlite, b"k" * 32, behind_tls=True).test_client().get("/login")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-clinic=") and "Secure" in cookie and "Path=/" in cookie
    assert "max-age" in answer.headers["Strict-Transport-Security"]


def test_an_account_is_made_once_and_its_name_is_plain(sqlite: Database, password: str) -> None:
    assert len(password) == 23
    with pytest.raises(ClinicUsageError, match="already"):
        add_account(sqlite, "ann")
    for name in ("", "Ann", "a b", "x" * 65, "../x"):
        with pytest.raises(ClinicUsageError, match="no account name"):
            add_account(sqlite, name)


def test_of_two_that_make_one_account_at_once_the_password_that_is_shown_is_the_accounts(
    sqlite: Database,
) -> None:
    at_once, shown = threading.Barrier(6), []

    def make() -> bool:
        at_once.wait(60)
        try:
            return bool(add_account(sqlite, "bob", shown.append))
        except ClinicUsageError:
            return False

    with ThreadPoolExecutor(6) as threads:
        made = [each.result(60) for each in [threads.submit(make) for _ in range(6)]]
    assert (sum(made), len(shown)) == (1, 1)
    assert Accounts(sqlite).sign_in("bob", shown[0], "127.0.0.1")


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_an_account_whose_password_was_not_shown_is_none(sqlite: Database, kind: type[BaseException]) -> None:
    def stopped(_password: str) -> None:
        raise kind("no space")

    with pytest.raises((ClinicError, KeyboardInterrupt), match="no space"):
        add_account(sqlite, "bob", stopped)
    assert add_account(sqlite, "bob")


def test_the_cookie_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    key = secret_key(tmp_path)
    assert len(key) == 32 and secret_key(tmp_path) == key
    assert (tmp_path / "web" / "secret.key").stat().st_mode & 0o777 == 0o600
    for short in (b"", b"x" * 7):
        (tmp_path / "web" / "secret.key").write_bytes(short)
        assert len(secret_key(tmp_path)) == 32


FULL = """
import uuid
from sync.clinic.people.accounts import add_account
from sync.clinic.store.database import Database
from sync.clinic.app import make_app
from tests.support.signing_in import sign_in
database = Database.at(disk)
database.migrate()
password = add_account(database, "ann")
site = make_app(database, b"k" * 32).test_client()
fill()
answer = sign_in(site, "ann", password)
print(answer.status_code, answer.get_data(as_text=True).replace(chr(10), " "))
(disk / "filler").unlink()
print(sign_in(site, "ann", password).status_code)
"""


def test_a_full_disk_is_said_at_the_sign_in_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    while_full, after = on_a_small_disk(tmp_path, FULL, "4m").splitlines()[-2:]
    assert while_full.startswith("503 ")
    assert "disk of the clinic&#39;s computer is full" in while_full
    assert "make room" in while_full
    assert after == "302"
