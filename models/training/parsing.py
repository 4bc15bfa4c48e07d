"""What each pixel of a portrait shows: background, hair, skin, eyes, nose or mouth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.analysis.picture import read_labels, read_picture
from models.networks.parsing_classes import CLASSES, MOUTH, NOSE, SKIN
from models.training import augment
from models.training.backbone import Trunk, load_pretrained
from models.training.decoder import Decoder
from models.training.loop import load
from models.training.pictures import network_input, unit
from models.training.splits import FAMILIES_HELD_OUT, held_out, held_out_block

UNKNOWN, SOME_SKIN, NO_SKIN = 255, 6, 7
"""In a mask: not labelled; skin, whether face or hand or arm; anything but skin."""
ALLOWED = torch.cat([torch.eye(6), torch.tensor([[0.0, 0, 1, 0, 1, 0], [1, 1, 0, 1, 0, 1]])])
"""(8, 6): the classes that each label admits."""
WIDTHS = {32: 128, 16: 96, 8: 64, 4: 48, 2: 32}
CANVAS = 512


class Parser(nn.Module):
    """(n, 3, h, w) in [-1, 1] to logits (n, 6, h, w); h and w multiples of 32."""

    def __init__(self, scale: str = "lite0", *, tuned: bool = False) -> None:
        """tuned: only the decoder learns, and no normalisation moves, as for a few steps from `start`."""
        super().__init__()
        self.trunk = Trunk(scale, drop=0.1).requires_grad_(not tuned)
        self.decoder = Decoder(self.trunk.channels, WIDTHS)
        self.logits = nn.Conv2d(self.decoder.outputs, len(CLASSES), 3, padding=1)
        self.tuned = tuned

    def train(self, mode: bool = True) -> Parser:
        super().train(mode)
        if self.tuned:
            self.trunk.eval()
            for module in self.decoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        y = self.logits(self.decoder(self.trunk(x)))
        return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)


class Task:
    """FASSEG's frontal portraits (six classes) and Pratheepan's family photographs (skin or not)."""

    def __init__(self, data: Path, settings: dict[str, Any], device: torch.device) -> None:
        self.size, self.device, self.settings = settings["size"], device, settings
        portraits = sorted((data / "fasseg_frontal03" / "images").iterdir())[: settings["pictures"] or None]
        families = sorted((data / "pratheepan_family" / "images").iterdir())[: settings["pictures"] or None]
        loaded = [_canvas(file) for file in portraits + families]
        self.pictures = torch.from_numpy(np.stack([p for p, _, _ in loaded])).to(device)
        self.masks = torch.from_numpy(np.stack([m for _, m, _ in loaded])[:, None]).to(device)
        self.inside = [inside for _, _, inside in loaded]
        self.portraits = len(portraits)
        # Siblings' portraits are neighbours: whole blocks are held out.
        held = [held_out_block(i) for i in range(len(portraits))]
        held += [held_out(file.stem, FAMILIES_HELD_OUT) for file in families]
        self.valid = torch.tensor([i for i, kept in enumerate(held) if kept])
        plain = torch.tensor([i for i, kept in enumerate(held) if not kept])
        self.learnt = plain.to(device)
        # Families are few and vary most: each is drawn three times as often; an epoch has every
        # picture eight times.
        often = [1 if i < self.portraits else 3 for i in plain.tolist()]
        self.train = plain.repeat_interleave(torch.tensor(often)).repeat(8)
        self.network = Parser(settings["scale"], tuned=settings["tuned"])
        if settings["pretrained"]:
            load_pretrained(Path(settings["pretrained"]), self.network.trunk)
        if settings["start"]:
            load(self.network, Path(settings["start"]))

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        pictures, masks = self.augmented(index)
        logits = network(network_input(pictures).contiguous(memory_format=torch.channels_last)).float()
        return parsing_loss(logits, masks)

    def augmented(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """A training batch: pictures (n, 3, size, size) in [0, 1] and labels (n, size, size), uint8."""
        n, device = len(index), self.device
        index = index.to(device)
        portrait = index < self.portraits
        pictures, masks = self._placed(index, portrait)
        pictures = tanned(pictures, _skin(masks) | (masks == MOUTH), chance=0.5)
        behind, behind_masks = self._backgrounds(n)
        swap = (augment.sometimes(n, 0.75, device) & portrait)[:, None, None, None]
        over, over_masks = pasted(pictures, masks, behind, behind_masks)
        pictures, masks = torch.where(swap, over, pictures), torch.where(swap, over_masks, masks)
        small, small_masks = self._bystanders(n)
        some = augment.sometimes(n, 0.35, device)[:, None, None, None]
        over, over_masks = pasted(small, small_masks, pictures, masks)
        pictures, masks = torch.where(some, over, pictures), torch.where(some, over_masks, masks)
        pictures = shaded(pictures)
        pictures = augment.colour(augment.light(pictures, stops=1.0), saturation=0.4, hue=0.03)
        grey = augment.sometimes(n, 0.05, device)[:, None, None, None]
        pictures = torch.where(grey, pictures.mean(1, keepdim=True).expand_as(pictures), pictures)
        pictures = augment.coarse(augment.blur(pictures))
        return augment.jpeg(augment.noise(pictures)), masks[:, 0]

    def _placed(self, index: Tensor, portrait: Tensor) -> tuple[Tensor, Tensor]:
        n, device = len(index), self.device
        theta = augment.affine(n, device, rotate=30, scale=(0.3, 1.5), stretch=1.45, shift=0.25, flip_x=0.5)
        wide = augment.affine(n, device, rotate=15, scale=(0.9, 3.0), stretch=1.2, shift=0.3, flip_x=0.5)
        theta = torch.where(portrait[:, None, None], theta, wide)
        return self._seen(index, theta)

    def _bystanders(self, n: int) -> tuple[Tensor, Tensor]:
        """Portraits, tanned and small, for pasting beside or before somebody else."""
        learnt = self.learnt[self.learnt < self.portraits]
        drawn = learnt[torch.randint(len(learnt), (n,), device=self.device)]
        theta = augment.affine(n, self.device, rotate=25, scale=(0.1, 0.5), stretch=1.15, flip_x=0.5)
        away = theta[:, :, :2].det().abs().sqrt()[:, None]
        theta[:, :, 2] = (torch.rand(n, 2, device=self.device) * 2 - 1) * 0.8 * away
        small, masks = self._seen(drawn, theta)
        return tanned(small, _skin(masks) | (masks == MOUTH), chance=0.6), masks

    def _seen(self, index: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures and labels through `theta`; a pixel is the mean of four samples, against aliasing."""
        fine = augment.warp(
            unit(self.pictures[index]), theta, (2 * self.size, 2 * self.size), outside="zeros"
        )
        # Labels counted from the unknown, so that outside the canvas reads 0: not labelled.
        masks = augment.warp(
            UNKNOWN - self.masks[index].float(),
            theta,
            (self.size, self.size),
            mode="nearest",
            outside="zeros",
        )
        return F.avg_pool2d(fine, 2), (UNKNOWN - masks.round()).to(torch.uint8)

    def _backgrounds(self, n: int) -> tuple[Tensor, Tensor]:
        """Smooth colours, some like skin or wood, or somebody's family photograph with its labels."""
        device, size = self.device, self.size
        base = torch.rand(n, 3, 1, 1, device=device)
        warm = torch.tensor([0.75, 0.55, 0.42], device=device)[None, :, None, None] * (
            0.5 + torch.rand(n, 1, 1, 1, device=device)
        )
        base = torch.where(augment.sometimes(n, 0.35, device)[:, None, None, None], warm, base)
        layers = base.expand(-1, -1, size, size)
        for cells in (3, 10, 40):
            rough = (
                (torch.rand(n, 3, cells, cells, device=device) - 0.5)
                * torch.rand(n, 1, 1, 1, device=device)
                * 0.5
            )
            layers = layers + F.interpolate(rough, (size, size), mode="bilinear", align_corners=False)
        layers, masks = layers.clamp(0, 1), torch.zeros(n, 1, size, size, dtype=torch.uint8, device=device)
        families = self.learnt[self.learnt >= self.portraits]
        drawn = families[torch.randint(len(families), (n,), device=device)]
        theta = augment.affine(n, device, rotate=10, scale=(1.2, 3.0), shift=0.3, flip_x=0.5)
        photographs = augment.warp(unit(self.pictures[drawn]), theta, (size, size), outside="reflection")
        labels = augment.warp(
            self.masks[drawn].float(), theta, (size, size), mode="nearest", outside="reflection"
        ).to(torch.uint8)
        real = augment.sometimes(n, 0.4, device)[:, None, None, None]
        return torch.where(real, photographs, layers), torch.where(real, labels, masks)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Intersection over union at 512 pixels: skin with nose; each class in portraits.

        wild: families seen whole; tiled: seen in overlapping quarters as well, as the kiosk does.
        """
        frontal, wild, tiled = [], [], []
        both, either = torch.zeros(len(CLASSES)), torch.zeros(len(CLASSES))
        for i in self.valid.tolist():
            rows, columns = self.inside[i]
            truth = self.masks[i, 0, :rows, :columns]
            whole = self._chances(network, i, [(0.0, 0.0, 1.0)])[:, :rows, :columns]
            found = whole.argmax(0)
            share = _overlap(_skin(found), _skin(truth))
            if i >= self.portraits:
                wild.append(share)
                views = [(x, y, 0.55) for y in (0.0, 0.45) for x in (0.0, 0.45)]
                near = self._chances(network, i, views)[:, :rows, :columns]
                tiled.append(_overlap(_skin((whole + 2 * near).argmax(0)), _skin(truth)))
                continue
            frontal.append(share)
            for c in range(len(CLASSES)):
                both[c] += ((found == c) & (truth == c)).sum().cpu()
                either[c] += ((found == c) | (truth == c)).sum().cpu()
        by_class = {name: float(both[c] / either[c].clamp(min=1)) for c, name in enumerate(CLASSES)}
        shares = {"frontal": frontal, "wild": wild, "tiled": tiled}
        means = {name: sum(some) / max(1, len(some)) for name, some in shares.items()}
        return {"score": means["frontal"] + means["wild"] / 4 + means["tiled"] / 2, **means, **by_class}

    def _chances(self, network: nn.Module, i: int, views: list[tuple[float, float, float]]) -> Tensor:
        """(6, CANVAS, CANVAS): mean probabilities over square views, each (left, top, side in canvases)."""
        total = torch.zeros(len(CLASSES), CANVAS, CANVAS, device=self.device)
        count = torch.zeros(CANVAS, CANVAS, device=self.device)
        for left, top, side in views:
            x, y, pixels = round(left * CANVAS), round(top * CANVAS), round(side * CANVAS)
            chances = F.softmax(network(self.prepared(torch.tensor([i]), (x, y, pixels))).float(), 1)
            total[:, y : y + pixels, x : x + pixels] += F.interpolate(
                chances, (pixels, pixels), mode="bilinear", align_corners=False
            )[0]
            count[y : y + pixels, x : x + pixels] += 1
        return total / count

    def prepared(self, index: Tensor, view: tuple[int, int, int] = (0, 0, CANVAS)) -> Tensor:
        """Unaltered pictures for the network: a square of each one's canvas (left, top, side in pixels)."""
        x, y, side = view
        cut = unit(self.pictures[index.to(self.device), :, y : y + side, x : x + side])
        seen = F.interpolate(
            cut, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )
        return network_input(seen).contiguous(memory_format=torch.channels_last)

    def calibration(self) -> Tensor:
        """(n, 3, size, size): training pictures, plain and augmented, that fix the whole-number ranges."""
        torch.manual_seed(0)
        index = self.learnt.cpu()[::2]
        return torch.cat([self.prepared(index), network_input(self.augmented(index)[0])])

    def deployed(self, network: nn.Module) -> nn.Module:
        """The graph to ship: logits (n, 6, h, w)."""
        return network


