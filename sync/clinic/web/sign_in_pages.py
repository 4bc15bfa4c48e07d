"""The sign-in pages: staff come in, go out, and are brought back to the page that they asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec
from uuid import UUID

from flask import Blueprint, current_app, g, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from sync.clinic.people.accounts import Accounts, SignInBusy, SignInRefused
from sync.clinic.web.known_browser import KnownBrowser
from sync.clinic.web.words import counted

sign_in_pages = Blueprint("sign_in_pages", __name__)
Arguments = ParamSpec("Arguments")
Page = str | Response | tuple[str, int]

_BUSY = "Others are signing in just now. Please try again in a few seconds."


def signed_in(view: Callable[Arguments, Page]) -> Callable[Arguments, Page]:
    """Only for staff; others go to the sign-in page, which brings them back."""

    @wraps(view)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Page:
        if g.account is None:
            back_to = request.path if request.path != "/" else None
            return redirect(url_for("sign_in_pages.login", next=back_to))
        return view(*args, **kwargs)

    return guarded


@sign_in_pages.get("/login")
def login() -> Page:
    if g.account is not None:
        return redirect(url_for("pages.scans"))
    return render_template("login.html", wrong=None, name="", next=request.args.get("next", ""))


@sign_in_pages.post("/login")
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
        wait = math.ceil(refused.wait_s)
        status = 429 if wait else 403
        return render_template("login.html", wrong=_wrong(wait), name=name, next=target), status
    session.clear()
    session["token"] = token
    # Only a scan's own page is a place to come back to: never an address from outside.
    answer = redirect(_scan_address(target) or url_for("pages.scans"))
    browser.knows(name).write(answer)
    return answer


@sign_in_pages.post("/logout")
def logout() -> Page:
    if g.account is not None:
        _accounts().sign_out(session["token"])
    session.clear()
    return redirect(url_for("sign_in_pages.login"))


def _accounts() -> Accounts:
    accounts: Accounts = current_app.config["ACCOUNTS"]
    return accounts


def _wrong(wait: int) -> str:
    if not wait:
        return "That name and password don't go together. Please try again."
    return f"That was tried too often. Please wait {counted(wait, 'second')}, then try again."


def _scan_address(path: str) -> str | None:
    head, _, tail = path.rpartition("/")
    try:
        scan = UUID(tail)
    except ValueError:
        return None
    return url_for("pages.scan", scan=scan) if head == "/scans" else None
