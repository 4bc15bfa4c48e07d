"""The two phases on real daemons: eyes that stay open, a word that is too old, a camera that goes away."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from firmware.capture.client import CaptureClient
from firmware.line.stamps import UvAllowance
from hardware.capture import Capture
from kiosk_app.scanning.phases import ASKS, take_pictures
from tests.support.kiosk_daemons import EVERY_LIGHT, Kiosk, consent, running_kiosk, small_board

LIT = ["dark", "white", "parallel", "cross", "dir0", "dir1", "dir2", "dir3"]


def word(age_s: float = 0.0) -> UvAllowance:
    return UvAllowance("p1", True, time.time() - age_s)


def take(
    kiosk: Kiosk, answer: Callable[[str | None], UvAllowance | None]
) -> tuple[Capture, list[str | None]]:
    """The Capture, and why the patient was asked, each time."""
    asked: list[str | None] = []

    def ask(why: str | None) -> UvAllowance | None:
        asked.append(why)
        return answer(why)

    camera = CaptureClient(kiosk.capture_socket)
    return take_pictures(camera, "s1", consent(), EVERY_LIGHT, ask, lambda *_step: None), asked


def lights(capture: Capture) -> list[str]:
    return [frame.light for frame in capture.frames]


def uv_was_lit(kiosk: Kiosk) -> bool:
    return any(item.light == "uv365" and item.level > 0 for item in kiosk.history())


def test_a_patient_who_closes_the_eyes_is_asked_once(tmp_path: Path) -> None:
    with running_kiosk(small_board(tmp_path), tmp_path / "k") as kiosk:
        capture, asked = take(kiosk, lambda _why: word())
        assert (lights(capture), dict(capture.missing)) == ([*LIT, "uv365"], {})
        assert asked == [None]
        assert kiosk.lit() == set()


def test_eyes_that_stay_open_are_asked_again_and_never_see_uv(tmp_path: Path) -> None:
    board = small_board(tmp_path, "\n[simulation]\npatient_keeps_eyes_open = true\n")
    with running_kiosk(board, tmp_path / "k") as kiosk:
        capture, asked = take(kiosk, lambda _why: word())
        assert (lights(capture), dict(capture.missing)) == (LIT, {"uv365": "eyes_open"})
        assert asked == [None] + ["eyes_open"] * (ASKS - 1)
        assert not uv_was_lit(kiosk)


def test_a_word_older_than_30_s_is_refused_by_the_light_daemon_and_asked_for_again(tmp_path: Path) -> None:
    with running_kiosk(small_board(tmp_path), tmp_path / "k") as kiosk:
        words = iter([word(31), None])
        capture, asked = take(kiosk, lambda _why: next(words))
        assert asked == [None, "eyes_not_confirmed"]
        assert lights(capture) == LIT
        assert not uv_was_lit(kiosk)


def test_a_capture_daemon_that_dies_at_the_question_costs_the_uv_picture_only(tmp_path: Path) -> None:
    with running_kiosk(small_board(tmp_path), tmp_path / "k") as kiosk:

        def answer(_why: str | None) -> UvAllowance:
            kiosk.captured.end()
            return word()

        capture, _ = take(kiosk, answer)
        assert (lights(capture), dict(capture.missing)) == (LIT, {"uv365": "unavailable"})
        assert all(frame.pixels.any() for frame in capture.frames[1:])


def test_a_capture_daemon_that_was_started_anew_at_the_question_takes_the_uv_picture(tmp_path: Path) -> None:
    with running_kiosk(small_board(tmp_path), tmp_path / "k") as kiosk:

        def answer(_why: str | None) -> UvAllowance:
            kiosk.captured.end()
            kiosk.revive()
            return word()

        capture, _ = take(kiosk, answer)
        assert (lights(capture), dict(capture.missing)) == ([*LIT, "uv365"], {})
