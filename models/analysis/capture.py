"""The analysis of a Capture: from frames to Findings, with the pictures that explain them."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from uuid import UUID

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float32Array, PixelArray, UInt8Array
from hardware.capture import Capture, Frame
from hardware.picture_file import MAX_PIXELS
from models.analysis.acne import acne_of_face
from models.analysis.acne_count import AcneLesion, acne_findings, lesions_on, require_size
from models.analysis.colour import reflected, to_srgb8
from models.analysis.face import Face
from models.analysis.face_quality import (
    COARSE_MM_PER_PX,
    HIDE_SPOTS,
    MIN_FACE_PX,
    require_light,
    require_quality,
)
from models.analysis.face_window import FaceWindow, face_window
from models.analysis.findings import Field, measure
from models.analysis.marked_spots import NETWORKS as LESION_NETWORKS
from models.analysis.marked_spots import marked_spots
from models.analysis.marks import marks, spot_marks
from models.analysis.opaque import opaque, opaque_acne
from models.analysis.overlay import Sheet, draw_overlays
from models.analysis.parsing import parse
from models.analysis.picture import MIN_PIXELS_A_SIDE
from models.analysis.redness import red_places, shows_redness
from models.analysis.refusal import NO_ROOM_FOR_A_FACE, Refused
from models.analysis.scale import Scale, scale_of
from models.analysis.skin import facial_skin
from models.analysis.spots import DarkSpot, find_spots
from models.analysis.upright import find_upright_face
from models.analysis.words import ENGLISH, Words
from models.analysis.zones import zone_masks
from models.networks.manifest import load_manifest
from models.networks.runtime import DEFAULT_ENGINE, engine_here
from sync.wire.findings import Finding, Findings, Geometry, MarkedSpot, schema_of

# The face is looked for, and the irises measured, in a picture of at most this long side.
SEARCH_LONG_SIDE = 2048
RIM_MM = 1.0
NETWORKS = ("face-detection-short", "face-detection-full", "face-landmarks", "iris", "parsing", "acne")


@dataclass(frozen=True)
class Analysis:
    """What one Capture gave: Findings, overlays by name (H×W×3 uint8 sRGB), seconds by stage."""

    findings: Findings
    overlays: dict[str, UInt8Array]
    seconds: dict[str, float]


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 4)


@dataclass
class _Work:
    """A Capture on its way to Findings: each stage adds what it found, and the `flags` it has to raise.

    `face` is in pixels of the frame; all from `view` on is in those of the close-up.
    """

    capture: Capture
    engine: str
    shown: Frame
    measured: Frame
    flags: list[str]
    face: Face = field(init=False)
    scale: Scale = field(init=False)
    view: FaceWindow = field(init=False)
    mm_per_px: float = field(init=False)
    visible: Float32Array = field(init=False)
    picture: UInt8Array = field(init=False)
    skin: UInt8Array = field(init=False)
    inner: UInt8Array = field(init=False)
    masks: dict[str, BoolArray] = field(init=False)
    spots: list[DarkSpot] | None = field(init=False)
    red: BoolArray | None = field(init=False)
    findings: list[Finding] = field(init=False)
    hidden: list[str] = field(init=False)
    lesions: list[AcneLesion] | None = field(init=False)
    marked: tuple[MarkedSpot, ...] = ()


def analyse_capture(
    capture: Capture, scan: UUID, engine: str = DEFAULT_ENGINE, words: Words = ENGLISH
) -> Analysis:
    """Measure `capture`. Raises Refused with one of refusal.SENTENCES' reasons.

    The overlays are written with `words`.
    The face is found under white light. Colour and spots come from the cross-polarised frame, which shows no
    shine (Jacques 2002). Without one they come from the frame that showed the face, with a flag. What a
    picture cannot show is not measured, with a flag: it is never a zero. Left and right are the patient's.
    """
    watch = _Stopwatch()
    work = _Work(capture, engine, *_choose(capture))
    for name, stage in _STAGES.items():
        with watch.stage(name):
            stage(work)
    if capture.marked:
        with watch.stage("spots"):
            work.marked = marked_spots(capture, engine)
    findings = _findings(work, scan)
    with watch.stage("overlays"):
        overlays = _draw(work, findings.findings, words)
    return Analysis(findings, overlays, watch.seconds)


def _see(work: _Work) -> None:
    """The face, its scale and its close-up. Raises Refused."""
    search, factor = _search_picture(work.shown)
    found = find_upright_face(search, work.engine)
    work.scale = scale_of(search, found, work.engine, _scaled(work.capture.mm_per_px, factor))
    work.face = _enlarged(found, factor, work.shown.pixels.shape)
    if work.face.width < MIN_FACE_PX:
        raise Refused("too_small")
    work.view = face_window(work.face, (work.shown.pixels.shape[0], work.shown.pixels.shape[1]))
    work.mm_per_px = work.scale.mm_per_px * factor * work.view.step


def _mask(work: _Work) -> None:
    """The skin of each zone that is shown. Raises Refused where the picture cannot be measured."""
    work.visible = _light(work, work.shown)
    work.picture = to_srgb8(work.visible)
    skin = facial_skin(parse(work.picture, [work.view.face], work.engine), work.view.face)
    work.skin = _opaque(skin, work.view, work.shown, work.measured)
    work.flags += require_quality(work.visible, work.skin, work.view.face)
    work.inner = _without_rim(work.skin, work.mm_per_px)
    work.masks = zone_masks(work.view.face.points, work.inner)


def _measure(work: _Work) -> None:
    """Colour, redness and spots of each zone."""
    light, inner, mm_per_px = work.visible, work.inner, work.mm_per_px
    if work.measured is not work.shown:
        light = _light(work, work.measured)
    work.spots = None
    # Parallel-polarised shine makes spots, or hides them.
    if work.measured.light != "parallel" and not HIDE_SPOTS & set(work.flags):
        work.spots = find_spots(light, inner, mm_per_px)
    work.red = red_places(light, inner, mm_per_px) if shows_redness(light, inner) else None
    reference = load_manifest().entry("face-landmarks").reference
    seen = Field(light, work.masks, mm_per_px, reference)
    work.findings, work.hidden = measure(seen, work.red, work.spots)


def _acne(work: _Work) -> None:
    """Acne of each zone in view; no lesions where none can be counted."""
    shown, view = work.shown, work.view
    work.lesions = None
    try:
        require_size(work.face)
    except Refused:
        work.flags.append("acne_not_counted")
        return

    def develop(part: PixelArray) -> UInt8Array:
        return to_srgb8(reflected(part, shown.colour, shown.light))

    acne = opaque_acne(acne_of_face(work.face, shown.pixels, develop, work.engine), shown.shown)
    boxes = view.placed(acne.counted[:, :4].reshape(-1, 2)).reshape(-1, 4)
    # Acne is counted on the rim too, where colours are not measured.
    work.lesions = lesions_on(boxes, zone_masks(view.face.points, work.skin))
    in_view = [zone for zone in work.masks if f"{zone}_hidden" not in work.hidden]
    work.findings += acne_findings(acne, work.lesions, in_view)
    if shown.light != "white":
        work.flags.append("acne_in_polarised_light")


_STAGES: Mapping[str, Callable[[_Work], None]] = {
    "face": _see,
    "skin": _mask,
    "measures": _measure,
    "acne": _acne,
}


def _findings(work: _Work, scan: UUID) -> Findings:
    spots, lesions, face = work.spots or (), work.lesions or (), work.view.face
    networks = NETWORKS + (LESION_NETWORKS if work.marked else ())
    return Findings(
        schema_version=schema_of(work.marked),
        scan=scan,
        measured_at=datetime.now(timezone.utc),
        models={name: load_manifest().entry(name).sha256 for name in networks},
        calibration=work.capture.calibration,
        software=f"dermakiosk {importlib.metadata.version('dermakiosk')}, {engine_here(work.engine)}",
        quality=(*work.flags, *_doubts(work), *work.hidden),
        findings=tuple(work.findings),
        geometry=Geometry(
            marks=(
                *spot_marks(spots, work.masks, face),
                *marks("acne", lesions, [lesion.zone for lesion in lesions], face),
            )
        ),
        spots=work.marked,
    )


def _doubts(work: _Work) -> list[str]:
    """The flags of what was not measured, or is less sure than it looks."""
    raised = {
        "spots_not_counted": work.spots is None,
        "redness_not_measured": work.red is None,
        "uncalibrated_scale": work.scale.source != "calibration",
        "implausible_scale": work.scale.disbelieved,
        "low_resolution": work.mm_per_px / work.view.step > COARSE_MM_PER_PX,
    }
    return [flag for flag, is_so in raised.items() if is_so]


def _draw(work: _Work, findings: Sequence[Finding], words: Words) -> dict[str, UInt8Array]:
    shown, measured = work.shown.light, work.measured.light
    sheet = Sheet(
        work.picture,
        work.view.face,
        work.mm_per_px,
        work.scale.source == "calibration",
        _caption(work.capture, shown, measured, words),
        words,
        _caption(work.capture, shown, shown, words),
        work.capture.calibration is not None,
    )
    return draw_overlays(sheet, findings, work.spots, work.red, work.lesions)


def _choose(capture: Capture) -> tuple[Frame, Frame, list[str]]:
    """The frame that shows the face, the frame that is measured, and flags about what was missing."""
    by_light = {frame.light: frame for frame in capture.frames}
    shown = next((by_light[light] for light in ("white", "parallel", "cross") if light in by_light), None)
    if shown is None:
        raise Refused(
            "not_a_picture",
            "This capture has no frame under white or polarised light, so there is nothing to measure.",
        )
    height, width = shown.pixels.shape[:2]
    if height * width > MAX_PIXELS:
        raise Refused("too_big")
    if min(height, width) < MIN_PIXELS_A_SIDE:
        raise Refused("too_small", NO_ROOM_FOR_A_FACE)
    flags = [f"no_{light}_frame" for light in capture.missing]
    if capture.calibration is None:
        flags.append("uncalibrated_colour")
    cross = by_light.get("cross")
    if cross is None or cross.pixels.shape != shown.pixels.shape:
        if "no_cross_frame" not in flags:
            flags.append("no_cross_frame")
        return shown, shown, flags
    return shown, cross, flags


def _light(work: _Work, frame: Frame) -> Float32Array:
    """The close-up's linear light in `frame`."""
    return reflected(work.view.cut(frame.pixels), frame.colour, frame.light)


