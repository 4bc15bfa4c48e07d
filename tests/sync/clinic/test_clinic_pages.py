from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NoReturn
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, select, update
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from hardware.capture import Spot
from sync.clinic.app import make_app, secret_key
from sync.clinic.people import accounts
from sync.clinic.people.accounts import Accounts, add_account
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.scans import records
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.tables import Account, AuditEvent, WebSession
from sync.clinic.web.answers import HARMLESS, UnguardedAnswer, refuse_unguarded
from sync.wire.findings import MarkedSpot
from sync.wire.keys import OpeningKey
from sync.wire.messages import Message, Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, findings, registered
from tests.support.full_disk import on_a_small_disk
from tests.support.kiosk_bench import marked

FILES = ("/static/clinic.css", "/static/shared/look.css")


@pytest.fixture
def kiosk(sqlite: Database, opening_key: OpeningKey, tmp_path: Path) -> SealingKiosk:
    return registered(sqlite, SealingKiosk(opening_key), tmp_path)


@pytest.fixture
def password(sqlite: Database) -> str:
    return add_account(sqlite, "ann")


@pytest.fixture
def site(sqlite: Database, password: str) -> FlaskClient:
    return make_app(sqlite, b"k" * 32).test_client()


@pytest.fixture
def staff(site: FlaskClient, password: str) -> FlaskClient:
    assert sign_in(site, "ann", password).status_code == 302
    return site


def arrive(database: Database, kiosk: SealingKiosk, *messages: Message) -> None:
    for message in messages:
        with database.writing() as session:
            take_envelope(session, kiosk.id, "result", kiosk.seal(message), "ingest-1")
    opener = Opener(database, [kiosk.opening])
    while opener.open_next():
        pass


def token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]


def sign_in(site: FlaskClient, name: str, password: str, **fields: str):  # type: ignore[no-untyped-def]
    fields |= {"name": name, "password": password, "csrf_token": token(site.get("/login").text)}
    return site.post("/login", data=fields)


def test_a_guess_costs_as_much_as_rfc_9106_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    parameters = accounts._hasher
    assert parameters.memory_cost >= 64 * 1024 and parameters.time_cost >= 3


def test_an_address_that_changes_something_is_refused_until_a_second_tap_on_it_is_known_to_be_harmless(
    site: FlaskClient,
) -> None:
    app = site.application
    assert set(HARMLESS) <= {rule.rule for rule in app.url_map.iter_rules()}
    assert all(reason.endswith(".") for reason in HARMLESS.values())
    app.add_url_rule("/scans/<uuid:scan>/discard", view_func=str, methods=["POST"])
    with pytest.raises(UnguardedAnswer, match="discard takes an answer at once"):
        refuse_unguarded(app)


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


@pytest.mark.parametrize("path", ["/login", "/", "/nowhere", *FILES])
def test_every_answer_has_a_strict_policy(staff: FlaskClient, path: str) -> None:
    headers = staff.get(path).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ("no-store" in headers["Cache-Control"]) is (path not in FILES)
    assert (staff.get(path).status_code == 404) is (path == "/nowhere")


def test_an_empty_list_says_what_will_appear(staff: FlaskClient) -> None:
    assert "No scans yet" in staff.get("/").text


def test_the_list_and_the_page_show_a_scan_with_its_numbers(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk
) -> None:
    scan = uuid4()
    measured = findings(scan, ita=33.0, spot_area=-0.0)
    arrive(sqlite, kiosk, kiosk.result(scan, findings=measured, patient_reference="ref-77"))
    listed = staff.get("/").text
    assert "ref-77" in listed and f"/scans/{scan}" in listed and "SIMULATED" in listed
    page = staff.get(f"/scans/{scan}").text
    assert "SIMULATED" in page and "Skin tone angle (ITA)" in page and "33.0" in page
    assert "32.5 to 33.5" in page
    assert "\N{MINUS SIGN}0.0" not in page
    assert page.count("<circle") > 5
    assert "style=" not in page and "<script" not in page


def test_reading_a_scan_is_in_the_audit_log(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk
) -> None:
    scan = uuid4()
    arrive(sqlite, kiosk, kiosk.result(scan))
    staff.get(f"/scans/{scan}")
    with sqlite.reading() as session:
        read = session.scalars(select(AuditEvent).where(AuditEvent.event == "scan-read")).one()
    assert (read.actor, read.subject) == ("ann", str(scan))


