"""The pages on which a patient marks a spot, and has a close-up taken of it."""

from __future__ import annotations

import math
from typing import Any

from flask import Blueprint, jsonify, request
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from firmware.capture.client import CaptureFault
from hardware.capture import Frame, Spot
from kiosk_app.patient import speech, spot_sentences
from kiosk_app.patient.drawn_face import DrawnFace
from kiosk_app.patient.journey import NotNow, Session, State
from kiosk_app.patient.page import page_of, preview_picture, the_kiosk, the_session
from kiosk_app.patient.readings import ZONES
from kiosk_app.scanning.close_ups import ABOUT_THE_PICTURE, LOST, CloseUps, NotTaken
from sync.wire.findings.canonical_face import zone_at

blueprint = Blueprint("spot_pages", __name__)
# Left beside right, as on the drawn face.
_AREAS = ("forehead", "nose", "left_cheek", "right_cheek", "left_periorbital", "right_periorbital", "chin")


def facts(session: Session) -> dict[str, Any]:
    """What the pages of a spot show."""
    marking = session.progress.marking
    lost = marking.why is not None and marking.why not in ABOUT_THE_PICTURE
    return {
        "face": DrawnFace([spot for spot, _ in marking.taken]),
        "taken": len(marking.taken),
        "full": marking.full,
        "zones": {zone: ZONES[zone] for zone in _AREAS},
        "guidance": spot_sentences.GUIDANCE,
        "trouble": spot_sentences.trouble(marking.why),
        "lost": lost,
        "tried": marking.refused is not None,
        "say": _said(session),
        "spoken": speech.SPOKEN,
    }


def _said(session: Session) -> str:
    if session.state is State.CLOSE_UP:
        return "hold_close_up"
    marking = session.progress.marking
    if not marking.taken:
        return "mark_spot"
    return "spot_taken" if marking.photographed else "mark_another"


@blueprint.post("/spots")
def mark() -> Response:
    """A place on the drawn face, a zone of the list, the last one not after all, or no spot (any more)."""
    session = the_session()
    with session.alone():
        if session.state is not State.SPOTS:
            raise NotNow("A spot is marked on its own page.")
        spot = _spot()
        answer = request.form.get("answer")
        if answer == "none":
            session.move("go_on")
            session.progress.marked()
        elif answer == "take_back":
            session.move("take_back")
            session.progress.marking.take_back()
        elif spot is not None and not session.progress.marking.full:
            session.progress.marking.look_at(spot)
            session.move("mark")
    return page_of(session)


def _spot() -> Spot | None:
    """The spot that the form names; None for a place beside the face."""
    zone = request.form.get("zone")
    if zone in ZONES or zone == "face":
        return Spot(zone=zone)
    try:
        x, y = float(request.form["x"]), float(request.form["y"])
    except (KeyError, ValueError):
        return None
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    zone = zone_at((x, y))
    return None if zone is None else Spot(zone=zone, x=round(x, 4), y=round(y, 4))


@blueprint.post("/close_up")
def take() -> Response:
    """Take the close-up, or leave the spot or the camera out."""
    session = the_session()
    answer = request.form.get("answer")
    if answer != "take":
        return _leave_out(session, answer)
    close_ups, progress = _close_ups(), session.progress
    with session.alone():
        if session.state is not State.CLOSE_UP or session.scan is None or session.consent is None:
            raise NotNow("A close-up is taken on its own page.")
        if progress.marking.busy:  # a second tap
            return page_of(session)
        progress.marking.busy = True
        session.touch()
        scan, given, spot, turn = session.scan, session.consent, progress.marking.spot, session.turn
    taken, refusal = None, NotTaken("unavailable")
    try:
        taken = close_ups.take(scan, given, spot)
    except NotTaken as reason:
        refusal = reason
    finally:
        try:
            with session.alone():
                # A patient who has left the page since, or the spot out, has no picture kept: not of another
                # spot either, before whose camera they are by now.
                if session.turn == turn:
                    _keep(session, taken, refusal)
        finally:
            progress.marking.busy = False
    return page_of(session)


def _keep(session: Session, taken: tuple[Spot, Frame] | None, refusal: NotTaken) -> None:
    marking = session.progress.marking
    if taken is None:
        marking.refuse(str(refusal), refusal.frame)
        session.move("not_taken")
    else:
        marking.keep(taken)
        session.move("taken")


@blueprint.post("/close_up_again")
def again() -> Response:
    """Another try, without this spot, or without the camera."""
    session = the_session()
    answer = request.form.get("answer")
    if answer != "again":
        return _leave_out(session, answer)
    session.move("again")
    return page_of(session)


def _leave_out(session: Session, answer: str | None) -> Response:
    """On without a picture: a spot that was tried is not forgotten for that, nor one whose camera is gone."""
    with session.alone():
        marking, progress = session.progress.marking, session.progress
        session.move("give_up" if answer == "give_up" else "skip")
        if answer == "give_up" and marking.refused is None:
            marking.refuse(LOST, None)
        marking.pass_on()
        if answer == "give_up":
            progress.marked()
    return page_of(session)


def _close_ups() -> CloseUps:
    found = the_kiosk().close_ups
    if found is None:
        raise NotFound
    return found


@blueprint.get("/close_up/preview")
def preview() -> Response | tuple[Response, int]:
    """One picture of the close-up camera (JPEG), while its page is open."""
    session = the_session()
    if session.consent is None or session.scan is None or session.state is not State.CLOSE_UP:
        return jsonify(error="There is no close-up on this page."), 409
    if session.progress.marking.busy:
        return jsonify(reason="busy"), 503
    try:
        return preview_picture(_close_ups().preview(session.scan, session.consent))
    except CaptureFault as error:
        return jsonify(reason=error.code), 503
