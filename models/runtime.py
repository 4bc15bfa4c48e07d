"""One interface over the engines that run a network."""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hardware.standard_error import without_lines
from models.manifest import ModelsError, verified_bytes

DEFAULT_ENGINE = "ai-edge-litert"
ENGINES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
# A hundred times what the slowest network needs on one core of a Raspberry Pi.
DEADLINE_SECONDS = 60.0

_GREETING = b"Created TensorFlow Lite XNNPACK delegate"
_DELEGATES = {"DELEGATE", "TfLiteXNNPackDelegate"}
_WHOLE = (np.int8, np.uint8)


class NetworkTooSlow(ModelsError):
    """A network did not answer by its deadline."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph. value = (number - zero) * scale where the numbers are whole, else the number."""

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
        return cls(int(details["index"]), str(details["name"]), shape, details["dtype"], float(scale), int(zero))

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """float32 values as the numbers that the graph takes."""
        if self.dtype not in _WHOLE:
            return np.ascontiguousarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        scaled = np.multiply(values, np.float32(1 / self.scale), dtype=np.float32)
        np.rint(scaled, out=scaled)
        scaled += self.zero
        return np.clip(scaled, limits.min, limits.max, out=scaled).astype(self.dtype)

    def values(self, numbers: np.ndarray) -> np.ndarray:
        """The graph's numbers as float32 values."""
        if self.dtype not in _WHOLE:
            return np.asarray(numbers, np.float32)
        return (numbers.astype(np.float32) - self.zero) * np.float32(self.scale)


class Graph:
    """The content of a `.tflite` file, loaded into one engine; float32 in and out whatever the file's numbers are."""

    def __init__(self, content: bytes, engine: str, threads: int = 1) -> None:
        """Raises ModelsError if the engine is unknown or not installed, ValueError if it cannot run the content."""
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
        operators = self._interpreter._get_ops_details()
        taken = [op for op in operators if op["op_name"] in _DELEGATES]
        return len(taken) == 1 and bool(
            {output.index for output in self.outputs} <= {int(index) for index in taken[0]["outputs"]}
        )

    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the file's order, for one float32 batch of the input's shape. Raises ValueError for another."""
        if batch.shape != self.input.shape:
            raise ValueError(f"takes {self.input.shape} and was given {batch.shape}")
        self._interpreter.set_tensor(self.input.index, self.input.numbers(batch))
        self._interpreter.invoke()
        return [output.values(self._interpreter.get_tensor(output.index)) for output in self.outputs]
class Network:
    """One network in one engine, verified by hash; may be called from several threads."""

    def __init__(self, name: str, engine: str, threads: int = 1) -> None:
        """Raises ModelsError if the file is absent or altered, or the engine is unknown or not installed."""
        self.name, self.engine = name, engine
        make, content = _engine(engine).Interpreter, verified_bytes(name)
        with without_lines(lambda line: _GREETING in line):
            interpreter = make(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        self._outputs = interpreter.get_output_details()
        self._lock = threading.Lock()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, height, width, channels)."""
        return tuple(int(n) for n in self._input["shape"])

    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the file's order, for one float32 batch of `input_shape`."""
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(batch, np.float32))
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(output["index"]) for output in self._outputs]


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


@lru_cache(maxsize=16)
def network(name: str, engine: str = DEFAULT_ENGINE) -> Network:
    """Network `name` in `engine`, loaded once a process. Raises ModelsError."""
    return Network(name, engine)
