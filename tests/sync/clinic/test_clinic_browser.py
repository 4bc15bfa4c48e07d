from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page

from sync.clinic.app import make_app
from sync.clinic.people.accounts import add_account
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.wire.findings import Mark
from sync.wire.keys import OpeningKey
from tests.support.browser import WIDE, patient, take_picture
from tests.support.clinic import SealingKiosk, findings, registered
from tests.support.serving import served


@pytest.fixture
def address(sqlite: Database, opening_key: OpeningKey, tmp_path: Path) -> Iterator[str]:
    """The clinic's pages with one scan, really served."""
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    scan = uuid4()
    measured = findings(
        scan, ita=33, melanin_index=38, erythema_index=21, redness=4, spot_area=9, spot_count=5, acne_count=7
    )
    marks = tuple(
        Mark(
            kind="spot", zone="left_cheek", x=0.4 + 0.03 * n, y=0.4 + 0.05 * (n % 5), radius=0.01 + 0.002 * n
        )
        for n in range(10)
    )
    marks += tuple(Mark(kind="acne", zone="forehead", x=0.1 * n, y=-0.5, radius=0.04) for n in range(-3, 4))
    geometry = measured.geometry.model_copy(update={"marks": marks})
    result = kiosk.result(scan, findings=measured.model_copy(update={"geometry": geometry}))
    with sqlite.writing() as session:
        take_envelope(session, kiosk.id, "result", kiosk.seal(result), "ingest-1")
    Opener(sqlite, [opening_key]).open_next()
    with served(make_app(sqlite, b"k" * 32), threads=2) as address:
        yield address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with closing(patient(browser, viewport={"width": WIDE[0], "height": WIDE[1]})) as context:
        yield context.new_page()


def shoot(page: Page, name: str) -> None:
    take_picture(page, f"clinic-{name}", whole=True)


def test_staff_read_a_scan_with_the_keyboard_alone(address: str, page: Page, sqlite: Database) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    password = add_account(sqlite, "ann")
    page.goto(address)
    shoot(page, "login")
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-page=scans]")
    shoot(page, "scans")
    page.focus(".row-link")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-page=scan]")
    shoot(page, "scan")
    for measure, circles in (("spot_count", 10), ("acne_count", 7)):
        page.focus(f"a.figure[href*={measure}]")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"a.figure[href*={measure}][aria-current]")
        assert page.locator(".face .marks circle").count() == circles
        shoot(page, f"scan-{measure}")
    page.click("text=Sign out")
    page.wait_for_selector("[data-page=login]")
    assert complaints == []


@pytest.mark.parametrize("width", [1280, 420])
def test_no_page_is_wider_than_its_window(address: str, page: Page, sqlite: Database, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    page.fill("#name", "bea")
    page.fill("#password", add_account(sqlite, "bea"))
    page.click("button.primary")
    page.wait_for_selector("[data-page=scans]")
    page.wait_for_load_state()  # its stylesheet is there
    widths = [page.evaluate("document.documentElement.scrollWidth")]
    page.click(".row-link")
    page.wait_for_selector("[data-page=scan]")
    page.wait_for_load_state()
    widths.append(page.evaluate("document.documentElement.scrollWidth"))
    shoot(page, f"scan-{width}")
    assert max(widths) <= width


def test_numbers_beside_the_drawn_face_do_not_cover_each_other(
    address: str, page: Page, sqlite: Database
) -> None:
    page.goto(address)
    page.fill("#name", "cyd")
    page.fill("#password", add_account(sqlite, "cyd"))
    page.click("button.primary")
    page.click(".row-link")
    page.wait_for_selector(".face")
    boxes = [box for text in page.locator(".face text").all() if (box := text.bounding_box())]
    assert len(boxes) == 10
    for index, one in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart_x = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            apart_y = (
                one["y"] + one["height"] <= other["y"] + 3 or other["y"] + other["height"] <= one["y"] + 3
            )
            assert apart_x or apart_y
