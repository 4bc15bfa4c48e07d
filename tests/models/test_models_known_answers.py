"""On this machine, each engine answers the known picture as the reference kernels do, or is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hardware.board import BOARDS
from kiosk_app.cli import cli
from kiosk_app.scanning import engine_check
from kiosk_app.scanning.engine_check import CHECKED, require_right_engine
from models.cli import models
from models.networks import known_answers, processor
from models.networks.known_answers import distance, known_picture, require_known_answers
from models.networks.manifest import ModelsError, load_manifest, verified_bytes
from models.networks.runtime import DEFAULT_ENGINE, Graph, Network, engine_here, installed_engines
from models.training import processors
from models.training.rewire import packed, unpacked
from tests.support.onnx_twin import onnx_twin
from tests.support.wrong_engine import SAID, have_the_engine_compute_wrongly

NETWORKS = list(load_manifest().networks)


@pytest.mark.parametrize("engine", installed_engines())
@pytest.mark.parametrize("name", NETWORKS)
def test_every_engine_answers_the_known_picture_as_the_reference_kernels_do(name: str, engine: str) -> None:
    assert distance(name, Network(name, engine).run) <= 1


@pytest.mark.parametrize("engine", installed_engines())
def test_the_answers_are_those_of_the_file_that_the_engine_was_given(engine: str) -> None:
    model = unpacked(verified_bytes("lesion-class"))
    largest = max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
    largest.data = np.ascontiguousarray(largest.data[::-1])
    assert distance("lesion-class", Graph(packed(model), engine).run) > 1


@pytest.mark.parametrize("name", NETWORKS)
def test_an_engine_that_answers_otherwise_is_refused_with_a_sentence(name: str) -> None:
    network, ports = Network(name, DEFAULT_ENGINE), load_manifest().entry(name).outputs

    def perturbed(batch: np.ndarray) -> list[np.ndarray]:
        outputs = network.run(batch)
        last = ports[-1]
        outputs[-1] = outputs[-1] + (12 * last.scale or 0.02 * max(1.0, float(np.ptp(outputs[-1]))))
        return outputs

    with pytest.raises(ModelsError, match=f"computes the network '{name}' wrongly on this processor"):
        require_known_answers(name, DEFAULT_ENGINE, perturbed)
    with pytest.raises(ModelsError, match="wrongly"):
        require_known_answers(name, DEFAULT_ENGINE, lambda batch: [o * np.nan for o in network.run(batch)])


def test_the_known_picture_is_one_picture_with_light_and_shade() -> None:
    picture = known_picture((1, 224, 224, 3))
    assert picture.dtype == np.float32 and picture.min() >= -1 and picture.max() <= 1
    assert picture.std() > 0.2


def test_answers_of_another_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = known_answers.answers() | {"iris": known_answers.answers()["acne"]}
    monkeypatch.setattr(known_answers, "answers", lambda: other)
    with pytest.raises(ModelsError, match="known answers of 'iris' are another file's"):
        require_known_answers("iris", DEFAULT_ENGINE)


def test_a_kiosk_asks_once_and_again_on_another_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    run = engine_check.subprocess.run
    monkeypatch.setattr(engine_check.subprocess, "run", lambda *a, **k: asked.append(a) or run(*a, **k))
    require_right_engine(DEFAULT_ENGINE, tmp_path)
    require_right_engine(DEFAULT_ENGINE, tmp_path)
    assert len(asked) == 1
    (tmp_path / CHECKED).write_text((tmp_path / CHECKED).read_text().replace(" on ", " on another "))
    require_right_engine(DEFAULT_ENGINE, tmp_path)
    assert len(asked) == 2


def test_a_kiosk_does_not_start_on_an_engine_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_the_engine_compute_wrongly(monkeypatch)
    with pytest.raises(ModelsError, match=re.escape(SAID)):
        require_right_engine(DEFAULT_ENGINE, tmp_path)
    assert not (tmp_path / CHECKED).exists()


@pytest.mark.parametrize("right", [True, False])
def test_the_self_test_lets_the_engine_of_the_board_answer_the_known_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    monkeypatch.setattr("firmware.bench.selftest.run_selftest", lambda *_: [])
    if not right:
        wrong = known_answers.answers()
        changed = {**wrong["iris"], "outputs": [[1e3] * len(each) for each in wrong["iris"]["outputs"]]}
        monkeypatch.setattr(known_answers, "answers", lambda: wrong | {"iris": changed})
    board = str(BOARDS / "simulated.toml")
    result = CliRunner().invoke(cli, ["selftest", "--board", board, "--state", str(tmp_path), "--json"])
    row = json.loads(result.stdout)
    assert (row["check"], row["ok"], result.exit_code) == ("networks", right, 0 if right else 1)
    said = f"right answers, {engine_here(DEFAULT_ENGINE)}" if right else "computes the network 'iris' wrongly"
    assert said in row["found"]


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", "flags\t: sse4_1 avx avx2 avx512bw avx512_vnni", "x86-64 avx512-vnni"),
        ("x86_64", "flags\t: sse4_1 avx avx2", "x86-64 avx2"),
        ("aarch64", "Features\t: fp asimd asimddp", "aarch64 dotprod"),
        ("aarch64", "Features\t: fp asimd", "aarch64 neon"),
        ("riscv64", "isa : rv64", "riscv64"),
    ],
)
def test_an_instruction_set_has_a_short_name(machine: str, flags: str, name: str) -> None:
    assert processor.named(machine, f"processor\t: 0\n{flags}\n") == name
    assert engine_here(DEFAULT_ENGINE).endswith(f" on {processor.instruction_set()}")


@pytest.fixture
def a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine the iris network answers otherwise."""
    right = known_answers.Network.run

    def run(network: Network, batch: np.ndarray) -> list[np.ndarray]:
        return [output + 9 * (network.name == "iris") for output in right(network, batch)]

    monkeypatch.setattr(known_answers.Network, "run", run)


