"""What the camera page, the scan page and the result page fetch: preview, progress, overlay."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, jsonify, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from firmware.capture.client import CaptureFault
from kiosk_app.kept.keyring import KeyringBusy, KeyringError
from kiosk_app.kept.vault import VaultError
from kiosk_app.patient import sentences, speech, spot_sentences
from kiosk_app.patient.journey import LEADS, TABLE, Session, State
from kiosk_app.patient.page import preview_picture, the_kiosk, the_session
from kiosk_app.patient.readings import cards, numbers_on
from kiosk_app.scanning.progress import Step

blueprint = Blueprint("scan_pages", __name__)


@blueprint.get("/preview")
def preview() -> Response | tuple[Response, int]:
    """One preview picture (JPEG) with its guidance in headers; only after the consent record."""
    session = the_session()
    if session.consent is None or session.scan is None or session.state is not State.POSITION:
        return jsonify(error="There is no preview on this page."), 409
    try:
        seen = the_kiosk().camera.preview(str(session.scan), session.consent)
    except CaptureFault as error:
        return jsonify(reason=error.code), 503
    return preview_picture(seen)


@blueprint.get("/scan/progress")
def progress() -> Response:
    """How far the scan is. `say` names what is said aloud now; `next` is where to go once it is set."""
    session = the_session()
    if session.state is not State.SCAN:
        over = {"stage": "over", "done": 0, "of": 0, "state": Step.READY, "reason": None, "sentence": ""}
        return jsonify(**over, say=None, next=_page(session.state))
    now = session.progress
    sentence, address, state = str(sentences.stage(now)), None, now.state
    if state is Step.FAILED:
        sentence, address = str(sentences.trouble(now.reason).happened), _page(State.SCAN)
    elif state in LEADS:
        address = _page(TABLE[State.SCAN, LEADS[state]])
    return jsonify(
        stage=now.stage,
        done=now.done,
        of=now.of,
        state=state,
        reason=now.reason,
        sentence=sentence,
        say=None if address else speech.said_at(now),
        next=address,
    )


def _page(state: State) -> str:
    return url_for("pages.show", name=state.value)


def result_facts(session: Session) -> dict[str, object]:
    """What the result page shows of the session's own scan."""
    kiosk, scan = the_kiosk(), session.scan
    if scan is None:
        raise NotFound
    findings = kiosk.records.findings(scan)
    quality = findings.quality if findings else ()
    figures = kiosk.records.scan(scan).figures
    overlays, missing = figures.get("overlays", []), figures.get("missing", {})
    chosen = request.args.get("picture", "")
    measured = findings.findings if findings else ()
    marked, kept = len(session.progress.marking.marked), len(findings.spots) if findings else 0
    return {
        "scan": scan,
        "cards": cards(measured, quality),
        "not_measured": sentences.not_measured(quality),
        "overlays": [(name, sentences.OVERLAYS.get(name, name)) for name in overlays],
        "chosen": chosen if chosen in overlays else None,
        "numbers_on_it": numbers_on(chosen, measured, quality) if chosen in overlays else [],
        "uv_left_out": sentences.uv_left_out(missing.get("uv365")),
        "room_light": sentences.ROOM_LIGHT if missing.get("dark") == "room_lit" else None,
        "spots": max(marked, kept),
        "spots_not_kept": spot_sentences.NOT_KEPT if marked > kept else None,
        "delivery": known_delivery(scan),
        "deliveries": sentences.deliveries(kiosk.clinic),
    }


def known_delivery(scan: UUID | None) -> str | None:
    """The code of what is known of a scan's way to the clinic; None where there is nothing to tell."""
    known = None if scan is None else the_kiosk().delivery(scan)
    return None if known is None else known.value


@blueprint.get("/delivery")
def delivery() -> Response:
    """What is known by now of the scan's way to the clinic, for a page that tells of it."""
    session = the_session()
    return jsonify(delivery=known_delivery(session.scan or session.told_of))


@blueprint.get("/result/<name>.png")
def overlay(name: str) -> Response:
    """One overlay picture, decrypted for the patient whose session this is; never cached."""
    session = the_session()
    if session.state is not State.RESULT or session.scan is None:
        raise NotFound
    kiosk = the_kiosk()
    if name not in kiosk.records.scan(session.scan).figures.get("overlays", []):
        raise NotFound
    try:
        picture = kiosk.vault.get(session.scan, kiosk.records.dek(session.scan), f"overlay.{name}")
    except KeyringBusy:
        raise  # it is there, and comes in a moment
    except (VaultError, KeyringError) as error:
        raise NotFound from error
    return Response(picture, mimetype="image/png")
