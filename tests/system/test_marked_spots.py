"""A marked spot through the whole system: touched, photographed, sealed, read at the clinic, shredded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from kiosk_app.demo.supervisor import run_step
from sync.wire.findings import Findings
from sync.wire.findings.canonical_face import inside
from tests.support.browser import TALL, WIDE, take_picture, visit, wait_for_answers
from tests.support.kiosk_screen import PLACE
from tests.support.system import RunningSystem, small_system_board
from tests.support.waiting import wait_until
from tests.support.way import WAY_WITHOUT_UV
from tests.system.conftest import dermakiosk

NEXT = "form[data-primary] button.primary"


def _arrive(page: Page, name: str) -> None:
    expect(page.locator("body")).to_have_attribute("data-page", name)


def _tap(page: Page) -> None:
    wait_for_answers(page)
    page.locator(NEXT).click()


def _walk_to_spots(page: Page) -> None:
    for name in WAY_WITHOUT_UV[: WAY_WITHOUT_UV.index("spots")]:
        if name == "scan":
            continue
        _arrive(page, name)
        if name == "position":
            expect(page.locator("[data-preview][data-good]")).to_be_visible()
        _tap(page)
    _arrive(page, "spots")
    wait_for_answers(page)


def test_a_spot_is_touched_at_the_kiosk_and_read_at_the_clinic(
    browser: Browser, running: RunningSystem
) -> None:
    with visit(browser, running.system.kiosk_url, TALL) as (page, complaints):
        _walk_to_spots(page)
        x, y = page.evaluate(PLACE, list(inside("left_cheek")))
        page.mouse.click(x, y)
        _arrive(page, "close_up")
        expect(page.locator("[data-preview][data-good]")).to_be_visible()
        take_picture(page, "system-close-up")
        _tap(page)
        expect(page.locator("body[data-page=spots][data-taken='1']")).to_be_visible()
        _tap(page)
        _arrive(page, "result")
        expect(page.locator("[data-spots='1']")).to_be_visible()
        _tap(page)
        _arrive(page, "done")
        assert complaints == []
    wait_until(lambda: len(running.clinic_scans()) == 1, "the scan at the clinic")
    words = run_step("clinic", "add-account", "reader", "--state", running.system.clinic)
    with visit(browser, running.system.clinic_url, WIDE) as (page, complaints):
        page.get_by_label("Name").fill("reader")
        page.get_by_label("Password").fill(words.rpartition("=")[2].strip())
        page.get_by_role("button", name=re.compile("Sign in")).click()
        page.locator("table a").first.click()
        expect(page.locator("[data-spot='1']")).to_contain_text("Left cheek")
        expect(page.locator("[data-spot='1'] .scores tr")).to_have_count(7)
        take_picture(page, "system-clinic-spots", whole=True)
        assert complaints == []


def test_a_headless_scan_with_close_ups_is_sealed_and_shredded_with_them(tmp_path: Path) -> None:
    out, board = tmp_path / "out", small_system_board(tmp_path)
    done = dermakiosk("demo", "--once", "--out", out, "--board", board, "--spot", "nose", "--spot", "chin")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["close_ups"], summary["frames"], summary["receipt"]) == (2, 3, "stored")
    [opened] = (out / "opened").glob("*.json")
    findings = Findings.model_validate(json.loads(opened.read_text())["findings"])
    assert [(spot.frame, spot.zone) for spot in findings.spots] == [
        ("closeup0", "nose"),
        ("closeup1", "chin"),
    ]
    assert all(spot.lesion is not None and spot.lesion.area_mm2 for spot in findings.spots)
    vault = out / "kiosk" / "app" / "vault" / summary["scan"]
    assert len(list(vault.glob("frame.closeup*.cob"))) == 2
    shredded = dermakiosk("shred", summary["scan"], "--state", out / "kiosk")
    assert shredded.returncode == 0, shredded.stderr
    assert not list(vault.glob("*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--spot", "elbow"), "is no zone"),
        (("--spot", "nose") * 4, "3 spots at most"),
        (("--close-up", "setup.cfg"), "not a picture"),
    ],
)
def test_a_spot_that_cannot_be_is_refused_before_anything_starts(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = dermakiosk("demo", "--once", "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()
