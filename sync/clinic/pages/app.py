"""The web application of the clinic."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from flask import Flask, Response, g, render_template, request, session
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import HTTPException

from ..accounts import Accounts
from ..database import Database, now
from . import words
from .hosts import LOOPBACK, host_name
from .views import pages

CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), browsing-topics=()",
}
ERROR_PAGES = {
    404: ("There is no such page", "The address may be mistyped, or the scan may not have arrived yet."),
    405: ("That cannot be done here", "Please go back to the list of scans."),
    413: ("That was too much at once", "Please go back, and try again with less."),
}


def make_app(
    database: Database, secret_key: bytes, *, behind_tls: bool = False, names: Iterable[str] = ()
) -> Flask:
    """The application; `behind_tls` says that people reach it over HTTPS.

    It answers to loopback's names and to `names`.
    """
    app = Flask(__name__)
    answers_to = LOOPBACK | {name.lower() for name in names}
    app.config.update(
        SECRET_KEY=secret_key,
        SESSION_COOKIE_NAME="__Host-clinic" if behind_tls else "clinic",
        SESSION_COOKIE_SECURE=behind_tls,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        MAX_CONTENT_LENGTH=64 * 1024,
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,  # it wants a referrer, and our pages send none; SameSite=Strict holds
        DATABASE=database,
        ACCOUNTS=Accounts(database),
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True

    # Flask's own TRUSTED_HOSTS cannot name an IPv6 address. This comes before anything looks at the request.
    @app.before_request
    def refuse_strangers_names() -> Response | None:
        if host_name(request.headers.get("Host", "")) in answers_to:
            return None
        text = "The clinic's pages do not go by this name: use the address that the clinic gave you.\n"
        return Response(text, 400, mimetype="text/plain")

    CSRFProtect(app)
    app.register_blueprint(pages)
    app.jinja_env.globals.update(words=words)

    app.jinja_env.filters.update(when=_when, sentence=words.sentence)

    @app.before_request
    def know_who() -> None:
        static = request.endpoint in ("static", "pages.healthz")
        g.account = None if static else app.config["ACCOUNTS"].who(session.get("token"))

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(HEADERS)
        if behind_tls:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.errorhandler(CSRFError)
    def stale(error: CSRFError) -> tuple[str, int]:
        title = "This page had been open for too long"
        return _error_page(title, "Nothing was changed. Please go back, load the page again, and retry."), 400

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> tuple[str, int]:
        code = error.code or 500
        fallback = ("Something went wrong on our side", "Nothing was lost. Please try again in a minute.")
        title, text = ERROR_PAGES.get(code, fallback)
        return _error_page(title, text), code

    return app


def _when(moment: datetime) -> str:
    return words.when(moment, now())


def secret_key(state: Path) -> bytes:
    """The key that signs cookies, made on first use."""
    path = state / "web" / "secret.key"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
    return path.read_bytes()


def _error_page(title: str, text: str) -> str:
    return render_template("error.html", title=title, text=text)
