"""What no processor may compute otherwise is not in our graphs: a mean over long rows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.networks.manifest import load_manifest, verified_bytes
from models.networks.runtime import Graph, installed_engines
from models.training.rewire import kinds_of, rewired, unpacked

OURS = [name for name, entry in load_manifest().networks.items() if entry.file is not None]
# Of a row sum's 16-bit halves, with some room: XNNPACK for AVX2 adds 32 numbers at once, two a half.
LONGEST_ROW = 2048


@pytest.mark.parametrize("name", OURS)
def test_no_mean_of_our_networks_adds_up_a_long_row(name: str) -> None:
    model = unpacked(verified_bytes(name))
    graph = model.subgraphs[0]
    for operator, kind in zip(graph.operators, kinds_of(model), strict=True):
        if kind != "MEAN":
            continue
        shape = [int(n) for n in graph.tensors[operator.inputs[0]].shape]
        axes = np.frombuffer(
            bytes(model.buffers[graph.tensors[operator.inputs[1]].buffer].data), np.int32
        ).tolist()
        row = 1
        for axis in reversed(range(len(shape))):
            if axis not in axes:
                break
            row *= shape[axis]
        assert row <= LONGEST_ROW, f"{name} adds up rows of {row} numbers"


@pytest.mark.parametrize("engine", installed_engines())
def test_a_rewired_network_gives_the_same_answers_bit_by_bit(portrait: np.ndarray, engine: str) -> None:
    content = verified_bytes("lesion-class")
    made = rewired(content)
    kinds = kinds_of(unpacked(content)), kinds_of(unpacked(made))
    assert kinds[0][kinds[0].index("MEAN") - 1] == "TRANSPOSE"
    assert kinds[1] == [kind for kind in kinds[0] if kind != "TRANSPOSE"]
    batch = cv2.resize(portrait, (224, 224))[None].astype(np.float32) / 127.5 - 1
    [before], [after] = (Graph(file, engine).run(batch) for file in (content, made))
    assert np.array_equal(before, after)
