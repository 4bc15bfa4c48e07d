"""The pages of the journey: one address for each state, moved on by one form each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from flask import Blueprint, current_app, g, jsonify, redirect, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from kiosk_app.kept.records_file import RecordsError
from kiosk_app.patient import sentences, speech, spot_sentences
from kiosk_app.patient.journey import TABLE, NotNow, Session, State
from kiosk_app.patient.overlay_words import overlay_words
from kiosk_app.patient.page import (
    COOKIE,
    TEXT_SIZES,
    UNDER_WAY,
    NoSession,
    find_session,
    page_of,
    remember_the_way,
    render,
    the_kiosk,
    the_session,
    without_a_session,
)
from kiosk_app.patient.scan_pages import known_delivery, result_facts
from kiosk_app.patient.sessions import AnotherPatient
from kiosk_app.patient.spot_pages import facts as spot_facts
from kiosk_app.scanning.finishing import DELETED
from kiosk_app.scanning.progress import Step
from kiosk_app.web.languages import known

log = structlog.get_logger()
blueprint = Blueprint("pages", __name__)
blueprint.before_app_request(find_session)
blueprint.after_app_request(remember_the_way)


@blueprint.get("/")
def start() -> Response | tuple[str, int]:
    """The first page; a session under way goes on where it is."""
    session: Session | None = g.get("session")
    if session is not None and session.state is not State.LANGUAGE:
        return page_of(session)
    if session is None and the_kiosk().sessions.taken():
        raise AnotherPatient
    if session is None and UNDER_WAY in request.cookies:
        raise NoSession
    return language_page()


def language_page() -> tuple[str, int]:
    reason = the_kiosk().closed_because()
    if reason is not None:
        return render("closed", first=_first(reason), trouble=sentences.trouble(reason), reason=reason)
    return render("language", first=_first(None))


@blueprint.get("/first")
def first() -> Response:
    """Which page the first one is now."""
    kiosk = the_kiosk()
    return jsonify(first=_first("another_patient" if kiosk.sessions.taken() else kiosk.closed_because()))


def _first(reason: str | None) -> str:
    """What the first page says as long as it stays the same; by `reason` no scan is taken.

    After a restart it is another: what is sent from one of before is not taken.
    """
    return f"{current_app.extensions['start']} {reason or 'open'}"


@blueprint.post("/language")
def choose_language() -> Response:
    """Begin a session in the language that was chosen."""
    kiosk = the_kiosk()
    token = None
    session: Session | None = g.get("session")
    if session is None:
        token, session = kiosk.sessions.begin()
        g.session = session
    if session.state is not State.LANGUAGE:
        return page_of(session)
    if kiosk.closed_because() is not None:
        return redirect(url_for("pages.start"), 303)
    session.language = known(request.form.get("language") or request.form.get("preset"))
    session.move("choose")
    response = page_of(session)
    if token is not None:
        response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
    return response


@blueprint.get("/<name>")
def show(name: str) -> Response | tuple[str, int]:
    """The page of a state; any other state's page leads back to the patient's own."""
    if name not in {state.value for state in State}:
        raise NotFound
    session = the_session()
    session.follow()
    if session.state.value != name:
        return page_of(session)
    if _is_deleted(session):
        return _end(session, "delete")
    if session.state is State.LANGUAGE:
        return language_page()
    facts = _facts.get(session.state)
    return render(name, **(facts(session) if facts else {}))


def _is_deleted(session: Session) -> bool:
    """Whether the desk has deleted the scan while its result was read, or while it was worked on."""
    if session.state is State.RESULT:
        return the_kiosk().is_gone(session)
    progress = session.progress
    return session.state is State.SCAN and (progress.state, progress.reason) == (Step.FAILED, DELETED)


def _scan_facts(session: Session) -> dict[str, Any]:
    progress = session.progress
    failed = progress.state is Step.FAILED
    return {
        "progress": progress,
        "trouble": sentences.trouble(progress.reason) if failed else None,
        "doing": sentences.stage(progress),
        "say": None if failed else speech.said_at(progress),
        "during": speech.DURING_UV,
        "after": speech.AFTER_UV,
        "spoken": speech.SPOKEN,
        "closed_at_most": speech.CLOSED_AT_MOST_S,
    }


def _eyes_facts(session: Session) -> dict[str, Any]:
    return {
        "again": sentences.EYES_AGAIN.get(session.progress.reason or ""),
        "say": speech.BEFORE_UV,
        "spoken": speech.SPOKEN,
    }


def _last_facts(session: Session) -> dict[str, Any]:
    kiosk, scan = the_kiosk(), session.told_of
    return {
        "delivery": known_delivery(scan),
        "deliveries": sentences.deliveries(kiosk.clinic),
        "is_destroyed": scan is None or kiosk.is_destroyed(scan),
    }


_facts: dict[State, Callable[[Session], dict[str, Any]]] = {
    State.POSITION: lambda _session: {"guidance": sentences.GUIDANCE},
    State.SCAN: _scan_facts,
    State.EYES: _eyes_facts,
    State.SPOTS: spot_facts,
    State.CLOSE_UP: spot_facts,
    State.CLOSE_UP_AGAIN: spot_facts,
    State.RESULT: result_facts,
    State.DONE: _last_facts,
    State.DELETED: _last_facts,
    State.EXPIRED: _last_facts,
}


@blueprint.post("/about")
def understood() -> Response:
    session = the_session()
    session.move("continue")
    return page_of(session)


@blueprint.post("/consent")
def consent() -> Response:
    """Only the pressed button consents; nothing is preset, nothing times out into a yes."""
    session = the_session()
    with session.alone():
        if session.state is not State.CONSENT:
            raise NotNow("The consent is given on its own page.")
        if request.form.get("consent") != "agree":
            the_kiosk().sessions.leave(session, State.DECLINED)
            return page_of(session)
        the_kiosk().consent(session)
        asks = the_kiosk().has_uv and session.reference is not None
        session.move("agree" if asks else "agree_without_uv")
    return page_of(session)


@blueprint.post("/light_questions")
def light_questions() -> Response:
    """UV only after a clear "none of these"; any other answer is a scan without UV."""
    session = the_session()
    clear = request.form.get("answer") == "none"
    session.move("none_apply" if clear else "some_apply")
    session.uv_screened = clear
    return page_of(session)


@blueprint.post("/position")
def position() -> Response:
    session = the_session()
    with session.alone():
        if session.state is not State.POSITION:
            raise NotNow("A scan begins on the page with the camera.")
        the_kiosk().begin_scan(session, overlay_words())  # where this fails, the session stays and expires
        session.move("ready")
    return page_of(session)


@blueprint.post("/eyes")
def eyes() -> Response:
    """The patient says that their eyes are protected; from here the UV light may be used for 30 s."""
    session = the_session()
    with session.alone():
        protected = request.form.get("eyes") == "protected"
        session.move("protected" if protected else "skip_uv")
        session.progress.answer(session.eyes_are_protected() if protected else None)
    return page_of(session)


@blueprint.post("/scan")
def scan() -> Response:
    """After the work: on to the result, or back to the camera for another try."""
    session = the_session()
    if session.state is State.SCAN and session.progress.state is Step.FAILED:
        if not sentences.trouble(session.progress.reason).again:
            return _end(session, "leave") if not _lets_go(session) else start_over()
        session.begin_again()
    return page_of(session)


@blueprint.post("/result")
def finish() -> Response:
    """The patient has read the result: forget them, keep only the language for the last page."""
    return _end(the_session(), "finish")


@blueprint.post("/delete")
def delete() -> Response:
    """The patient wants nothing kept: shred the scan, withdraw what was sent.

    Also where the scan is gone already: the tap before may have ended half-way.
    """
    session = the_session()
    if (session.state, "delete") not in TABLE:
        raise NotNow("A scan is deleted on its own page.")
    the_kiosk().delete(session)
    return _end(session, "delete")


def _end(session: Session, event: str) -> Response:
    with session.alone():
        state, scan = session.move(event), session.scan
        the_kiosk().sessions.leave(session, state)
        session.told_of = scan
    return page_of(session)


def _lets_go(session: Session) -> bool:
    """Whether the patient can go without a question; where nobody can tell, they are not kept from it."""
    try:
        return the_kiosk().lets_go(session)
    except RecordsError as error:
        log.error("not_asked", scan=str(session.scan), why=str(error))
        return True


@blueprint.post("/done")
@blueprint.post("/declined")
@blueprint.post("/deleted")
@blueprint.post("/expired")
@blueprint.post("/start-over")
def start_over() -> Response:
    """Forget this patient and go to the first page; one whose scan is kept is asked about it first."""
    session: Session | None = g.get("session")
    if session is not None:
        if not _lets_go(session):
            if request.form.get("scan") != "keep":
                return redirect(url_for("pages.leave_page"), 303)
            return _end(session, "leave")
        the_kiosk().sessions.leave(session)
    return without_a_session(redirect(url_for("pages.start"), 303))


@blueprint.get("/help")
def help_page() -> tuple[str, int]:
    return render("help")


@blueprint.get("/languages")
def languages_page() -> tuple[str, int]:
    return render("languages", back_to=request.args.get("back_to", ""))


@blueprint.get("/delete")
def delete_page() -> Response | tuple[str, int]:
    """Ask once more before a scan is destroyed."""
    session = the_session()
    return render("delete") if session.state is State.RESULT else page_of(session)


@blueprint.get("/leave")
def leave_page() -> Response | tuple[str, int]:
    """The pictures are kept: starting over does not undo that, so the patient is asked."""
    session, kiosk = the_session(), the_kiosk()
    if session.scan is None or not kiosk.keeps(session):
        return page_of(session)
    return render("leave", unreadable=kiosk.is_unreadable(session.scan))


@blueprint.get("/trouble")
def trouble_page() -> tuple[str, int]:
    """A camera gave no preview; the journey stays where it is."""
    session: Session | None = g.get("session")
    if session is not None and session.state is State.CLOSE_UP:
        return render("trouble", trouble=spot_sentences.trouble(None), lost=True)
    return render("trouble", trouble=sentences.trouble("unavailable"), lost=False)


@blueprint.post("/help")
@blueprint.post("/keep")
@blueprint.post("/trouble")
@blueprint.post("/languages")
@blueprint.post("/text-size")
def back() -> Response:
    """Back to where the patient was, with another language or larger text when that was asked for."""
    session: Session | None = g.get("session")
    if session is None:
        return redirect(url_for("pages.start"), 303)
    session.touch()
    if "language" in request.form:
        session.language = known(request.form["language"])
    if "larger" in request.form:
        place = TEXT_SIZES.index(session.text_size) + 1
        session.text_size = TEXT_SIZES[place % len(TEXT_SIZES)]
    return _where_it_was(session)


# What a patient looks at beside the page of their state; each leads there by itself when it is over.
_ASIDE = ("/help", "/delete", "/leave", "/trouble")


def _where_it_was(session: Session) -> Response:
    """The page on which another language or larger text was asked for; else that of the state."""
    path, _, picture = request.form.get("back_to", "").partition("?picture=")
    if path in _ASIDE:
        return redirect(path, 303)
    if picture and path == url_for("pages.show", name=session.state.value):
        return redirect(url_for("pages.show", name=session.state.value, picture=picture), 303)
    return page_of(session)


@blueprint.get("/here")
def here() -> Response:
    """A page is still shown; the patient need not be there."""
    the_kiosk().shown_at = time.monotonic()
    session: Session | None = g.get("session")
    return jsonify(state=None if session is None else session.state.value)


@blueprint.post("/touch")
def touch() -> Response:
    """The patient is still here."""
    session = the_session()
    session.touch()
    return jsonify(left=round(session.left()))


@blueprint.get("/healthz")
def healthz() -> Response:
    """That pages are served, and for how long none was shown: who watches the browser asks for that."""
    return jsonify(ok=True, silent_s=round(time.monotonic() - the_kiosk().shown_at))
