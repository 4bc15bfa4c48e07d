"""Acne: every lesion's centre, box and class, the number of lesions and the severity of the face.

Centres are peaks of a heat-map (Zhou, Wang and Krähenbühl 2019, "Objects as points", with elliptical
Gaussians), boxes come from the distances to their four sides at a peak (generalised IoU, Rezatofighi et al.
2019), count and severity from label distributions (Wu et al., ICCV 2019). Sizes are in pixels of the square
picture that the network sees.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.acne_maps import CENTRES, CLASSES, HAYASHI, SIDES, STRIDE, UNIT, boxes_of
from models.training import augment
from models.training.backbone import Trunk, load_pretrained
from models.training.boxes import TWINS, average_precision, found, level, read_boxes
from models.training.decoder import Decoder, separable
from models.training.pictures import network_input, read_all, unit

COUNTS = 80
"""Bins of the count's distribution: 0 … COUNTS − 1 lesions."""
WIDTHS = {32: 128, 16: 96, 8: 64, 4: 48}


class Network(nn.Module):
    """Pictures (n, 3, s, s) in [-1, 1] to centres, sides, classes, counts and severity.

    Centres (n, 1, s/4, s/4), classes (n, 4, s/4, s/4), counts (n, 80) and severity (n, 4) are logits; sides
    (n, 4, s/4, s/4) are log distances left, top, right, bottom over UNIT.
    """

    def __init__(self, scale: str = "lite0", drop: float = 0.2) -> None:
        super().__init__()
        self.trunk = Trunk(scale, drop)
        self.decoder = Decoder(self.trunk.channels, WIDTHS)
        width = self.decoder.outputs
        self.centre = nn.Sequential(separable(width, 64), nn.Conv2d(64, 1, 1))
        self.box = nn.Sequential(separable(width, 64), nn.Conv2d(64, 4 + len(CLASSES), 1))
        self.picture = nn.Sequential(
            nn.Conv2d(self.trunk.channels[-1], 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU6()
        )
        self.dropout = nn.Dropout(0.3)
        self.count = nn.Linear(256 + width, COUNTS)
        self.severity = nn.Linear(256 + width, len(HAYASHI) + 1)
        nn.init.constant_(self.centre[-1].bias, -4.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        taps = self.trunk(x)
        fine = self.decoder(taps)
        box = self.box(fine)
        pooled = self.dropout(torch.cat([self.picture(taps[-1]).mean((2, 3)), fine.mean((2, 3))], 1))
        return self.centre(fine), box[:, :4], box[:, 4:], self.count(pooled), self.severity(pooled)


class Deployed(nn.Module):
    """The network whose centres and sides are within [0, 6], see CENTRES and SIDES."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        centres, sides, *rest = self.network(x)
        return F.relu6((centres + CENTRES[0]) * CENTRES[1]), F.relu6((sides + SIDES[0]) * SIDES[1]), *rest


class Task:
    """ACNE04 as its `train` and `valid` folders stand; loss and figures of one network."""

    def __init__(self, data: Path, settings: dict[str, Any], device: torch.device) -> None:
        self.settings, self.device = settings, device
        root = data / "acne04"
        twins = set(TWINS.read_text(encoding="utf-8").split())
        names, boxes = [], []
        for split in ("train", "valid"):
            rows = read_boxes(root / split / "boxes.csv")
            files = sorted(
                p.name for p in (root / split / "images").iterdir() if split == "valid" or p.name not in twins
            )
            files = files[: settings["pictures"] or None]
            names += [(split, name) for name in files]
            boxes += [rows.get(name, []) for name in files]
        size = settings["size"]
        self.pictures = read_all([root / split / "images" / name for split, name in names], (size, size)).to(
            device
        )
        self.valid = [i for i, (split, _) in enumerate(names) if split == "valid"]
        self.train = torch.tensor([i for i, (split, _) in enumerate(names) if split == "train"])
        self.levels = torch.tensor([level(name) for _, name in names], device=device)
        self.names = [name for _, name in names]
        most = max(map(len, boxes))
        self.boxes = torch.full((len(boxes), most, 5), -1.0)
        for row, some in zip(self.boxes, boxes, strict=True):
            if some:
                row[: len(some)] = torch.tensor(some)
        self.boxes = self.boxes.to(device)
        self.network = Network(settings["scale"], settings["drop"])
        if settings["pretrained"]:
            load_pretrained(Path(settings["pretrained"]), self.network.trunk)

    def loss(self, network: nn.Module, index: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            pictures, boxes, levels = self._augmented(index)
        centres, sides, classes, counts, severity = (out.float() for out in network(network_input(pictures)))
        here = boxes[..., 4] >= 0
        number = here.sum().clamp(min=1)
        cells, target = _targets(boxes, here, centres.shape[-1])
        centre_loss = _focal(centres[:, 0], target) / number
        at = _around(cells, centres.shape[-1])
        offsets = torch.stack([at % centres.shape[-1], at // centres.shape[-1]], -1) * STRIDE + STRIDE / 2
        near = _take(sides, at).clamp(-3, 3).exp() * UNIT
        drawn = torch.cat([offsets - near[..., :2], offsets + near[..., 2:]], -1)
        apart = 1 - _giou(drawn, boxes[:, :, None, :4].expand_as(drawn))
        box_loss = (apart.mean(2) * here).sum() / number
        told = _take(classes, at).flatten(0, 2)
        truth = boxes[:, :, None, 4].expand(at.shape).flatten().long()
        class_loss = F.cross_entropy(told, truth.clamp(min=0), reduction="none", label_smoothing=0.1)
        class_loss = (class_loss * (truth >= 0)).sum() / (number * at.shape[2])
        lesions = here.sum(1).float()
        count_loss = _divergence(counts, lesions, 1.0 + 0.08 * lesions)
        level_loss = _divergence(severity, levels.clamp(min=0).float(), torch.full_like(lesions, 0.4))
        known = levels >= 0
        level_loss = (level_loss * known).sum() / known.sum().clamp(min=1)
        weights = self.settings
        return (
            centre_loss
            + weights["box_weight"] * box_loss
            + weights["class_weight"] * class_loss
            + weights["count_weight"] * count_loss.mean()
            + weights["severity_weight"] * level_loss
        )

    def _augmented(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, their boxes still seen, their severity (-1 where the framing or a mixture hides it)."""
        n, device, size = len(index), self.device, self.settings["size"]
        pictures, boxes, levels = unit(self.pictures[index]), self.boxes[index], self.levels[index]
        theta = augment.affine(n, device, rotate=20, scale=(0.7, 1.5), stretch=1.3, shift=0.12, flip_x=0.5)
        plain = augment.sometimes(n, 0.15, device)
        theta[plain] = torch.tensor([[1.0, 0, 0], [0, 1, 0]], device=device)
        pictures = augment.warp(pictures, theta, (size, size), outside="zeros")
        boxes, levels = _moved(boxes, theta, size, levels)
        if n > 1 and self.settings["mix"]:
            pictures, boxes, levels = _mixed(pictures, boxes, levels, self.settings["mix"])
        pictures = augment.light(pictures, stops=0.8, kelvin=0.12, tint=0.05, gamma=0.25)
        pictures = augment.colour(pictures, saturation=0.3, contrast=0.25, hue=0.015)
        pictures = augment.coarse(pictures, least=0.5, chance=0.2)
        pictures = augment.blur(pictures, sigma=1.6, chance=0.25)
        pictures = augment.noise(pictures, sigma=0.05, chance=0.4)
        return augment.jpeg(pictures, quality=(35, 95), chance=0.3), boxes, levels

    def predict(self, network: nn.Module) -> list[tuple[np.ndarray, float, np.ndarray]]:
        """Per validation picture: boxes (`boxes_of`), expected count, severity's probabilities (4,)."""
        out: list[tuple[np.ndarray, float, np.ndarray]] = []
        for some in torch.tensor(self.valid).split(16):
            heads = network(network_input(unit(self.pictures[some.to(self.device)])))
            centres, sides, classes, counts, severity = (head.float() for head in heads)
            expected = (counts.softmax(1) * torch.arange(COUNTS, device=counts.device)).sum(1)
            maps = zip(centres[:, 0], sides.permute(0, 2, 3, 1), classes.permute(0, 2, 3, 1), strict=True)
            boxes = [boxes_of(*(part.cpu().numpy() for part in parts)) for parts in maps]
            out += zip(boxes, expected.tolist(), severity.softmax(1).cpu().numpy(), strict=True)
        return out

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        predicted = self.predict(network)
        truths = [self.boxes[i][self.boxes[i, :, 4] >= 0].cpu().numpy() for i in self.valid]
        hits = [
            found(boxes, truth[:, :4], 0.3) for (boxes, _, _), truth in zip(predicted, truths, strict=True)
        ]
        scores = [boxes[:, 4] for boxes, _, _ in predicted]
        numbers = np.array([len(truth) for truth in truths])
        odd = np.arange(len(numbers)) % 2 == 1
        f1, counted = 0.0, np.zeros(len(numbers))
        chosen = []
        for half in (odd, ~odd):
            threshold = _best_threshold(*(_pick(x, half) for x in (scores, hits)), numbers[half])
            chosen.append(threshold)
            rest = [np.array(s) >= threshold for s in _pick(scores, ~half)]
            right = sum(int(h[r].sum()) for h, r in zip(_pick(hits, ~half), rest, strict=True))
            counted[~half] = [r.sum() for r in rest]
            f1 += right / max(1.0, (counted[~half].sum() + numbers[~half].sum()))
        levels = self.levels[self.valid].cpu().numpy()
        known = levels >= 0
        told = np.array([level.argmax() for _, _, level in predicted])
        figures = {
            "f1": f1,
            "ap": average_precision(np.concatenate(scores), np.concatenate(hits), int(numbers.sum())),
            "threshold": float(np.mean(chosen)),
            "count_error": float(np.abs(counted - numbers).mean()),
            "count_bias": float((counted - numbers).mean()),
            "count_head_error": float(np.abs(np.array([c for _, c, _ in predicted]) - numbers).mean()),
            "severity": float((told == levels)[known].mean()),
            "severity_of_count": float((np.searchsorted(HAYASHI, counted) == levels)[known].mean()),
        }
        better = max(figures["severity"], figures["severity_of_count"])
        count = min(figures["count_error"], figures["count_head_error"])
        return {"score": figures["f1"] + 0.3 * better - 0.02 * count, **figures}

    def deployed(self, network: nn.Module) -> nn.Module:
        return Deployed(network).eval()  # type: ignore[arg-type]

    def restored(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        centres, sides, *rest = outputs
        return centres / CENTRES[1] - CENTRES[0], sides / SIDES[1] - SIDES[0], *rest

    def calibration(self) -> Tensor:
        return network_input(unit(self.pictures[self.train[:: max(1, len(self.train) // 96)]]))


def _moved(boxes: Tensor, theta: Tensor, size: int, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes through `augment.warp`, each as the ellipse that it holds; gone if its centre is."""
    here = boxes[..., 4] >= 0
    centre = (boxes[..., :2] + boxes[..., 2:4]) / size - 1
    half = (boxes[..., 2:4] - boxes[..., :2]) / 2
    forth = torch.linalg.inv(theta[:, :, :2])
    middle = (augment.points(centre, theta) + 1) / 2 * size
    reach = torch.einsum("nij,nkj->nki", forth**2, half**2).sqrt()
    low, high = (middle - reach).clamp(0, size), (middle + reach).clamp(0, size)
    seen = here & (middle > 0).all(-1) & (middle < size).all(-1) & ((high - low).amin(-1) >= 5)
    kind = torch.where(seen, boxes[..., 4], -1.0)
    before, after = here.sum(1), seen.sum(1)
    levels = torch.where((after >= 0.9 * before), levels, -1)
    return torch.cat([low, high, kind[..., None]], -1), levels


def _mixed(pictures: Tensor, boxes: Tensor, levels: Tensor, chance: float) -> tuple[Tensor, Tensor, Tensor]:
    """With `chance`, one side of a picture, up to a random line, comes from the next one, boxes and all."""
    n, _, size, _ = pictures.shape
    device = pictures.device
    line = augment.uniform(n, 0.3, 0.7, device) * size
    across = augment.sometimes(n, 0.5, device)
    mix = augment.sometimes(n, chance, device)
    ramp = torch.arange(size, device=device) + 0.5
    other = torch.where(
        across[:, None, None],
        ramp[None, None, :] < line[:, None, None],
        ramp[None, :, None] < line[:, None, None],
    )
    other = (other & mix[:, None, None])[:, None]
    pictures = torch.where(other, pictures.roll(1, 0), pictures)
    both = []
    for some, kept_below in ((boxes, False), (boxes.roll(1, 0), True)):
        middle = (some[..., :2] + some[..., 2:4]) / 2
        below = torch.where(across[:, None], middle[..., 0], middle[..., 1]) < line[:, None]
        keep = (below == kept_below) & mix[:, None] if kept_below else ~(below & mix[:, None])
        both.append(torch.cat([some[..., :4], torch.where(keep, some[..., 4], -1.0)[..., None]], -1))
    return pictures, torch.cat(both, 1), torch.where(mix, -1, levels)


def _targets(boxes: Tensor, here: Tensor, wide: int) -> tuple[Tensor, Tensor]:
    """The cell (n, k, 2: column, row) of each centre; the heat-map (n, wide, wide), 1 at centres."""
    middle = (boxes[..., :2] + boxes[..., 2:4]) / 2 / STRIDE
    cells = middle.floor().long().clamp(0, wide - 1)
    sigma = ((boxes[..., 2:4] - boxes[..., :2]) / STRIDE / 6).clamp(min=0.8)
    ramp = torch.arange(wide, device=boxes.device)
    bell = torch.exp(-(((ramp - cells[..., None]) / sigma[..., None]) ** 2) / 2) * here[..., None, None]
    heat = torch.zeros(len(boxes), wide, wide, device=boxes.device)
    for k in range(boxes.shape[1]):
        heat = torch.maximum(heat, bell[:, k, 1, :, None] * bell[:, k, 0, None, :])
    return cells, heat


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    """CenterNet's penalty-reduced focal loss, summed (α 2, β 4)."""
    chance = logits.sigmoid()
    centre = target > 0.999
    missed = -F.logsigmoid(logits) * (1 - chance) ** 2
    wrong = -F.logsigmoid(-logits) * chance**2 * (1 - target) ** 4
    return torch.where(centre, missed, wrong).sum()


def _around(cells: Tensor, wide: int) -> Tensor:
    """Flat indices (n, k, 9) of the cells at and next to each centre."""
    step = torch.tensor([-1, 0, 1], device=cells.device)
    x = (cells[..., 0, None, None] + step[None, None, None, :]).clamp(0, wide - 1)
    y = (cells[..., 1, None, None] + step[None, None, :, None]).clamp(0, wide - 1)
    return (y * wide + x).flatten(2)


def _take(maps: Tensor, at: Tensor) -> Tensor:
    """Values (n, k, m, c) of maps (n, c, h, w) at flat indices (n, k, m)."""
    flat = maps.flatten(2)
    picked = flat.gather(2, at.flatten(1)[:, None].expand(-1, flat.shape[1], -1))
    return picked.transpose(1, 2).reshape(*at.shape, flat.shape[1])


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes (…, 4)."""
    inner = (
        (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    )
    outer = (
        (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
        .prod(-1)
        .clamp(min=1e-3)
    )
    union = ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner).clamp(min=1e-3)
    return inner / union - (outer - union) / outer


def _divergence(logits: Tensor, value: Tensor, sigma: Tensor) -> Tensor:
    """Cross-entropy (n,) to a Gaussian label distribution about `value` over the bins 0, 1, ….

    Unlike a one-hot label it says that the neighbouring bin is nearly right (Gao et al. 2017, deep label
    distribution learning).
    """
    bins = torch.arange(logits.shape[1], device=logits.device)
    wanted = torch.softmax(-(((bins - value[:, None]) / sigma[:, None]) ** 2) / 2, 1)
    return -(wanted * F.log_softmax(logits, 1)).sum(1)


def _pick(rows: list[np.ndarray], which: np.ndarray) -> list[np.ndarray]:
    return [row for row, wanted in zip(rows, which, strict=True) if wanted]


def _best_threshold(scores: list[np.ndarray], hits: list[np.ndarray], numbers: np.ndarray) -> float:
    """The threshold whose F1 is best when each lesion of count error costs two points."""

    def worth(threshold: float) -> float:
        counted = np.array([(s >= threshold).sum() for s in scores])
        right = sum(int(h[s >= threshold].sum()) for s, h in zip(scores, hits, strict=True))
        return float(
            2 * right / max(1, counted.sum() + numbers.sum()) - 0.02 * np.abs(counted - numbers).mean()
        )

    return float(max(np.arange(0.08, 0.7, 0.01), key=worth))
