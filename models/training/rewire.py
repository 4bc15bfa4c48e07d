"""`python -m models.training.rewire NETWORK`: a whole-number file whose means no processor gets wrong.

XNNPACK's sum of a row of int8, on processors with AVX2 but without AVX-512, overflows its 16-bit partial sums
in long rows: over 160×160 numbers a mean came out up to 144 steps too high. Where a map's channels lie last,
a mean over its rows and columns adds up columns, with another kernel, which is exact. Both are one sum, so
answers that were right stay what they were, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from models.networks.manifest import MANIFEST, ModelsError, load_manifest, verified_bytes, verified_constants
from models.training.register import facts, rewritten, ship_constants

_FILE_IDENTIFIER = b"TFL3"
_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def unpacked(content: bytes) -> Any:
    """A `.tflite` file as objects, those of its buffers that lie behind the description among them."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    for buffer in model.buffers:
        if buffer.offset:
            buffer.data = np.frombuffer(content[buffer.offset : buffer.offset + buffer.size], np.uint8)
            buffer.offset = buffer.size = 0
    return model


def packed(model: Any) -> bytes:
    """The objects as a `.tflite` file."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())


def kinds_of(model: Any) -> list[str]:
    """The name of each operator, in the graph's order."""
    return [_kind(model, operator) for operator in model.subgraphs[0].operators]


def rewired(content: bytes) -> bytes:
    """The file with each MEAN of a TRANSPOSE as a MEAN of what was transposed, over the axes there.

    Pairs of TRANSPOSE that undo each other, and operators that nothing reads any more, are gone.
    """
    model = unpacked(content)
    graph = model.subgraphs[0]
    made_by = {int(index): operator for operator in graph.operators for index in operator.outputs}

    def transposed(index: int) -> tuple[int, list[int]] | None:
        """What the tensor was transposed from, and the order of the axes there."""
        operator = made_by.get(index)
        if operator is None or _kind(model, operator) != "TRANSPOSE":
            return None
        return int(operator.inputs[0]), _constant(model, operator.inputs[1])

    def straight(index: int) -> int:
        """The tensor that this one is after two transpositions which undo each other, or itself."""
        second = transposed(index)
        first = transposed(second[0]) if second else None
        if second is None or first is None:
            return index
        order = [first[1][axis] for axis in second[1]]
        return first[0] if order == sorted(order) else index

    for operator in graph.operators:
        operator.inputs = [straight(int(index)) for index in operator.inputs]
        source = transposed(operator.inputs[0]) if _kind(model, operator) == "MEAN" else None
        if source is not None and not operator.builtinOptions.keepDims:
            index, order = source
            axes = sorted(order[axis] for axis in _constant(model, operator.inputs[1]))
            left = [axis for axis in order if axis not in axes]
            if left == sorted(left):
                operator.inputs = [index, _added(model, operator.inputs[1], axes)]
    graph.operators = _read(graph.operators, graph.outputs)
    return packed(model)


def _kind(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    return str(_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _constant(model: Any, index: int) -> list[int]:
    tensor = model.subgraphs[0].tensors[index]
    return [int(n) for n in np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int32)]


def _added(model: Any, like: int, values: Sequence[int]) -> int:
    """The index of a new tensor of whole numbers, of the same shape as the tensor `like`."""
    graph, buffer, tensor = model.subgraphs[0], schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(np.array(values, np.int32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.shape, tensor.type = graph.tensors[like].shape, graph.tensors[like].type
    tensor.name, tensor.buffer = f"axes_{len(graph.tensors)}", len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _read(operators: Sequence[Any], outputs: Sequence[int]) -> list[Any]:
    """The operators that something reads, in their order."""
    wanted, kept = {int(index) for index in outputs}, []
    for operator in reversed(operators):
        if wanted & {int(index) for index in operator.outputs}:
            wanted |= {int(index) for index in operator.inputs}
            kept.append(operator)
    return kept[::-1]


@click.command()
@click.argument("network")
def main(network: str) -> None:
    """Ship NETWORK's file rewired, its facts and those beside it with the new file's hash."""
    entry = load_manifest().entry(network)
    if entry.file is None:
        raise ModelsError(f"'{network}' is a third party's: only our own files are rewired.")
    content = verified_bytes(network)
    made = rewired(content)
    report: dict[str, object] = {"parameters": entry.parameters, "multiply_adds": entry.multiply_adds}
    known = facts(made, report)
    beside = (
        entry.constants.path.read_text(encoding="utf-8")
        if verified_constants(network) and entry.constants
        else ""
    )
    entry.path.write_bytes(made)
    MANIFEST.write_text(rewritten(MANIFEST.read_text(encoding="utf-8"), network, known), encoding="utf-8")
    if beside:
        ship_constants(network, beside.replace(entry.sha256, known["sha256"].strip('"')))
    print(f"{network}: {len(content)} bytes before, {len(made)} now, {known['sha256']}.")


if __name__ == "__main__":
    main()
