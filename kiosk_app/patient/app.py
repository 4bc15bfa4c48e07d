"""The Flask application of the kiosk: its settings, its headers, its languages."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, Response, request
from flask_babel import Babel
from flask_wtf.csrf import CSRFProtect

from hardware.host.patience import waiting_at_most
from kiosk_app.patient.kiosk import KioskParts
from kiosk_app.patient.page import text_size
from kiosk_app.web import showings, ways_on
from kiosk_app.web.languages import LANGUAGES, current_language, require_words
from kiosk_app.web.showings import Showings, let_answers_count, showing
from kiosk_app.web.ways_on import WaysOn, tell_the_way
from sync.web.look import FILES, LOOK

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Everything comes from the kiosk itself; nothing inline runs; nobody may frame the pages.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
# For keys or records that another one holds: then a page says that the kiosk is busy. For all that a page
# waits for, the outbox and the camera as well. What works behind the pages waits for longer.
KEYS_S, PAGE_S = 5.0, 25.0
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


def create_app(kiosk: KioskParts, clock: Callable[[], float] = time.monotonic) -> Flask:
    """The pages over `kiosk`. Sessions end with the process: its secret is new at each start.

    `clock` says how long a page has been before its patient. Raises WordsMissing.
    """
    from kiosk_app.patient import error_pages, pages, scan_pages, spot_pages

    app = Flask(__name__)
    require_words(Path(app.root_path) / "translations")
    app.config.update(
        SECRET_KEY=os.urandom(32),
        SESSION_COOKIE_NAME="dk_form",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        MAX_CONTENT_LENGTH=64 * 1024,
        TRUSTED_HOSTS=["127.0.0.1", "localhost"],
        WTF_CSRF_TIME_LIMIT=None,
        BABEL_DEFAULT_LOCALE="en",
    )
    app.extensions["kiosk"] = kiosk
    app.extensions["start"] = secrets.token_urlsafe(6)  # another one after each start
    app.extensions["showings"] = Showings(app.config["SECRET_KEY"], clock)
    app.extensions["ways_on"] = WaysOn()
    app.wsgi_app = _not_for_long(app.wsgi_app)  # type: ignore[method-assign, assignment]
    Babel(app, locale_selector=current_language)
    app.register_blueprint(LOOK)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(scan_pages.blueprint)
    app.register_blueprint(spot_pages.blueprint)
    app.register_blueprint(ways_on.blueprint)
    # After the session of the request is known:
    CSRFProtect(app)
    app.before_request(let_answers_count)
    error_pages.register_errors(app)
    app.after_request(_add_headers)
    app.after_request(tell_the_way)
    app.context_processor(
        lambda: {
            "kiosk": kiosk,
            "languages": LANGUAGES,
            "language": current_language(),
            "direction": LANGUAGES[current_language()][1],
            "text_size": text_size(),
            "read_ms": round(showings.READ_S * 1000),
            "showing": showing,
        }
    )
    return app


def _not_for_long(pages: WSGIApplication) -> WSGIApplication:
    """`pages`, none of which keeps its patient waiting for longer than KEYS_S and PAGE_S."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with waiting_at_most(KEYS_S, PAGE_S):
            return pages(environ, start_response)

    return answer


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers[name] = value
    if request.endpoint not in FILES:
        response.headers["Cache-Control"] = "no-store"
    return response
