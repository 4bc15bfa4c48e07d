"""`python -m models.training.convert TASK …`: a trained network as fp32 and whole-number `.tflite`."""

from __future__ import annotations

import importlib
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import litert_torch
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils import qsv_utils
from torch import Tensor, nn

from models.networks.runtime import DEFAULT_ENGINE, Graph
from models.training import augment, quantise
from models.training.__main__ import SETTINGS, changed
from models.training.loop import Task, load
from models.training.rewire import rewired

RUNS = 20
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
# A tensor's range out of the pictures' ranges: their widest; or about their mean, which clips extremes.
RANGES = {"widest": qsv_utils.min_max_update, "mean": qsv_utils.moving_average_update}


class ChannelsLast(nn.Module):
    """A network for (n, 3, h, w) as one for (n, h, w, 3) whose maps come out (n, h, w, channels)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.network(x.permute(0, 3, 1, 2))
        outputs = y if isinstance(y, tuple) else (y,)
        return tuple(t.permute(0, 2, 3, 1) if t.ndim == 4 else t for t in outputs)


class FileNetwork(nn.Module):
    """A `.tflite` file in the place of the network that it was made from, for a task's `evaluate`."""

    def __init__(self, content: bytes, restored: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.graph = Graph(content, DEFAULT_ENGINE)
        self.restored = restored or (lambda outputs: outputs)

    def forward(self, x: Tensor) -> Any:
        pictures = x.detach().float().cpu().permute(0, 2, 3, 1).numpy()
        rows = [self.graph.run(picture[None]) for picture in pictures]
        columns = [torch.from_numpy(np.concatenate(column)) for column in zip(*rows, strict=True)]
        maps = tuple((y.permute(0, 3, 1, 2) if y.ndim == 4 else y).to(x.device) for y in columns)
        return self.restored(maps if len(maps) > 1 else maps[0])


def float_file(network: nn.Module, size: tuple[int, int]) -> bytes:
    """The network, which takes (1, 3, height, width), as an fp32 `.tflite` of fixed batch 1."""
    edge = litert_torch.convert(ChannelsLast(network).eval(), (torch.zeros(1, *size, 3),))
    return bytes(edge.model_content())


def integer_file(content: bytes, pictures: Tensor) -> tuple[bytes, str]:
    """The fp32 file as whole numbers, and how its ranges were chosen from (n, 3, h, w) `pictures` in [-1, 1].

    Of the ways in RANGES, the one whose outputs differ least from the fp32 file's on these pictures.
    """
    batches = [picture[None] for picture in pictures.permute(0, 2, 3, 1).contiguous().numpy()]
    single = Graph(content, DEFAULT_ENGINE)
    wanted = [single.run(batch) for batch in batches]
    tried = {}
    for name, update in RANGES.items():
        maker = quantizer.Quantizer(content, recipe.static_wi8_ai8())
        made = rewired(bytes(maker.quantize(_statistics(content, batches, update)).quantized_model))
        tried[name] = (made, _difference(made, batches, wanted))
        print(f"{name} ranges: int8 differs by {tried[name][1]:.4f} of the outputs' spread")
    best = min(tried, key=lambda name: tried[name][1])
    return tried[best][0], best


def _statistics(content: bytes, batches: list[np.ndarray], update: Any) -> dict[str, Any]:
    calibrator = Calibrator(content, num_threads=1, qsv_update_func=update)
    [(signature, ports)] = calibrator.get_signature_list().items()
    recipes = RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    calibrator.calibrate({signature: [{ports["inputs"][0]: batch} for batch in batches]}, recipes)
    statistics = calibrator.get_model_qsvs()
    # The input's range is known, whatever these pictures hold: each byte has a number of its own.
    edge = np.ones((1, 1, 1, 1), np.float32)
    statistics[Graph(content, DEFAULT_ENGINE).input.name] = {"min": -edge, "max": edge}
    return statistics


def _difference(content: bytes, batches: list[np.ndarray], wanted: list[list[np.ndarray]]) -> float:
    """The mean over the outputs of |int8 - fp32| over the fp32 output's standard deviation."""
    graph = Graph(content, DEFAULT_ENGINE)
    rows = zip(*[graph.run(batch) for batch in batches], strict=True)
    pairs = zip((np.stack(r) for r in rows), (np.stack(w) for w in zip(*wanted, strict=True)), strict=True)
    return float(np.mean([np.abs(got - want).mean() / want.std() for got, want in pairs]))


def operations(content: bytes) -> Counter[str]:
    """How often each operator occurs in a `.tflite` file."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    codes = [model.operatorCodes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
    return Counter(names[code.builtinCode] for code in codes)


def multiply_adds(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiplications (each with an addition) of the convolutions and linear layers for one picture."""
    total = 0

    def count(layer: nn.Module, _: Any, y: Tensor) -> None:
        nonlocal total
        total += layer.weight[0].numel() * y.numel()

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    return total


def _views(pictures: Tensor, n: int) -> Tensor:
    """`n` of the pictures in [-1, 1], drawn and varied at random."""
    some = pictures[torch.randint(len(pictures), (n,))] / 2 + 0.5
    theta = augment.affine(n, some.device, rotate=15, scale=(0.85, 1.2), shift=0.05, flip_x=0.5)
    some = augment.warp(some, theta, tuple(some.shape[-2:]))
    return augment.light(some, stops=0.4) * 2 - 1


def _speed(graph: Graph, batch: np.ndarray) -> float:
    graph.run(batch)
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        graph.run(batch)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1000


def convert(
    task: Task,
    network: nn.Module,
    out: Path,
    name: str,
    *,
    evaluate: bool,
    adapt: int = 0,
    rate: float = 2e-5,
) -> dict[str, Any]:
    """Write `name`.fp32.tflite and `name`.tflite (int8) to `out`; what was measured.

    adapt: steps of quantisation-aware training before the int8 file is made, at learning rate `rate`.
    """
    pictures = task.calibration().cpu().float()
    size = tuple(pictures.shape[-2:])
    deployed = task.deployed(network).cpu().float().eval()
    single = float_file(deployed, size)
    (out / f"{name}.fp32.tflite").write_bytes(single)
    source = single
    if adapt:
        torch.manual_seed(0)
        views = partial(_views, pictures, max(2, 16 * 192 * 256 // (size[0] * size[1])))
        source = float_file(quantise.train(deployed, pictures, views, steps=adapt, rate=rate), size)
    whole, how = integer_file(source, pictures)
    (out / f"{name}.tflite").write_bytes(whole)
    report: dict[str, Any] = {
        "network": name,
        "parameters": sum(p.numel() for p in deployed.parameters()),
        "multiply_adds": multiply_adds(deployed, size),
        "calibration": f"{len(pictures)} pictures, {how} ranges",
        "quantisation_aware_steps": adapt,
    }
    batch = pictures[:1].permute(0, 2, 3, 1).contiguous()
    with torch.no_grad():
        truth = [y.numpy() for y in ChannelsLast(deployed)(batch)]
    for label, content in (("fp32", single), ("int8", whole)):
        graph = Graph(content, DEFAULT_ENGINE)
        got = graph.run(batch.numpy())
        report[label] = {
            "bytes": len(content),
            "operations": dict(operations(content)),
            "delegated": graph.delegated,
            "ms": round(_speed(graph, batch.numpy()), 2),
            "furthest_from_torch": [float(np.abs(a - b).max()) for a, b in zip(got, truth, strict=True)],
        }
        if evaluate:
            with torch.no_grad():
                figures = task.evaluate(FileNetwork(content, getattr(task, "restored", None)))
            report[label]["figures"] = figures
    if evaluate:
        before, after = report["fp32"]["figures"], report["int8"]["figures"]
        report["points_lost"] = {name: 100 * (before[name] - after[name]) for name in before}
    return report


@click.command()
@click.argument("task", type=click.Choice(sorted(SETTINGS)))
@click.option("--weights", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
@click.option("--data", type=FOLDER, required=True, help="The unpacked archives.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--name", help="The files' stem; by default the task.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Other than in the training run.")
@click.option("--adapt", type=click.IntRange(0), default=0, help="Steps of quantisation-aware training.")
@click.option("--rate", type=float, default=2e-5, show_default=True, help="Its learning rate.")
@click.option("--evaluate/--no-evaluate", default=True, help="Score both files on the validation split.")
def main(
    task: str,
    weights: Path,
    data: Path,
    out: Path,
    name: str | None,
    changes: tuple[str, ...],
    adapt: int,
    rate: float,
    evaluate: bool,
) -> None:
    """Convert TASK's trained WEIGHTS; what was measured goes to OUT/NAME.json.

    Settings are those of the training run beside WEIGHTS (settings.json), if they are there.
    """
    settings = dict(SETTINGS[task])
    run = weights.with_name("settings.json")
    if run.exists():
        settings |= json.loads(run.read_text(encoding="utf-8"))
    settings = changed(settings, changes)
    out.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"models.training.{settings['module']}")
    made = module.Task(data, settings, torch.device("cpu"))
    network = load(made.network.cpu(), weights)
    report = convert(made, network, out, name or task, evaluate=evaluate, adapt=adapt, rate=rate)
    (out / f"{name or task}.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
