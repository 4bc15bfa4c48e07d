"""Describing one input as a JSON object: a picture's faces, a capture folder's findings."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np

from hardware.arrays import UInt8Array
from hardware.capture import CaptureError
from hardware.capture_folder import read_capture_folder
from hardware.picture_colours import Colour
from hardware.picture_file import Picture
from models.analysis.answer import answer, not_measured
from models.analysis.batch import BatchError, Row, write_output
from models.analysis.capture import analyse_capture
from models.analysis.colour import linear
from models.analysis.face import Face, find_faces
from models.analysis.face_quality import require_light
from models.analysis.opaque import opaque
from models.analysis.parsing import parse
from models.analysis.picture import MIN_PIXELS_A_SIDE
from models.analysis.refusal import NO_ROOM_FOR_A_FACE, Refused
from models.analysis.result import png
from models.analysis.skin import skin_mask
from models.analysis.upright import require_upright
from models.analysis.zones import zone_polygons


def describe_picture(
    path: Path, masks: Path | None, parsing: Path | None, engine: str, colour: Colour = "auto"
) -> Row:
    """The faces in the picture at `path`, largest first.

    Its skin mask goes to `masks`/<stem>.png and its parsing to `parsing`/<stem>.png, even without a face. An
    unreadable file gives "error"; a picture without a face gives "refused" and an empty list of faces. A mask
    that cannot be written gives "error" beside the faces.
    """
    return answer(path, colour, lambda read: _described(read, path.stem, masks, parsing, engine))


def _described(read: Picture, stem: str, masks: Path | None, parsing: Path | None, engine: str) -> Row:
    picture = read.srgb8()
    height, width = picture.shape[:2]
    row: Row = {"width": width, "height": height, "faces": []}
    if min(height, width) < MIN_PIXELS_A_SIDE:
        return row | {"refused": "too_small", "sentence": NO_ROOM_FOR_A_FACE}
    faces = find_faces(picture, engine)
    try:
        require_upright(picture, faces, engine)
    except Refused as refused:
        return row | {"refused": refused.code, "sentence": refused.sentence}
    row["faces"] = [_describe_face(face) for face in faces]
    if not faces:
        why = _why_no_face(picture)
        row |= {"refused": why.code, "sentence": why.sentence}
    try:
        _write_maps(stem, read, faces, masks, parsing, engine)
    except BatchError as error:
        return row | {"error": "mask_not_written", "sentence": str(error)}
    return row


def _why_no_face(picture: UInt8Array) -> Refused:
    try:
        require_light(linear(picture[::4, ::4], "srgb"))
    except Refused as too_dark:
        return too_dark
    return Refused("no_face")


def _write_maps(
    stem: str, read: Picture, faces: list[Face], masks: Path | None, parsing: Path | None, engine: str
) -> None:
    if not masks and not parsing:
        return
    labels = opaque(parse(read.srgb8(), faces, engine), read.shown)
    if masks:
        write_output(masks / f"{stem}.png", png(skin_mask(labels, faces)))
    if parsing:
        write_output(parsing / f"{stem}.png", png(labels))


def _describe_face(face: Face) -> Row:
    return {
        "box": np.round(face.box, 2).tolist(),
        "score": round(face.score, 4),
        "presence": round(face.presence, 4),
        "landmarks": np.round(face.landmarks, 2).tolist(),
        "zones": {name: np.round(p, 2).tolist() for name, p in zone_polygons(face.points).items()},
    }


def measure_folder(path: Path, overlays: Path | None, engine: str, colour: Colour = "auto") -> Row:
    """The Findings of the capture folder at `path`; its overlays go to the folder `overlays`/<name>.png.

    A folder that cannot be read or measured gives "error"; overlays that cannot be written give it beside
    the Findings.
    """
    row: Row = {"capture": str(path)}
    try:
        analysis = analyse_capture(read_capture_folder(path, colour), uuid4(), engine)
    except CaptureError as error:
        return row | {"error": "not_a_capture", "sentence": str(error)}
    except Refused as refused:
        return row | {"refused": refused.code, "sentence": refused.sentence}
    except (MemoryError, cv2.error) as error:
        return row | not_measured(error)
    findings = analysis.findings.model_dump(mode="json")
    if not overlays:
        return findings
    try:
        for name, picture in analysis.overlays.items():
            write_output(overlays / f"{name}.png", png(picture))
    except BatchError as error:
        return findings | {"error": "overlays_not_written", "sentence": str(error)}
    return findings
