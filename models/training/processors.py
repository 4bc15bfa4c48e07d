"""`python -m models.training.processors`: networks × engines × processors, into models/docs/processors.md.

Each row is a process of its own, under an emulator where one is named, with Python at the end:
`--under "x86-64 avx2=qemu-x86_64 -cpu Haswell .venv/bin/python"`. It answers the known picture. With
--onnx, the folder of the same graphs that `make bench` writes, onnxruntime can be asked too, no engine of the
product.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from models.networks.bench import onnx_run
from models.networks.known_answers import STEPS, Run, distance
from models.networks.manifest import load_manifest
from models.networks.processor import instruction_set
from models.networks.runtime import ENGINES, Network, Port

PAGE = Path(__file__).parents[1] / "docs" / "processors.md"
DEADLINE_S = 900.0
# By the engine's name here: whether it computes in floats, and rounds where the graph rounds.
ORACLES = {"onnxruntime": False, "onnxruntime in floats": True}
_HEAD = """# What each engine answers on each processor

By `python -m models.training.processors`; the first is the machine it ran on, the others are emulated by
qemu-user. A number is how far an engine's answers to the known picture (`models/networks/known_answers.py`)
are from those of the reference kernels, in the mean over the worst output, as a share of what is allowed
({steps:g} steps of its whole numbers; 1 % of the spread where it has floats). Above 1 the engine is refused.

0.00 in whole numbers too says that the kernels round as the reference kernels do, number for number, as those
of tflite-runtime for aarch64; our engines' others are up to three steps away in the mean. With its largest
weights back to front, lesion-class has 7.1 in both engines, and in tflite-runtime for aarch64.

onnxruntime is no engine of the product. In whole numbers its sums of products saturate on processors with
AVX2 but without VNNI; in floats, rounded where the graph rounds, it is what the tests compare our engine
with.

At the top is each network's file, by the beginning of its SHA-256.

"""
NOT_MEASURED = "not measured"


@click.command()
@click.option("--under", multiple=True, metavar="NAME=COMMAND", help="An emulator with its Python.")
@click.option(
    "--engine", "engines", multiple=True, type=click.Choice([*ENGINES, *ORACLES]), default=list(ENGINES)
)
@click.option("--onnx", type=click.Path(path_type=Path, exists=True, file_okay=False), help="ONNX files.")
@click.option("--one", is_flag=True, help="Only this process: a line of JSON for its one engine.")
def main(under: tuple[str, ...], engines: tuple[str, ...], onnx: Path | None, one: bool) -> None:
    """Write the rows of this machine and of each emulated one; the page's other rows and its end stay."""
    missing = [engine for engine in engines if engine in ORACLES and onnx is None]
    if missing:
        raise click.UsageError(f"{missing[0]} needs --onnx.")
    names = list(load_manifest().networks)
    if one:
        print(json.dumps({name: distance(name, network_run(name, engines[0], onnx)) for name in names}))
        return
    emulated = [text.partition("=") for text in under]
    places = [(instruction_set(), [sys.executable])]
    places += [(name, shlex.split(command)) for name, _, command in emulated]
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    files = columns()
    rows, after = known_rows(before, files), before.rpartition("|\n")[2]
    for place, command in places:
        for engine in engines:
            rows[place, engine] = _cells(command, engine, onnx, len(names))
            print(_line(place, engine, *rows[place, engine]), flush=True)
            PAGE.parent.mkdir(exist_ok=True)
            PAGE.write_text(page(files, rows) + after, encoding="utf-8")


def columns() -> list[str]:
    """Each network with its file, as the table's head names it."""
    return [f"{name} ({entry.sha256[:7]})" for name, entry in load_manifest().networks.items()]


def known_rows(text: str, files: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """The cells of the page's table, by processor and engine; of another file nothing is."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    if not lines:
        return {}
    places = {file: number for number, file in enumerate(lines[0])}
    return {
        (line[0], line[1]): [line[places[file]] if file in places else NOT_MEASURED for file in files]
        for line in lines[2:]
    }


def page(files: Sequence[str], rows: dict[tuple[str, str], list[str]]) -> str:
    """The whole page: processors in the order in which they came, their engines together."""
    order = list(dict.fromkeys(place for place, _ in rows))
    lines = [_line("processor", "engine", *files), _line(*["---"] * (2 + len(files)))]
    lines += [_line(*key, *rows[key]) for key in sorted(rows, key=lambda key: order.index(key[0]))]
    return _HEAD.format(steps=STEPS) + "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def network_run(name: str, engine: str, onnx: Path | None) -> Run:
    """The network in an engine of the product, or in onnxruntime from the folder `onnx`."""
    if engine in ENGINES:
        return Network(name, engine, deadline_s=DEADLINE_S).run
    if onnx is None:
        raise ValueError(f"{engine} wants a folder of the graphs in ONNX: name it by --onnx.")
    run, entry = onnx_run(onnx / f"{name}.onnx", 1, ORACLES[engine]), load_manifest().entry(name).input
    port = Port(0, "input", entry.shape, np.dtype(entry.type).type, entry.scale, entry.zero)
    # Rounded as for our engines: of two numbers that are equally near, onnxruntime takes the even one.
    return lambda batch: run(port.values(port.numbers(batch)))


def _cells(command: list[str], engine: str, onnx: Path | None, count: int) -> list[str]:
    """One cell a network, or why there is none."""
    call = [*command, "-m", "models.training.processors", "--one", "--engine", engine]
    call += ["--onnx", str(onnx)] if onnx else []
    try:
        done = subprocess.run(
            call,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ["not done in time"] * count
    if done.returncode != 0:
        return ["does not run"] * count
    return [f"{share:.2f}" for share in json.loads(done.stdout.splitlines()[-1]).values()]


if __name__ == "__main__":
    main()
