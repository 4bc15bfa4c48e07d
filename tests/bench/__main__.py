"""`make bench`: what the system costs beside the work that it cannot avoid, measured in the same run.

    python -m tests.bench [scan] [firmware] [networks] [clinic]

Machines differ and are noisy, so the ratio is the figure; the seconds only say what was divided.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import clinic, firmware, networks, scan

BUILD = Path(__file__).parents[2] / "build"


def _scan() -> list[dict]:
    rows = scan.stage_rows(BUILD / "bench")
    scan.print_stages(rows)
    return rows


def _firmware() -> list[dict]:
    folder = BUILD / "bench-firmware"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows = firmware.firmware_rows(folder)
    firmware.print_rows(rows)
    return rows


def _networks() -> list[dict]:
    shares = networks.share_rows()
    networks.print_shares(shares)
    rows = networks.rows_by_engine(BUILD / "onnx")
    networks.print_networks(rows)
    return shares + rows


def _clinic() -> list[dict]:
    rows = clinic.clinic_rows(BUILD / "bench-clinic")
    clinic.print_rows(rows)
    return rows


PARTS: dict[str, Callable[[], list[dict]]] = {
    "scan": _scan,
    "firmware": _firmware,
    "networks": _networks,
    "clinic": _clinic,
}


def main(names: list[str]) -> None:
    """Print the tables of the named parts, or of all, and write their rows into `build/bench.json`."""
    if unknown := set(names) - set(PARTS):
        sys.exit(f"There is no part {', '.join(sorted(unknown))}: name some of {', '.join(PARTS)}.")
    BUILD.mkdir(exist_ok=True)
    rows = []
    for name in names or PARTS:
        print(f"Measuring: {name}…", file=sys.stderr)
        rows += PARTS[name]()
    (BUILD / "bench.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
