"""A patient put before any page of the kiosk at once, without the way there."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from hardware.capture import Spot
from kiosk_app.kept.states import ScanState
from kiosk_app.patient.journey import Session, State
from kiosk_app.scanning.progress import Progress
from models.analysis.words import ENGLISH
from tests.support.kiosk_bench import Bench


def _failed(reason: str) -> Callable[[Progress], None]:
    return lambda progress: progress.fail(reason)


def _marks(progress: Progress) -> None:
    progress.mark()
    progress.marking.spot = Spot(zone="nose")


def _not_taken(reason: str) -> Callable[[Progress], None]:
    def fail(progress: Progress) -> None:
        _marks(progress)
        progress.marking.why = reason

    return fail


def _nothing(_progress: Progress) -> None:
    pass


# what a test calls the page -> (its address, the patient's state, what the work on the scan is doing)
PLACES: dict[str, tuple[str, State, Callable[[Progress], None]]] = {
    "language": ("/", State.LANGUAGE, _nothing),
    "about": ("/about", State.ABOUT, _nothing),
    "consent": ("/consent", State.CONSENT, _nothing),
    "light_questions": ("/light_questions", State.LIGHT_QUESTIONS, _nothing),
    "position": ("/position", State.POSITION, _nothing),
    "scan": ("/scan", State.SCAN, _nothing),
    "scan that failed": ("/scan", State.SCAN, _failed("no_face")),
    "scan that ended": ("/scan", State.SCAN, _failed("storage_full")),
    "scan that cannot be read": ("/scan", State.SCAN, _failed("unreadable")),
    "eyes": ("/eyes", State.EYES, lambda progress: progress.ask(None)),
    "eyes again": ("/eyes", State.EYES, lambda progress: progress.ask("eyes_open")),
    "spots": ("/spots", State.SPOTS, _marks),
    "close_up": ("/close_up", State.CLOSE_UP, _marks),
    "close_up_again": ("/close_up_again", State.CLOSE_UP_AGAIN, _not_taken("no_lesion")),
    "close_up_again, lost": ("/close_up_again", State.CLOSE_UP_AGAIN, _not_taken("close_up_lost")),
    "result": ("/result", State.RESULT, _nothing),
    "delete": ("/delete", State.RESULT, _nothing),
    "leave": ("/leave", State.RESULT, _nothing),
    "leave, unreadable": ("/leave", State.SCAN, _failed("unreadable")),
    "trouble": ("/trouble", State.POSITION, _nothing),
    "trouble, lost": ("/trouble", State.CLOSE_UP, _marks),
    "help": ("/help", State.CONSENT, _nothing),
    "languages": ("/languages", State.CONSENT, _nothing),
    "done": ("/done", State.DONE, _nothing),
    "declined": ("/declined", State.DECLINED, _nothing),
    "deleted": ("/deleted", State.DELETED, _nothing),
    "expired": ("/expired", State.EXPIRED, _nothing),
}
# At these the pictures are kept.
KEPT = {"leave": ScanState.CAPTURED, "leave, unreadable": ScanState.UNREADABLE}
# Pages whose answers decide something.
DECIDES = ("consent", "light_questions", "eyes", "delete", "leave", "leave, unreadable")
BEFORE_CONSENT = (State.LANGUAGE, State.ABOUT, State.CONSENT)


def stand(bench: Bench, session: Session, place: str, language: str = "en", text_size: int = 100) -> str:
    """Put the patient of `session` there; the address to look at."""
    address, state, work = PLACES[place]
    session.wipe()
    session.language, session.text_size, session.state = language, text_size, state
    if state not in BEFORE_CONSENT:
        bench.kiosk.consent(session)
        session.uv_screened = True
        work(session.progress)
    if place in KEPT:
        assert session.scan is not None
        bench.kiosk.records.advance(session.scan, ScanState.CONSENTED, KEPT[place])
    return address


def with_a_kept_scan(
    bench: Bench, session: Session, language: str = "en", text_size: int = 100
) -> tuple[str, UUID]:
    """Put the patient at the result of a scan that the kiosk keeps: the address of it, and the scan."""
    address = stand(bench, session, "result", language, text_size)
    assert session.scan is not None and session.consent is not None
    bench.kiosk.work.do(session.scan, session.consent, False, Progress(), ENGLISH)
    return address, session.scan
