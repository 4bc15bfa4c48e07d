"""One interface over the engines that run a network."""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hardware.arrays import Float32Array
from hardware.stderr_lines import without_lines
from models.networks.manifest import ModelsError, Tensor, load_manifest, verified_bytes
from models.networks.processor import instruction_set

DEFAULT_ENGINE = "ai-edge-litert"
ENGINES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
# A hundred times what the slowest network needs on one core of a Raspberry Pi.
DEADLINE_S = 60.0

TIE = 1 / 256

_GREETING = b"Created TensorFlow Lite XNNPACK delegate"
_DELEGATES = {"DELEGATE", "TfLiteXNNPackDelegate"}
_WHOLE = (np.int8, np.uint8)

# A graph's own: whole, of 8 bits, or fractions.
Numbers = npt.NDArray[np.int8 | np.uint8 | np.floating[Any]]


class NetworkTooSlow(ModelsError):
    """A network did not answer by its deadline."""


class NetworkNotFinite(ModelsError):
    """A network answered with what is no number, or an infinite one."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph; value = (number - zero) * scale where its numbers are whole."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: type
    scale: float
    zero: int

    @classmethod
    def of(cls, details: dict[str, Any]) -> Port:
        """The port that an engine's details describe."""
        scale, zero = details["quantization"]
        shape = tuple(int(n) for n in details["shape"])
        return cls(
            int(details["index"]), str(details["name"]), shape, details["dtype"], float(scale), int(zero)
        )

    def matches(self, wanted: Tensor) -> bool:
        """Whether this is what the manifest says."""
        return (
            (self.shape, np.dtype(self.dtype).name, self.zero) == (wanted.shape, wanted.type, wanted.zero)
        ) and math.isclose(self.scale, wanted.scale, rel_tol=1e-5)

    def numbers(self, values: Float32Array) -> Numbers:
        """float32 values as the numbers that the graph takes."""
        if self.dtype not in _WHOLE:
            return np.ascontiguousarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        scaled = np.multiply(values, np.float32(1 / self.scale), dtype=np.float32)
        # Bytes in [-1, 1] lie half-way between two numbers: all go up, or two bytes would share one.
        scaled += self.zero + 0.5 + TIE
        np.floor(scaled, out=scaled)
        return np.clip(scaled, limits.min, limits.max, out=scaled).astype(self.dtype)

    def values(self, numbers: Numbers) -> Float32Array:
        """The graph's numbers as float32 values."""
        if self.dtype not in _WHOLE:
            return np.asarray(numbers, np.float32)
        return (numbers.astype(np.float32) - self.zero) * np.float32(self.scale)


