"""The outline of a lesion in a close-up: one probability a pixel."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.lesion_views import NATIVE
from models.training import augment
from models.training.backbone import Trunk, load_pretrained
from models.training.decoder import Decoder
from models.training.loop import load
from models.training.pictures import network_input, read_all, unit
from models.training.splits import held_out

WIDTHS = {32: 128, 16: 96, 8: 64, 4: 48, 2: 24}


def records(data: Path) -> list[dict[str, str]]:
    """The rows of HAM10000's metadata, in the file's order."""
    with (data / "ham10000" / "metadata.csv").open(newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))


class Outline(nn.Module):
    """(n, 3, h, w) in [-1, 1] to logits (n, 1, h, w); h and w multiples of 32."""

    def __init__(self, scale: str = "lite0") -> None:
        super().__init__()
        self.trunk = Trunk(scale, drop=0.1)
        self.decoder = Decoder(self.trunk.channels, WIDTHS)
        self.logits = nn.Conv2d(self.decoder.outputs, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.logits(self.decoder(self.trunk(x)))
        return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)


class Task:
    """HAM10000's masks, split by lesion."""

    def __init__(self, data: Path, settings: dict[str, Any], device: torch.device) -> None:
        rows = records(data)[: settings["pictures"] or None]
        folder = data / "ham10000"
        self.size = tuple(settings["size"])
        self.device, self.settings = device, settings
        self.pictures = read_all([folder / "images" / f"{row['image_id']}.jpg" for row in rows], NATIVE).to(
            device
        )
        self.masks = read_all([mask_file(folder, row["image_id"]) for row in rows], NATIVE, grey=True).to(
            device
        )
        held = torch.tensor([held_out(row["lesion_id"]) for row in rows])
        self.train, self.valid = torch.nonzero(~held)[:, 0], torch.nonzero(held)[:, 0]
        self.network = Outline(settings["scale"])
        if settings["pretrained"]:
            load_pretrained(Path(settings["pretrained"]), self.network.trunk)
        self.teacher: nn.Module | None = None
        if settings["teacher"]:
            self.teacher = load(Outline("lite2"), Path(settings["teacher"])).to(
                device, memory_format=torch.channels_last
            )

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        pictures, masks = self.augmented(index)
        x = network_input(pictures).contiguous(memory_format=torch.channels_last)
        logits = network(x).float()
        if self.teacher is not None:
            with torch.no_grad():
                masks = (masks + torch.sigmoid(self.teacher(x).float())) / 2
        return overlap_loss(logits, masks)

    def augmented(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """A training batch: pictures (n, 3, h, w) in [0, 1], masks (n, 1, h, w)."""
        n, device = len(index), self.device
        index = index.to(device)
        theta = augment.affine(
            n,
            device,
            rotate=180,
            scale=(0.75, 1.8),
            stretch=1.3,
            shift=0.12,
            flip_x=0.5,
            flip_y=0.5,
            aspect=4 / 3,
        )
        outside = ("border", "reflection", "zeros")[int(torch.randint(3, ()))]
        pictures = augment.warp(unit(self.pictures[index]), theta, self.size, outside=outside)
        masks = augment.warp(unit(self.masks[index]), theta, self.size, outside=outside)
        pictures = augment.colour(augment.light(pictures, stops=0.8), hue=0.02)
        pictures = augment.hairs(pictures, chance=0.3)
        pictures = augment.vignette(pictures, chance=0.4)
        pictures = augment.coarse(augment.blur(pictures))
        return augment.jpeg(augment.noise(pictures), chance=0.3), masks

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        dice, jaccard = [], []
        for index in self.valid.split(100):
            logits = F.interpolate(
                network(self.prepared(index)).float(), NATIVE, mode="bilinear", align_corners=False
            )
            found, truth = logits > 0, self.masks[index.to(self.device)] > 127
            both = (found & truth).sum((1, 2, 3)).float()
            either = (found | truth).sum((1, 2, 3)).float()
            jaccard.append((both + 1e-6) / (either + 1e-6))
            dice.append((2 * both + 1e-6) / (both + either + 1e-6))
        figures = {"dice": float(torch.cat(dice).mean()), "jaccard": float(torch.cat(jaccard).mean())}
        return {"score": figures["jaccard"], **figures}

    def prepared(self, index: Tensor) -> Tensor:
        """Unaltered pictures as the network's input."""
        pictures = F.interpolate(
            unit(self.pictures[index.to(self.device)]), self.size, mode="bilinear", align_corners=False
        )
        return network_input(pictures).contiguous(memory_format=torch.channels_last)

    def calibration(self) -> Tensor:
        """(n, 3, h, w): training pictures, plain and augmented, that fix the whole-number ranges."""
        index = self.train[:: max(1, len(self.train) // 100)][:100]
        torch.manual_seed(0)
        return torch.cat([self.prepared(index), network_input(self.augmented(index)[0])])

    def deployed(self, network: nn.Module) -> nn.Module:
        """The graph to ship: probabilities (n, 1, h, w)."""
        return nn.Sequential(network, nn.Sigmoid())

    def restored(self, probabilities: Tensor) -> Tensor:
        """The logits that `deployed` made probabilities of."""
        return torch.logit(probabilities, 1e-3)


def overlap_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy, twice as heavy near the border, and soft Jaccard (Yuan et al. 2017) by picture."""
    smooth = F.avg_pool2d(masks, 15, 1, 7)
    weight = 1 + ((smooth > 0.02) & (smooth < 0.98)).float()
    cross = F.binary_cross_entropy_with_logits(logits, masks, weight=weight)
    found = torch.sigmoid(logits)
    both = (found * masks).sum((1, 2, 3))
    either = (found + masks - found * masks).sum((1, 2, 3))
    return cross + (1 - (both + 1) / (either + 1)).mean()


def mask_file(folder: Path, image: str) -> Path:
    """Where a picture's mask lies."""
    return folder / "masks" / f"{image}.png"
