"""A real Chromium for tests of pages; its pictures go to `build/screens/`. The fixture `browser` is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import provisioning
from tests.support.long_tests import for_long_tests

SCREENS = Path(__file__).parents[2] / "build" / "screens"
TALL, WIDE = (1080, 1920), (1280, 800)
# For long walks: the longest words in the narrow shape, the mirrored page in the low one.
EACH_LANGUAGE_AND_SIZE = [("de", TALL), ("en", WIDE), ("es", TALL), ("ar", WIDE)]
_CHROMIUM = "/usr/bin/chromium-headless-shell"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--num-raster-threads=1",  # several browsers share two processors
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)

_UNIT = Path(provisioning.__file__).parent / "systemd" / "dermakiosk-browser.service"
WAIT_MS = 60_000  # a slow machine is no failure; a wait that comes true costs nothing
_OF_ITS_SCREEN = ("--ozone-platform", "--user-data-dir")

DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"


@for_long_tests("a browser")
@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium without its window, which costs as much as a page does; without it the test fails."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=WAIT_MS)
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def of_a_kiosk(browser: Browser, **how: Any) -> Iterator[Browser]:
    """The browser that a kiosk's service starts, by its own words, on no screen; beside `browser`."""
    [command] = [line for line in _UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    program, *words = command.rpartition(" -- ")[2].split()
    flags = [word for word in words if word.startswith("--") and not word.startswith(_OF_ITS_SCREEN)]
    started = browser.browser_type.launch(executable_path=program, args=[*_FLAGS, *flags], **how)
    try:
        yield started
    finally:
        started.close()


def still(browser: Browser, **how: Any) -> BrowserContext:
    """A visitor who asks for no motion: a fade drawn frame by frame costs more than the rest of its page."""
    return patient(browser, reduced_motion="reduce", **how)


def patient(browser: Browser, **how: Any) -> BrowserContext:
    """A visitor of `how`, each of whose waits has the same minute as an `expect`."""
    context = browser.new_context(**how)
    context.set_default_timeout(WAIT_MS)
    return context


@contextmanager
def visit(browser: Browser, address: str, size: tuple[int, int]) -> Iterator[tuple[Page, list[str]]]:
    """A fresh visit to `address` on a screen of `size`, and what its console complains of."""
    context = still(browser, viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        page.goto(address)
        yield page, complaints
    finally:
        context.close()  # or it would go on asking beside every later test


def wait_for_answers(page: Page) -> None:
    """Wait until the page takes answers, as a person does who reads it first."""
    expect(page.locator("html[data-answers]")).to_be_attached()


def stop_clock(page: Page) -> None:
    """From the page that is gone to next on, time passes by `pass_time` only."""
    page.clock.install(time=0)
    page.clock.pause_at(1)


def wait_for_each_answer(page: Page) -> None:
    """The page that is gone to next gives up no question to the kiosk: its limits are of real time."""
    page.add_init_script("AbortSignal.timeout = () => new AbortController().signal;")


def pass_time(page: Page, ms: int) -> None:
    """Let `ms` of the page's own clock pass; before its scripts have run, none of it would count."""
    page.wait_for_load_state("load")
    page.clock.run_for(ms)


def read_on(page: Page) -> None:
    """Scroll to the end of the text, as a person does who reads all of it."""
    page.evaluate("document.querySelector('main').scrollTo(0, document.querySelector('main').scrollHeight)")
    expect(page.locator("html[data-read=yes]")).to_be_attached()
    wait_for_answers(page)


def take_picture(page: Page, name: str, whole: bool = False) -> None:
    """Keep what the screen shows, or the `whole` page, as `build/screens/<name>.png`."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.evaluate(DRAWN)  # Chromium cannot capture a page that it has not drawn yet
    page.screenshot(path=str(SCREENS / f"{name}.png"), animations="disabled", full_page=whole)
