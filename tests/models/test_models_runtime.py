"""Networks run only as the manifest describes them, and nobody waits for one for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from models.networks import manifest, runtime
from models.networks.manifest import LARGE_BYTES, Manifest, ModelsError, NetworkEntry, Tensor, load_manifest
from models.networks.runtime import DEFAULT_ENGINE, Graph, Network, NetworkTooSlow, Port
from tests.support.own_log import own_log


def changed(name: str, **changes: object) -> Manifest:
    """The manifest with other facts about one network."""
    known = load_manifest()
    entry = known.entry(name).model_copy(update=changes)
    return known.model_copy(update={"networks": known.networks | {name: entry}})


@pytest.fixture
def described_otherwise(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def describe(name: str, **changes: object) -> None:
        other = changed(name, **changes)
        for module in (manifest, runtime):
            monkeypatch.setattr(module, "load_manifest", lambda: other)

    return describe


def whole(scale: float, zero: int, dtype: type = np.int8) -> Port:
    return Port(0, "x", (1, 4), dtype, scale, zero)


@pytest.mark.parametrize(
    "changes",
    [
        {"input": Tensor(shape=(1, 96, 96, 3))},
        {"input": Tensor(shape=(1, 64, 64, 3), type="int8", scale=0.1, zero=3)},
        {"outputs": (Tensor(shape=(1, 213)),)},
        {"outputs": (Tensor(shape=(1, 213)), Tensor(shape=(1, 16)))},
    ],
)
def test_a_network_with_other_shapes_than_the_manifest_says_is_refused(
    described_otherwise: Callable[..., None], changes
) -> None:
    described_otherwise("iris", **changes)
    with pytest.raises(ModelsError, match="where the manifest says .*so it is not used"):
        Network("iris", DEFAULT_ENGINE)


def test_a_batch_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelsError, match=r"'iris' takes \(1, 64, 64, 3\), not \(1, 65, 64, 3\)"):
        Network("iris", DEFAULT_ENGINE).run(np.zeros((1, 65, 64, 3), np.float32))


def test_a_file_that_is_no_network_is_refused_by_each_engine() -> None:
    for engine in runtime.installed_engines():
        with pytest.raises(ValueError, match=r"not a valid|should be 'TFL3'"):
            Graph(b"not a network" * 100, engine)


def test_whole_numbers_are_what_they_stand_for_and_end_at_their_limits() -> None:
    port = whole(0.5, -3)
    values = np.array([[0.0, 1.0, 1e6, -1e6]], np.float32)
    numbers = port.numbers(values)
    assert numbers.dtype == np.int8
    assert numbers.tolist() == [[-3, -1, 127, -128]]
    assert port.values(numbers).tolist() == [[0.0, 1.0, 65.0, -62.5]]
    assert whole(1 / 255, 0, np.uint8).numbers(values).tolist() == [[0, 255, 255, 0]]


def test_every_byte_of_a_picture_has_a_whole_number_of_its_own() -> None:
    picture = np.arange(256, dtype=np.float32)[None] / 127.5 - 1
    assert whole(2 / 255, -1).numbers(picture).tolist() == [list(range(-128, 128))]


def test_a_network_that_does_not_answer_is_given_up_and_holds_one_thread() -> None:
    network = Network("iris", DEFAULT_ENGINE, deadline_s=0.2)
    release, batch = threading.Event(), np.zeros(network.input_shape, np.float32)
    run = network._graph.run

    def stuck(batch: np.ndarray) -> list[np.ndarray]:
        release.wait(60)
        return run(batch)

    network._graph.run = stuck  # type: ignore[method-assign]
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(NetworkTooSlow, match=r"'iris' took longer than 0\.2 s"):
            network.run(batch)
    assert threading.active_count() == before + 1
    release.set()
    network.deadline_s = 30
    assert [output.shape for output in network.run(batch)] == [(1, 213), (1, 15)]


def test_a_thread_that_cannot_start_is_an_error_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network("iris", DEFAULT_ENGINE, deadline_s=20)
    batch = np.zeros(network.input_shape, np.float32)

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(ModelsError, match="No thread could be started for the network 'iris'"):
            network.run(batch)
    assert not network._turn.locked()
    assert [output.shape for output in network.run(batch)] == [(1, 213), (1, 15)]


def test_a_graph_without_memory_is_an_error_and_not_a_long_wait() -> None:
    network = Network("iris", DEFAULT_ENGINE, deadline_s=20)

    def starved(batch: np.ndarray) -> list[np.ndarray]:
        raise MemoryError

    network._graph.run = starved  # type: ignore[method-assign]
    with pytest.raises(ModelsError, match="not enough memory for the network 'iris'") as error:
        network.run(np.zeros(network.input_shape, np.float32))
    assert not isinstance(error.value, NetworkTooSlow)


def test_what_nobody_foresaw_reaches_whoever_waits_and_not_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    network = Network("iris", DEFAULT_ENGINE, deadline_s=20)

    def odd(batch: np.ndarray) -> list[np.ndarray]:
        raise KeyError("33.0")

    network._graph.run = odd  # type: ignore[method-assign]
    with own_log():
        with pytest.raises(KeyError):
            network.run(np.zeros(network.input_shape, np.float32))
        # The thread that answered has ended too, and would have said so by now.
        for thread in threading.enumerate():
            if thread.name == network.name:
                thread.join(20)
    assert capsys.readouterr() == ("", "")


def test_a_network_gives_the_same_answers_to_several_threads() -> None:
    network = Network("iris", DEFAULT_ENGINE)
    batches = np.random.default_rng(0).random((8, *network.input_shape), dtype=np.float32)
    alone = [network.run(batch)[0] for batch in batches]
    together: dict[int, np.ndarray] = {}

    def work(which: int) -> None:
        together[which] = network.run(batches[which])[0]

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which, answer in enumerate(alone):
        assert np.array_equal(together[which], answer)


def test_a_large_file_needs_a_reason_and_our_own_a_card() -> None:
    facts = load_manifest().entry("iris").model_dump()
    with pytest.raises(ValueError, match="needs a reason"):
        NetworkEntry.model_validate(facts | {"size": LARGE_BYTES + 1})
    with pytest.raises(ValueError, match="needs a card"):
        NetworkEntry.model_validate(facts | {"package": None, "member": None, "file": "iris.tflite"})
    with pytest.raises(ValueError, match="either a package"):
        NetworkEntry.model_validate(facts | {"file": "iris.tflite"})
