"""Whichever page a browser shows, the application hears that there is one."""

from __future__ import annotations

import time

from playwright.sync_api import Browser

from tests.support.browser import still
from tests.support.kiosk_bench import Bench


def test_every_page_says_that_it_is_shown_with_a_session_or_without(
    browser: Browser, address: str, bench: Bench
) -> None:
    with still(browser) as context:
        page = context.new_page()
        for place in ("/", "/help", "/nowhere"):
            bench.kiosk.shown_at -= 1000
            with page.expect_response("**/here") as heard:
                page.goto(address + place)
            assert heard.value.status == 200
            assert time.monotonic() - bench.kiosk.shown_at < 100
        assert not bench.kiosk.sessions.taken()
