"""The networks by themselves: each on each engine, and all of them in the analysis of one face."""

from __future__ import annotations

from pathlib import Path

from models.networks.bench import time_networks
from models.networks.manifest import load_manifest, verified_bytes
from models.networks.runtime import installed_engines
from tests.bench.face_networks import networks_row
from tests.support.onnx_twin import onnx_twin

NETWORK_RUNS = 30


def share_rows() -> list[dict]:
    """One row an engine: what all networks take of the analysis of one face."""
    return [networks_row(engine) for engine in installed_engines()]


def rows_by_engine(folder: Path) -> list[dict]:
    """The rows of `models bench`, onnxruntime on the same graphs among them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in load_manifest().networks:
        (folder / f"{name}.onnx").write_bytes(onnx_twin(verified_bytes(name)))
    return [{"stage": "network"} | row for row in time_networks((), NETWORK_RUNS, folder)]


def print_networks(rows: list[dict]) -> None:
    columns = "{:21} {:15} {:>7} {:>8} {:>8} {:>6} {:>7} {:>9} {:>7} {:>7}"
    heads = ("network", "engine", "threads", "ms", "p95 ms", "MB", "file MB", "million", "Mmacs", "XNNPACK")
    print(columns.format(*heads))
    for row in rows:
        print(columns.format(*(value for key, value in row.items() if key != "stage")))


def print_shares(rows: list[dict]) -> None:
    print("All networks of a 12 MP face, loading included, in seconds of CPU:")
    for row in rows:
        each = ", ".join(f"{name} {of['cpu_s']:.2f} ({of['runs']})" for name, of in row["networks"].items())
        whole = f"{row['cpu_s']:.2f} of the analysis's {row['analysis_cpu_s']:.2f}"
        print(f"{row['engine']}: {whole}; goal {row['goal_s']:g}")
        print(f"  by network (runs): {each}")
