"""A patient who taps through the application's pages, without a browser."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from kiosk_app.kept.records import ScanRow
from kiosk_app.patient.journey import Session
from tests.support.kiosk_bench import Bench
from tests.support.waiting import wait_until

# Attributes that are read out or shown.
SPOKEN = ("alt", "aria-label", "title", "placeholder")


class Page(HTMLParser):
    """What a test needs of a page: body attributes, forms with their hidden fields, what could run inline."""

    def __init__(self, response: TestResponse) -> None:
        super().__init__()
        self.status = response.status_code
        self.text = response.get_data(as_text=True)
        self.body: dict[str, str | None] = {}
        self.html: dict[str, str | None] = {}
        self.forms: list[dict[str, Any]] = []
        self.way_on = ""  # where the one thing to do leads, where it is a link
        self.inline: list[str] = []
        self._words: list[str] = []
        self._within: list[str] = []
        self.feed(self.text)

    @property
    def words(self) -> str:
        """All that it says or could say to a person; no address, seal or name of a part."""
        return " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._within.append(tag)
        self._words += [found[name] or "" for name in SPOKEN if name in found]
        if tag in ("body", "html"):
            setattr(self, tag, found)
        if tag == "a" and "primary" in (found.get("class") or ""):
            self.way_on = found["href"] or ""
        if tag == "form":
            self.forms.append({"action": found["action"], "primary": "data-primary" in found, "fields": {}})
        if tag == "input":
            self.forms[-1]["fields"][found["name"]] = found["value"]
        if "style" in found or tag == "style" or (tag == "script" and "src" not in found):
            self.inline.append(tag)
        self.inline += [name for name in found if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass  # one that is never closed, as <meta>

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._within):
            self._words.append(data)

    @property
    def name(self) -> str | None:
        return self.body.get("data-page")

    def form(self, action: str | None = None) -> dict[str, Any]:
        chosen = [f for f in self.forms if (f["action"] == action if action else f["primary"])]
        assert len(chosen) >= 1, f"{self.name} has no such form"
        return chosen[-1] if action else chosen[0]


class PatientClock:
    """The clock of an application under test; time passes when a patient reads."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Visitor:
    """A patient who reads every page for `reads_s` before tapping."""

    reads_s = 1.0

    def __init__(self, client: FlaskClient, clock: PatientClock) -> None:
        self.client, self.clock = client, clock
        self.page = self.look("/")

    def look(self, address: str) -> Page:
        self.page = Page(self.client.get(address, follow_redirects=True))
        return self.page

    def tap(self, action: str | None = None, **fields: str) -> Page:
        form = self.page.form(action)
        data = form["fields"] | fields
        self.clock.now += self.reads_s
        self.page = Page(self.client.post(form["action"], data=data, follow_redirects=True))
        return self.page

    def walk_to(self, name: str) -> Page:
        for _ in range(12):
            if self.page.name == name:
                return self.page
            if self.page.name == "scan":
                self.wait()
            else:
                self.tap()
        raise AssertionError(f"{name} was not reached; the walk ended on {self.page.name}")

    def walk_to_done(self) -> list[str | None]:
        """The pages of the whole way. A quick scan is over before its own page is there: it is not named."""
        met = [self.page.name]
        while met[-1] != "done":
            assert len(met) < 50, f"the walk goes round on {self.page.name}"
            met.append((self.wait() if met[-1] == "scan" else self.tap()).name)
        return [name for name in met if name != "scan"]

    def wait(self) -> Page:
        """Wait for the scan, then go where it leads."""
        wait_until(lambda: self.progress()["next"], "a page for the patient to go on to")
        return self.look(self.progress()["next"])

    def progress(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get("/scan/progress").get_json()
        return answer


def the_session(bench: Bench) -> Session:
    (session,) = bench.kiosk.sessions._sessions.values()
    return session


def the_scan(bench: Bench) -> ScanRow:
    (scan,) = bench.kiosk.records.scans()
    return scan
