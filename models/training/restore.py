"""`python -m models.training.restore TASK …`: float weights out of a shipped `.tflite`, to train on from."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from models.networks.manifest import verified_bytes
from models.training.__main__ import SETTINGS, changed
from models.training.backbone import BATCH_NORM
from models.training.loop import save

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_LAYERS = {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D}
_LAYERS |= {schema.BuiltinOperator.FULLY_CONNECTED}


def layers_of(content: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight, bias) of each convolution and linear layer of an int8 file, as floats, in its order.

    Weights as torch has them: (outputs, inputs / groups, height, width).
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    graph = model.subgraphs[0]

    def value(index: int) -> np.ndarray:
        tensor = graph.tensors[index]
        whole = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32}[tensor.type]
        buffer = model.buffers[tensor.buffer]
        # Larger buffers lie behind the graph's description, named by their place in the file.
        held = content[buffer.offset : buffer.offset + buffer.size] if buffer.size else bytes(buffer.data)
        raw = np.frombuffer(held, whole).reshape(tensor.shape)
        shape = [1] * raw.ndim
        shape[tensor.quantization.quantizedDimension] = -1
        return np.asarray(raw * np.asarray(tensor.quantization.scale).reshape(shape))

    layers = []
    for operator in graph.operators:
        kind = model.operatorCodes[operator.opcodeIndex].builtinCode
        if kind not in _LAYERS:
            continue
        weight, bias = value(operator.inputs[1]), value(operator.inputs[2])
        if kind == schema.BuiltinOperator.DEPTHWISE_CONV_2D:
            weight = weight.transpose(3, 0, 1, 2)
        elif weight.ndim == 4:
            weight = weight.transpose(0, 3, 1, 2)
        layers.append((weight, bias))
    return layers


@torch.no_grad()
def restore(network: nn.Module, content: bytes, pictures: Tensor) -> nn.Module:
    """Fill `network` with the layers of the file that was made from one like it.

    A file holds each normalisation within the layer before it. Its mean and spread are measured on
    `pictures`, (n, 3, h, w) in [-1, 1], so that training goes on from where it was.
    """
    network = network.eval()
    rest = layers_of(content)
    for layer, norm in _in_order(network, pictures[:1]):
        here = next(i for i, (weight, _) in enumerate(rest) if weight.shape == layer.weight.shape)
        weight, bias = (torch.from_numpy(part).float() for part in rest.pop(here))
        layer.weight.copy_(weight)
        if norm is None:
            layer.bias.copy_(bias)
        else:
            norm.running_mean.zero_(), norm.running_var.fill_(1 - BATCH_NORM["eps"])
            norm.weight.fill_(1), norm.bias.copy_(bias)
    if rest:
        raise ValueError(f"{len(rest)} layers of the file have no place in this network. Name its own task.")
    _spread(network, pictures)
    return network


def _in_order(network: nn.Module, picture: Tensor) -> list[tuple[Any, Any]]:
    """(layer, its normalisation or None), in the order in which they run."""
    order: list[list[Any]] = []

    def seen(module: nn.Module, *_: Any) -> None:
        if isinstance(module, nn.BatchNorm2d):
            order[-1][1] = module
        else:
            order.append([module, None])

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(seen) for m in network.modules() if isinstance(m, kinds)]
    network(picture)
    for hook in hooks:
        hook.remove()
    return [(layer, norm) for layer, norm in order]


def _spread(network: nn.Module, pictures: Tensor) -> None:
    """Give each normalisation the mean and variance that it sees, and undo both in its own weights."""
    sums: dict[nn.Module, list[Tensor]] = {}

    def seen(module: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        x = inputs[0].double()
        some = torch.stack([x.mean((0, 2, 3)), (x * x).mean((0, 2, 3))])
        sums.setdefault(module, []).append(some)

    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(seen) for norm in norms]
    for some in pictures.split(4):
        network(some)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        mean, square = torch.stack(sums[norm]).mean(0)
        variance = (square - mean**2).clamp(min=1e-6)
        norm.running_mean.copy_(mean), norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)


@click.command()
@click.argument("task", type=click.Choice(sorted(SETTINGS)))
@click.option("--name", help="The network in the manifest; by default the task.")
@click.option("--data", type=FOLDER, required=True, help="The unpacked archives.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Another value than tasks.toml's.")
def main(task: str, name: str | None, data: Path, out: Path, changes: tuple[str, ...]) -> None:
    """Write float weights of TASK's shipped network to OUT, for `--set start=OUT`."""
    settings = changed(SETTINGS[task], changes)
    module = importlib.import_module(f"models.training.{settings['module']}")
    made = module.Task(data, settings, torch.device("cpu"))
    torch.manual_seed(0)
    network = restore(made.network, verified_bytes(name or task), made.calibration().float())
    save(network, out)
    out.with_suffix(".json").write_text(json.dumps(made.evaluate(network), indent=1), encoding="utf-8")
    print(out.with_suffix(".json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
