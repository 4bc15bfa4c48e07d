"""EfficientNet-Lite, the trunk of every network that is trained here.

Mingxing Tan, Ruoming Yu: EfficientNet-Lite (2020): EfficientNet (Tan and Le, ICML 2019) without squeeze-
and-excitation and
with ReLU6 for swish, so that whole-integer graphs lose little. Parameter names are those of the published
PyTorch weights.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# kernel, stride, expansion, channels, repeats: the seven stages of EfficientNet-B0.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
STEM, HEAD = 32, 1280
BATCH_NORM = {"eps": 1e-3, "momentum": 0.01}
TAPS = (2, 4, 8, 16, 32)


def _round_channels(channels: int, width: float) -> int:
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME, which the published weights expect."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pad = []
        for size, kernel, stride in (
            (width, self.kernel_size[1], self.stride[1]),
            (height, self.kernel_size[0], self.stride[0]),
        ):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pad += [total // 2, total - total // 2]
        if pad[0] == pad[1] == pad[2] == pad[3]:
            return F.conv2d(x, self.weight, self.bias, self.stride, pad[0], self.dilation, self.groups)
        return F.conv2d(F.pad(x, pad), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        middle = inputs * expansion
        if expansion != 1:
            self._expand_conv = SameConv(inputs, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, **BATCH_NORM)
        self._depthwise_conv = SameConv(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, **BATCH_NORM)
        self._project_conv = SameConv(middle, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, **BATCH_NORM)
        self.expands, self.stride, self.drop = expansion != 1, stride, drop
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        if not self.residual:
            return y
        if self.training and self.drop:
            keep = torch.rand(len(y), 1, 1, 1, device=y.device, dtype=y.dtype) >= self.drop
            y = y * keep / (1 - self.drop)
        return x + y


class Trunk(nn.Module):
    """Pictures (n, 3, h, w), float in [-1, 1], RGB, to five maps at strides 2, 4, 8, 16 and 32."""

    def __init__(self, scale: str = "lite0", drop: float = 0.2) -> None:
        super().__init__()
        width, depth = SCALES[scale]
        self._conv_stem = SameConv(3, STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM, **BATCH_NORM)
        blocks, channels, stride, ends = [], STEM, 2, {}
        for stage, (kernel, step, expansion, outputs, repeats) in enumerate(STAGES):
            outputs = _round_channels(outputs, width)
            edge = stage in (0, len(STAGES) - 1)
            for repeat in range(repeats if edge else math.ceil(depth * repeats)):
                blocks.append([channels, outputs, kernel, step if repeat == 0 else 1, expansion])
                channels = outputs
                stride *= step if repeat == 0 else 1
                ends[stride] = (len(blocks) - 1, channels)
        self._blocks = nn.ModuleList(Block(*block, drop * i / len(blocks)) for i, block in enumerate(blocks))
        self._ends = [ends[stride][0] for stride in TAPS]
        self.channels = [ends[stride][1] for stride in TAPS]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        taps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self._ends:
                taps.append(x)
        return taps


class Head(nn.Module):
    """The published classifier's last convolution, pooled: (n, 1280)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._conv_head = SameConv(channels, HEAD, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(HEAD, **BATCH_NORM)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def load_pretrained(weights: Path, *parts: nn.Module) -> None:
    """Copy published ImageNet weights into the parts that have them. Raises KeyError if a part finds
    one missing.
    """
    published = torch.load(weights, map_location="cpu", weights_only=True)
    for part in parts:
        part.load_state_dict({name: published[name].float() for name in part.state_dict()})