def test_a_withdrawn_scan_is_told_without_any_number_and_is_in_no_list(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk
) -> None:
    scan = uuid4()
    arrive(sqlite, kiosk, kiosk.result(scan), Withdraw(scan=scan, at=MOMENT, reason="patient"))
    answer = staff.get(f"/scans/{scan}")
    assert answer.status_code == 410
    assert "was withdrawn" in answer.text and "The patient deleted it" in answer.text
    assert re.search(r"Scan <code>[0-9a-f-]{36}</code>, withdrawn <time", answer.text)
    assert not {"33.0", "<table", "ref-1"} & set(re.split(r"\s", answer.text))
    assert str(scan) not in staff.get("/").text
    sought = staff.get("/?reference=ref-1").text
    assert "No scan for" in sought and "A scan that was withdrawn is in no list" in sought


@pytest.mark.parametrize("changes", [{"patient_reference": None}, {"simulated": False}])
def test_a_scan_may_lack_things(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk, changes: dict[str, object]
) -> None:
    scan = uuid4()
    empty = findings(scan).model_copy(update={"findings": (), "quality": (), "calibration": None})
    arrive(sqlite, kiosk, kiosk.result(scan, findings=empty, **changes))
    page = staff.get(f"/scans/{scan}")
    assert page.status_code == 200 and "Nothing could be measured" in page.text
    assert ("SIMULATED" in page.text) is ("simulated" not in changes)


@pytest.mark.parametrize("quality", [(), ("soft_focus",)])
def test_a_scan_without_findings_shows_its_spots_and_caveats_and_is_not_called_ready(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk, quality: tuple[str, ...]
) -> None:
    scan = uuid4()
    spot = MarkedSpot.model_validate(marked("closeup0", Spot(zone="nose"), melanoma=0.97))
    changes = {"findings": (), "quality": quality, "spots": (spot,), "schema_version": 2}
    arrive(sqlite, kiosk, kiosk.result(scan, findings=findings(scan).model_copy(update=changes)))
    page = staff.get(f"/scans/{scan}").text
    assert "Nothing could be measured" in page
    assert "Melanoma-like: look at this first" in page and 'data-spot="1"' in page
    assert ("a little soft" in page) is bool(quality)
    listed = staff.get("/").text
    assert "look at this first" in listed and "nothing measured" in listed
    assert ">ready<" not in listed


def test_a_measure_that_this_version_does_not_know_is_shown_by_its_own_name(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk
) -> None:
    scan = uuid4()
    arrive(sqlite, kiosk, kiosk.result(scan, findings=findings(scan, pore_density=1234.5)))
    page = staff.get(f"/scans/{scan}?measure=pore_density").text
    assert "Pore density" in page and "1\N{THIN SPACE}234.50" in page


def test_a_measure_names_the_model_that_made_it(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk
) -> None:
    scan = uuid4()
    measured = findings(scan, ita=33, acne_count=7)
    rows = [
        f.model_copy(update={"model": "acne@66e6bd58fbf8317f"}) if f.measure == "acne_count" else f
        for f in measured.findings
    ]
    measured = measured.model_copy(update={"findings": tuple(rows)})
    arrive(sqlite, kiosk, kiosk.result(scan, findings=measured))
    page = staff.get(f"/scans/{scan}?measure=acne_count").text
    assert "Acne lesions" in page and "<code>acne@66e6bd58fbf8317f</code>" in page
    assert "<code>acne@" not in staff.get(f"/scans/{scan}?measure=ita").text


def test_the_list_of_scans_reads_no_geometry_of_them(sqlite: Database, kiosk: SealingKiosk) -> None:
    arrive(sqlite, kiosk, kiosk.result(patient_reference="one"))
    said: list[str] = []
    with sqlite.reading() as session:
        event.listen(session.connection(), "before_cursor_execute", lambda *of: said.append(of[2]))
        assert len(records.scan_page(session).lines) == 1
    assert said and not any("geometry" in statement for statement in said)


def test_scans_are_found_by_reference_and_divided_into_pages(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "PAGE_SIZE", 3)
    scans = [uuid4() for _ in range(7)]
    arrive(sqlite, kiosk, *(kiosk.result(scan, patient_reference="one") for scan in scans))
    arrive(sqlite, kiosk, kiosk.result(patient_reference="two"))
    seen: list[UUID] = []
    address: str | None = "/?reference=one"
    while address:
        page = staff.get(address).text
        seen += [UUID(text) for text in re.findall(r'href="/scans/([0-9a-f-]+)"', page)]
        following = re.search(r'rel="next"\s+href="([^"]+)"', page)
        address = following[1].replace("&amp;", "&") if following else None
    assert sorted(seen) == sorted(scans)
    assert "No scan for" in staff.get("/?reference=three").text


