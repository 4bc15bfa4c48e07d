"""The time that each network takes in each engine."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from models.manifest import load_manifest
from models.runtime import Network, installed_engines


def time_networks(runs: int) -> list[dict[str, Any]]:
    """One row a network and engine: median and 95th percentile in milliseconds, on one thread."""
    rows = []
    for name in load_manifest().networks:
        for engine in installed_engines():
            network = Network(name, engine)
            batch = np.random.default_rng(0).random(network.input_shape, dtype=np.float32)
            network.run(batch)
            times = [_milliseconds(network, batch) for _ in range(runs)]
            median, slow = np.percentile(times, [50, 95])
            rows.append(
                {
                    "network": name,
                    "engine": engine,
                    "median_ms": round(float(median), 2),
                    "p95_ms": round(float(slow), 2),
                }
            )
    return rows


def _milliseconds(network: Network, batch: np.ndarray) -> float:
    started = time.perf_counter()
    network.run(batch)
    return (time.perf_counter() - started) * 1000
