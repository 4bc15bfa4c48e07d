"""`python -m models.training.known_answers`: what the reference kernels answer to the known picture.

After every change of a network's file. A minute: these kernels are plain loops.
"""

from __future__ import annotations

import hashlib
import json
import re

import click
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from models.networks.known_answers import known_picture, sampled
from models.networks.manifest import MANIFEST, load_manifest, verified_bytes
from models.networks.runtime import Port


def reference_answers(name: str) -> list[list[float]]:
    """The sampled outputs of network `name` by the reference kernels, as values."""
    interpreter = Interpreter(
        model_content=verified_bytes(name), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    port = Port.of(interpreter.get_input_details()[0])
    interpreter.set_tensor(port.index, port.numbers(known_picture(port.shape)))
    interpreter.invoke()
    outputs = [Port.of(details) for details in interpreter.get_output_details()]
    return [
        [round(float(value), 5) for value in sampled(output.values(interpreter.get_tensor(output.index)))]
        for output in outputs
    ]


@click.command()
def main() -> None:
    """Write every network's answers, and their file's hash into the manifest."""
    known = load_manifest()
    made = {}
    for name, entry in known.networks.items():
        made[name] = {"sha256": entry.sha256, "outputs": reference_answers(name)}
        print(f"{name}: {sum(map(len, made[name]['outputs']))} numbers", flush=True)
    data = json.dumps(made, separators=(",", ":")).replace("}},", "}},\n") + "\n"
    known.known_answers.path.write_text(data, encoding="utf-8")
    sha256 = hashlib.sha256(data.encode()).hexdigest()
    line = f'known_answers = {{ file = "{known.known_answers.file}", sha256 = "{sha256}" }}'
    MANIFEST.write_text(
        re.sub(r"(?m)^known_answers = .*$", line, MANIFEST.read_text(encoding="utf-8"), count=1),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
