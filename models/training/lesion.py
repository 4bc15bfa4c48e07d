"""What kind of lesion a close-up shows: seven classes, framed by the lesion's outline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.lesion_views import CLASSES, LEAST_SIDE, NATIVE, VIEWS
from models.training import augment
from models.training.backbone import HEAD, Head, Trunk, load_pretrained
from models.training.curves import area
from models.training.loop import load
from models.training.outline import mask_file, records
from models.training.pictures import network_input, read_all, unit
from models.training.splits import held_out


class Classifier(nn.Module):
    """(n, 3, h, w) in [-1, 1] to seven logits."""

    def __init__(self, scale: str = "lite0", drop: float = 0.3, drop_path: float = 0.2) -> None:
        super().__init__()
        self.trunk = Trunk(scale, drop=drop_path)
        self.head = Head(self.trunk.channels[-1])
        self.drop = nn.Dropout(drop)
        self.logits = nn.Linear(HEAD, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.drop(self.head(self.trunk(x)[-1])))


class Task:
    """HAM10000's classes, split by lesion."""

    def __init__(self, data: Path, settings: dict[str, Any], device: torch.device) -> None:
        rows = records(data)
        if settings["pictures"]:
            rows = rows[:: len(rows) // settings["pictures"]]
        folder = data / "ham10000"
        self.size, self.device, self.settings = settings["size"], device, settings
        self.pictures = read_all([folder / "images" / f"{row['image_id']}.jpg" for row in rows], NATIVE).to(
            device
        )
        masks = read_all([mask_file(folder, row["image_id"]) for row in rows], NATIVE, grey=True).to(device)
        self.centres, self.sides = frames(masks)
        self.labels = torch.tensor([CLASSES.index(row["dx"]) for row in rows], device=device)
        held = torch.tensor([held_out(row["lesion_id"]) for row in rows])
        self.train, self.valid = torch.nonzero(~held)[:, 0], torch.nonzero(held)[:, 0]
        if settings["everything"]:
            self.train = torch.arange(len(rows))
        counts = torch.bincount(self.labels[self.train.to(device)], minlength=len(CLASSES)).float()
        self.log_prior = torch.log((counts + 1) / (counts + 1).sum())
        self.train = _balanced(
            self.train, self.labels.cpu(), counts.cpu(), settings["balance"], settings["seed"]
        )
        self.network = Classifier(settings["scale"], settings["drop"], settings["drop_path"])
        if settings["pretrained"]:
            load_pretrained(Path(settings["pretrained"]), self.network.trunk, self.network.head)
        sampled = torch.bincount(self.labels[self.train.to(device)], minlength=len(CLASSES)).float()
        self.sampled_log_prior = torch.log((sampled + 1) / (sampled + 1).sum())
        self.teachers = [
            load(Classifier(scale), Path(file)).to(device, memory_format=torch.channels_last)
            for scale, file in (pair.split(":", 1) for pair in settings["teachers"])
        ]

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        """Cross-entropy against labels, the prior taken out (Menon et al. 2021), and against teachers."""
        index = index.to(self.device)
        pictures = self.augmented(index)
        target = F.one_hot(self.labels[index], len(CLASSES)).float()
        target = target * (1 - self.settings["smoothing"]) + self.settings["smoothing"] / len(CLASSES)
        if self.settings["mix"]:
            share = (
                torch.distributions.Beta(self.settings["mix"], self.settings["mix"]).sample().to(self.device)
            )
            order = torch.randperm(len(index), device=self.device)
            pictures = pictures * share + pictures[order] * (1 - share)
            target = target * share + target[order] * (1 - share)
        x = network_input(pictures).contiguous(memory_format=torch.channels_last)
        logits = network(x).float()
        hard = -(target * F.log_softmax(logits + self.sampled_log_prior, 1)).sum(1).mean()
        if not self.teachers:
            return hard
        heat = self.settings["heat"]
        with torch.no_grad():
            soft = torch.stack([F.softmax(teacher(x).float() / heat, 1) for teacher in self.teachers]).mean(0)
        distilled = F.kl_div(F.log_softmax(logits / heat, 1), soft, reduction="batchmean") * heat**2
        return (1 - self.settings["distil"]) * hard + self.settings["distil"] * distilled

    def augmented(self, index: Tensor) -> Tensor:
        """A training batch (n, 3, size, size) in [0, 1]: the lesion in a frame of some width, any way up."""
        n, device = len(index), self.device
        jitter = augment.affine(
            n, device, rotate=180, scale=(0.75, 1.3), stretch=1.25, shift=0.08, flip_x=0.5, flip_y=0.5
        )
        wide = torch.exp(augment.uniform(n, 0.15, 1.1, device))
        theta = framed(self.centres[index], self.sides[index] * wide, jitter)
        outside = "reflection" if torch.rand(()) < 0.7 else "zeros"
        pictures = augment.warp(unit(self.pictures[index]), theta, (self.size, self.size), outside=outside)
        pictures = augment.colour(augment.light(pictures, stops=0.6), saturation=0.3, hue=0.02)
        pictures = augment.hairs(pictures, chance=0.2)
        pictures = augment.vignette(pictures, chance=0.2)
        pictures = augment.coarse(augment.blur(pictures, sigma=1.5), least=0.5)
        pictures = augment.jpeg(augment.noise(pictures, sigma=0.03), chance=0.3)
        return erased(pictures, chance=self.settings["erase"])

    def view(self, index: Tensor, width: float) -> Tensor:
        """The network's input: square frames `width` lesions wide."""
        index = index.to(self.device)
        still = augment.affine(len(index), self.device)
        theta = framed(self.centres[index], self.sides[index] * width, still)
        pictures = augment.warp(
            unit(self.pictures[index]), theta, (self.size, self.size), outside="reflection"
        )
        return network_input(pictures).contiguous(memory_format=torch.channels_last)

    def predictions(self, network: nn.Module, index: Tensor) -> Tensor:
        """Logits (n, 7) without the prior: the mean over the views and their mirror images."""
        logits = []
        for part in index.split(100):
            views = [self.view(part, width) for width in VIEWS]
            logits.append(
                sum(network(v).float() + network(v.flip(3)).float() for v in views) / (2 * len(views))
            )
        return torch.cat(logits)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        logits, labels = self.predictions(network, self.valid), self.labels[self.valid.to(self.device)]
        balanced = F.softmax(logits, 1)
        found = balanced.argmax(1)
        recalls = torch.stack(
            [(found[labels == c] == c).float().mean() for c in range(len(CLASSES)) if (labels == c).any()]
        )
        natural = F.softmax(logits + self.log_prior, 1)
        scores, truth = natural.cpu().numpy(), labels.cpu().numpy()
        aucs = [area(scores[:, c], truth == c) for c in range(len(CLASSES))]
        figures = {
            "balanced": float(recalls.mean()),
            "auc": sum(aucs) / len(aucs),
            "melanoma": aucs[CLASSES.index("mel")],
            "accuracy": float((natural.argmax(1) == labels).float().mean()),
        }
        return {"score": figures["balanced"] + figures["auc"], **figures}

    def calibration(self) -> Tensor:
        """(n, 3, size, size): training views, plain and augmented, that fix the whole-number ranges."""
        torch.manual_seed(0)
        index = torch.unique(self.train)
        index = index[torch.randperm(len(index))[:150]].to(self.device)
        return torch.cat(
            [self.view(index, VIEWS[0]), self.view(index, VIEWS[1]), network_input(self.augmented(index))]
        )

    def deployed(self, network: nn.Module) -> nn.Module:
        """The graph to ship: logits (n, 7)."""
        return network


def frames(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (n, 2), x then y, and sides (n,) of the bounding squares, in pixels of `masks` (n, 1, h, w)."""
    height, width = masks.shape[-2:]
    columns, rows = (masks > 127).any(2)[:, 0], (masks > 127).any(3)[:, 0]
    x0, x1 = _ends(columns, width)
    y0, y1 = _ends(rows, height)
    sides = torch.maximum(x1 - x0, y1 - y0).clamp(min=LEAST_SIDE)
    return torch.stack([(x0 + x1) / 2, (y0 + y1) / 2], 1), sides


def _ends(seen: Tensor, length: int) -> tuple[Tensor, Tensor]:
    places = torch.arange(length, device=seen.device, dtype=torch.float32)
    first = torch.where(seen, places, length).amin(1)
    last = torch.where(seen, places + 1, 0).amax(1)
    empty = ~seen.any(1)
    return torch.where(empty, 0.0, first), torch.where(empty, float(length), last)


def framed(centres: Tensor, sides: Tensor, jitter: Tensor) -> Tensor:
    """(n, 2, 3) maps from square views of `sides` pixels about `centres`, moved by `jitter`, to the picture.

    A view is at most as wide as the picture, and lies within it where it can.
    """
    height, width = NATIVE
    sides = sides.clamp(max=width)
    zoom = torch.stack([sides / width, sides / height], 1)
    theta = jitter * zoom[:, :, None]
    half = zoom.clamp(max=1) / 2
    place = torch.stack([centres[:, 0] / width, centres[:, 1] / height], 1).clamp(half, 1 - half) * 2 - 1
    theta[:, :, 2] = theta[:, :, 2] + place
    return theta


def erased(pictures: Tensor, *, chance: float) -> Tensor:
    """A grey box over part of a share of the pictures, so that no single spot decides (Zhong et al. 2020)."""
    n, _, h, w = pictures.shape
    device = pictures.device
    y = torch.linspace(0, 1, h, device=device)[None, :, None]
    x = torch.linspace(0, 1, w, device=device)[None, None, :]
    centre, half = torch.rand(n, 2, 1, 1, device=device), torch.rand(n, 2, 1, 1, device=device) * 0.15 + 0.03
    box = ((y - centre[:, 0]).abs() < half[:, 0]) & ((x - centre[:, 1]).abs() < half[:, 1])
    some = augment.sometimes(n, chance, device)[:, None, None]
    return torch.where((box & some)[:, None], torch.full_like(pictures, 0.5), pictures)


def _balanced(train: Tensor, labels: Tensor, counts: Tensor, power: float, seed: int) -> Tensor:
    """An epoch of the same length in which a class of count c appears in proportion to c^(1 - power)."""
    weight = counts[labels[train]].pow(-power)
    draw = torch.Generator().manual_seed(seed)
    return train[torch.multinomial(weight, len(train), replacement=True, generator=draw)] if power else train
