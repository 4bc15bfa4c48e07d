"""Showings: each is one page put before a patient; what is sent from it counts only once it could be read."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import current_app, g, redirect, request
from itsdangerous import BadSignature, URLSafeSerializer
from markupsafe import Markup
from werkzeug.wrappers import Response

from kiosk_app.web.languages import current_language

READ_S = 0.8  # from when a page is there until an answer on it counts
FIELD = "showing"
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
# What may be sent at any moment, and why it decides nothing. Every other address waits for READ_S.
HARMLESS = {
    "/touch": "It says only that somebody is there.",
    "/text-size": "The letters grow on the spot, and the next tap changes them again.",
    "/language": "Nothing is known of anybody yet, and every later page has the languages again.",
    "/languages": "It leads back to the page that it came from, where the languages are again.",
    "/about": "It leads on to the question for consent, which is put on a page of its own.",
    "/help": "It leads back to the page that it came from.",
    "/keep": "It leads back to the result, with nothing changed.",
    "/trouble": "It leads back to the camera, with nothing changed.",
}


class Showings:
    """Stamps for the forms of a page, and what a stamp that comes back is worth.

    A stamp says which page was sent, with which form, in which language, at which point of the patient's
    way and when by `clock`. It is sealed with `secret`, so nothing has to be kept and a browser's clock is
    never asked. The page is older here than on the screen, by the time of the answer's way and of drawing it;
    static/answers.js counts from when it was drawn, so what is refused here is what even that let pass.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._sealed = URLSafeSerializer(secret, salt="showing")
        self.clock = clock

    def stamp(self, action: str) -> str:
        """The stamp of a form that goes to `action`, on the page being made for this request."""
        address = "/" if request.method not in SAFE_METHODS else _asked_for()
        sealed = self._sealed.dumps([action, _turn(), current_language(), address, self.clock()])
        return str(sealed)

    def address(self, stamp: str) -> str:
        """Of the page whose form had this stamp; of the first one where it is none of ours."""
        try:
            return str(self._sealed.loads(stamp)[3])
        except BadSignature:
            return "/"

    def show_again(self, action: str, stamp: str) -> str | None:
        """Where to see the page again whose form went to `action` too early or too late; None: it counts."""
        try:
            to, turn, language, address, sent = self._sealed.loads(stamp)
        except BadSignature:
            return "/"
        counts = (to, turn, language) == (action, _turn(), current_language())
        return None if counts and self.clock() - sent >= READ_S else str(address)


def asked_from() -> str:
    """The address of the page that this request came from, or of the page that it asks for."""
    if request.method in SAFE_METHODS:
        return _asked_for()
    return _showings().address(request.form.get(FIELD, ""))


def _asked_for() -> str:
    return request.full_path.rstrip("?")


def _turn() -> str:
    session = g.get("session")
    return "" if session is None else str(session.turn)


def _showings() -> Showings:
    showings: Showings = current_app.extensions["showings"]
    return showings


def showing(action: str) -> Markup:
    """The hidden field of a form that goes to `action`; empty where it decides nothing."""
    if action in HARMLESS:
        return Markup("")
    return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, _showings().stamp(action))


def let_answers_count() -> Response | None:
    """Before each request: what was sent from a page that could not be read yet leads back to that page."""
    rule = request.url_rule
    if request.method in SAFE_METHODS or rule is None or rule.rule in HARMLESS:
        return None
    address = _showings().show_again(request.path, request.form.get(FIELD, ""))
    return None if address is None else redirect(address, 303)
