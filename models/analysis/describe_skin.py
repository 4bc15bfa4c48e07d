"""Describing a picture of skin as a JSON object: a close-up's lesion, a face's acne."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2

from hardware.arrays import UInt8Array
from hardware.picture_colours import Colour
from hardware.picture_file import Picture
from models.analysis.abcd import abcd
from models.analysis.acne import NETWORK as ACNE
from models.analysis.acne import THRESHOLD, Acne, find_acne
from models.analysis.acne_sheet import draw_acne
from models.analysis.answer import answer
from models.analysis.batch import BatchError, Row, write_output
from models.analysis.lesion import NETWORK as LESION
from models.analysis.lesion import FoundLesion, find_lesion
from models.analysis.lesion_sheet import draw_lesion
from models.analysis.opaque import opaque_acne, opaque_lesion
from models.analysis.outline import NETWORK as OUTLINE
from models.analysis.result import png
from models.analysis.saliency import saliency
from models.networks.acne_maps import CLASSES as KINDS
from models.networks.lesion_views import CLASSES
from models.networks.manifest import load_manifest

_Made = Mapping[str, tuple[Path | None, Callable[[], UInt8Array]]]


def describe_lesion(
    path: Path, masks: Path | None, overlays: Path | None, engine: str, colour: Colour = "auto"
) -> Row:
    """The lesion in the picture at `path` as one JSON object, or why there is none: "error", "refused".

    Its mask goes to `masks`/<stem>.png, what its class rests on to `overlays`/<stem>.png.
    """

    def described(read: Picture) -> Row:
        picture = read.srgb8()
        lesion = opaque_lesion(find_lesion(picture, engine), read.shown)
        made: _Made = {
            "mask": (masks, lambda: lesion.mask),
            "overlay": (
                overlays,
                lambda: draw_lesion(picture, lesion, saliency(picture, lesion.mask, engine)),
            ),
        }
        return _lesion_row(picture, lesion) | _written(path.stem, made)

    return answer(path, colour, described)


def describe_acne(path: Path, overlays: Path | None, engine: str, colour: Colour = "auto") -> Row:
    """The acne in the picture at `path` as one JSON object, or why there is none: "error", "refused".

    Its boxes are drawn in `overlays`/<stem>.png.
    """

    def described(read: Picture) -> Row:
        picture = read.srgb8()
        acne = opaque_acne(find_acne(picture, engine), read.shown)
        return _acne_row(acne) | _written(
            path.stem, {"overlay": (overlays, lambda: draw_acne(picture, acne))}
        )

    return answer(path, colour, described)


def _written(stem: str, made: _Made) -> Row:
    """Write each picture into its folder, where there is one; "error" for the first that cannot be."""
    for name, (folder, draw) in made.items():
        if folder is None:
            continue
        try:
            write_output(folder / f"{stem}.png", png(draw()))
        except BatchError as error:
            return {"error": f"{name}_not_written", "sentence": str(error)}
    return {}


def _lesion_row(picture: UInt8Array, lesion: FoundLesion) -> Row:
    manifest = load_manifest()
    return {
        "classes": {name: round(float(p), 6) for name, p in zip(CLASSES, lesion.chances, strict=True)},
        "melanoma": round(lesion.melanoma, 6),
        "melanoma_like": lesion.melanoma_like,
        "abcd": abcd(picture, lesion.mask),
        "area_px": int(cv2.countNonZero(lesion.mask)),
        "model": manifest.entry(LESION).reference,
        "outline_model": manifest.entry(OUTLINE).reference,
        "flags": list(lesion.flags),
    }


def _acne_row(acne: Acne) -> Row:
    names = [KINDS[int(kind)] for kind in acne.counted[:, 5]]
    return {
        "boxes": [
            [*(round(float(v), 2) for v in box[:4]), round(float(box[4]), 6), KINDS[int(box[5])]]
            for box in acne.boxes
        ],
        "threshold": THRESHOLD,
        "count": len(names),
        "counts": {name: names.count(name) for name in KINDS},
        "severity": acne.severity,
        "model": load_manifest().entry(ACNE).reference,
    }
