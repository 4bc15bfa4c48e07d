"""A patient's visit at the kiosk's screen, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, expect

from kiosk_app.patient.journey import Session
from sync.wire.findings.canonical_face import inside
from tests.support.browser import read_on, take_picture, visit, wait_for_answers
from tests.support.way import WAY

# Where on the screen a place of the canonical face is drawn.
PLACE = """([x, y]) => {
  const face = document.querySelector("[data-face]");
  const { across, down } = face.dataset;
  const p = new DOMPoint(x * Number(across), y * Number(down)).matrixTransform(face.getScreenCTM());
  return [p.x, p.y];
}"""


# What does not fit, or is too small to touch: as a list, so that a failure names it.
LOOK = """() => ({
  wider: document.documentElement.scrollWidth - innerWidth,
  taller: document.documentElement.scrollHeight - innerHeight,
  small: [...document.querySelectorAll("a, button")]
    .map(e => [e.textContent.trim(), e.getBoundingClientRect()])
    .filter(([, r]) => r.width && (r.height < 63.5 || r.width < 63.5))
    .map(([text, r]) => `${text} ${r.width}x${r.height}`),
})"""

# What can be done and does not lie wholly on the screen, as it is.
OUT_OF_SIGHT = """() => [...document.querySelectorAll(".act button, .act a, footer button, footer a")]
  .map(e => [e.textContent.trim(), e.getBoundingClientRect()])
  .filter(([, r]) => r.height && (r.top < 0 || r.bottom > innerHeight || r.left < 0 || r.right > innerWidth))
  .map(([text, r]) => `${text} ${r.top}..${r.bottom}`)"""

# Puts a new patient before a screen of this size, without scripts unless they are asked for.
PatientAt = Callable[..., tuple[Page, Session]]


class Screen:
    """One visit in the browser; `complaints` is what its console said."""

    def __init__(self, page: Page, size: tuple[int, int], complaints: list[str]) -> None:
        self.page, self.size, self.complaints = page, size, complaints

    def tap(self, button: str = "form[data-primary] button.primary") -> None:
        wait_for_answers(self.page)
        read_on(self.page)
        with self.page.expect_navigation(wait_until="domcontentloaded"):
            self.page.click(button)

    def walk_to(self, name: str) -> None:
        """From "about" to the page `name` by the primary buttons; a scan leads on by itself."""
        for step in WAY[1 : WAY.index(name)]:
            if step == "scan":
                continue
            self.arrives_at(step)
            if step == "position":
                self.page.wait_for_selector("[data-preview][data-good]")
            self.tap()
        self.arrives_at(name)

    def arrives_at(self, name: str) -> None:
        expect(self.page.locator("body")).to_have_attribute("data-page", name)

    def keep(self, name: str) -> dict[str, Any]:
        """Take a picture of the screen, and say what does not fit."""
        wait_for_answers(self.page)
        take_picture(self.page, f"kiosk-{name}-{self.size[0]}x{self.size[1]}")
        found: dict[str, Any] = self.page.evaluate(LOOK)
        return found


@contextmanager
def on_screen(browser: Browser, address: str, size: tuple[int, int]) -> Iterator[Screen]:
    with visit(browser, address, size) as (page, complaints):
        # The one before has been closed, which the kiosk notices within seconds.
        expect(page.locator("body")).not_to_have_attribute("data-page", "another_patient")
        yield Screen(page, size, complaints)


def to_spots(screen: Screen, language: str) -> None:
    screen.tap(f"button[value={language}]")
    screen.walk_to("eyes")
    screen.tap()
    screen.arrives_at("spots")


def touch(screen: Screen, zone: str) -> None:
    wait_for_answers(screen.page)
    x, y = screen.page.evaluate(PLACE, list(inside(zone)))
    with screen.page.expect_navigation(wait_until="domcontentloaded"):
        screen.page.mouse.click(x, y)
    screen.arrives_at("close_up")
