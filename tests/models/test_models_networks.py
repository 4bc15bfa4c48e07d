"""The networks: what our own ship as; onnxruntime gives the same answers as our engine on every graph."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
import pytest

from models.networks.manifest import load_manifest, verified_bytes
from models.networks.runtime import DEFAULT_ENGINE, Network
from tests.support.onnx_twin import onnx_twin

OURS = [name for name, entry in load_manifest().networks.items() if entry.file is not None]
THEIRS = [name for name in load_manifest().networks if name not in OURS]
WHOLE_STEPS = 3  # as between our own engines


def onnx_session(name: str) -> onnxruntime.InferenceSession:
    """The network's twin, computed in floats and rounded where the graph rounds.

    In whole numbers onnxruntime's sums of products saturate on processors with AVX2 but without VNNI.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(onnx_twin(verified_bytes(name)), options)


@pytest.mark.parametrize("name", OURS)
def test_our_networks_are_whole_numbers_from_end_to_end(name: str) -> None:
    entry = load_manifest().entry(name)
    assert entry.input.type == "int8"
    assert {port.type for port in entry.outputs} == {"int8"}
    assert entry.size < 5_000_000


@pytest.mark.parametrize("name", OURS)
def test_onnxruntime_gives_the_same_answers_on_the_same_graph(name: str, portrait: np.ndarray) -> None:
    network, entry = Network(name, DEFAULT_ENGINE), load_manifest().entry(name)
    height, width = entry.input.shape[1:3]
    batch = cv2.resize(portrait, (width, height))[None].astype(np.float32) / 127.5 - 1
    session = onnx_session(name)
    for ours, theirs, port in zip(
        network.run(batch), session.run(None, {"input": batch}), entry.outputs, strict=True
    ):
        assert np.abs(ours - theirs).mean() < WHOLE_STEPS * port.scale


@pytest.mark.parametrize("name", THEIRS)
def test_onnxruntime_gives_the_same_numbers_on_a_third_partys_graph(name: str, portrait: np.ndarray) -> None:
    network = Network(name, DEFAULT_ENGINE)
    height, width = network.input_shape[1:3]
    batch = cv2.resize(portrait, (width, height))[None].astype(np.float32) / 255
    session = onnx_session(name)
    for ours, theirs in zip(network.run(batch), session.run(None, {"input": batch}), strict=True):
        assert np.ptp(ours) > 0 or ours.size == 1
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-2)
