"""Small stand-ins for the parts that the application talks to, with an enrolled state folder."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import cv2
import numpy as np

from firmware.capture.client import CaptureFault, Preview
from hardware.capture import Capture, Frame, Spot
from hardware.host.folders import make_folder
from hardware.simulated.close_up import drawn
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.vault import Vault
from kiosk_app.patient.kiosk import KioskParts
from kiosk_app.scanning.analyst import AnalysisOutcome
from kiosk_app.scanning.close_ups import CloseUps
from kiosk_app.scanning.courier import Courier
from kiosk_app.scanning.scan_work import ScanWork
from kiosk_app.scanning.sealer import Sealer
from kiosk_app.scanning.taking import LOOK_S
from models.analysis.words import ENGLISH, Words
from models.networks.signature import sign_manifest
from sync.kiosk.client import OutboxUnavailable
from sync.wire import keys
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.envelope import open_envelope, verify
from sync.wire.findings import Findings
from sync.wire.messages import Message

END_S = 60.0
LIGHTS = ("white", "parallel", "cross", "dir0", "dir1", "dir2", "dir3", "uv365")
ZONES = {"forehead": 9.1, "left_cheek": 14.2, "right_cheek": 10.3, "nose": 15.6, "chin": 11.0}


def picture(height: int = 640, width: int = 480) -> np.ndarray:
    """A drawn head, H×W×3 RGB uint8."""
    canvas = np.full((height, width, 3), 34, np.uint8)
    centre, axes = (width // 2, int(height * 0.48)), (int(width * 0.3), int(height * 0.32))
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, (196, 154, 130), -1, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (centre[0] + side * width // 8, centre[1] - height // 18)
        cv2.ellipse(canvas, eye, (width // 22, height // 60), 0, 0, 360, (70, 50, 44), -1, cv2.LINE_AA)
    cv2.ellipse(
        canvas, (centre[0], centre[1] + height // 7), (width // 12, height // 70), 0, 0, 180, (150, 80, 80), 5
    )
    return canvas


def findings(scan: UUID, **changes: Any) -> Findings:
    """Findings as the analysis gives them, but for the `changes`."""
    rows: list[dict[str, Any]] = []

    def add(measure: str, zone: str, value: float, unit: str, around: float) -> None:
        rows.append(
            {
                "measure": measure,
                "zone": zone,
                "value": value,
                "unit": unit,
                "low": value - around,
                "high": value + around,
                "model": "m",
            }
        )

    for step, (zone, redness) in enumerate(ZONES.items()):
        add("ita", zone, 31.0 + step, "deg", 1.5)
        add("erythema_index", zone, redness, "1", 0.8)
        add("spot_count", zone, step, "1", 0)
        add("spot_area", zone, 1.4 * step, "mm2", 0.3)
        add("acne_count", zone, step, "1", step)
    add("acne_count", "face", 4, "1", 4)
    add("acne_severity", "face", 1, "1", 1)
    said = {
        "schema": 1,
        "scan": scan,
        "measured_at": datetime.now(timezone.utc),
        "models": {"m": "0" * 64},
        "calibration": None,
        "software": "test",
        "quality": ["uncalibrated_scale"],
        "findings": rows,
        "geometry": {"frame": "canonical-face-1", "marks": []},
    }
    return Findings.model_validate(said | changes)


def marked(light: str, spot: Spot, melanoma: float = 0.02) -> dict[str, Any]:
    """A marked spot as the analysis gives it."""
    classes = {"akiec": 0.02, "bcc": 0.03, "bkl": 0.1, "df": 0.02, "mel": melanoma, "nv": 0.8, "vasc": 0.01}
    shape = {"asymmetry": 0.12, "border": 0.2, "colour_spread": 9.1, "colours": ["light brown", "dark brown"]}
    return {
        "frame": light,
        "zone": spot.zone,
        "x": spot.x,
        "y": spot.y,
        "lesion": {
            "classes": classes,
            "melanoma": melanoma,
            "melanoma_like": melanoma >= 0.0282,
            "abcd": shape | {"diameter_mm": 6.4},
            "area_mm2": 24.2,
            "model": "lesion-class@0",
            "outline_model": "lesion-outline@0",
        },
        "refused": None,
    }


class FakeCamera:
    """A capture client: `fault` is raised instead, `hold` lets a test stop a sequence half-way.

    `uv_says` are the reasons why the next UV phases give no frame; `uv_fault` is raised in a UV phase.
    """

    def __init__(self) -> None:
        self.fault: CaptureFault | None = None
        self.uv_fault: Exception | None = None
        self.uv_says: list[str] = []
        self.guidance = "hold_still"
        self.captured: list[dict[str, Any]] = []
        self.previewed: list[str] = []
        self.ended: list[str] = []
        self.close_up_fault: CaptureFault | None = None
        self.close_up_previewed: list[str] = []
        self.close_ups = 0
        self.hold = threading.Event()
        self.hold.set()

    def preview(self, session: str, consent: Any) -> Preview:
        self.previewed.append(session)
        if self.fault:
            raise self.fault
        return Preview(picture(), self.guidance, (0.2, 0.2, 0.8, 0.8))

    def capture(
        self,
        session: str,
        consent: Any,
        lights: Collection[str],
        uv: Any,
        on_progress: Callable[[str, int, int], None] | None = None,
        phase: str = "all",
    ) -> Capture:
        wanted = {"all": LIGHTS, "lit": LIGHTS[:-1], "uv": LIGHTS[-1:]}[phase]
        wanted = tuple(light for light in wanted if light in lights)
        refused = None if uv else "not_allowed"
        frames, missing = [], {}
        for done, light in enumerate(wanted):
            if on_progress:
                on_progress(light, done, len(wanted))
            if done == len(wanted) // 2 or phase == "uv":
                self.hold.wait(60)
            if self.fault:
                raise self.fault
            if phase == "uv":
                if self.uv_fault:
                    raise self.uv_fault
                refused = self.uv_says.pop(0) if self.uv_says else refused
            if light == LIGHTS[-1] and refused:
                missing[light] = refused
                continue
            pixels = picture(64, 48).astype(np.uint16) * 257
            frames.append(Frame(light, pixels, 8000, 1.0, timestamp_ns=done))
        self.captured.append(
            {"session": session, "lights": lights, "uv": uv, "consent": consent, "phase": phase}
        )
        return Capture("test", tuple(frames), "nominal-test", None, simulated=True, missing=missing)

    def close_up_preview(self, session: str, consent: Any) -> Preview:
        self.close_up_previewed.append(session)
        if self.close_up_fault:
            raise self.close_up_fault
        return Preview(drawn(600, 450, 1), self.guidance, None)

    def close_up(self, session: str, consent: Any) -> Capture:
        self.hold.wait(60)
        if self.close_up_fault:
            raise self.close_up_fault
        self.close_ups += 1
        frame = Frame("closeup", drawn(600, 450, self.close_ups), 0, 1.0, 1, "srgb")
        return Capture("test", (frame,), simulated=True, spots={"closeup": Spot(mm_per_px=0.03)})

    def phases(self) -> list[tuple[str, bool]]:
        """Each sequence that came to its end: its phase, with whether UV was allowed in it."""
        return [(taken["phase"], taken["uv"] is not None) for taken in self.captured]

    def end(self, session: str) -> None:
        self.ended.append(session)


class FakeOutbox:
    """An outbox client: `state` of every message is what the test sets."""

    def __init__(self) -> None:
        self.there = True
        self.accepting = True
        self.connected = True
        self.submitted: dict[UUID, tuple[str, bytes]] = {}
        self.states: dict[UUID, str] = {}
        self.discarded: dict[UUID, str] = {}  # with what a second one is told
        self.found: list[UUID] = []  # what nobody has vouched for

    def lose(self) -> None:
        """From now on it is one that was begun anew."""
        self.submitted.clear()
        self.states.clear()
        self.discarded.clear()

    def _check(self) -> None:
        if not self.there:
            raise OutboxUnavailable("The outbox cannot be reached.")

    def submit(self, message_id: UUID, kind: str, envelope: bytes, *, may_have_left: bool = False) -> None:
        self._check()
        if message_id in self.discarded:
            return
        self.submitted[message_id] = (kind, envelope)
        self.states.setdefault(message_id, "sent" if may_have_left else "waiting")

    def state(self, message_id: UUID) -> str:
        self._check()
        if message_id in self.discarded:
            return "discarded"
        return self.states.get(message_id, "unknown")

    def discard(self, message_id: UUID) -> str:
        self._check()
        if message_id in self.discarded:
            return self.discarded[message_id]
        self.submitted.pop(message_id, None)
        before = self.states.pop(message_id, "unknown")
        if before not in ("stored", "quarantined"):
            self.discarded[message_id] = before if before in ("waiting", "unknown") else "discarded"
        return before

    def unvouched(self) -> list[UUID]:
        self._check()
        return self.found

    def sent_unvouched(self) -> list[UUID]:
        self._check()
        return []

    def vouch(self, messages: Collection[UUID]) -> None:
        self._check()
        self.found = [each for each in self.found if each not in messages]

    def status(self) -> dict[str, Any]:
        self._check()
        return {"accepting": self.accepting, "connected": self.connected}


class FakeAnalyst:
    """An analysis that answers at once; `refuse` or `fail` make it say no."""

    def __init__(self) -> None:
        self.refuse: str | None = None
        self.fail: Exception | None = None
        self.refuse_close_ups: list[str] = []
        self.refused_pictures: dict[bytes, str] = {}
        self.measured: list[UUID] = []
        self.words: list[Words] = []
        self.go = threading.Event()
        self.go.set()

    def refuses(self, close_up: Capture, scan: UUID) -> str | None:
        reason = self.refuse_close_ups.pop(0) if self.refuse_close_ups else None
        if reason is not None:
            [frame] = close_up.close_ups
            self.refused_pictures[frame.pixels.tobytes()] = reason
        return reason

    def _spot(self, name: str, spot: Spot, frame: Frame | None) -> dict[str, Any]:
        """The marked spot as the analysis gives it: what was refused once is refused again."""
        reason = spot.not_taken if frame is None else self.refused_pictures.get(frame.pixels.tobytes())
        return marked(name, spot) | ({"lesion": None, "refused": reason} if reason else {})

    def measure(self, capture: Capture, scan: UUID, words: Words = ENGLISH) -> AnalysisOutcome:
        self.go.wait(60)
        if self.fail:
            raise self.fail
        self.measured.append(scan)
        self.words.append(words)
        if self.refuse:
            return AnalysisOutcome(None, refused=self.refuse, sentence="no")
        outline = cv2.cvtColor(picture(1100, 1200), cv2.COLOR_RGB2BGR)
        cv2.ellipse(outline, (600, 528), (320, 320), 0, 0, 360, (99, 93, 11), 3, cv2.LINE_AA)
        png = cv2.imencode(".png", outline)[1].tobytes()
        if capture.marked:
            spots = [self._spot(name, capture.spots[name], capture.frame(name)) for name in capture.marked]
            measured = findings(scan, schema=2, spots=spots)
            return AnalysisOutcome(measured, {"zones": png}, seconds={"face": 0.1}, peak_rss_mb=123.4)
        return AnalysisOutcome(
            findings(scan), {"zones": png, "spots": png}, seconds={"face": 0.1}, peak_rss_mb=123.4
        )


class Clinic:
    """The clinic's side of the keys: opens what the kiosk sealed."""

    def __init__(self) -> None:
        self.root = keys.generate_signing_key()
        self.opening = keys.generate_opening_key()
        self.receipt = keys.generate_signing_key()
        self.result = keys.generate_signing_key()
        self.manifest = keys.generate_signing_key()
        self.kiosk = uuid4()

    def enrol(self, state: Path) -> Path:
        """Write into `state` what an enrolment leaves there."""
        (state / "app").mkdir(parents=True)
        facts = {"kiosk": str(self.kiosk), "clinic": "Clinic at the Park", "epoch": 7, "board": "simulated"}
        (state / "identity.json").write_text(json.dumps(facts))
        (state / "clinic-root.pub").write_text(keys.public_bytes(self.root).hex() + "\n")
        (state / "app" / "result.key").write_bytes(keys.dump_signing_key(self.result))
        self.publish(state, 1)
        key = state.parent / "manifest.key"
        key.write_bytes(keys.dump_signing_key(self.manifest))
        (state / "clinic-manifest.pub").write_text(keys.public_bytes(self.manifest).hex() + "\n")
        sign_manifest(key, state)
        return state

    def publish(self, state: Path, version: int) -> None:
        """Sign a key set of this version with the present opening key."""
        key_set = ClinicKeys(
            version,
            datetime.now(timezone.utc),
            (self.opening.public,),
            (keys.public_bytes(self.receipt),),
        )
        (state / "clinic-keys.cose").write_bytes(key_set.sign(self.root))

    def open(self, envelope: bytes) -> Message:
        """The message in an envelope of this kiosk."""
        return open_envelope(verify(envelope, lambda _kiosk, _kid: self.result.public_key()), [self.opening])


