"""The time and memory of each network in each engine, beside onnxruntime where the same graph is at hand.

    python -m models.networks.bench NETWORK ENGINE THREADS RUNS [ONNX FILE]

times one of them in a process of its own, so that no other has warmed its memory, and prints one JSON line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hardware.arrays import Float32Array
from models.networks.manifest import ModelsError, load_manifest
from models.networks.runtime import ENGINES, Network, installed_engines

THREADS = (1, 2)
DEADLINE_S = 600.0

Run = Callable[[Float32Array], object]


def time_networks(names: Sequence[str], runs: int, onnx: Path | None = None) -> list[dict[str, Any]]:
    """One row a network, engine and number of threads: median and 95th percentile in ms, memory in MB.

    `names`: these networks, or all. `memory_mb` is what a fresh process grew by when the network was loaded
    and ran once. `xnnpack` says whether the engine gave the whole graph to its fast path. `onnx` is a folder;
    its <network>.onnx are timed too. Raises ModelsError.
    """
    rows = []
    for name in names or load_manifest().networks:
        load_manifest().entry(name)
        engines: list[tuple[str, Path | None]] = [(engine, None) for engine in installed_engines()]
        if onnx is not None:
            engines += [("onnxruntime", file) for file in [onnx / f"{name}.onnx"] if file.exists()]
        rows += [_apart(name, engine, threads, runs, file) for engine, file in engines for threads in THREADS]
    if not rows:
        raise ModelsError(
            f"No engine is installed here, so nothing can be timed: install one of {', '.join(ENGINES)}."
        )
    return rows


def _apart(name: str, engine: str, threads: int, runs: int, onnx: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "models.networks.bench", name, engine, str(threads), str(runs)]
    command += [str(onnx)] if onnx else []
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelsError(
            f"'{name}' in {engine} was not done within {DEADLINE_S:g} s. Ask for fewer --runs."
        ) from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ModelsError(f"'{name}' could not be timed in {engine}: {reason}")
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def _row(name: str, engine: str, threads: int, runs: int, onnx: Path | None) -> dict[str, Any]:
    entry = load_manifest().entry(name)
    batch = np.random.default_rng(0).random(entry.input.shape, dtype=np.float32)
    before = _resident()
    xnnpack = "-"
    if onnx is None:
        network = Network(name, engine, threads)
        run: Run = network.run
        xnnpack = "yes" if network.delegated else "no"
    else:
        run = onnx_run(onnx, threads)
    run(batch)
    grown = _resident() - before
    median, slow = np.percentile([_milliseconds(run, batch) for _ in range(runs)], [50, 95])
    return {
        "network": name,
        "engine": engine,
        "threads": threads,
        "median_ms": round(float(median), 2),
        "p95_ms": round(float(slow), 2),
        "memory_mb": round(grown / 1e6, 1),
        "file_mb": round((onnx or entry.path).stat().st_size / 1e6, 2),
        "parameters_m": round(entry.parameters / 1e6, 2),
        "multiply_adds_m": round(entry.multiply_adds / 1e6),
        "xnnpack": xnnpack,
    }


def _milliseconds(run: Run, batch: Float32Array) -> float:
    started = time.perf_counter()
    run(batch)
    return (time.perf_counter() - started) * 1000


def _resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def onnx_run(file: Path, threads: int, floats: bool = False) -> Callable[[Float32Array], list[Float32Array]]:
    """What onnxruntime answers with an ONNX file; with `floats` in these, rounded where the file rounds.

    Raises ModelsError if onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelsError("onnxruntime is not installed here: install it, or leave --onnx out.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if floats:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: list(session.run(None, {name: batch}))


if __name__ == "__main__":
    network_name, engine_name, thread_count, run_count, *files = sys.argv[1:]
    file = Path(files[0]) if files else None
    print(json.dumps(_row(network_name, engine_name, int(thread_count), int(run_count), file)))
