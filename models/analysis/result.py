"""The result of one analysis as a block of bytes, for the way out of the child process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from hardware.arrays import UInt8Array
from hardware.host.errors import PlainError
from sync.wire.findings import Findings

_MAGIC = b"DKRES1\n"


class ResultError(PlainError, ValueError):
    """Bytes that are no whole result: the child process ended before it was done."""


@dataclass(frozen=True)
class AnalysisResult:
    """Either `findings` with `overlays` (PNG bytes by name), or why there are none.

    `refused` is a reason of `refusal.SENTENCES`; `error` names a failure of ours. Both come with `sentence`.
    `seconds` is by stage; `peak_rss_mb` is the child's.
    """

    findings: Findings | None = None
    overlays: Mapping[str, bytes] = field(default_factory=dict)
    refused: str | None = None
    error: str | None = None
    sentence: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0


def write_result(result: AnalysisResult) -> bytes:
    """Magic, length of the header, JSON header, then one PNG after the other."""
    header = {
        "findings": result.findings.model_dump(mode="json") if result.findings else None,
        "overlays": [[name, len(png)] for name, png in result.overlays.items()],
        "refused": result.refused,
        "error": result.error,
        "sentence": result.sentence,
        "seconds": dict(result.seconds),
        "peak_rss_mb": result.peak_rss_mb,
    }
    text = json.dumps(header, allow_nan=False).encode()
    return b"".join([_MAGIC, len(text).to_bytes(4, "big"), text, *result.overlays.values()])


def read_result(data: bytes) -> AnalysisResult:
    """The AnalysisResult in `data`. Raises ResultError if it is not whole."""
    start = len(_MAGIC) + 4
    if data[: len(_MAGIC)] != _MAGIC:
        raise ResultError("The analysis ended without a result.")
    offset = start + int.from_bytes(data[len(_MAGIC) : start], "big")
    try:
        header = json.loads(data[start:offset])
        findings = header.pop("findings")
        overlays = {}
        for name, size in header.pop("overlays"):
            overlays[name] = data[offset : offset + size]
            offset += size
            if len(overlays[name]) != size:
                raise ResultError("The result of the analysis is cut short.")
        return AnalysisResult(
            findings=Findings.model_validate(findings) if findings else None, overlays=overlays, **header
        )
    except ResultError:
        raise
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        # What these say may quote a measurement.
        raise ResultError("The result of the analysis is damaged.") from error


def png(picture: UInt8Array) -> bytes:
    """H×W×3 uint8 sRGB, or H×W uint8, as PNG."""
    if picture.ndim == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise OSError("A picture could not be encoded as PNG.")
    return bytes(data)
