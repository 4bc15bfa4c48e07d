"""A tap while the kiosk doesn't answer, starts again or is at work, and an answer that comes late."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, closing
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from kiosk_app.demo.supervisor import free_port
from kiosk_app.patient.app import create_app
from kiosk_app.patient.pages import COOKIE
from tests.support.browser import (
    TALL,
    pass_time,
    read_on,
    still,
    visit,
    wait_for_answers,
    wait_for_each_answer,
)
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_screen import PatientAt
from tests.support.serving import running_server
from tests.support.standing import stand, with_a_kept_scan
from tests.support.waiting import wait_until

PRIMARY = "form[data-primary] button.primary"
WAITS_S = 240.0  # no test waits so long


def at_about(browser: Browser, port: int, stack: ExitStack) -> Page:
    page, _ = stack.enter_context(visit(browser, f"http://127.0.0.1:{port}/", TALL))
    wait_for_answers(page)
    page.click("button[value=en]")
    expect(page.locator("body")).to_have_attribute("data-page", "about")
    wait_for_answers(page)
    return page


@pytest.mark.parametrize(
    ("tapped", "page_of", "text_size"),
    [
        (PRIMARY, "consent", "100"),
        ("footer button", "about", "100"),  # what ends a session is asked anew
        ("footer a", "help", "100"),
        ("nav a", "languages", "100"),
        ("button[name=larger]", "about", "150"),
    ],
)
def test_a_tap_while_the_kiosk_does_not_answer_leads_on_once_it_does(
    browser: Browser, bench: Bench, tapped: str, page_of: str, text_size: str
) -> None:
    app = create_app(bench.kiosk)
    with ExitStack() as visits, ExitStack() as first:
        first.enter_context(running_server(app, port=(port := free_port())))
        page = at_about(browser, port, visits)
        address = page.url
        first.close()
        page.click(tapped)
        expect(page.locator("#one-moment h2")).to_be_visible()
        assert middle(page, "#one-moment .drawing") == pytest.approx(middle(page, "#one-moment h2"), abs=1)
        assert page.url == address
        with running_server(app, port=port):
            expect(page.locator("#one-moment h2")).to_be_hidden()
            expect(page.locator("body")).to_have_attribute("data-page", page_of)
            expect(page.locator("html")).to_have_attribute("data-text", text_size)


def middle(page: Page, selector: str) -> float:
    """Across the page, in pixels."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2


@pytest.mark.parametrize("tapped", [PRIMARY, "button[name=larger]", "footer button"])
def test_a_tap_while_the_kiosk_starts_again_is_answered_by_its_word_of_that(
    browser: Browser, bench: Bench, tapped: str
) -> None:
    with ExitStack() as visits, ExitStack() as first:
        first.enter_context(running_server(create_app(bench.kiosk), port=(port := free_port())))
        page = at_about(browser, port, visits)
        first.close()
        page.click(tapped)
        expect(page.locator("#one-moment h2")).to_be_visible()
        with running_server(create_app(bench.again()), port=port):
            expect(page.locator("body")).to_have_attribute("data-page", "restarted")


@pytest.mark.parametrize("tapped", [PRIMARY, "button[name=larger]", "footer button"])
def test_a_kiosk_that_ends_while_it_is_at_work_on_a_tap_shows_a_page_of_its_own_once_it_is_back(
    browser: Browser, bench: Bench, tapped: str
) -> None:
    at_work, over = threading.Event(), threading.Event()
    app = create_app(bench.kiosk)
    pages = app.wsgi_app

    def ends(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] not in ("/language", "/touch"):
            at_work.set()
            over.wait(WAITS_S)
        return pages(environ, start_response)

    app.wsgi_app = ends  # type: ignore[assignment]
    with ExitStack() as visits, ExitStack() as first:
        server = first.enter_context(running_server(app, port=(port := free_port())))
        page = at_about(browser, port, visits)
        page.click(tapped)
        wait_until(lambda: bool(page.evaluate("1")) and at_work.is_set(), "the tap to be sent")
        server.close()  # nobody else comes in, and who waits is cut off
        for channel in list(server.active_channels.values()):
            channel.socket.shutdown(socket.SHUT_RDWR)
        over.set()
        first.close()
        expect(page.locator("#one-moment h2")).to_be_visible()
        with running_server(create_app(bench.again()), port=port):
            expect(page.locator("body")).to_have_attribute("data-page", "restarted")


