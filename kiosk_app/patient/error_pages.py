"""The pages of what goes wrong: each has a way on."""

from __future__ import annotations

import secrets

import structlog
from flask import Flask, current_app, g, jsonify, redirect, request, url_for
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError, SecurityError
from werkzeug.wrappers import Response

from kiosk_app.kept.keyring import KeyringBusy, KeyringError
from kiosk_app.kept.records_file import RecordsError, RecordsHeld
from kiosk_app.kept.reserve import DiskFull
from kiosk_app.kept.vault import VaultError
from kiosk_app.log import own_words, why
from kiosk_app.patient import sentences
from kiosk_app.patient.journey import NotNow, Session, SessionHeld
from kiosk_app.patient.kiosk import NotDeleted, StorageLost
from kiosk_app.patient.page import (
    UNDER_WAY,
    NoSession,
    page_of,
    render,
    the_kiosk,
    the_session,
    without_a_session,
)
from kiosk_app.patient.sessions import AnotherPatient
from kiosk_app.web.door import Stranger
from kiosk_app.web.showings import SAFE_METHODS, asked_from

log = structlog.get_logger()
# What pages fetch: the answer to these is never a page.
FETCHED = ("/preview", "/close_up/preview", "/scan/progress", "/delivery", "/touch")


def register_errors(app: Flask) -> None:  # noqa: C901  a list of handlers, not a way through
    """Every error is a page with a way on."""

    @app.errorhandler(NotNow)
    def not_now(_error: NotNow) -> Response:
        return page_of(the_session())

    @app.errorhandler(AnotherPatient)
    def another_patient(_error: AnotherPatient) -> tuple[str, int]:
        # Whoever looks is told; only whoever wants to begin is refused.
        return render("another_patient", 200 if request.method == "GET" else 409)

    @app.errorhandler(NoSession)
    @app.errorhandler(CSRFError)
    def started_again(_error: Exception) -> Response | tuple[Response, int]:
        """An old page, or one of before a restart. A patient in the middle of it is told, once."""
        if request.path in FETCHED:
            return jsonify(next=url_for("pages.start")), 410
        session: Session | None = g.get("session")
        if session is not None:
            return page_of(session)
        if request.method == "GET" and the_kiosk().sessions.taken():
            return current_app.make_response(another_patient(AnotherPatient()))
        if request.method != "GET" or UNDER_WAY not in request.cookies:
            return redirect(url_for("pages.start"), 303)
        page = current_app.make_response(render("restarted", 410))
        shown = request.headers.get("Sec-Fetch-Dest", "document") == "document"
        return without_a_session(page) if shown else page

    def waits(asked: bool) -> tuple[str, int]:
        trouble = sentences.trouble("page_waits" if asked else "answer_waits")
        return render("kiosk_busy", 503, trouble=trouble, asked=asked, address=asked_from())

    @app.errorhandler(DiskFull)
    def no_room(error: DiskFull) -> tuple[str, int]:
        log.error("no_room", why=str(error))
        return render("closed", 503, trouble=sentences.trouble("no_room"), reason="no_room")

    @app.errorhandler(StorageLost)
    def storage_lost(error: StorageLost) -> tuple[str, int]:
        log.error("storage_lost", why=why(error.__cause__ or error))
        return render("closed", 503, trouble=sentences.trouble("storage_lost"), reason="storage_lost")

    @app.errorhandler(NotDeleted)
    def not_deleted(error: NotDeleted) -> tuple[str, int]:
        cause = error.__cause__ or error
        log.error("not_deleted", why=why(cause))
        trouble = sentences.trouble("no_room_to_delete" if isinstance(cause, DiskFull) else "not_deleted")
        return render("not_deleted", 503, trouble=trouble, address=asked_from())

    @app.errorhandler(KeyringBusy)
    @app.errorhandler(RecordsHeld)
    @app.errorhandler(SessionHeld)
    def kiosk_busy(error: KeyringBusy | RecordsHeld | SessionHeld) -> tuple[str, int]:
        """What was chosen is not done, and the way on leads to where it was; a page is asked for anew."""
        log.warning("kiosk_busy", page=request.endpoint, why=str(error))
        return waits(asked=request.method in SAFE_METHODS)

    @app.errorhandler(RecordsError)
    @app.errorhandler(KeyringError)
    @app.errorhandler(VaultError)
    def unread(error: RecordsError | KeyringError | VaultError) -> tuple[Response | str, int]:
        """What the page tells of cannot be read, which is no fault of the page."""
        if isinstance(error, DiskFull):
            return no_room(error)
        if request.path in FETCHED:
            return jsonify(reason="unread"), 503
        log.error("unread", page=request.endpoint, why=str(error))
        return render(
            "kiosk_busy",
            503,
            trouble=sentences.trouble("unread"),
            asked=request.method in SAFE_METHODS,
            address=asked_from(),
        )

    @app.errorhandler(Stranger)
    def stranger(_error: Stranger) -> tuple[str, int]:
        return render("stranger", 403)

    @app.errorhandler(SecurityError)
    def wrong_host(error: SecurityError) -> Response:
        return error.get_response()

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> tuple[str, int]:
        return render("failed", error.code or 500, ticket=None)

    @app.errorhandler(InternalServerError)
    def our_fault(error: InternalServerError) -> tuple[str, int]:
        ticket, cause = secrets.token_hex(3), error.original_exception
        said = own_words(cause)
        facts = {"why": said} if said else {}
        log.error("page_failed", ticket=ticket, page=request.endpoint, exc_info=cause, **facts)
        return render("failed", 500, ticket=ticket)

    app.logger.disabled = True  # our_fault logs it, in our own form
