"""Quantisation-aware training: the deployed graph learns to give its float answers in whole numbers.

Batch normalisation is folded into the convolutions; then every weight and activation is rounded as the int8
graph will round it, with gradients passed straight through (Jacob et al., CVPR 2018). The float graph is the
teacher, so no labels are needed; what is learnt is only how to live with the rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from models.training.backbone import SameConv

LEVELS = 255
ROUNDED = {torch.cat, F.relu6, torch.relu, F.interpolate, torch.sigmoid}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, SameConv) or super().is_leaf_module(module, name)


class Rounding(nn.Module):
    """An activation as 8-bit whole numbers; its range follows the batches' extremes while `following`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(math.inf))
        self.register_buffer("high", torch.tensor(-math.inf))
        self.following, self.active = True, True

    def forward(self, x: Tensor) -> Tensor:
        if self.following:
            self.low.copy_(torch.minimum(self.low, x.detach().amin()).clamp(max=0))
            self.high.copy_(torch.maximum(self.high, x.detach().amax()).clamp(min=0))
        if not self.active:
            return x
        scale = (self.high - self.low).clamp(min=1e-8) / LEVELS
        zero = torch.round(-self.low / scale)
        number = x / scale + zero
        inside = number.clamp(0, LEVELS)
        return ((inside + (inside.round() - inside).detach()) - zero) * scale


class RoundedWeight(nn.Module):
    """A weight as symmetric 8-bit whole numbers, one scale an output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-8) / 127
        scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
        return weight + ((weight / scale).round() * scale - weight).detach()


def folded(network: nn.Module) -> fx.GraphModule:
    """The network in evaluation, each batch normalisation folded into the convolution before it."""
    network = copy.deepcopy(network).eval()
    traced = fx.GraphModule(network, _Tracer().trace(network))
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv, norm = modules[before.target], modules[node.target]
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * gain
        conv.weight = nn.Parameter((conv.weight * gain.reshape(-1, 1, 1, 1)).detach())
        bias = shift if conv.bias is None else shift + conv.bias * gain
        conv.bias = nn.Parameter(bias.detach())
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced


def rounding(network: fx.GraphModule) -> tuple[fx.GraphModule, list[Rounding]]:
    """A copy of a folded network that rounds where its int8 graph will."""
    copied = copy.deepcopy(network)
    modules, added = dict(copied.named_modules()), []
    for node in list(copied.graph.nodes):
        if not _rounds(node, modules):
            continue
        rounder = Rounding()
        added.append(rounder)
        name = f"rounding_{len(added)}"
        copied.add_module(name, rounder)
        with copied.graph.inserting_after(node):
            new = copied.graph.call_module(name, (node,))
        node.replace_all_uses_with(new, delete_user_cb=lambda user, new=new: user is not new)
    for module in modules.values():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.utils.parametrize.register_parametrization(module, "weight", RoundedWeight())
    copied.recompile()
    return copied, added


def _rounds(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether the int8 graph has numbers of its own after this node; a clamp is part of what is before it."""
    if node.op == "placeholder":
        return True
    clamps = (F.relu6, torch.relu)
    clamped = any(user.target in clamps or _is(user, modules, nn.ReLU6, nn.ReLU) for user in node.users)
    if node.op == "call_module":
        return _is(node, modules, nn.Conv2d, nn.Linear, nn.ReLU6, nn.ReLU) and not clamped
    if node.op == "call_method":
        return node.target == "mean"
    name = getattr(node.target, "__name__", "")
    return node.op == "call_function" and (node.target in ROUNDED or name == "add") and not clamped


def _is(node: fx.Node, modules: dict[str, nn.Module], *types: type) -> bool:
    return node.op == "call_module" and isinstance(modules[str(node.target)], types)


def train(
    deployed: nn.Module,
    calibration: Tensor,
    batches: Callable[[], Tensor],
    *,
    steps: int,
    rate: float,
) -> nn.Module:
    """The deployed graph, its weights trained for rounding: same outputs, batch normalisation folded.

    calibration: (n, 3, h, w), fixes the ranges. batches: gives (b, 3, h, w) at each call. The loss is the
    squared difference from the float graph's outputs, each over its variance.
    """
    teacher = folded(deployed)
    student, rounders = rounding(teacher)
    device = next(student.parameters()).device
    with torch.no_grad():
        for rounder in rounders:
            rounder.active = False
        for some in calibration.split(8):
            student(some.to(device))
        for rounder in rounders:
            rounder.active, rounder.following = True, False
    weights = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=rate)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
        x = batches().to(device)
        with torch.no_grad():
            wanted = _tuple(teacher(x))
        loss = sum(
            ((got - want) ** 2).mean() / want.var().clamp(min=1e-6)
            for got, want in zip(_tuple(student(x)), wanted, strict=True)
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            print(f"step {step}: {float(loss):.5f} of the outputs' variance lost to rounding", flush=True)
    return _plain(student, teacher)


def _tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _plain(student: fx.GraphModule, teacher: fx.GraphModule) -> nn.Module:
    """The student's weights without the roundings: the float graph that the conversion rounds."""
    plain = copy.deepcopy(teacher)
    trained = {
        name.replace("parametrizations.weight.original", "weight"): value
        for name, value in student.state_dict().items()
        if not name.startswith("rounding_")
    }
    plain.load_state_dict(trained)
    return plain