class Bench:
    """A kiosk over `state` with stand-ins for camera, analysis and outbox; again() is a restart.

    Its pictures are under `lights`: unless a test says otherwise all of them, as if there were a measure that
    reads UV.
    """

    def __init__(self, state: Path, clinic: Clinic) -> None:
        self.state, self.clinic = state, clinic
        self.camera, self.outbox, self.analyst = FakeCamera(), FakeOutbox(), FakeAnalyst()
        self.has_close_up = False
        self.unlicensed: str | None = None
        self.lights: Collection[str] = LIGHTS
        self._kiosks: list[KioskParts] = []
        self.kiosk = self.again()

    def with_close_up(self) -> Bench:
        """The same kiosk on a board that has a close-up camera."""
        self.has_close_up = True
        self.again()
        return self

    def again(self) -> KioskParts:
        """Put the parts together over what is on disk, as a fresh process does."""
        records = Records(self.state / "app" / "records.sqlite", Keyring(self.state / "app" / "vault.key"))
        vault = Vault(make_folder(self.state / "app" / "vault"))
        sealer = Sealer(self.state, "test", simulated=True)
        courier = Courier(records, self.outbox, sealer)  # type: ignore[arg-type]
        work = ScanWork(records, vault, self.camera, self.analyst, sealer, courier, self.lights)  # type: ignore[arg-type]
        self.kiosk = KioskParts(
            clinic="Clinic at the Park",
            simulated=True,
            has_uv=LIGHTS[-1] in self.lights,
            records=records,
            vault=vault,
            camera=self.camera,  # type: ignore[arg-type]
            outbox=self.outbox,  # type: ignore[arg-type]
            courier=courier,
            work=work,
            reference=lambda: "demo-1",
            why_not_licensed=lambda: self.unlicensed,
            close_ups=CloseUps(self.camera, self.analyst) if self.has_close_up else None,  # type: ignore[arg-type]
        )
        self._kiosks.append(self.kiosk)
        return self.kiosk

    def end_scans(self) -> None:
        """Let the patients of all its kiosks leave: each scan comes to its end, within END_S."""
        self.camera.hold.set()
        self.analyst.go.set()
        deadline = time.monotonic() + END_S
        while (at_work := scans_at_work()) and time.monotonic() < deadline:
            for kiosk in self._kiosks:
                for scan in list(kiosk.work._at_work):
                    kiosk.work.leave(scan)
            at_work[0].join(LOOK_S)


def scans_at_work() -> list[threading.Thread]:
    """The threads in which this process works on scans."""
    return [thread for thread in threading.enumerate() if thread.name == "scan"]