def test_older_scans_follow_where_the_last_one_stood_although_it_was_withdrawn_since(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "PAGE_SIZE", 2)
    scans = [uuid4() for _ in range(4)]
    times = [MOMENT - timedelta(microseconds=number) for number in range(4)]
    taken = zip(scans, times, strict=True)
    arrive(sqlite, kiosk, *(kiosk.result(scan, captured_at=at) for scan, at in taken))
    following = re.search(r'rel="next"\s+href="([^"]+)"', staff.get("/").text)
    assert following is not None
    arrive(sqlite, kiosk, Withdraw(scan=scans[1], at=MOMENT, reason="patient"))
    older = staff.get(following[1].replace("&amp;", "&")).text
    assert re.findall(r'href="/scans/([0-9a-f-]+)"', older) == [str(scan) for scan in scans[2:]]
    arrive(sqlite, kiosk, *(Withdraw(scan=scan, at=MOMENT, reason="patient") for scan in scans[2:]))
    none = staff.get(following[1].replace("&amp;", "&")).text
    assert "No older scans" in none and "No scans yet" not in none


@pytest.mark.parametrize(
    "at", ["", "x", "2026-03-02", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
)
def test_an_address_that_names_no_place_in_the_list_begins_with_the_newest(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk, at: str
) -> None:
    arrive(sqlite, kiosk, kiosk.result())
    assert staff.get("/", query_string={"at": at, "after": str(uuid4())}).status_code == 200
    assert "ref-1" in staff.get("/", query_string={"at": at}).text


def test_a_scan_that_came_before_it_was_taken_is_marked(
    staff: FlaskClient, sqlite: Database, kiosk: SealingKiosk
) -> None:
    for ahead in (records.CLOCK_AHEAD / 2, 2 * records.CLOCK_AHEAD):
        scan = uuid4()
        arrive(sqlite, kiosk, kiosk.result(scan, captured_at=now() + ahead))
        marked_there = "by a clock that was ahead" in staff.get(f"/scans/{scan}").text
        assert marked_there is (ahead > records.CLOCK_AHEAD)
    assert staff.get("/").text.count(">clock was ahead<") == 1


@pytest.mark.parametrize("path", ["/scans/00000000-0000-0000-0000-000000000000", "/nowhere", "/scans/x"])
def test_what_is_not_there_has_a_page_of_its_own(staff: FlaskClient, path: str) -> None:
    answer = staff.get(path)
    assert answer.status_code == 404 and "There is no such page" in answer.text


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
from tests.sync.clinic.test_clinic_pages import sign_in
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


def test_a_database_that_has_too_many_at_once_is_a_page_that_says_try_again(
    staff: FlaskClient, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy() -> NoReturn:
        raise PoolTimeout("QueuePool limit of size 5 overflow 10 reached")

    monkeypatch.setattr(sqlite, "reading", busy)
    answer = staff.get("/")
    assert answer.status_code == 503
    assert "try again in a minute" in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8090", "localhost.evil.example", "a@localhost", ""]
)
def test_a_name_that_is_not_ours_gets_no_page(sqlite: Database, host: str) -> None:
    site = make_app(sqlite, b"k" * 32).test_client()
    for answer in (site.get("/login", headers={"Host": host}), site.post("/login", headers={"Host": host})):
        assert answer.status_code == 400
        assert "<" not in answer.text
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "host", ["localhost:8090", "127.0.0.1", "[::1]:8090", "Clinic.Example", "[fd00::1]:8090"]
)
def test_our_own_names_get_the_pages(sqlite: Database, host: str) -> None:
    site = make_app(sqlite, b"k" * 32, names=["clinic.example", "FD00::1"]).test_client()
    assert site.get("/login", headers={"Host": host}).status_code == 200


def test_a_zero_byte_is_refused_wherever_in_a_request_it_is(site: FlaskClient) -> None:
    """No text in PostgreSQL holds one."""
    form = {"csrf_token": token(site.get("/login").text), "name": "ann", "password": "it"}
    odd: tuple[tuple[str, dict[str, object]], ...] = (
        ("/login", {"name": "a\0"}),
        ("/login", {"name": ["ann", "a\0"]}),
        ("/login?name=ann", {"name": "a\0"}),
        ("/login?name=ann&name=a%00", {}),
    )
    assert [site.post(path, data=form | given).status_code for path, given in odd] == [400] * len(odd)
