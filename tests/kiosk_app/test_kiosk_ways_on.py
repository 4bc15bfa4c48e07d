"""What a page's script sends is answered with where to go; without scripts a browser goes there as ever."""

from __future__ import annotations

import re

from flask.testing import FlaskClient

from kiosk_app.web.ways_on import HEADER, MOST
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.visitor import Page, Visitor


def sent(visitor: Visitor) -> str:
    """Where the answer to the page's primary form leads, if a script sends it."""
    form = visitor.page.form()
    visitor.clock.now += visitor.reads_s
    answer = visitor.client.post(form["action"], data=form["fields"], headers={HEADER: "yes"})
    assert (answer.status_code, answer.headers.get("Location")) == (200, None)
    assert answer.headers["Cache-Control"] == "no-store"
    return str(answer.get_json()["next"])


def test_a_script_is_told_of_the_page_that_a_browser_would_be_sent_to(visitor: Visitor) -> None:
    visitor.tap()
    assert sent(visitor) == "/consent"
    assert visitor.look("/consent").name == "consent"


def test_a_page_that_an_answer_comes_to_has_an_address_of_its_own(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("consent")
    with bench.kiosk.records.keyring.lock(), pages_wait_briefly():
        address = sent(visitor)
    for _ in range(2):
        page = visitor.look(address)
        assert (page.status, page.name, "data-answers-one" in page.body) == (503, "kiosk_busy", True)
    assert visitor.look(page.way_on).name == "consent"


def test_only_the_newest_of_them_are_kept(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("consent")
    with bench.kiosk.records.keyring.lock(), pages_wait_briefly():
        addresses = [sent(visitor) for _ in range(MOST + 1)]
    assert [visitor.look(address).name for address in addresses] == ["consent"] + ["kiosk_busy"] * MOST


def test_a_page_that_is_kept_does_not_ask_for_itself_again(visitor: Visitor) -> None:
    """Whoever is told that the kiosk is in use goes on as soon as it is not."""
    assert visitor.client.application is not None
    other = Visitor(visitor.client.application.test_client(), visitor.clock)
    visitor.walk_to("consent")
    address = sent(other)
    page = other.look(address)
    assert (page.name, address.partition("/answer/")[0]) == ("another_patient", "")
    assert re.findall(r'http-equiv="refresh" content="([^"]*)"', page.text) == ["2; url=/"]


def test_an_address_that_is_none_leads_to_the_start(client: FlaskClient) -> None:
    assert Page(client.get("/answer/nothing", follow_redirects=True)).name == "language"
