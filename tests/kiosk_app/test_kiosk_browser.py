"""The journey in a real browser: what a patient sees on a tall screen, on a wide one, from right to left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waitress.server import create_server

from kiosk_app.app import create_app
from kiosk_app.journey import PATIENCE_S, WARNING_S, State
from tests.support.kiosk_bench import Bench, wait_until

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
PICTURES = Path(__file__).parents[2] / "build" / "kiosk"
TALL, WIDE = (1080, 1920), (1280, 800)
# What does not fit, or is too small to touch: as a list, so that a failure names it.
LOOK = """() => ({
  wider: document.documentElement.scrollWidth - innerWidth,
  taller: document.documentElement.scrollHeight - innerHeight,
  small: [...document.querySelectorAll("a, button")]
    .map(e => [e.textContent.trim(), e.getBoundingClientRect()])
    .filter(([, r]) => r.width && (r.height < 63.5 || r.width < 63.5))
    .map(([text, r]) => `${text} ${r.width}x${r.height}`),
})"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def address(bench: Bench) -> Iterator[str]:
    server = create_server(create_app(bench.kiosk), host="127.0.0.1", port=0, threads=8)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}/"
    server.close()
    thread.join(5)


class Screen:
    """One visit in the browser; `complaints` is what its console said."""

    def __init__(self, chromium: Any, address: str, size: tuple[int, int]) -> None:
        self.context = chromium.new_context(viewport={"width": size[0], "height": size[1]})
        self.page = self.context.new_page()
        self.size = size
        self.complaints: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def tap(self) -> None:
        self.page.click("form[data-primary] button.primary")

    def name(self) -> str:
        return str(self.page.evaluate("document.body.dataset.page"))

    def keep(self, name: str) -> dict[str, Any]:
        """Take a screenshot, and say what does not fit."""
        self.page.wait_for_timeout(250)  # the fade between pages
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}-{self.size[0]}x{self.size[1]}.png")
        found: dict[str, Any] = self.page.evaluate(LOOK)
        return found


@pytest.mark.parametrize("size", [TALL, WIDE])
@pytest.mark.parametrize("language", ["en", "ar"])
def test_every_page_of_the_way_fits_and_can_be_touched(
    chromium: Any, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    screen = Screen(chromium, address, size)
    steps = ["language", "about", "consent", "light_questions", "position", "eyes", "scan", "result", "done"]
    for step in steps:
        assert screen.name() == step
        if step == "position":
            screen.page.wait_for_selector("[data-preview][data-good]")
        assert screen.keep(f"{language}-{step}") == {"wider": 0, "taller": 0, "small": []}, step
        if step == "language":
            screen.page.click(f"button[value={language}]")
        elif step == "eyes":
            bench.camera.hold.clear()
            screen.tap()
        elif step == "scan":
            bench.camera.hold.set()
            screen.page.wait_for_url("**/result")
        elif step != "done":
            screen.tap()
    assert screen.page.evaluate("document.documentElement.dir") == ("rtl" if language == "ar" else "ltr")
    assert screen.complaints == []
    screen.context.close()


@pytest.mark.parametrize("size", [TALL, WIDE])
def test_text_at_twice_the_size_loses_nothing(chromium: Any, address: str, size: tuple[int, int]) -> None:
    screen = Screen(chromium, address, size)
    screen.page.click("button[value=de]")
    for _ in range(2):
        screen.page.click("button[name=larger]")
    for step in ("about", "consent", "light_questions", "position"):
        found = screen.keep(f"de-{step}-200")
        assert screen.name() == step
        assert found["wider"] == 0
        screen.page.click("footer .button >> nth=0", trial=True)  # scrolls to it: nothing covers it
        screen.tap()
    screen.context.close()


def test_a_silent_patient_is_warned_and_a_tap_goes_on(chromium: Any, address: str, bench: Bench) -> None:
    screen = Screen(chromium, address, TALL)
    screen.page.click("button[value=en]")
    (session,) = bench.kiosk.sessions._sessions.values()
    session.touched -= PATIENCE_S[State.ABOUT] - WARNING_S + 3
    screen.page.goto(address)
    screen.page.wait_for_selector("dialog[open]")
    assert 20 <= int(screen.page.inner_text("[data-seconds]")) <= WARNING_S
    assert screen.keep("en-warning")["small"] == []
    screen.page.click("[data-still-here]")
    screen.page.wait_for_selector("dialog:not([open])", state="attached")
    assert session.left() > PATIENCE_S[State.ABOUT] - 5
    assert screen.name() == "about"
    screen.context.close()


def test_a_patient_who_left_is_forgotten_on_the_screen_too(chromium: Any, address: str, bench: Bench) -> None:
    screen = Screen(chromium, address, TALL)
    screen.page.click("button[value=en]")
    (session,) = bench.kiosk.sessions._sessions.values()
    session.touched -= PATIENCE_S[State.ABOUT] - 2
    screen.page.goto(address)
    wait_until(lambda: session.state is State.EXPIRED or bench.kiosk.sessions.expire() > 0)
    screen.page.wait_for_url("**/expired")
    assert screen.name() == "expired"
    screen.context.close()


def test_a_refusal_and_a_fault_are_pages_with_a_way_on(chromium: Any, address: str, bench: Bench) -> None:
    from firmware.capture_client import CaptureFault

    screen = Screen(chromium, address, TALL)
    screen.page.click("button[value=en]")
    for _ in range(3):
        screen.tap()
    bench.camera.fault = CaptureFault("unavailable", "away")
    screen.page.wait_for_url("**/trouble", timeout=20_000)
    screen.keep("en-trouble")
    bench.camera.fault = None
    bench.analyst.refuse = "too_dark"
    screen.tap()
    screen.page.wait_for_selector("[data-preview][data-good]")
    for _ in range(2):
        screen.tap()
    screen.page.wait_for_selector("body[data-state=failed]")
    assert screen.keep("en-refused")["small"] == []
    screen.tap()
    assert screen.name() == "position"
    screen.context.close()
