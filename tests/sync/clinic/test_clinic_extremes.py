"""Whatever the wire's schema lets pass, the clinic's pages show: with words, and never with an error."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from sync.clinic.app import make_app
from sync.clinic.people.accounts import Accounts, add_account
from sync.clinic.receiving.heartbeats import take_heartbeat
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.clinic.store.tables import Envelope
from sync.clinic.summary import as_text, summary
from sync.wire.bounds import END_OF_MOMENTS, FIRST_MOMENT
from sync.wire.findings import LESION_CLASSES, Findings, Zone, schema_of
from sync.wire.messages import Result, Withdraw
from tests.support.clinic import ZONES, SealingKiosk, heartbeat, registered

LAST_MOMENT = END_OF_MOMENTS - timedelta(microseconds=1)
FAR_ZONES = [timezone(timedelta(hours=hours, minutes=minutes)) for hours, minutes in ((-23, -59), (14, 0))]
moments = st.sampled_from([FIRST_MOMENT, LAST_MOMENT, datetime(2026, 3, 2, tzinfo=timezone.utc)]).flatmap(
    lambda moment: st.sampled_from([moment, *(moment.astimezone(zone) for zone in FAR_ZONES)])
)
EDGES = [-1e9, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1e-9, 0.1, 1.0, 1e9]
numbers = st.sampled_from(EDGES)
amounts = st.none() | st.sampled_from([edge for edge in EDGES if edge >= 0])
chances = st.sampled_from([0.0, 5e-324, 0.5, 1.0])
fractions = st.sampled_from([-2.0, -1e-300, 0.0, 2.0])
zones: st.SearchStrategy[Zone] = st.sampled_from(ZONES)
words = st.sampled_from(["a", "ita", "spot_area", "erythema_index", "z" * 64, "a_" * 32])


def lines(length: int) -> st.SearchStrategy[str]:
    """Text at its bounds: markup, marks that pile up, letters beyond the first plane, from right to left."""
    texts = [
        "<script>alert(1)</script>",
        "{{ 7 * 7 }}",
        "'\"&<>`",
        "\u0301",
        "\N{MATHEMATICAL BOLD CAPITAL A}",
    ]
    texts += ["\u0634", "\u00a0", " "]
    long = [(text * length)[:length] for text in texts]
    return st.sampled_from([*(text[:length] for text in texts), *long])


@st.composite
def finding(draw: st.DrawFn) -> dict[str, Any]:
    low, value, high = sorted(draw(numbers) for _ in range(3))
    made = {"measure": draw(words), "zone": draw(zones), "unit": draw(lines(32) | st.just("")), "low": low}
    return made | {"value": value, "high": high, "model": draw(lines(128))}


marks = st.fixed_dictionaries(
    {
        "kind": words,
        "zone": zones,
        "x": fractions,
        "y": fractions,
        "radius": st.sampled_from([5e-324, 0.5, 1.0]),
        "area_mm2": amounts,
    }
)
lesions = st.fixed_dictionaries(
    {
        "classes": st.fixed_dictionaries(dict.fromkeys(LESION_CLASSES, chances)),
        "melanoma": chances,
        "melanoma_like": st.booleans(),
        "abcd": st.fixed_dictionaries(
            {
                "asymmetry": st.none() | chances,
                "border": st.none() | chances,
                "colour_spread": amounts,
                "colours": st.lists(lines(32), max_size=8, unique=True),
                "diameter_mm": amounts,
            }
        ),
        "area_mm2": amounts,
        "model": lines(128),
        "outline_model": lines(128),
        "flags": st.lists(st.sampled_from(["unusual", "artefact:hair", "f" * 64]), unique=True),
    }
)


@st.composite
def spot(draw: st.DrawFn) -> dict[str, Any]:
    lesion = draw(st.none() | lesions)
    made = {
        "frame": draw(st.sampled_from(["closeup", "closeup0", "closeup99"])),
        "zone": draw(zones),
        "x": draw(st.none() | fractions),
        "lesion": lesion,
    }
    return made | {"y": draw(st.none() | fractions), "refused": None if lesion else draw(words)}


@st.composite
def result(draw: st.DrawFn) -> dict[str, Any]:
    """What differs from an ordinary result, as `SealingKiosk.result` takes it."""
    scan = uuid4()
    fields = {
        "scan": scan,
        "measured_at": draw(moments),
        "models": draw(st.dictionaries(lines(64), lines(128), max_size=4)),
        "calibration": draw(st.none() | lines(128)),
        "software": draw(lines(128)),
        "quality": draw(st.lists(lines(64), max_size=4, unique=True)),
        "findings": draw(st.lists(finding(), max_size=6, unique_by=itemgetter("measure", "zone"))),
        "geometry": {"marks": draw(st.lists(marks, max_size=4))},
        "spots": draw(st.lists(spot(), max_size=3, unique_by=itemgetter("frame"))),
    }
    found = Findings.model_validate(fields | {"schema": 3})
    found = Findings.model_validate(fields | {"schema": schema_of(found.spots)})
    languages = st.sampled_from(["en", "xx", "de-" + "A1" * 4, "-".join(["abc", *["x" * 8] * 3])])
    consent = {"text_version": draw(lines(64)), "language": draw(languages), "at": draw(moments)}
    return {
        "scan": scan,
        "patient_reference": draw(st.none() | st.sampled_from(["-", "..", "a" * 64])),
        "captured_at": draw(moments),
        "board": draw(lines(64)),
        "simulated": draw(st.booleans()),
        "consent": consent,
        "findings": found,
    }


@pytest.fixture
def kiosk(sqlite: Database, opening_key: Any, tmp_path: Path) -> SealingKiosk:
    return registered(sqlite, SealingKiosk(opening_key), tmp_path)


@pytest.fixture
def staff(sqlite: Database) -> FlaskClient:
    """A browser that has signed in."""
    password = add_account(sqlite, "ann")
    app = make_app(sqlite, b"k" * 32)
    accounts: Accounts = app.config["ACCOUNTS"]
    site = app.test_client()
    with site.session_transaction() as session:
        session["token"] = accounts.sign_in("ann", password, "127.0.0.1")
    return site


def says_something(staff: FlaskClient, address: str, status: int, **query: object) -> None:
    answer = staff.get(address, query_string=query)
    assert answer.status_code == status, (address, answer.text)
    assert "<h1" in answer.text and "<script>alert" not in answer.text


def test_every_page_shows_every_result_that_the_schema_lets_pass(
    sqlite: Database, kiosk: SealingKiosk, staff: FlaskClient
) -> None:
    opener = Opener(sqlite, [kiosk.opening])

    def come(*messages: Result | Withdraw) -> None:
        with sqlite.writing() as session:
            for message in messages:
                assert take_envelope(session, kiosk.id, "result", kiosk.seal(message), "ingest-1") == "stored"
        while opener.open_next():
            pass

    @given(fields=result(), withdrawn_at=moments)
    @settings(max_examples=40, deadline=None)
    def it_is_shown(fields: dict[str, Any], withdrawn_at: datetime) -> None:
        scan: UUID = fields["scan"]
        come(kiosk.result(**fields))
        for measure in ("", *(found.measure for found in fields["findings"].findings[:1])):
            says_something(staff, f"/scans/{scan}", 200, measure=measure)
        says_something(staff, "/", 200, after=scan)
        says_something(staff, "/", 200, reference=fields["patient_reference"] or "")
        come(Withdraw(scan=scan, at=withdrawn_at, reason="patient"))
        says_something(staff, f"/scans/{scan}", 410)
        says_something(staff, "/", 200)

    it_is_shown()
    with sqlite.reading() as session:
        assert set(session.scalars(select(Envelope.state))) == {"opened", "erased"}


def test_the_status_tells_of_every_heartbeat_that_the_schema_lets_pass(
    sqlite: Database, kiosk: SealingKiosk, staff: FlaskClient
) -> None:
    counts = st.sampled_from([0, 2**31 - 1])

    @given(at=moments, count=counts, fill=st.sampled_from([0.0, 5e-324, 1e6]), software=lines(64))
    @settings(max_examples=20, deadline=None)
    def it_is_told(at: datetime, **changes: Any) -> None:
        kiosk.sequence += 1
        waits = dict.fromkeys(
            ("clinic_keys", "waiting", "sent", "quarantined", "reseal"), changes.pop("count")
        )
        said = heartbeat(kiosk, counter=kiosk.sequence, at=at, started_at=at, **waits, **changes)
        with sqlite.writing() as session:
            assert take_heartbeat(session, kiosk.id, said.sign(kiosk.status), "ingest-1") == "heartbeat"
        with sqlite.reading() as session:
            told = summary(session)
        assert told["kiosks"][0]["waiting_there"] == waits["waiting"]
        assert str(kiosk.id) in as_text(told)
        says_something(staff, "/", 200)

    it_is_told()