def parsing_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of the classes that labels admit, heavier at the skin's border, and soft Jaccard of skin.

    Unlabelled pixels cost nothing.
    """
    known = masks != UNKNOWN
    allowed = ALLOWED.to(logits.device)[torch.where(known, masks, 0).long()].movedim(-1, 1)
    log_chances = F.log_softmax(logits, 1)
    cross = -torch.logsumexp(log_chances + allowed.clamp(min=1e-9).log(), 1)
    is_skin = _skin(masks).float()
    border = F.avg_pool2d(is_skin[:, None], 9, 1, 4)[:, 0]
    weight = known.float() * (1 + 2 * ((border > 0.02) & (border < 0.98)).float())
    pixels = (cross * weight).sum() / weight.sum().clamp(min=1)
    chances = log_chances.exp()
    found, true = (chances[:, SKIN] + chances[:, NOSE]) * known, is_skin * known
    both, either = (found * true).sum((1, 2)), (found + true - found * true).sum((1, 2))
    return pixels + (1 - (both + 1) / (either + 1)).mean()


def pasted(front: Tensor, front_masks: Tensor, behind: Tensor, behind_masks: Tensor) -> tuple[Tensor, Tensor]:
    """The people of `front`, cut out softly, before `behind`."""
    people = (front_masks != UNKNOWN) & (front_masks != 0)
    alpha = F.avg_pool2d(F.pad(people.float(), (1, 1, 1, 1), mode="replicate"), 3, 1)
    return front * alpha + behind * (1 - alpha), torch.where(people, front_masks, behind_masks)


def tanned(pictures: Tensor, skin: Tensor, *, chance: float) -> Tensor:
    """More or less melanin: the skin's optical density scaled, most in blue, on a share of the pictures."""
    n, device = len(pictures), pictures.device
    more = torch.where(augment.sometimes(n, chance, device), augment.uniform(n, -0.35, 1.6, device), 0.0)
    absorbs = torch.tensor([0.75, 1.0, 1.15], device=device)
    power = torch.exp(torch.log1p(more.clamp(min=-0.5))[:, None] * absorbs)[:, :, None, None]
    darkened = pictures.clamp(1e-3, 1) ** power
    soft = F.avg_pool2d(skin.float(), 5, 1, 2)
    return darkened * soft + pictures * (1 - soft)