def _search_picture(frame: Frame) -> tuple[UInt8Array, float]:
    """The frame as uint8 sRGB with a bounded long side, and its size relative to the frame's."""
    height, width = frame.pixels.shape[:2]
    factor = min(1.0, SEARCH_LONG_SIDE / max(height, width))
    pixels = frame.pixels
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)
    light = reflected(pixels, frame.colour, frame.light)
    require_light(light)
    return to_srgb8(light), factor


def _opaque(skin: UInt8Array, view: FaceWindow, *frames: Frame) -> UInt8Array:
    """The mask without what a file of one of the `frames` has as transparent: white is all there is."""
    for frame in frames:
        if frame.shown is not None:
            skin = opaque(skin, view.cut(frame.shown.astype(np.uint8) * np.uint8(255)) == 255)
    return skin


def _without_rim(skin: UInt8Array, mm_per_px: float) -> UInt8Array:
    """The mask without its outermost millimetre, where hair and shadow mix into the colour."""
    reach = max(1, round(RIM_MM / mm_per_px))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.erode(skin, disc, borderValue=(0,)), np.uint8)


def _scaled(mm_per_px: float | None, factor: float) -> float | None:
    return mm_per_px / factor if mm_per_px else None


def _enlarged(face: Face, factor: float, shape: tuple[int, ...]) -> Face:
    """The face in pixels of the whole frame."""
    limits = [shape[1], shape[0], shape[1], shape[0]]
    x0, y0, x1, y1 = (float(v) for v in np.minimum(np.array(face.box) / factor, limits))
    return replace(face, box=(x0, y0, x1, y1), landmarks=face.landmarks / factor)


def _caption(capture: Capture, shown: str, measured: str, words: Words) -> tuple[str, ...]:
    """The lines under an overlay: the light, then when the pictures were taken, as far as that is known."""
    facts = []
    at = capture.captured_at
    if at is not None:
        month = words.months[at.month - 1]
        facts.append(words.taken % {"day": at.day, "month": month, "year": at.year, "time": f"{at:%H:%M}"})
    if capture.simulated:
        facts.append(f"{words.simulated}.")
    light = words.lights[shown if shown == measured else f"{shown}, {measured}"]
    return (light, " ".join(facts)) if facts else (light,)
