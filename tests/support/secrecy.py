"""A search for pictures and findings in the clear, in files and in what crossed the wire."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from hardware.capture import Capture
from sync.wire.findings import Findings

# A file that begins like a picture is a picture, whatever its name.
PICTURE_MAGIC = {b"\x89PNG\r\n": "PNG", b"\xff\xd8\xff": "JPEG", b"DKCAP1\n": "Capture", b"II*\0": "TIFF"}
ROW_BYTES = 48


def frame_needles(capture: Capture) -> Iterator[bytes]:
    """Runs of pixels from the middle of each frame, as raw bytes in 16 and in 8 bits."""
    for frame in capture.frames:
        height, width = frame.pixels.shape[:2]
        for row in (height // 3, height // 2, 2 * height // 3):
            run = np.ascontiguousarray(frame.pixels[row, width // 2 : width // 2 + ROW_BYTES])
            eight_bit = (run >> 8).astype(np.uint8) if run.dtype == np.uint16 else run
            for needle in (run.tobytes()[:ROW_BYTES], eight_bit.tobytes()[:ROW_BYTES]):
                # A flat run (all black, all white) stands in any file and proves nothing.
                if len(set(needle)) > 6:
                    yield needle


def findings_needles(findings: Findings) -> Iterator[bytes]:
    """The measures as JSON names them, and each value as text and as the doubles of binary encodings."""
    for finding in findings.findings:
        yield f'"measure":"{finding.measure}"'.encode()
        yield f'"measure": "{finding.measure}"'.encode()
        if finding.value not in (int(finding.value), 0.0):
            yield f'"value":{finding.value!r}'.encode()
            yield f'"value": {finding.value!r}'.encode()
            yield struct.pack(">d", finding.value)
            yield struct.pack("<d", finding.value)


def found_in(data: bytes, needles: Iterable[bytes]) -> bytes | None:
    """The first needle that stands in `data`, or None."""
    return next((needle for needle in needles if needle in data), None)


def clear_pictures(files: Iterable[Path]) -> list[str]:
    """Every file that begins like a picture, of those that are still there."""
    seen = []
    for path in files:
        try:
            head = path.open("rb").read(8)
        except FileNotFoundError:  # half a file, which has its name since
            continue
        seen += [f"{path}: {name}" for magic, name in PICTURE_MAGIC.items() if head.startswith(magic)]
    return seen


def search(files: Iterable[Path], needles: Iterable[bytes]) -> list[str]:
    """What was found in the clear, one line per file."""
    wanted, lines = list(dict.fromkeys(needles)), []
    for path in files:
        needle = found_in(path.read_bytes(), wanted)
        if needle is not None:
            lines.append(f"{path}: {needle[:24]!r}")
    return lines
