"""`python -m models.training.register NETWORK --from DIR/NAME --use USE`: a converted network ships now.

The file goes to models/weights/NETWORK.tflite, and its facts into that network's section of the manifest.
What the network does, where it comes from and whose it is are written there by hand.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import click
import numpy as np

from models.networks.manifest import MANIFEST, WEIGHTS, ModelsError, load_manifest
from models.networks.runtime import DEFAULT_ENGINE, Graph, Port


def facts(content: bytes, report: dict[str, object]) -> dict[str, str]:
    """The manifest's lines about a file: TOML key to TOML value."""
    graph = Graph(content, DEFAULT_ENGINE)
    return {
        "sha256": f'"{hashlib.sha256(content).hexdigest()}"',
        "size": str(len(content)),
        "parameters": str(report["parameters"]),
        "multiply_adds": str(report["multiply_adds"]),
        "input": _toml(graph.input),
        "outputs": "[\n" + "".join(f"    {_toml(port)},\n" for port in graph.outputs) + "]",
    }


def _toml(port: Port) -> str:
    kind = np.dtype(port.dtype).name
    numbers = "" if kind == "float32" else f", scale = {port.scale!r}, zero = {port.zero}"
    return f'{{ shape = {list(port.shape)}, type = "{kind}"{numbers} }}'


def rewritten(manifest: str, network: str, known: dict[str, str]) -> str:
    """The manifest's text with other facts in one network's section. Raises ModelsError if there is none."""
    head = f"[networks.{network}]\n"
    before, found, after = manifest.partition(head)
    if not found:
        raise ModelsError(
            f"The manifest has no section {head.strip()}. Write it: what it does, task, file, …"
        )
    section, mark, rest = after.partition("\n[")
    for key in known:
        section = re.sub(rf"(?ms)^{key} = (\[\n.*?^\]|[^\n]*)\n?", "", section)
    lines = "".join(f"{key} = {value}\n" for key, value in known.items())
    return before + head + section.strip("\n") + "\n" + lines + mark + rest


def ship_constants(network: str, text: str) -> None:
    """Write the constants beside a network, and their hash into the manifest.

    Raises ModelsError if the manifest names none.
    """
    constants = load_manifest().entry(network).constants
    if constants is None:
        raise ModelsError(f"The manifest names no constants of '{network}'. Write their line first.")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    constants.path.write_text(text, encoding="utf-8")
    line = f'{{ file = "{constants.file}", sha256 = "{sha256}" }}'
    MANIFEST.write_text(
        rewritten(MANIFEST.read_text(encoding="utf-8"), network, {"constants": line}), encoding="utf-8"
    )


@click.command()
@click.argument("network")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), required=True, help="Of convert: OUT/NAME."
)
@click.option(
    "--use",
    type=click.Choice(["research", "any"]),
    required=True,
    help="What the licences of all pictures that it learned from permit.",
)
def main(network: str, source: Path, use: str) -> None:
    """Ship SOURCE.tflite, which convert made beside SOURCE.json, as NETWORK."""
    content = source.with_name(f"{source.name}.tflite").read_bytes()
    report = json.loads(source.with_name(f"{source.name}.json").read_text(encoding="utf-8"))
    known = {"use": f'"{use}"'} | facts(content, report)
    text = rewritten(MANIFEST.read_text(encoding="utf-8"), network, known)
    WEIGHTS.mkdir(exist_ok=True)
    (WEIGHTS / f"{network}.tflite").write_bytes(content)
    MANIFEST.write_text(text, encoding="utf-8")
    print(f"{network} is now {load_manifest().entry(network).reference}.")


if __name__ == "__main__":
    main()
