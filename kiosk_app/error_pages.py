"""The pages of what goes wrong: each has a way on."""

from __future__ import annotations

import secrets

import structlog
from flask import Flask, current_app, g, jsonify, redirect, request, url_for
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError, SecurityError
from werkzeug.wrappers import Response

from kiosk_app import sentences
from kiosk_app.journey import NotNow, Session
from kiosk_app.page import UNDER_WAY, NoSession, page_of, render, the_kiosk, the_session, without_a_session
from kiosk_app.records import RecordsFull
from kiosk_app.sessions import InUse

log = structlog.get_logger()
RESTARTED_S = 60  # so long the page about a restart stays when nobody touches it
# What pages fetch: the answer to these is never a page.
FETCHED = ("/preview", "/close_up/preview", "/scan/progress", "/delivery", "/touch", "/here")


def register_errors(app: Flask) -> None:
    """Every error is a page with a way on."""

    @app.errorhandler(NotNow)
    def not_now(_error: NotNow) -> Response:
        return page_of(the_session())

    @app.errorhandler(InUse)
    def in_use(_error: InUse) -> tuple[str, int]:
        # Whoever looks is told; only whoever wants to begin is refused.
        return render("in_use", 200 if request.method == "GET" else 409)

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
            return current_app.make_response(in_use(InUse()))
        if request.method != "GET" or UNDER_WAY not in request.cookies:
            return redirect(url_for("pages.start"), 303)
        page = current_app.make_response(render("restarted", 410, RESTARTED_S))
        shown = request.headers.get("Sec-Fetch-Dest", "document") == "document"
        return without_a_session(page) if shown else page

    @app.errorhandler(RecordsFull)
    def no_room(error: RecordsFull) -> tuple[str, int]:
        log.error("no_room", why=str(error))
        return render("closed", 503, trouble=sentences.trouble("no_room"), reason="no_room")

    @app.errorhandler(SecurityError)
    def wrong_host(error: SecurityError) -> Response:
        return error.get_response()

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> tuple[str, int]:
        return render("failed", error.code or 500, ticket=None)

    @app.errorhandler(InternalServerError)
    def our_fault(error: InternalServerError) -> tuple[str, int]:
        ticket = secrets.token_hex(3)
        log.error("page_failed", ticket=ticket, page=request.endpoint, exc_info=error.original_exception)
        return render("failed", 500, ticket=ticket)

    app.logger.disabled = True  # our_fault logs it, in our own form
