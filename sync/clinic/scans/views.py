"""The clinic's pages: sign in, list of scans, one scan."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timezone
from functools import wraps
from typing import ParamSpec
from uuid import UUID

from flask import (
    Blueprint,
    abort,
    current_app,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from sqlalchemy import text
from werkzeug.wrappers import Response

from sync.clinic.audit.log import note
from sync.clinic.people.accounts import Accounts, SignInBusy, SignInRefused
from sync.clinic.receiving.silence import silence
from sync.clinic.scans.records import Place, scan_page, scan_record, withdrawn
from sync.clinic.scans.scan_view import ScanView
from sync.clinic.store.database import Database
from sync.clinic.web.known_browser import KnownBrowser
from sync.clinic.web.words import counted

pages = Blueprint("pages", __name__)
Arguments = ParamSpec("Arguments")
Page = str | Response | tuple[str, int]

_BUSY = "Others are signing in just now. Please try again in a few seconds."


def _database() -> Database:
    database: Database = current_app.config["DATABASE"]
    return database


def _accounts() -> Accounts:
    accounts: Accounts = current_app.config["ACCOUNTS"]
    return accounts


def signed_in(view: Callable[Arguments, Page]) -> Callable[Arguments, Page]:
    """Only for staff; others go to the sign-in page, which brings them back."""

    @wraps(view)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Page:
        if g.account is None:
            return redirect(url_for("pages.login", next=request.path if request.path != "/" else None))
        return view(*args, **kwargs)

    return guarded


@pages.get("/login")
def login() -> Page:
    if g.account is not None:
        return redirect(url_for("pages.scans"))
    return render_template("login.html", wrong=None, name="", next=request.args.get("next", ""))


@pages.post("/login")
def sign_in() -> Page:
    name = request.form.get("name", "").strip()[:64]
    target = request.form.get("next", "")
    browser = KnownBrowser.read()
    password, known_as = request.form.get("password", "")[:256], browser.id if name in browser.names else None
    try:
        token = _accounts().sign_in(name, password, request.remote_addr or "", known_as)
    except SignInBusy:
        return render_template("login.html", wrong=_BUSY, name=name, next=target), 503
    except SignInRefused as refused:
        wait = math.ceil(refused.wait_seconds)
        status = 429 if wait else 403
        return render_template("login.html", wrong=_wrong(wait), name=name, next=target), status
    session.clear()
    session["token"] = token
    # Only a scan's own page is a place to come back to: never an address from outside.
    answer = redirect(_scan_address(target) or url_for("pages.scans"))
    browser.knows(name).write(answer)
    return answer


@pages.post("/logout")
def logout() -> Page:
    if g.account is not None:
        _accounts().sign_out(session["token"])
    session.clear()
    return redirect(url_for("pages.login"))


@pages.get("/")
@signed_in
def scans() -> Page:
    reference, after = request.args.get("reference", "").strip()[:128], _place()
    with _database().reading() as records:
        page = scan_page(records, reference or None, after)
        silent = silence(records)
    return render_template("scans.html", page=page, reference=reference, after=after, silence=silent)


@pages.get("/scans/<uuid:scan>")
@signed_in
def scan(scan: UUID) -> Page:
    with _database().reading() as records:
        record = scan_record(records, scan)
        withdrawal = withdrawn(records, scan) if record is None else None
    if record is None:
        if withdrawal is None:
            abort(404)
        return render_template("withdrawn.html", withdrawal=withdrawal), 410
    # By itself, since whoever writes to SQLite waits for whoever else does, and nobody to read.
    with _database().writing() as records:
        note(records, g.account, "scan-read", scan)
    return render_template("scan.html", record=record, view=ScanView(record, request.args.get("measure")))


@pages.get("/healthz")
def healthz() -> Page:
    with _database().reading() as records:
        records.execute(text("SELECT 1"))
    return jsonify(ok=True)


def _wrong(wait: int) -> str:
    if not wait:
        return "That name and password don't go together. Please try again."
    return f"That was tried too often. Please wait {counted(wait, 'second')}, then try again."


def _scan_address(path: str) -> str | None:
    head, _, tail = path.rpartition("/")
    found = _uuid(tail)
    return url_for("pages.scan", scan=found) if head == "/scans" and found else None


def _place() -> Place | None:
    """Where the page that is asked for begins; the newest one where the address does not say."""
    after = _uuid(request.args.get("after", ""))
    try:
        at = datetime.fromisoformat(request.args.get("at", "")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return Place(at, after) if after else None


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None
