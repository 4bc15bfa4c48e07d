"""The analysis of a Capture: from frames to Findings, with the pictures that explain them."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from uuid import UUID

import cv2
import numpy as np

from hardware.arrays import BoolArray, PixelArray, UInt8Array
from hardware.capture import Capture, Frame
from hardware.picture_file import MAX_PIXELS
from models.analysis.acne import acne_of_face
from models.analysis.acne_count import Lesion, acne_findings, lesions_on, require_size
from models.analysis.closeup import CloseUp, close_up
from models.analysis.colour import reflected, to_srgb8
from models.analysis.face import Face
from models.analysis.findings import Field, marks, measure, red_places, shows_redness, spot_marks
from models.analysis.marked_spots import NETWORKS as LESION_NETWORKS
from models.analysis.marked_spots import marked_spots
from models.analysis.opaque import opaque, opaque_acne
from models.analysis.overlay import Sheet, draw_overlays
from models.analysis.parsing import parse
from models.analysis.picture import MIN_PIXELS_A_SIDE
from models.analysis.quality import (
    COARSE_MM_PER_PX,
    HIDE_SPOTS,
    MIN_FACE_PX,
    require_light,
    require_quality,
)
from models.analysis.refusal import NO_ROOM_FOR_A_FACE, Refused
from models.analysis.scale import scale_of
from models.analysis.skin import facial_skin
from models.analysis.spots import find_spots
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
    shown, measured, flags = _choose(capture)
    with watch.stage("face"):
        search, factor = _search_picture(shown)
        found = find_upright_face(search, engine)
        scale = scale_of(search, found, engine, _scaled(capture.mm_per_px, factor))
        face = _enlarged(found, factor, shown.pixels.shape)
        if face.width < MIN_FACE_PX:
            raise Refused("too_small")
    with watch.stage("skin"):
        view = close_up(face, (shown.pixels.shape[0], shown.pixels.shape[1]))
        mm_per_px = scale.mm_per_px * factor * view.step
        visible = reflected(view.cut(shown.pixels), shown.colour, shown.light)
        picture = to_srgb8(visible)
        skin = facial_skin(parse(picture, [view.face], engine), view.face)
        skin = _opaque(skin, view, shown, measured)
        flags += require_quality(visible, skin, view.face)
        inner = _without_rim(skin, mm_per_px)
        masks = zone_masks(view.face.points, inner)
        whole = zone_masks(view.face.points, skin)
    with watch.stage("measures"):
        light = visible
        if measured is not shown:
            light = reflected(view.cut(measured.pixels), measured.colour, measured.light)
        spots = None
        # Parallel-polarised shine makes spots, or hides them.
        if measured.light != "parallel" and not HIDE_SPOTS & set(flags):
            spots = find_spots(light, inner, mm_per_px)
        red = red_places(light, inner, mm_per_px) if shows_redness(light, inner) else None
        reference = load_manifest().entry("face-landmarks").reference
        results, hidden = measure(Field(light, masks, mm_per_px, reference), red, spots)
    with watch.stage("acne"):
        in_view = [zone for zone in masks if f"{zone}_hidden" not in hidden]
        acne, lesions, doubts = _acne(shown, face, view, whole, in_view, engine)
    flags += doubts
    flags += [
        flag for flag, seen in (("spots_not_counted", spots), ("redness_not_measured", red)) if seen is None
    ]
    if scale.source != "calibration":
        flags.append("uncalibrated_scale")
    if scale.disbelieved:
        flags.append("implausible_scale")
    if mm_per_px / view.step > COARSE_MM_PER_PX:
        flags.append("low_resolution")
    spots_marked: tuple[MarkedSpot, ...] = ()
    if capture.marked:
        with watch.stage("spots"):
            spots_marked = marked_spots(capture, engine)
    networks = NETWORKS + (LESION_NETWORKS if spots_marked else ())
    findings = Findings(
        schema_version=schema_of(spots_marked),
        scan=scan,
        measured_at=datetime.now(timezone.utc),
        models={name: load_manifest().entry(name).sha256 for name in networks},
        calibration=capture.calibration,
        software=f"dermakiosk {importlib.metadata.version('dermakiosk')}, {engine_here(engine)}",
        quality=tuple(flags + hidden),
        findings=(*results, *acne),
        geometry=Geometry(
            marks=(
                *spot_marks(spots or (), masks, view.face),
                *marks("acne", lesions or (), [lesion.zone for lesion in lesions or ()], view.face),
            )
        ),
        spots=spots_marked,
    )
    with watch.stage("overlays"):
        caption = _caption(capture, shown.light, measured.light, words)
        plain = _caption(capture, shown.light, shown.light, words)
        calibrated = capture.calibration is not None
        sheet = Sheet(
            picture, view.face, mm_per_px, scale.source == "calibration", caption, words, plain, calibrated
        )
        overlays = draw_overlays(sheet, findings.findings, spots, red, lesions)
    return Analysis(findings, overlays, watch.seconds)


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


def _acne(
    shown: Frame,
    face: Face,
    view: CloseUp,
    masks: Mapping[str, BoolArray],
    zones: Sequence[str],
    engine: str,
) -> tuple[list[Finding], list[Lesion] | None, list[str]]:
    """Findings, the counted lesions in the close-up's pixels, flags; no lesions where none can be counted."""
    try:
        require_size(face)
    except Refused:
        return [], None, ["acne_not_counted"]

    def develop(part: PixelArray) -> UInt8Array:
        return to_srgb8(reflected(part, shown.colour, shown.light))

    acne = opaque_acne(acne_of_face(face, shown.pixels, develop, engine), shown.shown)
    boxes = acne.counted[:, :4].reshape(-1, 2)
    lesions = lesions_on(view.placed(boxes).reshape(-1, 4), masks)
    flags = [] if shown.light == "white" else ["acne_in_polarised_light"]
    return acne_findings(acne, lesions, zones), lesions, flags


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


def _opaque(skin: UInt8Array, view: CloseUp, *frames: Frame) -> UInt8Array:
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
