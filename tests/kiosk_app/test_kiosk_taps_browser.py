"""Two taps in a row answer one page: real touches in a real browser, at every page and on both screens.

The browser's clock and the server's are held by the tests, so a tap comes exactly when it is said to come.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page

from kiosk_app.patient.app import create_app
from kiosk_app.patient.journey import PATIENCE_S, WARNING_S, Session, State
from kiosk_app.patient.pages import COOKIE
from tests.support.browser import TALL, WIDE, patient, stop_clock
from tests.support.kiosk_bench import Bench, Clinic, scans_at_work
from tests.support.serving import served
from tests.support.standing import DECIDES, PLACES, stand
from tests.support.visitor import PatientClock
from tests.support.waiting import wait_until

TOO_EARLY_MS = (100, 150, 250, 400, 550, 700)
SURE_MS = 1500
FRAMES_MS = 50  # of the paused clock, in which a page is drawn for the first time
PRIMARY = "form[data-primary] button"
# All that can be answered with a touch.
ANSWERS = "form[method=post]:not([data-at-once]) button, [data-face]"
# What is tapped once it counts: each answer of a page that decides, else one of each form but "Start over".
ONE_OF_EACH_FORM = ":not(footer) > form[method=post]:not([data-at-once]) button:first-of-type, [data-face]"
MIDDLES = """which => [...document.querySelectorAll(which)].filter(e => e.checkVisibility())
  .map(e => e.getBoundingClientRect()).map(r => [r.left + r.width / 2, r.top + r.height / 2])"""
HEARD = "window.clicks = 0; addEventListener('click', () => clicks += 1);"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    clinic = Clinic()
    return Bench(clinic.enrol(tmp_path_factory.mktemp("taps") / "kiosk"), clinic).with_close_up()


@pytest.fixture(autouse=True)
def no_scan_is_left(bench: Bench) -> Iterator[None]:
    """The bench is one for all: each test ends what it began."""
    yield
    bench.end_scans()
    assert scans_at_work() == []


@pytest.fixture(scope="module")
def clock() -> PatientClock:
    return PatientClock()


@pytest.fixture(scope="module")
def address(bench: Bench, clock: PatientClock) -> Iterator[str]:
    with served(create_app(bench.kiosk, clock)) as address:
        yield address


class Finger:
    """A finger on a screen of `size`, on which one patient of the bench is put before any page."""

    def __init__(
        self, browser: Browser, address: str, bench: Bench, clock: PatientClock, size: tuple[int, int]
    ) -> None:
        self.address, self.bench, self.clock = address, bench, clock
        viewport = {"width": size[0], "height": size[1]}
        self.context: BrowserContext = patient(browser, viewport=viewport, has_touch=True)  # type: ignore[arg-type]
        self.context.add_init_script(HEARD)
        self.page: Page = self.context.new_page()
        self.touch_screen: CDPSession = self.context.new_cdp_session(self.page)
        stop_clock(self.page)
        token, self.session = bench.kiosk.sessions.begin()
        self._cookie = {"name": COOKIE, "value": token, "url": address}

    def look_at(self, place: str) -> Session:
        """Put the patient there, until the page is drawn."""
        self.context.add_cookies([self._cookie])  # type: ignore[list-item]
        self.page.goto(self.address + stand(self.bench, self.session, place))
        self.drawn()
        return self.session

    def drawn(self) -> None:
        def is_drawn() -> bool:
            self.page.clock.run_for(FRAMES_MS)
            return bool(self.page.evaluate("drawn <= performance.now()"))

        wait_until(is_drawn, "the page on the screen")

    def wait_ms(self, since_drawn: int) -> None:
        left = since_drawn - self.page.evaluate("performance.now() - drawn")
        self.page.clock.run_for(left)

    def touch(self, place: list[float]) -> None:
        self.press(place)
        self.lift()

    def press(self, place: list[float]) -> None:
        point = [{"x": place[0], "y": place[1]}]
        self.touch_screen.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})

    def lift(self) -> None:
        self.touch_screen.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def answers(self, which: str = ANSWERS) -> list[list[float]]:
        found: list[list[float]] = self.page.evaluate(MIDDLES, which)
        return found

    def heard(self, clicks: int) -> None:
        """Every touch has become a click that the page has dealt with."""
        self.page.wait_for_function("n => clicks === n", arg=clicks, polling=10)

    def has_answered(self) -> bool:
        return bool(self.page.locator("form[data-sent]").count())


@pytest.fixture(scope="module", params=[TALL, WIDE], ids=["tall", "wide"])
def any_finger(
    request: pytest.FixtureRequest, browser: Browser, address: str, bench: Bench, clock: PatientClock
) -> Iterator[Finger]:
    finger = Finger(browser, address, bench, clock, request.param)
    yield finger
    finger.context.close()
    bench.kiosk.sessions.leave(finger.session)  # one patient a kiosk: the next screen's may come


@pytest.fixture
def finger(any_finger: Finger) -> Iterator[Finger]:
    yield any_finger
    any_finger.page.goto("about:blank")  # what this page still asks for must not meet the next patient


@pytest.mark.parametrize("place", PLACES)
def test_a_tap_counts_only_on_a_page_that_can_have_been_read(finger: Finger, place: str) -> None:
    session = finger.look_at(place)
    turn, answers = session.turn, finger.answers()
    touches = [(TOO_EARLY_MS[0], answer) for answer in answers]
    touches += [(ms, answers[nth % len(answers)]) for nth, ms in enumerate(TOO_EARLY_MS[1:])]
    for ms, answer in touches:
        finger.wait_ms(ms)
        finger.touch(answer)
    finger.heard(len(touches))
    assert not finger.has_answered()
    assert session.turn == turn
    for nth, answer in enumerate(answers if place in DECIDES else finger.answers(ONE_OF_EACH_FORM)):
        if nth > 0:
            turn = finger.look_at(place).turn
        finger.wait_ms(SURE_MS)
        finger.clock.now += SURE_MS / 1000
        shown = finger.page.url
        with finger.page.expect_navigation(wait_until="commit"):
            finger.touch(answer)
        # Starting over from the question that this leads to puts it again.
        is_put_again = shown.endswith("/leave") and answer == answers[-1]  # it is in the footer
        assert ((session.turn, finger.page.url) == (turn, shown)) == is_put_again, nth


def test_a_finger_that_lay_on_the_page_before_answers_nothing(finger: Finger) -> None:
    finger.look_at("about")
    finger.wait_ms(SURE_MS)
    finger.press(finger.answers(PRIMARY)[0])
    session = finger.look_at("consent")
    finger.wait_ms(SURE_MS)
    finger.lift()
    assert not finger.has_answered()
    assert session.state is State.CONSENT


def test_a_key_counts_from_its_first_stroke_on_a_page_that_can_have_been_read(finger: Finger) -> None:
    session = finger.look_at("consent")
    keyboard = finger.page.keyboard
    finger.page.focus(PRIMARY)
    keyboard.down("Enter")
    keyboard.up("Enter")
    keyboard.down(" ")
    finger.wait_ms(SURE_MS)
    keyboard.up(" ")  # pressed too early
    assert not finger.has_answered()
    finger.clock.now += SURE_MS / 1000
    with finger.page.expect_navigation(wait_until="domcontentloaded"):
        keyboard.down("Enter")
    assert session.state is State.LIGHT_QUESTIONS
    finger.drawn()
    finger.page.focus(PRIMARY)
    finger.wait_ms(SURE_MS)
    finger.clock.now += SURE_MS / 1000
    keyboard.down("Enter")  # still down since the page before: the key repeats
    assert not finger.has_answered()
    keyboard.up("Enter")
    with finger.page.expect_navigation(wait_until="commit"):
        keyboard.press("Enter")


def test_a_switch_or_a_screen_reader_answers_as_a_finger_does(finger: Finger) -> None:
    finger.look_at("consent")
    for ms in TOO_EARLY_MS:
        finger.wait_ms(ms)
        finger.page.eval_on_selector(PRIMARY, "button => button.click()")
        assert not finger.has_answered()
    finger.wait_ms(SURE_MS)
    finger.clock.now += SURE_MS / 1000
    with finger.page.expect_navigation(wait_until="commit"):
        finger.page.eval_on_selector(PRIMARY, "button => button.click()")


def test_a_second_tap_on_the_warning_answers_nothing_below_it(finger: Finger) -> None:
    finger.look_at("consent")
    finger.session.touched -= PATIENCE_S[State.CONSENT] - WARNING_S + 3
    finger.page.reload()
    finger.drawn()
    answers = finger.answers(PRIMARY)
    finger.wait_ms(SURE_MS)
    finger.page.wait_for_selector("dialog[open]")
    finger.touch(finger.answers("[data-still-here]")[0])
    finger.page.wait_for_selector("dialog:not([open])", state="attached")
    finger.drawn()
    for ms in TOO_EARLY_MS:
        finger.wait_ms(ms)
        finger.touch(answers[0])
    finger.heard(1 + len(TOO_EARLY_MS))
    assert not finger.has_answered()


def test_the_size_of_the_letters_can_be_changed_at_once(finger: Finger) -> None:
    finger.look_at("consent")
    for size in (150, 200, 100):
        with finger.page.expect_navigation(wait_until="domcontentloaded"):
            finger.touch(finger.answers("button[name=larger]")[0])
        assert finger.session.text_size == size