def shaded(pictures: Tensor) -> Tensor:
    """Light from one side: a ramp of up to ±0.8 stops across the picture, in any direction."""
    n, _, h, w = pictures.shape
    device = pictures.device
    angle = augment.uniform(n, 0, 2 * math.pi, device)[:, None, None]
    y = torch.linspace(-1, 1, h, device=device)[None, :, None]
    x = torch.linspace(-1, 1, w, device=device)[None, None, :]
    ramp = (angle.cos() * x + angle.sin() * y) * augment.uniform(n, 0, 0.8, device)[:, None, None]
    return (pictures * torch.exp(ramp * math.log(2) / 2.2)[:, None]).clamp(0, 1)


def _canvas(file: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """A picture (3, 512, 512), its labels (512, 512), both in the upper left, and the size that is used."""
    picture = read_picture(file)
    mask = read_labels(file.parent.parent / "masks" / f"{file.stem}.png")
    share = CANVAS / max(picture.shape[:2])
    size = (round(picture.shape[1] * share), round(picture.shape[0] * share))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR)
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    if mask.max() > len(CLASSES):
        mask = np.where(mask > 127, np.uint8(SOME_SKIN), np.uint8(NO_SKIN))
    canvas, labels = np.zeros((3, CANVAS, CANVAS), np.uint8), np.full((CANVAS, CANVAS), UNKNOWN, np.uint8)
    canvas[:, : size[1], : size[0]] = picture.transpose(2, 0, 1)
    labels[: size[1], : size[0]] = mask
    return canvas, labels, (size[1], size[0])


def _skin(masks: Tensor) -> Tensor:
    return (masks == SKIN) | (masks == NOSE) | (masks == SOME_SKIN)


def _overlap(found: Tensor, true: Tensor) -> float:
    return float((found & true).sum() / (found | true).sum().clamp(min=1))