@pytest.mark.parametrize(
    ("place", "said", "leads_to"),
    [("consent", "Ask at the desk", "light_questions"), ("close_up", "Hold it still", "spots")],
)
def test_a_tap_that_the_kiosk_is_at_work_on_for_long_is_answered_by_a_word_until_it_leads_on(
    browser: Browser, bench: Bench, place: str, said: str, leads_to: str
) -> None:
    at_work, over = threading.Event(), threading.Event()
    app = create_app(bench.with_close_up().kiosk)
    pages = app.wsgi_app

    def slowly(environ: dict[str, Any], start_response: Any) -> Any:
        if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("POST", f"/{place}"):
            at_work.set()
            over.wait(WAITS_S)
        return pages(environ, start_response)

    app.wsgi_app = slowly  # type: ignore[assignment]
    token, session = bench.kiosk.sessions.begin()
    with running_server(app) as server, closing(still(browser)) as context:
        address = f"http://127.0.0.1:{server.effective_port}"
        context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
        page = context.new_page()
        page.goto(address + stand(bench, session, place))
        wait_for_answers(page)
        read_on(page)
        page.click(PRIMARY)
        wait_until(lambda: bool(page.evaluate("1")) and at_work.is_set(), "the tap to be sent")
        expect(page.locator("#one-moment h2")).to_be_visible()
        expect(page.locator("#one-moment").get_by_text(said)).to_be_visible()
        expect(page.locator("#one-moment").get_by_text("Ask at the desk")).to_be_visible()
        assert page.url == f"{address}/{place}"
        over.set()
        expect(page.locator("body")).to_have_attribute("data-page", leads_to)
        expect(page.locator("#one-moment h2")).to_be_hidden()


def test_only_the_first_way_that_is_taken_counts_while_the_kiosk_is_asked(
    patient_at: PatientAt, address: str, bench: Bench
) -> None:
    page, session = patient_at(TALL, scripts=True)
    asked: list[Route] = []
    sent: list[str] = []
    page.route("**/healthz", lambda route: asked.append(route))
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    wait_for_each_answer(page)
    page.goto(address + stand(bench, session, "about"))
    wait_for_answers(page)
    page.click(PRIMARY)
    page.click("footer button", force=True)
    wait_until(lambda: bool(page.evaluate("1")) and len(asked) == 1, "the kiosk to be asked once")
    asked.pop().continue_()
    expect(page.locator("body")).to_have_attribute("data-page", "consent")
    assert not [url for url in sent if "start-over" in url]


def test_a_late_answer_to_a_page_that_came_of_another_answer_sends_neither(
    patient_at: PatientAt, address: str, bench: Bench
) -> None:
    """Such a page, loaded again, would send what was sent for it."""
    page, session = patient_at(TALL, scripts=True)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.goto(address + stand(bench, session, "consent"))
    wait_for_answers(page)
    with bench.kiosk.records.keyring.lock(), pages_wait_briefly():
        page.click(PRIMARY)
        expect(page.locator("body")).to_have_attribute("data-page", "kiosk_busy")
    wait_for_answers(page)
    page.route("**/healthz", lambda route: route.abort(), times=1)
    page.click("footer button")
    expect(page.locator("body")).to_have_attribute("data-page", "consent")
    assert [url for url in sent if not url.endswith("/touch")] == [f"{address}/consent"]
    assert session.scan is None


@pytest.mark.parametrize(("asks", "button"), [("/delete", ".danger"), ("/leave", ".primary")])
def test_a_late_answer_about_a_kept_scan_is_asked_anew_where_it_was_asked(
    patient_at: PatientAt, address: str, bench: Bench, asks: str, button: str
) -> None:
    page, session = patient_at(TALL, scripts=True)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.goto(address + with_a_kept_scan(bench, session)[0])
    page.goto(address + asks)
    wait_for_answers(page)
    page.route("**/healthz", lambda route: route.abort(), times=1)
    with page.expect_navigation():
        page.click(f".act {button}")
    expect(page.locator("body")).to_have_attribute("data-page", asks[1:])
    assert not [url for url in sent if not url.endswith("/touch")]


def test_a_kiosk_that_does_not_hear_of_a_touch_takes_the_next_tap(
    patient_at: PatientAt, address: str, bench: Bench
) -> None:
    page, session = patient_at(TALL, scripts=True)
    touched: list[Route] = []
    page.route("**/touch", lambda route: touched.append(route))
    page.clock.install()
    wait_for_each_answer(page)
    page.goto(address + stand(bench, session, "about"))
    pass_time(page, 6000)  # a touch soon after the page came is not told
    wait_for_answers(page)
    page.click("h1")
    wait_until(lambda: bool(page.evaluate("1")) and bool(touched), "the touch to be told")
    page.click(PRIMARY)
    expect(page.locator("body")).to_have_attribute("data-page", "consent")
