"""A patient at the screen and a clinician at the clinic, in a real browser, through the whole system."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from kiosk_app.demo.supervisor import run_step
from tests.support.browser import TALL, WIDE, read_on, take_picture, visit, wait_for_answers
from tests.support.system import RunningSystem, running_system, small_system_board
from tests.support.visits import capturing
from tests.support.waiting import wait_until
from tests.support.way import WAY_WITHOUT_UV

NEXT = "form[data-primary] button.primary"
NAME = "document.body.dataset.page"
RING = "document.querySelector('[data-way]')?.getAttribute('stroke-dasharray') ?? ''"
# Of the scan's ring, in hundredths: neither nothing nor everything.
HALF_DONE = re.compile(r"^[1-9]\d? 100$")


@pytest.mark.parametrize(("screen", "size"), [("tall", TALL), ("wide", WIDE)])
def test_a_patient_gets_from_language_to_result_and_the_clinic_sees_the_scan(
    screen: str, size: tuple[int, int], browser: Browser, running: RunningSystem
) -> None:
    before = len(running.clinic_scans())
    with visit(browser, running.system.kiosk_url, size) as (page, complaints):
        for step, name in enumerate(WAY_WITHOUT_UV):
            expect(page.locator("body")).to_have_attribute("data-page", name)
            if name == "position":
                # The preview shows the patient, and says that the face is in the right place.
                expect(page.locator("[data-preview][data-good]")).to_be_visible()
            expect(page.get_by_text("Start over")).to_be_visible()
            expect(page.get_by_text("SIMULATED", exact=True)).to_be_visible()
            take_picture(page, f"kiosk-{screen}-{step + 1}-{name}")
            if name not in ("scan", "done"):
                read_on(page)
                page.locator(NEXT).click()
        assert complaints == []
    wait_until(lambda: len(running.clinic_scans()) == before + 1, "the scan at the clinic")


def test_a_patient_sees_the_scan_at_work_for_as_long_as_a_slow_camera_holds_it_up(
    browser: Browser, tmp_path: Path
) -> None:
    """Every picture takes a second to be read: only the page tells the patient that it goes on."""
    board = small_system_board(tmp_path, "camera_readout_ms = 1000")
    with (
        running_system(tmp_path / "s", board=board, without=("ingest", "opener", "clinic")) as running,
        visit(browser, running.system.kiosk_url, TALL) as (page, complaints),
    ):
        working = capturing(running)
        for name in WAY_WITHOUT_UV[: WAY_WITHOUT_UV.index("scan")]:
            expect(page.locator("body")).to_have_attribute("data-page", name)
            if name == "position":
                expect(page.locator("[data-preview][data-good]")).to_be_visible()
            wait_for_answers(page)
            page.locator(NEXT).click()
        expect(page.locator("body[data-page=scan][data-state=working]")).to_be_attached()
        expect(page.locator("h1[data-sentence]")).to_be_visible()
        expect(page.locator(NEXT)).to_be_hidden()  # there is nothing to answer
        expect(page.get_by_text("Start over")).to_be_visible()
        # Some of the pictures are there, and the page still shows it while the camera works on.
        wait_until(
            lambda: HALF_DONE.match(page.evaluate(RING)) and working() and page.evaluate(NAME) == "scan",
            "a scan at work",
        )
        take_picture(page, "kiosk-tall-slow-camera")
        expect(page.locator("body")).to_have_attribute("data-page", "spots")
        assert complaints == []


def test_a_clinician_signs_in_and_reads_the_scan(browser: Browser, running: RunningSystem) -> None:
    if not running.clinic_scans():
        pytest.fail("the journey before this test left no scan")
    words = run_step("clinic", "add-account", "reader", "--state", running.system.clinic)
    password = words.rpartition("=")[2].strip()
    with visit(browser, running.system.clinic_url, WIDE) as (page, complaints):
        page.get_by_label("Name").fill("reader")
        page.get_by_label("Password").fill(password)
        take_picture(page, "clinic-1-login")
        page.get_by_role("button", name=re.compile("Sign in")).click()
        take_picture(page, "clinic-2-list")
        page.locator("table a").first.click()
        expect(page.locator("svg").first).to_be_visible()
        take_picture(page, "clinic-3-scan")
        text = page.locator("body").inner_text()
        (opened, *_) = sorted((running.system.root / "opened").glob("*.json"))
        measured = json.loads(opened.read_text())["findings"]["findings"]
        assert measured
        assert "SIMULATED" in text.upper()
        assert complaints == []
