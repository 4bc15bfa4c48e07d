"""From the trunk's maps back to a picture: a light U-Net decoder of depthwise-separable convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training.backbone import BATCH_NORM


def separable(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Depthwise then pointwise, each normalised; ReLU6, which quantises well."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs, **BATCH_NORM),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs, **BATCH_NORM),
        nn.ReLU6(),
    )


def lateral(inputs: int, outputs: int) -> nn.Sequential:
    """A 1x1 convolution that brings a tap to the decoder's width."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, **BATCH_NORM), nn.ReLU6()
    )


class Decoder(nn.Module):
    """Taps at strides 2 … 32 to one map at `stride` with `widths[stride]` channels.

    widths: channels of the decoder at each stride from 32 down to the wanted one, such as {32: 128, 16:
    96, 8: 64, 4: 48}.
    """

    def __init__(self, channels: list[int], widths: dict[int, int]) -> None:
        super().__init__()
        self.strides = sorted(widths, reverse=True)
        by_stride = dict(zip((2, 4, 8, 16, 32), channels, strict=True))
        self.laterals = nn.ModuleList(lateral(by_stride[s], widths[s]) for s in self.strides)
        self.mixes = nn.ModuleList(
            separable(widths[before] + widths[after], widths[after], 5)
            for before, after in zip(self.strides, self.strides[1:], strict=False)
        )
        self.outputs = widths[self.strides[-1]]

    def forward(self, taps: list[Tensor]) -> Tensor:
        by_stride = dict(zip((2, 4, 8, 16, 32), taps, strict=True))
        x = self.laterals[0](by_stride[self.strides[0]])
        for stride, lateral, mix in zip(self.strides[1:], list(self.laterals)[1:], self.mixes, strict=True):
            side = lateral(by_stride[stride])
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = mix(torch.cat([x, side], 1))
        return x
