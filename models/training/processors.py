"""`python -m models.training.processors`: networks × engines × processors, into models/docs/processors.md.

Each row is a process of its own, under an emulator where one is named, with Python at the end:
`--under "x86-64 avx2=qemu-x86_64 -cpu Haswell .venv/bin/python"`. It answers the known picture.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click

from models.known_answers import STEPS, distance
from models.manifest import load_manifest
from models.processor import instruction_set
from models.runtime import ENGINES, Network

PAGE = Path(__file__).parents[1] / "docs" / "processors.md"
DEADLINE_SECONDS = 900.0
_HEAD = """# What each engine answers on each processor

By `python -m models.training.processors`; the first is the machine it ran on, the others are emulated by
qemu-user. A number is how far an engine's answers to the known picture (`models/known_answers.py`) are from
those of the reference kernels, in the mean over the worst output, as a share of what is allowed ({steps:g}
steps of its whole numbers; 1 % of the spread where it has floats). Above 1 the engine is refused.

"""


@click.command()
@click.option("--under", multiple=True, metavar="NAME=COMMAND", help="An emulator with its Python.")
@click.option("--engine", "engines", multiple=True, type=click.Choice(list(ENGINES)), default=list(ENGINES))
@click.option("--one", is_flag=True, help="Only this process: a line of JSON for its one engine.")
def main(under: tuple[str, ...], engines: tuple[str, ...], one: bool) -> None:
    """Write the table: this machine first, then each emulated one."""
    names = list(load_manifest().networks)
    if one:
        print(
            json.dumps(
                {
                    name: distance(name, Network(name, engines[0], deadline_s=DEADLINE_SECONDS).run)
                    for name in names
                }
            )
        )
        return
    emulated = [text.partition("=") for text in under]
    places = [(instruction_set(), [sys.executable])]
    places += [(name, shlex.split(command)) for name, _, command in emulated]
    lines = [f"| processor | engine | {' | '.join(names)} |", "| --- | --- |" + " --- |" * len(names)]
    for place, command in places:
        for engine in engines:
            lines.append(f"| {place} | {engine} | {' | '.join(_cells(command, engine, len(names)))} |")
            print(lines[-1], flush=True)
            PAGE.parent.mkdir(exist_ok=True)
            PAGE.write_text(_HEAD.format(steps=STEPS) + "\n".join(lines) + "\n")


def _cells(command: list[str], engine: str, count: int) -> list[str]:
    """One cell a network, or why there is none."""
    call = [*command, "-m", "models.training.processors", "--one", "--engine", engine]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return ["not done in time"] * count
    if done.returncode != 0:
        return ["does not run"] * count
    return [f"{share:.2f}" for share in json.loads(done.stdout.splitlines()[-1]).values()]


if __name__ == "__main__":
    main()
