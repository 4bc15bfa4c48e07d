"""What each network must answer to a known picture, by the reference kernels, on this machine and engine.

    python -m models.networks.known_answers ENGINE

says on stderr, in one sentence, what answers otherwise, with exit status 1. The answers are written by
`python -m models.training.known_answers`.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hardware.arrays import Float32Array
from models.networks.manifest import ModelsError, load_manifest
from models.networks.processor import instruction_set
from models.networks.runtime import Network, NetworkNotFinite

# Of one output, at an even distance; a kernel that is wrong is so in more than one place.
MOST_NUMBERS = 256
# Right engines round some sums differently, and layers hand that on: in the mean over an output they are this
# far from the reference kernels at most, in steps of its whole numbers. A wrong one was 23.
STEPS = 4.0
# Of what floats spread over.
SHARE = 0.01

Run = Callable[[Float32Array], list[Float32Array]]


def known_picture(shape: Sequence[int]) -> Float32Array:
    """A drawn float32 picture of `shape` (1, h, w, 3) in [-1, 1]: slopes, a disc and small dark spots.

    Whole numbers until the last step, so that it is the same on every machine.
    """
    _, height, width, _ = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    x, y = x * 640 // width, y * 640 // height
    disc = (x - 320) ** 2 + (y - 320) ** 2 < 240**2
    spots = ((x % 80) - 40) ** 2 + ((y % 96) - 48) ** 2 < 81
    planes = []
    for base, slope in ((200, 3), (150, 5), (120, 7)):
        plane = np.where(disc, base - (x + y) * slope // 100, 40 + (x * slope) // 32 % 90)
        planes.append(np.where(disc & spots, plane // 2, plane))
    picture = np.stack(planes, axis=-1).clip(0, 255)
    return np.asarray(picture[None].astype(np.float32) / np.float32(127.5) - np.float32(1))


def sampled(output: Float32Array) -> Float32Array:
    """The numbers of one output that are kept, (n,)."""
    flat = output.ravel()
    return flat[:: max(1, -(-flat.size // MOST_NUMBERS))]


@lru_cache(maxsize=1)
def answers() -> dict[str, Any]:
    """By network: "sha256" of its file, "outputs" as `sampled` gives them. Raises ModelsError."""
    known = load_manifest().known_answers
    try:
        data = known.path.read_bytes()
    except OSError as error:
        raise ModelsError(f"{known.path} cannot be read. Install this software again.") from error
    if hashlib.sha256(data).hexdigest() != known.sha256:
        raise ModelsError(
            f"{known.path.name} is not the file that the manifest names. Install this software again."
        )
    return dict(json.loads(data))


def distance(name: str, run: Run) -> float:
    """How far what `run` answers is from the reference, as a share of what is allowed; above 1 is wrong.

    Raises ModelsError if the network's known answers are another file's.
    """
    entry = load_manifest().entry(name)
    known = answers().get(name, {})
    if known.get("sha256") != entry.sha256:
        raise ModelsError(f"The known answers of '{name}' are another file's. Install this software again.")
    try:
        answered = run(known_picture(entry.input.shape))
    except NetworkNotFinite:
        return math.inf
    shares = []
    for output, numbers, port in zip(answered, known["outputs"], entry.outputs, strict=True):
        wanted = np.asarray(numbers, np.float32)
        allowed = STEPS * port.scale if port.scale else SHARE * max(1.0, float(np.ptp(wanted)))
        shares.append(float(np.abs(sampled(output) - wanted).mean()) / allowed)
    # What is no number is as wrong as can be.
    return float(np.nan_to_num(max(shares, key=lambda share: (np.isnan(share), share)), nan=np.inf))


def require_known_answers(name: str, engine: str, run: Run | None = None) -> None:
    """Raises ModelsError if `engine` answers otherwise here. `run`: the network, if it is loaded."""
    if distance(name, run or Network(name, engine).run) > 1:
        raise ModelsError(
            f"The engine '{engine}' computes the network '{name}' wrongly on this processor "
            f"({instruction_set()}), so it is not used. Name another engine in the board profile."
        )


def require_all(engine: str) -> None:
    """Raises ModelsError if `engine` answers otherwise for any network of the manifest."""
    for name in load_manifest().networks:
        require_known_answers(name, engine)


def main() -> int:
    [engine] = sys.argv[1:]
    try:
        require_all(engine)
    except ModelsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
