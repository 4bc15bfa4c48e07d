"""The pages of the journey: one address for each state, moved on by one form each."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import cv2
import structlog
from flask import (
    Blueprint,
    Flask,
    current_app,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError, NotFound, SecurityError
from werkzeug.wrappers import Response

from firmware.capture_client import Preview
from kiosk_app import sentences, speech, spot_sentences
from kiosk_app.journey import ENDS, WARNING_S, NotNow, Session, State, step_of
from kiosk_app.kiosk import Kiosk
from kiosk_app.languages import known
from kiosk_app.overlay_words import overlay_words
from kiosk_app.records import RecordsFull
from kiosk_app.sessions import InUse

log = structlog.get_logger()
blueprint = Blueprint("pages", __name__)
COOKIE = "dk_session"
# Beside it while a patient is in the middle of the journey: only they are told of a restart.
UNDER_WAY = "dk_under_way"
RESTARTED_S = 60  # so long the page about a restart stays when nobody touches it
# What pages fetch: the answer to these is never a page.
FETCHED = ("/preview", "/close_up/preview", "/scan/progress", "/delivery", "/touch", "/here")
TEXT_SIZES = (100, 150, 200)
PREVIEW_QUALITY = 80


class NoSession(Exception):
    """The browser knows a session that this process does not: the kiosk was started again."""

    exit_status = 1


def the_kiosk() -> Kiosk:
    """The kiosk that this application serves."""
    kiosk: Kiosk = current_app.extensions["kiosk"]
    return kiosk


def the_session() -> Session:
    """The session of this request. Raises NoSession."""
    if g.get("session") is None:
        raise NoSession
    session: Session = g.session
    return session


@blueprint.before_app_request
def find_session() -> None:
    """Look up the session by its cookie; sessions whose time is up are wiped first."""
    kiosk = the_kiosk()
    kiosk.sessions.expire()
    g.session = kiosk.sessions.find(request.cookies.get(COOKIE, ""))


@blueprint.after_app_request
def remember_the_way(response: Response) -> Response:
    """Let the browser know whether a patient is in the middle of the journey, also when this process ends."""
    session: Session | None = g.get("session")
    if session is not None:
        under_way = session.state not in (*ENDS, State.LANGUAGE)
        if under_way and UNDER_WAY not in request.cookies:
            response.set_cookie(UNDER_WAY, "yes", httponly=True, samesite="Strict")
        elif not under_way and UNDER_WAY in request.cookies:
            response.delete_cookie(UNDER_WAY, samesite="Strict")
    return response


def page_of(session: Session) -> Response:
    """Send the browser to the page of the session's state."""
    return redirect(url_for("pages.show", name=session.state.value), 303)


def render(name: str, status: int = 200, stays_s: float | None = None, **facts: Any) -> tuple[str, int]:
    """The template of a page, with what every page needs; without a session it stays for `stays_s`."""
    session: Session | None = g.get("session")
    left = session.left() if session is not None else stays_s
    shown = session.state if session is not None and session.state.value == name else State.LANGUAGE
    step, steps = step_of(shown, the_kiosk().has_uv)
    page = render_template(
        f"{name}.html",
        page=name,
        session=session,
        left=None if left is None else max(0, round(left)),
        warning=0 if session is None or session.state in ENDS else round(WARNING_S),
        step=step,
        steps=steps,
        **facts,
    )
    return page, status


@blueprint.get("/")
def start() -> Response | tuple[str, int]:
    """The first page; a session under way goes on where it is."""
    session: Session | None = g.get("session")
    if session is not None and session.state is not State.LANGUAGE:
        return page_of(session)
    if session is None and the_kiosk().sessions.taken():
        raise InUse
    if session is None and UNDER_WAY in request.cookies:
        raise NoSession
    return language_page()


def language_page() -> tuple[str, int]:
    reason = the_kiosk().closed_because()
    if reason is not None:
        return render("closed", trouble=sentences.trouble(reason), reason=reason)
    return render("language")


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
    if session.state is State.LANGUAGE:
        return language_page()
    facts = _facts.get(session.state)
    return render(name, **(facts(session) if facts else {}))


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


