"""The capture daemon: the only process that owns the camera."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from firmware.cameras.calibration import Calibration, Calibrations
from firmware.cameras.camera import Camera, CameraFrozen, open_camera
from firmware.cameras.close_up import CloseUpFault, LazyCloseUpCamera
from firmware.cameras.grey_card_check import why_not_to_scan
from firmware.cameras.kept_camera import BEAT_S, CameraLost, KeptCamera
from firmware.cameras.reflectance import to_srgb
from firmware.capture.capture_state import CaptureState
from firmware.capture.eyes import eyes_closed
from firmware.capture.frame_checks import Points
from firmware.capture.guidance import CannotLook, FaceFinder, face_box, guide, look_for_face
from firmware.capture.preview_light import PreviewLight
from firmware.capture.refusals import Abandoned, CaptureRefused, by_the_camera, by_the_lights, place
from firmware.capture.sequence import PHASES, Sequence, SequenceFailed
from firmware.lights.client import Lights, LightsFault
from firmware.line.link import Link, LinkError, Listener, close_all
from firmware.line.memory import publish
from firmware.line.stamps import ConsentStamp, StampError, UvAllowance
from hardware.board import Board
from hardware.host.folders import make_folder
from hardware.host.notify import Notifier
from hardware.host.stop import on_stop
from hardware.host.unasked import Unasked

PROTOCOL = 1
_ACCEPT_S = 0.2
# A request is one message, sent at once; whoever waits for pictures takes each word about them at once.
_REQUEST_S, _PROGRESS_S = 5.0, 0.2
# Every use of the camera but a capture is shorter.
_TURN_S = 2.0
# Taken anew where its light had gone out.
_PREVIEW_TRIES = 2
_MAX_CLIENTS = 16
_MAX_UNASKED = 6  # of one user; there are two
_CAPTURE_BUDGET_S = 25.0
# Everything that has a turn has deadlines of its own; one that is longer hangs beyond them.
_LONGEST_TURN_S = 60.0

log = structlog.get_logger()


class CaptureDaemon:
    """Serves the capture protocol at `state/run/capture.sock` until told to stop.

    One thread per connection; the camera and the lease on the lights belong to one of them at a time.
    `patient()` gives who stands in front of a simulated camera, `close_up` is the picture that a simulated
    close-up camera shows; `find_face` is for guidance.
    """

    def __init__(
        self,
        board: Board,
        state: Path,
        find_face: FaceFinder,
        patient: Callable[[], Any],
        peers: Collection[int] = (),
        close_up: npt.NDArray[np.uint8] | None = None,
        light_user: int | None = None,
    ) -> None:
        self._board, self._find_face, self._patient = board, find_face, patient
        self._close_ups = LazyCloseUpCamera(board, self._check_running, close_up)
        self._state_folder, self._run = state, state / "run"
        make_folder(self._run)
        self._camera = KeptCamera(lambda: open_camera(board, self._run, patient), board.camera.deadline_s)
        self._lights = Lights(self._run / "light.sock", server=light_user)
        self._listener = Listener(self._run / "capture.sock", peers)
        self._calibrations = Calibrations(state, board)
        self._calibration_id: str | None = None
        self._turn = threading.Lock()
        self._turn_since: float | None = None
        self._notifier = Notifier()
        self._places = threading.BoundedSemaphore(_MAX_CLIENTS)
        self._unasked = Unasked(_MAX_UNASKED)
        self._stopping = threading.Event()
        self._state = CaptureState.IDLE
        self._last_fault: str | None = None
        self._preview_light = PreviewLight(board, self._lights)
        self._lit_phase: tuple[str, Points | None] = ("", None)  # the session, and where its face was

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Call from the main thread.

        Raises CameraLost when the camera froze again after it was opened anew.
        """
        on_stop(self._stopping.set)
        self.serve()
        if self._camera.is_lost:
            raise CameraLost("The camera froze again after it was opened anew: start this daemon afresh.")

    def serve(self) -> None:
        """Serve until stopped."""
        threading.Thread(target=self._keep_preview, name="preview light", daemon=True).start()
        log.info("ready", daemon="captured", simulated=self._board.simulated)
        self._notifier.ready()
        try:
            while not self._stopping.is_set():
                since = self._turn_since
                if since is None or time.monotonic() - since < _LONGEST_TURN_S:
                    self._notifier.alive()
                link = self._listener.accept(_ACCEPT_S)
                if link is None:
                    continue
                if not self._places.acquire(blocking=False):
                    link.close()
                    continue
                self._unasked.add(link.peer_uid(), link)
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()
        finally:
            # Hanging up is what puts the lights off, whatever any thread is doing.
            self._notifier.stopping()
            self._lights.close()
            self._listener.close()
            self._camera.close(lambda: None)
            self._notifier.close()
        log.info("stopped", daemon="captured")

    def stop(self) -> None:
        """Make `serve` return; all lights are off then."""
        self._stopping.set()

    def _serve(self, link: Link) -> None:
        """Answer the one request of a connection, and give its place back."""
        with contextlib.ExitStack() as leaving:
            leaving.callback(self._places.release)
            leaving.enter_context(link)
            leaving.enter_context(contextlib.suppress(LinkError))
            try:
                request, fds = link.receive(_REQUEST_S)
            finally:
                self._unasked.has_asked(link)
            close_all(fds)
            try:
                answer, memory = self._answer(link, request)
            except Abandoned:
                log.info("abandoned", request=str(request.get("do")))
                return
            except CaptureRefused as refused:
                self._last_fault = refused.code
                log.warning("refused", request=str(request.get("do")), code=refused.code)
                answer, memory = {"ok": False, "code": refused.code, "sentence": str(refused)}, None
            except CannotLook as error:
                self._last_fault = "unavailable"
                log.error("cannot_look", request=str(request.get("do")), why=str(error))
                answer, memory = {"ok": False, "code": "unavailable", "sentence": str(error)}, None
            except Exception as error:  # noqa: BLE001 - else this reads as a daemon that hung up
                # Its words may quote what was seen or measured; its kind and place do not.
                self._last_fault = "unavailable"
                kind, at = type(error).__name__, place(error)
                log.error("request_failed", request=str(request.get("do")), kind=kind, at=at)
                sentence = f"The capture daemon failed ({kind} at {at}): its log has the same. Try again."
                answer, memory = {"ok": False, "code": "unavailable", "sentence": sentence}, None
            try:
                link.send({"v": PROTOCOL, **answer}, [] if memory is None else [memory])
            finally:
                if memory is not None:
                    os.close(memory)
                if self._camera.is_lost:
                    self.stop()

    def _answer(self, link: Link, request: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
        if request.get("v") != PROTOCOL:
            raise CaptureRefused(
                "unavailable", f"The capture daemon speaks version {PROTOCOL} of its protocol."
            )
        what, session = request.get("do"), str(request.get("session") or "")
        phase = str(request.get("phase", "all"))
        if what == "status":
            return {"ok": True, **self._status()}, None
        if what == "end":
            self._end(session)
            return {"ok": True}, None
        if what not in ("preview", "capture", "close_up_preview", "close_up"):
            raise CaptureRefused("unavailable", f"{what!r} is not something the capture daemon does.")
        try:
            consent = ConsentStamp.from_dict(request.get("consent"))
        except StampError as error:
            raise CaptureRefused("no_consent", str(error)) from error
        if not session:
            raise CaptureRefused("no_consent", "There is no session to consent to.")
        if what == "preview":
            return self._preview(session, consent)
        if what != "capture":
            return self._close_up(still=what == "close_up")
        try:
            uv = None if request.get("uv") is None else UvAllowance.from_dict(request["uv"])
        except StampError as error:
            raise CaptureRefused("light_fault", str(error)) from error
        if phase not in PHASES:
            raise CaptureRefused("unavailable", f"A capture has no phase {phase!r}.")
        return self._capture(link, session, consent, _lights(request), uv, phase)

    def _status(self) -> dict[str, Any]:
        calibration = self._calibration_now()
        return {
            "board": self._board.name,
            "simulated": self._board.simulated,
            "camera": self._board.camera.driver,
            "state": str(self._state),
            "last_fault": self._last_fault,
            "calibration": calibration.id if calibration else self._board.calibration,
            "why_not_to_scan": why_not_to_scan(self._state_folder, self._board, calibration),
        }

    def _end(self, session: str) -> None:
        with self._my_turn(CaptureState.IDLE):
            if self._preview_light.session == session:
                self._preview_light.forget()
                self._lights.release()

    def _preview(self, session: str, consent: ConsentStamp) -> tuple[dict[str, Any], int]:
        with self._my_turn(CaptureState.PREVIEW):
            if self._lit_phase[0] != session:
                self._lit_phase = (session, None)
            camera = self._camera.opened(self._check_running)
            linear = self._lit_picture(camera, session, consent)
            self._camera.has_worked()
        picture = to_srgb(linear)
        face, reason = look_for_face(self._find_face, picture, self._board.engine)
        closed = face is not None and eyes_closed(linear, face)
        answer = {
            "ok": True,
            "shape": picture.shape,
            "guidance": guide(picture, face, reason, closed),
            "face_box": face_box(picture, face),
        }
        return answer, publish("preview", [np.ascontiguousarray(picture).data])

    def _lit_picture(self, camera: Camera, session: str, consent: ConsentStamp) -> npt.NDArray[np.uint16]:
        """A preview picture in the preview's light, lit again where this computer was too busy to keep it."""
        tries = 0
        while True:
            if self._preview_light.session != session:
                self._preview_light.forget()
                self._lease(session, consent, None)
                self._preview_light.shine_for(session)
            tries += 1
            try:
                return self._preview_light.picture(camera, self._check_running, self._calibration_now())
            except LightsFault as fault:
                if fault.code != "no_lease" or tries == _PREVIEW_TRIES:
                    raise
                log.warning("preview_light_lost", code=fault.code)
                self._preview_light.forget()

    def _close_up(self, still: bool) -> tuple[dict[str, Any], int]:
        """A close-up, or a preview of one. It has the turn: no sequence runs, and no lamp of ours is lit."""
        with self._my_turn(CaptureState.CLOSE_UP):
            self._preview_light.forget()
            self._lights.release()
            try:
                if still:
                    return {"ok": True}, publish("close_up", self._close_ups.take().blocks())
                picture, wrong = self._close_ups.preview()
            except CloseUpFault as fault:
                raise CaptureRefused(fault.code, str(fault)) from fault
        answer = {"ok": True, "shape": picture.shape, "guidance": wrong or "hold_still", "face_box": None}
        return answer, publish("preview", [np.ascontiguousarray(picture).data])

    def _capture(
        self,
        link: Link,
        session: str,
        consent: ConsentStamp,
        lights: frozenset[str],
        uv: UvAllowance | None,
        phase: str,
    ) -> tuple[dict[str, Any], int]:
        deadline = time.monotonic() + _CAPTURE_BUDGET_S
        if not self._board.uv_among(lights):
            uv = None  # nobody reads it, so the lease does not even allow it

        def watch() -> None:
            self._check_running()
            if link.peer_gone():
                raise Abandoned
            if time.monotonic() > deadline:
                raise CaptureRefused("deadline", "The pictures took too long; they were given up.")

        def on_progress(light: str, done: int, of: int) -> None:
            try:
                link.send({"v": PROTOCOL, "progress": [light, done, of]}, timeout=_PROGRESS_S)
            except LinkError as error:
                raise Abandoned from error

        started = time.monotonic()
        with self._my_turn(CaptureState.CAPTURING):
            self._preview_light.forget()
            calibration = self._calibration_now()
            why_not = why_not_to_scan(self._state_folder, self._board, calibration)
            if why_not is not None:
                raise CaptureRefused("not_calibrated", why_not)
            camera = self._camera.opened(self._check_running)
            self._lease(session, consent, uv)
            try:
                if phase != "uv" or self._lit_phase[0] != session:
                    self._lit_phase = (session, None)
                first = self._lit_phase[1]
                sequence = Sequence(
                    self._board, camera, self._lights, watch, self._find_face, calibration, first
                )
                capture = sequence.run(lights, uv is not None, on_progress, phase)
                if phase == "lit":
                    self._lit_phase = (session, sequence.landmarks)
                self._camera.has_worked()
            except SequenceFailed as failed:
                raise CaptureRefused(failed.code, str(failed)) from failed
            finally:
                self._lights.release()
                camera.tell("open_eyes")
            seconds = round(time.monotonic() - started, 2)
            log.info(
                "capture_taken", frames=len(capture.frames), missing=dict(capture.missing), seconds=seconds
            )
            return {"ok": True}, publish("capture", capture.blocks())

    def _lease(self, session: str, consent: ConsentStamp, uv: UvAllowance | None) -> None:
        """Take the lights; a light daemon that was restarted since is asked a second time."""
        try:
            self._lights.lease(session, consent, uv)
        except LightsFault as fault:
            if fault.code != "unavailable":
                raise
            self._lights.lease(session, consent, uv)

    def _calibration_now(self) -> Calibration | None:
        """The calibration that is good now; the log tells of each change."""
        calibration = self._calibrations.newest()
        now = calibration.id if calibration else None
        if now != self._calibration_id:
            self._calibration_id = now
            log.info("calibration", calibration=now or "nominal")
        return calibration

    @contextlib.contextmanager
    def _my_turn(self, state: CaptureState) -> Iterator[None]:
        """Camera and lights for this thread; their faults come out as what the client is told."""
        if not self._turn.acquire(timeout=_TURN_S):
            raise CaptureRefused("busy", "The camera is in use just now.")
        self._state, self._turn_since = state, time.monotonic()
        try:
            yield
        except LightsFault as fault:
            self._preview_light.forget()
            raise by_the_lights(fault) from fault
        except (CameraFrozen, OSError) as error:
            # No light stays on without a camera, which the next request opens anew.
            self._preview_light.forget()
            self._lights.release()
            self._camera.froze(error, self._check_running)
            raise by_the_camera(error) from error
        except Exception:
            self._preview_light.forget()
            self._lights.release()
            raise
        finally:
            self._state = CaptureState.PREVIEW if self._preview_light.session else CaptureState.IDLE
            self._turn_since = None
            self._turn.release()

    def _check_running(self) -> None:
        if self._stopping.is_set():
            raise Abandoned

    def _keep_preview(self) -> None:
        """Keep the preview's light while somebody looks at it; put it out when nobody does."""
        while not self._stopping.wait(BEAT_S):
            self._close_ups.rest()
            if self._preview_light.session is None or not self._turn.acquire(blocking=False):
                continue
            try:
                self._preview_light.keep()
                self._state = CaptureState.PREVIEW if self._preview_light.session else CaptureState.IDLE
            finally:
                self._turn.release()


def _lights(request: dict[str, Any]) -> frozenset[str]:
    """The lights that a capture is asked for. There is no default: nothing is lit because nobody said."""
    named = request.get("lights")
    if not isinstance(named, list) or not all(isinstance(light, str) for light in named):
        raise CaptureRefused("unavailable", "A capture names the lights that it needs.")
    return frozenset(named)
