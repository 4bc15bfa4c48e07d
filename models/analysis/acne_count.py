"""How many acne lesions a face shows, by zone: Findings with intervals from measured error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hardware.arrays import BoolArray, Float64Array
from models.analysis.acne import NETWORK, Acne, face_extent
from models.analysis.face import Face
from models.analysis.refusal import Refused
from models.networks.manifest import load_manifest, verified_constants
from sync.wire.findings import Finding

# A box is of a face, or of a zone, where this share of it is skin of that face.
_ON_SKIN = 0.5


@dataclass(frozen=True)
class AcneLesion:
    """One counted lesion, in pixels of the close-up; `zone` is "face" where it lies in no smaller zone."""

    x: float
    y: float
    radius_px: float
    zone: str


@lru_cache(maxsize=1)
def constants() -> dict[str, Any]:
    """The numbers beside the network: how far its count and severity err; by models.training.acne_error.

    Raises ModelsError if they are not the manifest's, or are another network's.
    """
    return verified_constants(NETWORK)


def require_size(face: Face) -> None:
    """Raises Refused("too_small") for a face, in pixels of its frame, whose lesions would be miscounted."""
    if face_extent(face) < constants()["face"]["least_px"]:
        raise Refused("too_small")


def lesions_on(boxes: Float64Array, masks: Mapping[str, BoolArray]) -> list[AcneLesion]:
    """The lesions whose `boxes` (k, 4 or more: x0, y0, x1, y1 in the masks' pixels) lie on the face.

    `masks` is H×W bool by zone, as zone_masks gives them, the whole "face" among them.
    """
    lesions = []
    for x0, y0, x1, y1 in boxes[:, :4]:
        inside = np.s_[int(max(0, y0)) : int(max(0, y1)) + 1, int(max(0, x0)) : int(max(0, x1)) + 1]
        shares = {zone: float(mask[inside].mean()) for zone, mask in masks.items() if mask[inside].size}
        if shares.get("face", 0.0) < _ON_SKIN:
            continue
        best = max((zone for zone in shares if zone != "face"), key=lambda zone: shares[zone], default="face")
        zone = best if shares[best] > 0 else "face"
        radius = float(np.sqrt((x1 - x0) * (y1 - y0))) / 2
        lesions.append(AcneLesion(float(x0 + x1) / 2, float(y0 + y1) / 2, radius, zone))
    return lesions


def interval(counted: int, known: Mapping[str, Any]) -> tuple[int, int]:
    """The 95 % interval of the true number where `counted` are found.

    `known` is a table of acne.toml: by the level of the count, the 2.5 % and 97.5 % quantiles of the
    difference of the square roots of the true and the counted number; up to `clear` are counted on
    faces presumed without any.
    """
    level = int(np.searchsorted(known["from"], counted, side="right")) - 1
    root = np.sqrt(counted)
    low = max(0.0, root + known["below"][level]) ** 2
    high = max(0.0, root + known["above"][level]) ** 2
    # The slack keeps the root of a whole number from falling below it.
    return (
        0 if counted <= known["clear"] else min(counted, int(np.floor(low + 1e-3))),
        max(counted, int(np.ceil(high - 1e-3))),
    )


def acne_findings(acne: Acne, lesions: Sequence[AcneLesion], zones: Sequence[str]) -> list[Finding]:
    """The count in each of `zones` and the severity, if there is one, of what the picture shows.

    Raises ModelsError.
    """
    known, manifest = constants(), load_manifest()
    network = manifest.entry(NETWORK).reference
    mapped = f"{network}+{manifest.entry('face-landmarks').reference}"

    def finding(measure: str, zone: str, value: int, ends: tuple[int, int], model: str) -> Finding:
        low, high = ends
        return Finding(measure=measure, zone=zone, value=value, unit="1", low=low, high=high, model=model)  # type: ignore[arg-type]

    findings = []
    for zone in zones:
        counted = sum(zone in ("face", lesion.zone) for lesion in lesions)
        table = known["face" if zone == "face" else "zone"]
        findings.append(finding("acne_count", zone, counted, interval(counted, table), mapped))
    grade = acne.severity
    if grade is None:
        return findings
    ends = known["severity"]["low"][grade], known["severity"]["high"][grade]
    return [*findings, finding("acne_severity", "face", grade, ends, network)]
