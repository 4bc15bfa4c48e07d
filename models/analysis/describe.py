"""Describing one input as a JSON object: a picture's faces, a capture folder's findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np

from hardware.capture import CaptureError, read_capture_folder
from models.analysis.capture import analyse_capture
from models.analysis.closeup import close_up
from models.analysis.face import Face, find_faces
from models.analysis.refusal import SENTENCES, Refused
from models.analysis.result import png
from models.analysis.skin import skin_mask
from models.analysis.zones import zone_polygons
from models.picture import PictureError, read_picture


def describe_picture(path: Path, masks: Path | None, engine: str) -> dict[str, Any]:
    """The faces in the picture at `path`, largest first; its skin mask goes to `masks`/<stem>.png.

    An unreadable file gives "error"; a picture without a face gives "refused" and an empty list of faces.
    """
    row: dict[str, Any] = {"picture": str(path)}
    try:
        picture = read_picture(path)
    except PictureError as error:
        return row | {"error": error.reason, "sentence": error.sentence}
    height, width = picture.shape[:2]
    faces = find_faces(picture, engine)
    row |= {"width": width, "height": height, "faces": [_describe_face(face) for face in faces]}
    if not faces:
        return row | {"refused": "no_face", "sentence": SENTENCES["no_face"]}
    if masks:
        whole = np.zeros((height, width), np.uint8)
        for face in faces:
            view = close_up(face, (height, width))
            whole |= view.paste_mask(skin_mask(view.cut(picture), view.face), (height, width))
        if not cv2.imwrite(str(masks / f"{path.stem}.png"), whole):
            raise OSError(f"{masks / path.stem}.png could not be written.")
    return row


def _describe_face(face: Face) -> dict[str, Any]:
    return {
        "box": np.round(face.box, 2).tolist(),
        "score": round(face.score, 4),
        "presence": round(face.presence, 4),
        "landmarks": np.round(face.landmarks, 2).tolist(),
        "zones": {name: np.round(p, 2).tolist() for name, p in zone_polygons(face.points).items()},
    }


def measure_folder(path: Path, overlays: Path | None, engine: str) -> dict[str, Any]:
    """The Findings of the capture folder at `path`; its overlays go to `overlays`/<name>.png."""
    try:
        analysis = analyse_capture(read_capture_folder(path), uuid4(), engine)
    except CaptureError as error:
        return {"capture": str(path), "error": "not_a_capture", "sentence": str(error)}
    except Refused as refused:
        return {"capture": str(path), "refused": refused.reason, "sentence": refused.sentence}
    if overlays:
        overlays.mkdir(parents=True, exist_ok=True)
        for name, picture in analysis.overlays.items():
            (overlays / f"{name}.png").write_bytes(png(picture))
    return analysis.findings.model_dump(mode="json")