def verified(*options: str) -> tuple[list[dict[str, str]], BaseException | None]:
    """The rows of `models verify`, and what it failed with."""
    done = CliRunner().invoke(models, ["verify", "--json", *options], env={"DERMAKIOSK_STATE": ""})
    return [json.loads(line) for line in done.stdout.splitlines()], done.exception


def test_verify_asks_each_network_for_its_answers_in_the_engines_that_are_named() -> None:
    without, _ = verified()
    rows, exception = verified("--engine", DEFAULT_ENGINE)
    assert exception is None and rows[: len(without)] == without
    names = [f"{name} in {engine_here(DEFAULT_ENGINE)}" for name in NETWORKS]
    assert rows[len(without) :] == [{"name": name, "state": "verified", "reason": ""} for name in names]


def test_verify_exits_with_1_and_names_the_network_and_engine_that_answer_otherwise(
    a_wrong_answer: None,
) -> None:
    rows, exception = verified("--engine", DEFAULT_ENGINE)
    [failed] = [row for row in rows if row["state"] == "failed"]
    assert failed["name"] == f"iris in {engine_here(DEFAULT_ENGINE)}"
    assert "computes the network 'iris' wrongly on this processor" in failed["reason"]
    assert isinstance(exception, ModelsError) and exception.exit_status == 1
    assert failed["name"] in str(exception)


def test_the_page_of_processors_keeps_its_end_and_the_rows_that_were_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "processors.md"
    page.write_text(processors.PAGE.read_text() + "\nThe end.\n")
    files = processors.columns()
    before = processors.known_rows(page.read_text(), files)
    monkeypatch.setattr(processors, "PAGE", page)
    monkeypatch.setattr(processors, "_cells", lambda *_: ["1.25"] * len(NETWORKS))
    line = ["--engine", "onnxruntime", "--onnx", str(tmp_path), "--under", "another=python"]
    assert CliRunner().invoke(processors.main, line, catch_exceptions=False).exit_code == 0
    new = {("another", "onnxruntime"), (processor.instruction_set(), "onnxruntime")}
    after = processors.known_rows(page.read_text(), files)
    assert {key for key in after if after[key] == ["1.25"] * len(NETWORKS)} == new
    assert {key: cells for key, cells in after.items() if key not in new} == {
        key: cells for key, cells in before.items() if key not in new
    }
    assert page.read_text().endswith("\nThe end.\n")


def test_the_page_of_processors_is_about_the_networks_that_are_shipped() -> None:
    rows = processors.known_rows(processors.PAGE.read_text(), processors.columns())
    ours = {place: cells for (place, engine), cells in rows.items() if engine == DEFAULT_ENGINE}
    assert len(ours) >= 3
    assert all(float(cell) <= 1 for cells in ours.values() for cell in cells)


def test_of_a_network_whose_file_is_another_one_the_page_of_processors_knows_nothing() -> None:
    files = processors.columns()
    before = processors.known_rows(processors.PAGE.read_text(), files)
    after = processors.known_rows(processors.PAGE.read_text(), [*files[:-1], f"{NETWORKS[-1]} (another)"])
    assert after == {key: [*cells[:-1], processors.NOT_MEASURED] for key, cells in before.items()}


@pytest.mark.parametrize("name", ["lesion-class", "iris"])
def test_onnxruntime_in_floats_answers_the_known_picture_as_the_reference_kernels_do(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.onnx").write_bytes(onnx_twin(verified_bytes(name)))
    assert distance(name, processors.network_run(name, "onnxruntime in floats", tmp_path)) <= 1
