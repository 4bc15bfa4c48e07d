"""One training run: batches, averaged weights, validation, early stopping, curves, and going on after a
stop.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.training.schedule import Schedule


class Task(Protocol):
    """What a network must do for its data; the score is what early stopping maximises."""

    network: nn.Module
    train: Tensor
    """Indices of the training examples."""

    def loss(self, network: nn.Module, index: Tensor) -> Tensor: ...

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Figures on the validation split, `score` among them."""
        ...

    def deployed(self, network: nn.Module) -> nn.Module:
        """The graph to ship: (1, 3, h, w) in [-1, 1] to one tensor or several, maps (1, c, h', w')
        or vectors (1, k).

        A task whose `evaluate` expects something else of its network has `restored`, which makes
        that from these.
        """
        ...

    def calibration(self) -> Tensor:
        """(n, 3, h, w) in [-1, 1], always the same training pictures, which fix the whole-number
        graph's ranges.
        """
        ...


def fit(
    task: Task, plan: Schedule, out: Path, device: torch.device, *, resume: bool = False
) -> dict[str, float]:
    """Train, and leave `best.pt` (the averaged weights that scored best), `curve.csv` and `resume.pt`
    in `out`.

    Returns the best figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    network = task.network.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(_groups(network, plan.weight_decay), lr=plan.rate)
    steps_an_epoch = max(1, len(task.train) // plan.batch)
    state = {"epoch": 0, "step": 0, "best": -math.inf, "stale": 0, "elapsed": 0.0}
    figures: dict[str, float] = {}
    if resume and (out / "resume.pt").exists():
        saved = torch.load(out / "resume.pt", map_location=device, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        state, figures = saved["state"], saved["figures"]
    started = time.monotonic() - state["elapsed"]

    def progress() -> float:
        return plan.progress(state["step"] / steps_an_epoch, time.monotonic() - started)

    while progress() < 1 and state["epoch"] < plan.epochs and state["stale"] < plan.patience:
        network.train()
        total = torch.zeros((), device=device)
        for index in _batches(task.train, plan.batch, plan.seed + state["epoch"]):
            for group in optimiser.param_groups:
                group["lr"] = plan.rate_at(progress())
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = task.loss(network, index.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            state["step"] += 1
            _follow(average, network, min(plan.average, (1 + state["step"]) / (10 + state["step"])))
            total += loss.detach()
            if progress() >= 1:
                break
        state["epoch"] += 1
        state["elapsed"] = time.monotonic() - started
        if state["epoch"] % plan.every and progress() < 1 and state["epoch"] < plan.epochs:
            continue
        with torch.no_grad():
            now = task.evaluate(average)
        row = {
            "epoch": state["epoch"],
            "seconds": round(state["elapsed"], 1),
            "loss": float(total) / steps_an_epoch,
            **now,
        }
        _write_row(out / "curve.csv", row)
        print(" ".join(f"{k}={v:.4g}" for k, v in row.items()), flush=True)
        if now["score"] > state["best"]:
            state["best"], state["stale"], figures = now["score"], 0, now
            save(average, out / "best.pt")
        else:
            state["stale"] += 1
        torch.save(
            {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "state": state,
                "figures": figures,
                "plan": asdict(plan),
            },
            out / "resume.pt",
        )
    return figures


def save(network: nn.Module, file: Path) -> None:
    """Weights as half floats: as exact as whole-number networks need."""
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}, file)


def load(network: nn.Module, file: Path) -> nn.Module:
    """The network with the weights of `save`, ready to predict."""
    saved = torch.load(file, map_location="cpu", weights_only=True)
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in saved.items()})
    return network.eval()


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    free = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _batches(train: Tensor, batch: int, seed: int) -> Iterator[Tensor]:
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))]
    yield from order[: max(batch, len(order) // batch * batch)].split(batch)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)


def _write_row(file: Path, row: dict[str, float]) -> None:
    fresh = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as sink:
        writer = csv.DictWriter(sink, fieldnames=list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)
