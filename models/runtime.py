"""One interface over the engines that run a network."""

from __future__ import annotations

import importlib
import threading
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

_GREETING = b"Created TensorFlow Lite XNNPACK delegate"


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
