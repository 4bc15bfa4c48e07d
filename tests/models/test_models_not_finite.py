"""What is no number is an error of the network that gave it: it is never read as a finding or a refusal."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hardware.capture import Capture, Frame
from hardware.simulated.close_up import drawn
from models.analysis.acne import find_acne
from models.analysis.capture import analyse_capture
from models.analysis.colour import linear
from models.analysis.face import find_faces
from models.analysis.lesion import find_lesion
from models.analysis.saliency import saliency
from models.cli import analyse
from models.networks import runtime
from models.networks.known_answers import require_known_answers
from models.networks.manifest import ModelsError, load_manifest, verified_bytes
from models.networks.runtime import DEFAULT_ENGINE, ENGINES, Network, NetworkNotFinite, network

pytestmark = pytest.mark.usefixtures("one_look")

SPOILED = "spoiled"
NETWORKS = load_manifest().networks
SCAN = UUID("11111111-2222-4333-8444-555555555555")
Spoil = Callable[[str, int, float], None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spoil]:
    """Let the engine SPOILED, which else is the default one, give `number` in one place of an output."""
    real = importlib.import_module(ENGINES[DEFAULT_ENGINE]).Interpreter
    told: list[tuple[bytes, int, float]] = []

    class Interpreter(real):  # type: ignore[misc, valid-type]
        def __init__(self, model_content: bytes, num_threads: int) -> None:
            super().__init__(model_content=model_content, num_threads=num_threads)
            self._content = model_content

        def get_tensor(self, index: int) -> np.ndarray:
            tensor = super().get_tensor(index)
            for content, output, number in told:
                if content == self._content and self.get_output_details()[output]["index"] == index:
                    # Whole numbers cannot be NaN: that engine then gives floats.
                    tensor = tensor.astype(np.float32)
                    tensor.ravel()[tensor.size // 2] = number
            return tensor

    def spoil(name: str, output: int, number: float) -> None:
        told.append((verified_bytes(name), output, number))

    monkeypatch.setitem(sys.modules, "spoiled_engine", SimpleNamespace(Interpreter=Interpreter))
    monkeypatch.setitem(runtime.ENGINES, SPOILED, "spoiled_engine")
    monkeypatch.setattr("models.analysis.capture.engine_here", lambda engine: engine)
    network.cache_clear()
    yield spoil
    network.cache_clear()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "output"), [(name, n) for name, entry in NETWORKS.items() for n in range(len(entry.outputs))]
)
def test_an_answer_with_one_place_that_is_no_number_is_an_error_that_names_the_network(
    spoil: Spoil, name: str, output: int, number: float
) -> None:
    spoil(name, output, number)
    spoiled = Network(name, SPOILED)
    batch = np.zeros(spoiled.input_shape, np.float32)
    with pytest.raises(NetworkNotFinite) as error:
        spoiled.run(batch)
    assert str(error.value) == (
        f"The network '{name}' answered with what is no number, so nothing was measured. Run "
        "'dermakiosk models verify --engine spoiled' to see whether this engine is right on this processor."
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_an_engine_whose_known_answer_is_no_number_is_refused_as_wrong(spoil: Spoil, name: str) -> None:
    spoil(name, 0, np.nan)
    with pytest.raises(ModelsError, match=f"'spoiled' computes the network '{name}' wrongly"):
        require_known_answers(name, SPOILED)


READINGS = {
    "face": ("face-detection-short", "face-detection-full", "face-landmarks"),
    "lesion": ("lesion-outline", "lesion-class"),
    "saliency": ("lesion-class",),
    "acne": ("face-detection-short", "acne"),
    "capture": ("face-landmarks", "iris", "parsing", "acne"),
}


def read(what: str, portrait: np.ndarray) -> object:
    if what == "face":
        return find_faces(portrait, SPOILED)
    if what == "acne":
        return find_acne(portrait, SPOILED)
    if what == "capture":
        light = np.round(linear(portrait, "srgb") * 65535).astype(np.uint16)
        frame = Frame("white", light, 8000, 1.0, 0)
        return analyse_capture(Capture("test", (frame,), "nominal-test"), SCAN, SPOILED)
    mole = drawn(512, 384, 2)
    if what == "lesion":
        return find_lesion(mole, SPOILED)
    return saliency(mole, np.full(mole.shape[:2], 255, np.uint8), SPOILED)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize(("what", "name"), [(what, name) for what in READINGS for name in READINGS[what]])
def test_no_reading_and_no_refusal_is_made_of_what_is_no_number(
    spoil: Spoil, large_portrait: np.ndarray, what: str, name: str, number: float
) -> None:
    for output in range(len(NETWORKS[name].outputs)):
        spoil(name, output, number)
    with pytest.raises(NetworkNotFinite, match=f"The network '{name}' answered with what is no number"):
        read(what, large_portrait)


def test_every_network_is_read_by_one_of_these() -> None:
    assert {name for names in READINGS.values() for name in names} == set(NETWORKS)


def test_a_command_ends_with_the_networks_sentence_and_writes_no_row(
    spoil: Spoil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil("lesion-class", 0, np.nan)
    monkeypatch.setattr("models.analysis.lesion.network", lambda name, _: network(name, SPOILED))
    Image.fromarray(drawn(512, 384, 2)).save(tmp_path / "mole.png")
    done = CliRunner().invoke(
        analyse, ["lesion", str(tmp_path / "mole.png"), "--json", str(tmp_path / "rows")]
    )
    assert isinstance(done.exception, NetworkNotFinite) and done.exception.exit_status == 1
    assert not (tmp_path / "rows").exists()
