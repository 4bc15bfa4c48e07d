"""One page: whose session asks for it, its template, and the cookies that go with it."""

from __future__ import annotations

import re
from typing import Any

import cv2
from flask import current_app, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from firmware.capture.client import Preview
from hardware.host.errors import PlainError
from kiosk_app.patient.journey import ENDS, WARNING_S, Session, State, step_of
from kiosk_app.patient.kiosk import KioskParts
from kiosk_app.web.showings import SAFE_METHODS

COOKIE = "dk_session"
# Beside it while a patient is in the middle of the journey: only they are told of a restart.
UNDER_WAY = "dk_under_way"
TEXT_SIZES = (100, 150, 200)
_AS_SHOWN = re.compile(rf"([a-z]+)-({'|'.join(map(str, TEXT_SIZES))})")
PREVIEW_QUALITY = 80


class NoSession(PlainError):
    """The browser knows a session that this process does not: the kiosk was started again."""


def the_kiosk() -> KioskParts:
    """The kiosk that this application serves."""
    kiosk: KioskParts = current_app.extensions["kiosk"]
    return kiosk


def the_session() -> Session:
    """The session of this request. Raises NoSession."""
    if g.get("session") is None:
        raise NoSession
    session: Session = g.session
    return session


def find_session() -> None:
    """Look up the session by its cookie; sessions whose time is up are wiped first."""
    kiosk = the_kiosk()
    kiosk.sessions.expire()
    g.session = kiosk.sessions.find(request.cookies.get(COOKIE, ""))
    shown = _AS_SHOWN.fullmatch(request.cookies.get(UNDER_WAY, ""))
    # What a patient chose, whom a restart has cost the session.
    g.language, g.text_size = (shown[1], int(shown[2])) if shown else (None, TEXT_SIZES[0])


def remember_the_way(response: Response) -> Response:
    """Let the browser know that a patient is in the middle of the journey, and in which language and size of
    text, also when this process ends."""
    session: Session | None = g.get("session")
    if session is not None:
        under_way = session.state not in (*ENDS, State.LANGUAGE)
        shown = f"{session.language}-{session.text_size}"
        if under_way and request.cookies.get(UNDER_WAY) != shown:
            response.set_cookie(UNDER_WAY, shown, httponly=True, samesite="Strict")
        elif not under_way and UNDER_WAY in request.cookies:
            response.delete_cookie(UNDER_WAY, samesite="Strict")
    return response


def page_of(session: Session) -> Response:
    """Send the browser to the page of the session's state."""
    return redirect(url_for("pages.show", name=session.state.value), 303)


def text_size() -> int:
    """The size of the letters that the patient chose, in percent."""
    session: Session | None = g.get("session")
    chosen: int = session.text_size if session is not None else g.get("text_size", TEXT_SIZES[0])
    return chosen


def render(name: str, status: int = 200, first: str = "", **facts: Any) -> tuple[str, int]:
    """The template of a page, with what every page needs.

    Without a session one that nobody touches leads to the first page, if that is not what `first` says.
    """
    session: Session | None = g.get("session")
    shown = session.state if session is not None and session.state.value == name else State.LANGUAGE
    step, steps = step_of(shown, the_kiosk().has_uv)
    page = render_template(
        f"{name}.html",
        page=name,
        answers_one=request.method not in SAFE_METHODS,
        shown_at=request.full_path.rstrip("?") if request.method in SAFE_METHODS else "",
        session=session,
        left=None if session is None else max(0, round(session.left())),
        warning=0 if session is None or session.is_calm else round(WARNING_S),
        first=first if session is None and name != "stranger" else None,
        step=step,
        steps=steps,
        **facts,
    )
    return page, status


def without_a_session(response: Response) -> Response:
    """The response, after which the browser knows no session."""
    for cookie in (COOKIE, UNDER_WAY):
        response.delete_cookie(cookie, samesite="Strict")
    return response


def preview_picture(seen: Preview) -> Response:
    """A preview as JPEG, with its guidance in headers."""
    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(seen.picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, PREVIEW_QUALITY]
    )
    if not done:
        raise RuntimeError("The preview picture could not be encoded.")
    response = Response(jpeg.tobytes(), mimetype="image/jpeg")
    response.headers["X-Guidance"] = seen.guidance
    if seen.face_box is not None:
        response.headers["X-Face-Box"] = ",".join(f"{edge:.4f}" for edge in seen.face_box)
    return response
