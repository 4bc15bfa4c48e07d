"""Marked spots at the clinic: opened, kept, shown with the melanoma-like ones first and never as harmless."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from playwright.sync_api import Browser, Page

from hardware.capture import Spot
from kiosk_app.scanning.close_ups import ABOUT_THE_PICTURE, LOST, NOT_KEPT
from sync.clinic.app import make_app
from sync.clinic.people.accounts import add_account
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.scans import spot_view
from sync.clinic.scans.records import scan_record
from sync.clinic.store.database import Database
from sync.wire.findings import Findings, MarkedSpot, schema_of
from sync.wire.keys import OpeningKey
from sync.wire.messages import Withdraw
from tests.support.browser import WIDE, take_picture, visit
from tests.support.clinic import MOMENT, SealingKiosk, findings, registered
from tests.support.kiosk_bench import marked
from tests.support.serving import served

REFUSED = {"frame": "closeup2", "zone": "chin", "refused": "no_lesion"}


def with_spots(scan: UUID, *spots: dict[str, Any]) -> Findings:
    version = schema_of(MarkedSpot.model_validate(spot) for spot in spots)
    measured = findings(scan).model_dump(mode="json") | {"schema": version, "spots": spots}
    return Findings.model_validate(measured)


def three(scan: UUID) -> Findings:
    """A harmless-looking spot under hair first, a melanoma-like one second, then one without a lesion."""
    flagged = marked("closeup0", Spot(zone="nose"))
    flagged["lesion"]["flags"] = ["unusual", "artefact:hair", "artefact:gel"]
    return with_spots(
        scan,
        flagged,
        marked("closeup1", Spot(zone="left_cheek", x=0.5, y=0.6), melanoma=0.4),
        REFUSED,
    )


@pytest.fixture
def kiosk(sqlite: Database, opening_key: OpeningKey, tmp_path: Path) -> SealingKiosk:
    return registered(sqlite, SealingKiosk(opening_key), tmp_path)


@pytest.fixture
def scan(sqlite: Database, kiosk: SealingKiosk) -> UUID:
    scan = uuid4()
    with sqlite.writing() as session:
        take_envelope(
            session, kiosk.id, "result", kiosk.seal(kiosk.result(scan, findings=three(scan))), "ingest-1"
        )
    assert Opener(sqlite, [kiosk.opening]).open_next()
    return scan


@pytest.fixture
def site(sqlite: Database) -> Iterator[tuple[str, str]]:
    password = add_account(sqlite, "ann")
    with served(make_app(sqlite, b"k" * 32), threads=2) as address:
        yield address, password


@pytest.fixture
def page(browser: Browser, scan: UUID, site: tuple[str, str]) -> Iterator[Page]:
    address, password = site
    with visit(browser, address, WIDE) as (page, _):
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name=re.compile("Sign in")).click()
        page.goto(f"{address}/scans/{scan}")
        yield page


def test_the_records_hold_the_spots_as_they_were_sealed(sqlite: Database, scan: UUID) -> None:
    with sqlite.reading() as session:
        record = scan_record(session, scan)
        assert record is not None
        assert record.scan.spots == three(scan).spots


def test_the_melanoma_like_spot_comes_first_by_word_and_by_shape(page: Page) -> None:
    take_picture(page, "clinic-spots", whole=True)
    assert [a.get_attribute("data-spot") for a in page.locator("[data-spot]").all()] == ["2", "3", "1"]
    first = page.locator("[data-spot='2']")
    assert "look at this first" in first.inner_text()
    assert page.locator("#spots svg.face .spot.first path").count() == 1
    assert page.locator("#spots svg.face .spot:not(.first) circle").count() == 2
    for number in ("1", "3"):
        assert "look at this first" not in page.locator(f"[data-spot='{number}']").inner_text()


def test_a_spot_shows_its_seven_scores_and_its_measures(page: Page) -> None:
    spot = page.locator("[data-spot='2']")
    assert spot.locator(".scores tr").count() == 7
    assert "0.40" in spot.locator(".scores tr", has_text="Melanoma").inner_text()
    for words in ("24.2 mm²", "6.4 mm", "light brown", "lesion-class@0"):
        assert words in spot.inner_text()
    assert "No lesion stands out" in page.locator("[data-spot='3']").inner_text()


def test_a_spot_that_was_not_measured_is_to_be_looked_at(page: Page) -> None:
    spot = page.locator("[data-spot='3']")
    assert "not measured: look at it" in spot.locator("h3").inner_text().lower()
    assert spot.locator(".scores").count() == 0
    notice = page.locator("#spots .notice", has_text="Not measured: look at it.").inner_text()
    assert "Spot 3 has no scores" in notice


def test_what_lies_over_the_skin_and_an_unusual_picture_are_said_in_words(page: Page) -> None:
    flagged = page.locator("[data-spot='1']").inner_text()
    assert "hair, gel bubbles" in flagged and "unlike most pictures" in flagged
    assert "artefact" not in page.locator("#spots").inner_text()
    assert "unlike most pictures" not in page.locator("[data-spot='2']").inner_text()


@pytest.mark.parametrize("reason", sorted(ABOUT_THE_PICTURE | {LOST, NOT_KEPT}))
def test_every_reason_of_a_kiosk_has_its_words(reason: str) -> None:
    assert reason in spot_view.REFUSED


def test_no_spot_is_ever_called_harmless(page: Page) -> None:
    text = page.locator("#spots").inner_text().lower()
    assert "decision support" in text
    for word in ("benign", "harmless", "no risk", "healthy"):
        assert word not in text


def test_the_list_of_scans_says_which_to_look_at_first(page: Page) -> None:
    page.get_by_text("All scans").click()
    take_picture(page, "clinic-spots-list")
    line = page.locator("tbody tr", has_text="look at this first")
    assert line.count() == 1
    assert "spot not measured: look at it" in line.inner_text()


def test_a_withdrawn_scan_shows_no_spot_any_more(
    sqlite: Database, kiosk: SealingKiosk, scan: UUID, page: Page
) -> None:
    withdrawal = Withdraw(scan=scan, at=MOMENT, reason="patient")
    with sqlite.writing() as session:
        take_envelope(session, kiosk.id, "result", kiosk.seal(withdrawal), "ingest-1")
    assert Opener(sqlite, [kiosk.opening]).open_next()
    page.reload()
    assert "This scan was withdrawn" in page.locator("main").inner_text()
    assert page.locator("[data-spot]").count() == 0
    page.get_by_text("All scans").click()
    assert page.locator("tbody tr", has_text="look at").count() == 0


def test_a_small_screen_shows_all_of_it(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 1000})
    take_picture(page, "clinic-spots-narrow", whole=True)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
