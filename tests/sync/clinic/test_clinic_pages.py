"""The clinic's pages: the list of scans and the page of each, for who has signed in."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import NoReturn
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, select
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hardware.capture import Spot
from sync.clinic.app import make_app
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.scans import records
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import AuditEvent
from sync.clinic.web.answers import HARMLESS, UnguardedAnswer, refuse_unguarded
from sync.wire.findings import MarkedSpot
from sync.wire.keys import OpeningKey
from sync.wire.messages import Message, Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, findings, registered
from tests.support.kiosk_bench import marked
from tests.support.signing_in import token

FILES = ("/static/clinic.css", "/static/shared/look.css")


@pytest.fixture
def kiosk(sqlite: Database, opening_key: OpeningKey, tmp_path: Path) -> SealingKiosk:
    return registered(sqlite, SealingKiosk(opening_key), tmp_path)


def arrive(database: Database, kiosk: SealingKiosk, *messages: Message) -> None:
    for message in messages:
        with database.writing() as session:
            take_envelope(session, kiosk.id, "result", kiosk.seal(message), "ingest-1")
    opener = Opener(database, [kiosk.opening])
    while opener.open_next():
        pass


def test_an_address_that_changes_something_is_refused_until_a_second_tap_on_it_is_known_to_be_harmless(
    site: FlaskClient,
) -> None:
    app = site.application
    assert set(HARMLESS) <= {rule.rule for rule in app.url_map.iter_rules()}
    assert all(reason.endswith(".") for reason in HARMLESS.values())
    app.add_url_rule("/scans/<uuid:scan>/discard", view_func=str, methods=["POST"])
    with pytest.raises(UnguardedAnswer, match="discard takes an answer at once"):
        refuse_unguarded(app)


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
        read = session.scalars(select(AuditEvent).where(AuditEvent.event == "scan_read")).one()
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
