"""The web application of the clinic."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import structlog
from flask import Flask, Response, abort, g, render_template, request, session
from flask_wtf.csrf import CSRFError, CSRFProtect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from sync.clinic.people.accounts import Accounts
from sync.clinic.scans.views import pages
from sync.clinic.store.database import Database, now
from sync.clinic.store.durable import TAKES_NOTHING, write_whole
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.failure import out_of_room
from sync.clinic.web import words
from sync.clinic.web.answers import refuse_unguarded
from sync.clinic.web.hosts import LOOPBACK, host_name
from sync.clinic.web.sign_in_pages import sign_in_pages
from sync.web.look import FILES, LOOK

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
    400: ("That cannot be read", "Please go back to the list of scans, and try again."),
    413: ("That was too much at once", "Please go back, and try again with less."),
}
NO_ROOM = (
    "The disk of the clinic's computer is full",
    "Nothing was lost, but nothing new can be written either, not even who signs in or reads a scan. "
    "Ask whoever looks after the clinic's computers to make room on it, then try again.",
)
DATABASE_AWAY = (
    "The clinic's records cannot be reached",
    "Nothing was lost. Please try again in a minute.",
)
KEY_BYTES = 32

log = structlog.get_logger()


def make_app(  # noqa: C901  a list of handlers, not a way through
    database: Database, secret_key: bytes, *, behind_tls: bool = False, names: Iterable[str] = ()
) -> Flask:
    """The application; `behind_tls` says that people reach it over HTTPS.

    It answers to loopback's names and to `names`.
    """
    app = Flask("sync.clinic.web")  # where its templates are
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

    # No text in PostgreSQL holds a zero byte, and nobody types one.
    @app.before_request
    def refuse_zero_bytes() -> None:
        g.account = None
        # Each list of each: `request.values` shows of a name one value only.
        given = (*request.args.lists(), *request.form.lists())
        if any("\0" in value for _, values in given for value in values):
            abort(400)

    CSRFProtect(app)
    app.register_blueprint(LOOK)
    app.register_blueprint(sign_in_pages)
    app.register_blueprint(pages)
    refuse_unguarded(app)
    app.jinja_env.globals.update(words=words)

    app.jinja_env.filters.update(when=_when, sentence=words.sentence)

    @app.before_request
    def know_who() -> None:
        g.account = None
        static = request.endpoint in (*FILES, "pages.healthz")
        g.account = None if static else app.config["ACCOUNTS"].who(session.get("token"))

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(HEADERS)
        if behind_tls:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        if request.endpoint not in FILES:
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.errorhandler(CSRFError)
    def stale(error: CSRFError) -> tuple[str, int]:
        title = "This page had been open for too long"
        return _error_page(title, "Nothing was changed. Please go back, load the page again, and retry."), 400

    @app.errorhandler(DBAPIError)
    def database_failed(error: DBAPIError) -> tuple[str, int]:
        full = out_of_room(error, database.engine.url)
        log.error("database", full=full, why=type(error.orig).__name__)
        return _error_page(*(NO_ROOM if full else DATABASE_AWAY)), 503

    @app.errorhandler(PoolTimeout)
    def database_busy(error: PoolTimeout) -> tuple[str, int]:
        log.error("database", full=False, why=type(error).__name__)
        return _error_page(*DATABASE_AWAY), 503

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
    """The key that signs cookies, made on first use.

    One that a crash left short is made anew: whoever was signed in signs in once more, and nothing else is
    lost. Raises ClinicUsageError, or OSError where the disk takes nothing.
    """
    path = state / "web" / "secret.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists() or path.stat().st_size != KEY_BYTES:
            write_whole(path, secrets.token_bytes(KEY_BYTES))
        return path.read_bytes()
    except OSError as error:
        if error.errno in TAKES_NOTHING:
            raise
        raise ClinicUsageError(
            f"{path} cannot be used ({error.strerror}): make it this user's own."
        ) from error


def _error_page(title: str, text: str) -> str:
    return render_template("error.html", title=title, text=text)
