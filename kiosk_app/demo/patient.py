"""A patient without a browser: walks the kiosk's pages by their primary forms, as a person would tap them."""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import Any

from hardware.host.errors import PlainError

WALK_S = 180.0
PAGE_S = 30.0
ANOTHER_PATIENT_S, LOOK_S = 0.5, 0.2
# Where a scan ends for one of these reasons, the kiosk is at fault; any other reason is about the picture.
KIOSK_FAULTS = frozenset(
    ("unavailable", "camera_frozen", "deadline", "no_consent", "light_fault", "light_lost", "busy")
    + ("storage", "storage_full", "outbox_full", "analysis_failed", "state_unknown")
)


class ScanRefused(PlainError):
    """The kiosk would not measure this picture; the message is the sentence that the patient reads."""

    exit_status = 2


class JourneyBroken(PlainError):
    """A page did not lead on; the message says which."""


class Page(HTMLParser):
    """What a walk needs of a page: its name, its data attributes, the primary form and what it says."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.body: dict[str, str | None] = {}
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.sentence = ""
        self.read_s = 0.0  # how long it takes to read, until an answer counts
        self._in_form = False
        self._in_sentence = False
        self.feed(html)
        self.sentence = " ".join(self.sentence.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "html":
            self.read_s = float(attributes.get("data-read-ms") or 0) / 1000
        elif tag == "body":
            self.body = attributes
        elif tag == "form" and "data-primary" in attributes:
            self._in_form, self.action = True, attributes.get("action") or ""
        elif self._in_form and tag in ("input", "button") and attributes.get("name"):
            kind = attributes.get("type")
            if kind in ("radio", "checkbox") and "data-default" not in attributes:
                return
            self.fields.setdefault(str(attributes["name"]), attributes.get("value") or "on")
        if "data-sentence" in attributes:
            self._in_sentence = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._in_form = False
        elif tag == "p":
            self._in_sentence = False

    def handle_data(self, data: str) -> None:
        if self._in_sentence:
            self.sentence += data

    @property
    def name(self) -> str:
        return self.body.get("data-page") or ""


class DemoPatient:
    """One visit to the kiosk at `url`; a close-up is taken in each zone of `spots`.

    `watch` is called while waiting; what it raises ends the visit.
    """

    def __init__(self, url: str, watch: Callable[[], None] = lambda: None, spots: Sequence[str] = ()) -> None:
        self._url = url
        self._spots = list(spots)
        self._watch = watch
        jar = http.cookiejar.CookieJar()
        # The kiosk is this computer: no proxy may come between, whatever the environment names.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar)
        )

    def _open(self, path: str, fields: dict[str, str] | None = None) -> str:
        data = urllib.parse.urlencode(fields).encode() if fields is not None else None
        request = urllib.request.Request(urllib.parse.urljoin(self._url, path), data)
        try:
            status, html = self._answer(request)
        except OSError as error:
            raise JourneyBroken(f"The kiosk does not answer on {path}: {error}.") from error
        except http.client.HTTPException as error:
            raise JourneyBroken(f"The kiosk does not answer on {path}: it ended in the middle.") from error
        if status >= 400 and Page(html).name != "another_patient":
            raise JourneyBroken(f"The kiosk answered {status} to {path}: {Page(html).sentence}")
        return html

    def _answer(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with self._opener.open(request, timeout=PAGE_S) as response:
                return int(response.status), str(response.read().decode())
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode(errors="replace")

    def walk(self) -> list[str]:
        """Walk from the first page to the last; the names of the pages met.

        Raises ScanRefused where the kiosk would not measure, JourneyBroken where a page leads nowhere.
        """
        deadline = time.monotonic() + WALK_S
        page, names = Page(self._open("")), []
        while True:
            names.append(page.name)
            if page.name == "done":
                return names
            if page.name == "closed":
                raise JourneyBroken(page.sentence)
            if time.monotonic() > deadline:
                raise JourneyBroken(f"The journey did not end within {WALK_S:.0f} s: {names}.")
            if page.name == "another_patient":
                self._watch()
                time.sleep(ANOTHER_PATIENT_S)
                names.pop()
                page = Page(self._open("/"))
            elif page.name == "scan":
                page = Page(self._open(self._wait_for_scan(deadline)))
            elif page.action is None:
                raise JourneyBroken(f"The page '{page.name}' has no way on: {page.sentence}")
            else:
                if "showing" in page.fields:
                    time.sleep(page.read_s)
                page = Page(self._open(page.action, page.fields | self._answers(page.name)))

    def _answers(self, page: str) -> dict[str, str]:
        """What this patient says other than the page's primary button: where the spots are."""
        if page == "spots" and self._spots:
            return {"answer": "", "zone": self._spots.pop(0)}
        if page == "close_up_again":
            return {"answer": "skip"}  # the same picture would be refused again
        return {}

    def _wait_for_scan(self, deadline: float) -> str:
        while time.monotonic() < deadline:
            progress: dict[str, Any] = json.loads(self._open("/scan/progress"))
            if progress["state"] == "failed":
                failure = JourneyBroken if progress["reason"] in KIOSK_FAULTS else ScanRefused
                raise failure(progress["sentence"])
            if progress["next"]:
                return str(progress["next"])
            self._watch()
            time.sleep(LOOK_S)
        raise JourneyBroken("The scan did not end in time.")