class Graph:
    """The content of a `.tflite` file in one engine: float32 in and out, whatever the file's numbers are."""

    def __init__(self, content: bytes, engine: str, threads: int = 1) -> None:
        """Raises ModelsError if the engine is unknown or absent, ValueError if it cannot run the content."""
        make = _engine(engine).Interpreter
        with without_lines(lambda line: _GREETING in line):
            try:
                self._interpreter = make(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
            except RuntimeError as error:
                raise ValueError(str(error).strip().splitlines()[0]) from error
        self.input = Port.of(self._interpreter.get_input_details()[0])
        self.outputs = [Port.of(details) for details in self._interpreter.get_output_details()]

    @property
    def delegated(self) -> bool:
        """Whether the engine handed the whole graph to XNNPACK, its fast path."""
        # The engines say this nowhere else; both have had this method for years.
        operators = self._interpreter._get_ops_details()  # noqa: SLF001
        taken = [op for op in operators if op["op_name"] in _DELEGATES]
        return len(taken) == 1 and bool(
            {output.index for output in self.outputs} <= {int(index) for index in taken[0]["outputs"]}
        )

    def run(self, batch: Float32Array) -> list[Float32Array]:
        """The outputs, in the file's order, for one float32 batch of the input's shape."""
        self._interpreter.set_tensor(self.input.index, self.input.numbers(batch))
        self._interpreter.invoke()
        return [output.values(self._interpreter.get_tensor(output.index)) for output in self.outputs]


class Network:
    """One network of the manifest in one engine, verified; may be called from several threads."""

    def __init__(self, name: str, engine: str, threads: int = 1, deadline_s: float = DEADLINE_S) -> None:
        """Raises ModelsError if the file is absent, altered, not as described, or unknown to the engine."""
        self.name, self.engine, self.deadline_s = name, engine, deadline_s
        content, entry = verified_bytes(name), load_manifest().entry(name)
        try:
            self._graph = Graph(content, engine, threads)
        except ValueError as error:
            raise ModelsError(f"The engine '{engine}' cannot run the network '{name}': {error}.") from error
        found, wanted = [self._graph.input, *self._graph.outputs], [entry.input, *entry.outputs]
        if len(found) != len(wanted) or not all(map(Port.matches, found, wanted)):
            raise ModelsError(
                f"The network '{name}' takes and gives {_shapes(found)} where the manifest says "
                f"{_shapes(wanted)}, so it is not used. {entry.remedy}"
            )
        self._turn = threading.Lock()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, height, width, channels)."""
        return self._graph.input.shape

    @property
    def delegated(self) -> bool:
        """Whether the engine handed the whole graph to XNNPACK, its fast path."""
        return self._graph.delegated

    def run(self, batch: Float32Array) -> list[Float32Array]:
        """The outputs, in the file's order, for one float32 batch of `input_shape`.

        Raises ModelsError for a batch of another shape, NetworkNotFinite for NaN or infinity in the answer,
        NetworkTooSlow after `deadline_s`. No engine can be told to stop: a run that was given up goes on in
        its thread and keeps its memory, and until it ends further runs of this network wait for it up to
        their own deadlines. What never ends holds one thread, which only the end of the process frees; where
        that matters, the analysis is a process of its own.
        """
        if batch.shape != self.input_shape:
            raise ModelsError(f"The network '{self.name}' takes {self.input_shape}, not {batch.shape}.")
        answer: Future[list[Float32Array]] = Future()
        ends = time.monotonic() + self.deadline_s
        try:
            # One run at a time, and one given up keeps its turn: threads and their memory cannot pile up.
            if not self._turn.acquire(timeout=self.deadline_s):
                raise FutureTimeout
            self._begin(batch, answer)
            return answer.result(ends - time.monotonic())
        except FutureTimeout as error:
            raise NetworkTooSlow(
                f"The network '{self.name}' took longer than {self.deadline_s:g} s and was given up. "
                "See what else is at work on this machine, then try again."
            ) from error

    def _begin(self, batch: Float32Array, answer: Future[list[Float32Array]]) -> None:
        thread = threading.Thread(target=self._answer, args=(batch, answer), name=self.name, daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            self._turn.release()
            raise ModelsError(
                f"No thread could be started for the network '{self.name}'. "
                "See what else is at work on this machine, then try again."
            ) from error

    def _answer(self, batch: Float32Array, answer: Future[list[Float32Array]]) -> None:
        try:
            answer.set_result(self._finite(self._graph.run(batch)))
        except NetworkNotFinite as error:
            answer.set_exception(error)
        except (RuntimeError, ValueError) as error:
            failed = ModelsError(
                f"The network '{self.name}' failed in the engine '{self.engine}'. "
                f"Run 'dermakiosk models verify --engine {self.engine}' to see whether this engine is right "
                "on this processor."
            )
            failed.__cause__ = error  # its words are a library's, and may quote what it was given
            answer.set_exception(failed)
        except MemoryError:
            answer.set_exception(
                ModelsError(
                    f"There is not enough memory for the network '{self.name}'. Use smaller pictures."
                )
            )
        except Exception as error:  # noqa: BLE001  whoever waits gets it, and does not wait for nothing
            answer.set_exception(error)
        finally:
            self._turn.release()

    def _finite(self, outputs: list[Float32Array]) -> list[Float32Array]:
        # Every comparison with NaN is false: further on it would read as "no face", "not skin", "benign".
        if not all(np.isfinite(output).all() for output in outputs):
            raise NetworkNotFinite(
                f"The network '{self.name}' answered with what is no number, so nothing was measured. "
                f"Run 'dermakiosk models verify --engine {self.engine}' to see whether this engine is right "
                "on this processor."
            )
        return outputs


def _shapes(ports: Sequence[Port | Tensor]) -> str:
    words = []
    for port in ports:
        name = port.type if isinstance(port, Tensor) else np.dtype(port.dtype).name
        words.append(f"{'x'.join(map(str, port.shape))} {name}")
    return ", ".join(words)


def _engine(name: str) -> Any:
    if name not in ENGINES:
        raise ModelsError(f"The engine '{name}' is unknown. Use one of {', '.join(ENGINES)}.")
    try:
        return importlib.import_module(ENGINES[name])
    except ImportError as error:
        raise ModelsError(
            f"The engine '{name}' is not installed here ({error}). Install the package {name}, "
            "or name another engine in the board profile."
        ) from error


def installed_engines() -> list[str]:
    """The engines that can be imported on this machine."""
    found = []
    for name in ENGINES:
        try:
            _engine(name)
        except ModelsError:
            continue
        found.append(name)
    return found


def engine_here(name: str) -> str:
    """What computes here, such as "ai-edge-litert 2.3.0 on x86-64 avx2". Raises ModelsError."""
    _engine(name)
    return f"{name} {importlib.metadata.version(name)} on {instruction_set()}"


@lru_cache(maxsize=16)
def network(name: str, engine: str = DEFAULT_ENGINE) -> Network:
    """Network `name` in `engine`, loaded once a process. Raises ModelsError."""
    return Network(name, engine)
