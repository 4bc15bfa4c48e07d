"""What the networks cost in the analysis of one 12 MP face: CPU seconds by network, loading included.

    python -m tests.bench.face_networks ENGINE

measures in this process, which must be a fresh one, and prints one JSON line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from skimage import data

from hardware.capture import Capture, Frame
from models.analysis.capture import analyse_capture
from models.analysis.colour import linear
from models.networks.runtime import Network

HEIGHT, WIDTH = 3040, 4056
MOST_S = 3.0
"""The goal for all networks together."""
DEADLINE_S = 300


def large_capture() -> Capture:
    """The portrait's head and shoulders as two 16-bit frames of 12 MP, a face of about 1,100 pixels."""
    head = cv2.resize(data.astronaut()[0:256, 90:346], (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
    left = (WIDTH - HEIGHT) // 2
    picture = cv2.copyMakeBorder(head, 0, 0, left, WIDTH - HEIGHT - left, cv2.BORDER_REPLICATE)
    white = np.round(linear(picture, "srgb") * 65535).astype(np.uint16)
    frames = tuple(
        Frame(light, p, 8000, 1.0, n)
        for n, (light, p) in enumerate([("white", white), ("cross", white // 2)])
    )
    return Capture("bench", frames, "nominal-bench", simulated=True)


def networks_share(engine: str) -> dict[str, Any]:
    """CPU seconds and runs by network, their sum, and the CPU seconds of the whole analysis."""
    spent: dict[str, dict[str, float]] = {}

    def counted(method: Callable[..., Any], name_of: Callable[..., str], is_run: bool) -> Callable[..., Any]:
        def work(network: Network, *given: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return method(network, *given, **named)
            finally:
                row = spent.setdefault(name_of(network, *given), {"cpu_s": 0.0, "runs": 0})
                row["cpu_s"] += time.process_time() - started
                row["runs"] += is_run

        return work

    Network.run = counted(Network.run, lambda network, *_: network.name, True)  # type: ignore[method-assign]
    Network.__init__ = counted(Network.__init__, lambda _, name, *__: name, False)  # type: ignore[method-assign]
    capture = large_capture()
    started = time.process_time()
    analysis = analyse_capture(capture, uuid4(), engine)
    whole = time.process_time() - started
    assert any(finding.measure == "acne_count" for finding in analysis.findings.findings)
    return {
        "engine": engine,
        "networks": {
            name: {"cpu_s": round(row["cpu_s"], 3), "runs": row["runs"]} for name, row in spent.items()
        },
        "cpu_s": round(sum(row["cpu_s"] for row in spent.values()), 3),
        "analysis_cpu_s": round(whole, 3),
        "goal_s": MOST_S,
    }


def networks_row(engine: str) -> dict[str, Any]:
    """`networks_share` of a fresh process, as a row of the benchmarks."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.face_networks", engine],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    return {"stage": "networks of a 12 MP face"} | json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(networks_share(sys.argv[1])))
