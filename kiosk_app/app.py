"""The Flask application of the kiosk: its settings, its headers, its languages."""

from __future__ import annotations

import os

from flask import Flask, Response, g, request
from flask_babel import Babel
from flask_wtf.csrf import CSRFProtect

from kiosk_app.kiosk import Kiosk
from kiosk_app.languages import LANGUAGES, known

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
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


def create_app(kiosk: Kiosk) -> Flask:
    """The pages over `kiosk`. Sessions end with the process: its secret is new at each start."""
    from kiosk_app import pages, scan_pages, spot_pages

    app = Flask(__name__)
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
    CSRFProtect(app)
    Babel(app, locale_selector=current_language)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(scan_pages.blueprint)
    app.register_blueprint(spot_pages.blueprint)
    pages.register_errors(app)
    app.after_request(_add_headers)
    app.context_processor(
        lambda: {
            "kiosk": kiosk,
            "languages": LANGUAGES,
            "language": current_language(),
            "direction": LANGUAGES[current_language()][1],
        }
    )
    return app


def current_language() -> str:
    """The language of the session, else of the browser."""
    session = getattr(g, "session", None)
    if session is not None:
        return known(session.language)
    return known(request.accept_languages.best_match(LANGUAGES))


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers[name] = value
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response