def _scan_facts(session: Session) -> dict[str, Any]:
    progress = session.progress
    failed = progress.state == "failed"
    return {
        "progress": progress,
        "trouble": sentences.trouble(progress.reason) if failed else None,
        "stages": sentences.STAGES,
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


def _result_facts(session: Session) -> dict[str, Any]:
    from kiosk_app.scan_pages import result_facts

    return result_facts(session)


def _last_facts(session: Session) -> dict[str, Any]:
    kiosk, scan = the_kiosk(), session.told_of
    return {
        "delivery": kiosk.delivery(scan).value if scan else None,
        "deliveries": sentences.deliveries(kiosk.clinic),
    }


def _spot_facts(session: Session) -> dict[str, Any]:
    from kiosk_app.spot_pages import facts

    return facts(session)


_facts: dict[State, Callable[[Session], dict[str, Any]]] = {
    State.POSITION: lambda _session: {"guidance": sentences.GUIDANCE},
    State.SCAN: _scan_facts,
    State.EYES: _eyes_facts,
    State.SPOTS: _spot_facts,
    State.CLOSE_UP: _spot_facts,
    State.CLOSE_UP_AGAIN: _spot_facts,
    State.RESULT: _result_facts,
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
    with session.lock:
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
    with session.lock:
        if session.state is not State.POSITION:
            raise NotNow("A scan begins on the page with the camera.")
        the_kiosk().begin_scan(session, overlay_words())  # where this fails, the session stays and expires
        session.move("ready")
    return page_of(session)


@blueprint.post("/eyes")
def eyes() -> Response:
    """The patient says that their eyes are protected; from here the UV light may be used for 30 s."""
    session = the_session()
    with session.lock:
        protected = request.form.get("eyes") == "protected"
        session.move("protected" if protected else "skip_uv")
        session.progress.answer(session.eyes_are_protected() if protected else None)
    return page_of(session)


@blueprint.post("/scan")
def scan() -> Response:
    """After the work: on to the result, or back to the camera for another try."""
    session = the_session()
    if session.state is State.SCAN and session.progress.state == "failed":
        if not sentences.trouble(session.progress.reason).again:
            return _end(session, "leave") if the_kiosk().keeps(session) else start_over()
        session.begin_again()
    return page_of(session)


@blueprint.post("/result")
def finish() -> Response:
    """The patient has read the result: forget them, keep only the language for the last page."""
    return _end(the_session(), "finish")


@blueprint.post("/delete")
def delete() -> Response:
    """The patient wants nothing kept: shred the scan, withdraw what was sent."""
    session = the_session()
    scan = session.scan
    if scan is not None and the_kiosk().keeps(session):
        the_kiosk().shred(scan)
    return _end(session, "delete")


def _end(session: Session, event: str) -> Response:
    with session.lock:
        state, scan = session.move(event), session.scan
        the_kiosk().sessions.leave(session, state)
        session.told_of = scan
    return page_of(session)


@blueprint.post("/done")
@blueprint.post("/declined")
@blueprint.post("/deleted")
@blueprint.post("/expired")
@blueprint.post("/start-over")
def start_over() -> Response:
    """Forget this patient and go to the first page; one whose scan is kept is asked about it first."""
    session: Session | None = g.get("session")
    if session is not None:
        if the_kiosk().keeps(session):
            if request.form.get("scan") != "keep":
                return redirect(url_for("pages.leave_page"), 303)
            return _end(session, "leave")
        the_kiosk().sessions.leave(session)
    return _without_a_session(redirect(url_for("pages.start"), 303))


def _without_a_session(response: Response) -> Response:
    for cookie in (COOKIE, UNDER_WAY):
        response.delete_cookie(cookie, samesite="Strict")
    return response


@blueprint.get("/help")
def help_page() -> tuple[str, int]:
    return render("help")


@blueprint.get("/languages")
def languages_page() -> tuple[str, int]:
    return render("languages")


@blueprint.get("/delete")
def delete_page() -> Response | tuple[str, int]:
    """Ask once more before a scan is destroyed."""
    session = the_session()
    return render("delete") if session.state is State.RESULT else page_of(session)


@blueprint.get("/leave")
def leave_page() -> Response | tuple[str, int]:
    """The pictures are kept: starting over does not undo that, so the patient is asked."""
    session = the_session()
    return render("leave") if the_kiosk().keeps(session) else page_of(session)


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
    return page_of(session)


@blueprint.get("/here")
def here() -> Response:
    """The page is still shown; the patient need not be there."""
    return jsonify(state=the_session().state.value)


@blueprint.post("/touch")
def touch() -> Response:
    """The patient is still here."""
    session = the_session()
    session.touch()
    return jsonify(left=round(session.left()))


@blueprint.get("/healthz")
def healthz() -> Response:
    return jsonify(ok=True)


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
        return _without_a_session(page) if shown else page

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
