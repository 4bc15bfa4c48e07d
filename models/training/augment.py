"""What a kiosk's camera could have done to a training picture: framing, light, colour, blur, noise, JPEG;
on the device, by batch.

Pictures are (n, 3, h, w) sRGB in [0, 1]; h and w multiples of 8. Every function draws from torch's global
generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Annex K of ITU-T T.81: the customary luminance and chrominance quantisation tables.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
) + ((99,) * 8,) * 4
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def uniform(n: int, low: float, high: float, device: torch.device) -> Tensor:
    """(n,) uniform in [low, high)."""
    return torch.rand(n, device=device) * (high - low) + low


def sometimes(n: int, chance: float, device: torch.device) -> Tensor:
    """(n,) bool, True with `chance`."""
    return torch.rand(n, device=device) < chance


def affine(
    n: int,
    device: torch.device,
    *,
    rotate: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    stretch: float = 1.0,
    shift: float = 0.0,
    flip_x: float = 0.0,
    flip_y: float = 0.0,
    aspect: float = 1.0,
) -> Tensor:
    """(n, 2, 3) maps from output to input coordinates in [-1, 1], for `warp`.

    rotate: at most so many degrees either way. scale: magnification, drawn log-uniformly. stretch:
    width over height
    changes by at most this factor. shift: at most this share of the picture. flip_x, flip_y: chances.
    aspect: width over
    height of the pictures in pixels, so that a rotation stays one.
    """
    angle = uniform(n, -rotate, rotate, device) * math.pi / 180
    zoom = torch.exp(uniform(n, math.log(scale[0]), math.log(scale[1]), device))
    skew = torch.exp(uniform(n, -math.log(stretch), math.log(stretch), device) / 2)
    mirror_x = torch.where(sometimes(n, flip_x, device), -1.0, 1.0)
    mirror_y = torch.where(sometimes(n, flip_y, device), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x_scale, y_scale = mirror_x / (zoom * skew), mirror_y * skew / zoom
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = cos * x_scale, -sin * y_scale / aspect
    theta[:, 1, 0], theta[:, 1, 1] = sin * x_scale * aspect, cos * y_scale
    theta[:, :, 2] = (torch.rand(n, 2, device=device) * 2 - 1) * 2 * shift
    return theta


def warp(
    pictures: Tensor,
    theta: Tensor,
    size: tuple[int, int],
    mode: str = "bilinear",
    outside: str = "reflection",
) -> Tensor:
    """Resample (n, c, h, w) to `size` (height, width) through `theta`; `outside` as in torch's
    grid_sample.
    """
    grid = F.affine_grid(theta, [len(pictures), pictures.shape[1], *size], align_corners=False)
    return F.grid_sample(pictures, grid, mode=mode, padding_mode=outside, align_corners=False)


def points(xy: Tensor, theta: Tensor) -> Tensor:
    """Input points (n, k, 2) in [-1, 1] to where `warp` puts them."""
    inverse = torch.linalg.inv(theta[:, :, :2])
    return (xy - theta[:, None, :, 2]) @ inverse.transpose(1, 2)


def light(
    pictures: Tensor, *, stops: float = 1.0, kelvin: float = 0.12, tint: float = 0.05, gamma: float = 0.2
) -> Tensor:
    """Exposure within ±stops, red against blue within ±kelvin, green within ±tint, tone curve within
    ±gamma, all in log units.
    """
    n, device = len(pictures), pictures.device
    exposure = uniform(n, -stops, stops, device) * math.log(2) / 2.2
    warm, green = uniform(n, -kelvin, kelvin, device), uniform(n, -tint, tint, device)
    gain = torch.exp(exposure[:, None] + torch.stack([warm, green, -warm], 1))[:, :, None, None]
    power = torch.exp(uniform(n, -gamma, gamma, device))[:, None, None, None]
    return (pictures * gain).clamp(1e-4, 1) ** power


def colour(pictures: Tensor, *, saturation: float = 0.3, contrast: float = 0.2, hue: float = 0.02) -> Tensor:
    """Saturation, contrast about the picture's mean, and a small rotation of hue (in turns)."""
    n, device = len(pictures), pictures.device
    ycc = torch.einsum("ij,njhw->nihw", torch.tensor(_YCC, device=device), pictures)
    angle = uniform(n, -hue, hue, device) * 2 * math.pi
    strength = torch.exp(uniform(n, -saturation, saturation, device))
    cos, sin = (angle.cos() * strength)[:, None, None], (angle.sin() * strength)[:, None, None]
    y = ycc[:, 0]
    mean = y.mean((1, 2), keepdim=True)
    y = mean + (y - mean) * torch.exp(uniform(n, -contrast, contrast, device))[:, None, None]
    turned = torch.stack([y, cos * ycc[:, 1] - sin * ycc[:, 2], sin * ycc[:, 1] + cos * ycc[:, 2]], 1)
    back = torch.linalg.inv(torch.tensor(_YCC, device=device))
    return torch.einsum("ij,njhw->nihw", back, turned).clamp(0, 1)


def blur(pictures: Tensor, *, sigma: float = 1.5, chance: float = 0.3) -> Tensor:
    """Gaussian blur of up to `sigma` pixels on a share of the pictures."""
    n, c, h, w = pictures.shape
    radius = max(1, math.ceil(3 * sigma))
    sigmas = torch.where(sometimes(n, chance, pictures.device), uniform(n, 0.3, sigma, pictures.device), 1e-3)
    offsets = torch.arange(-radius, radius + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = torch.exp(-((offsets[None] / sigmas[:, None]) ** 2) / 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = F.pad(pictures.reshape(1, n * c, h, w), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=n * c)
    return F.conv2d(flat, kernel[:, None, :, None], groups=n * c).reshape(n, c, h, w)


def noise(pictures: Tensor, *, sigma: float = 0.04, chance: float = 0.5) -> Tensor:
    """Sensor noise: Gaussian, stronger where there is more light (shot noise), on a share of the pictures."""
    n, device = len(pictures), pictures.device
    level = (uniform(n, 0, sigma, device) * sometimes(n, chance, device))[:, None, None, None]
    return (pictures + torch.randn_like(pictures) * level * (0.3 + pictures).sqrt()).clamp(0, 1)


def jpeg(pictures: Tensor, *, quality: tuple[float, float] = (30, 95), chance: float = 0.4) -> Tensor:
    """JPEG's loss without its file: 8x8 cosine transform, quantised at a quality drawn for each picture
    of a share.
    """
    n, _, h, w = pictures.shape
    device, dtype = pictures.device, pictures.dtype
    k = torch.arange(8, device=device, dtype=dtype)
    dct = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    dct[0] /= math.sqrt(2)
    q = uniform(n, *quality, device)
    factor = torch.where(q < 50, 50 / q, 2 - q / 50)
    tables = torch.tensor((_LUMA, _CHROMA, _CHROMA), device=device, dtype=dtype)
    steps = (tables[None] * factor[:, None, None, None]).round().clamp(1, 255)[:, :, None, None]
    ycc_matrix = torch.tensor(_YCC, device=device, dtype=dtype)
    ycc = torch.einsum("ij,njhw->nihw", ycc_matrix, pictures) * 255
    ycc[:, 0] -= 128
    blocks = ycc.reshape(n, 3, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    coefficients = (dct @ blocks @ dct.T / steps).round() * steps
    ycc = (dct.T @ coefficients @ dct).permute(0, 1, 2, 4, 3, 5).reshape(n, 3, h, w)
    ycc[:, 0] += 128
    lossy = torch.einsum("ij,njhw->nihw", torch.linalg.inv(ycc_matrix), ycc / 255).clamp(0, 1)
    return torch.where(sometimes(n, chance, device)[:, None, None, None], lossy, pictures)


def coarse(pictures: Tensor, *, least: float = 0.4, chance: float = 0.3) -> Tensor:
    """The whole batch, with `chance`, at a lower resolution and back: a far or soft camera."""
    if torch.rand(()) >= chance:
        return pictures
    share = float(torch.rand(()) * (1 - least) + least)
    size = pictures.shape[-2:]
    small = [max(8, int(s * share)) for s in size]
    down = F.interpolate(pictures, small, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(down, list(size), mode="bilinear", align_corners=False)


def vignette(pictures: Tensor, *, chance: float = 0.3) -> Tensor:
    """The dark round edge of a dermoscope's tube: soft or sharp, of any size that leaves most of the
    picture.
    """
    n, _, h, w = pictures.shape
    device = pictures.device
    radius = uniform(n, 0.75, 1.4, device)[:, None, None]
    softness = uniform(n, 0.01, 0.25, device)[:, None, None]
    centre = (torch.rand(n, 2, device=device) - 0.5) * 0.2
    y = torch.linspace(-1, 1, h, device=device)[None, :, None] * h / max(h, w)
    x = torch.linspace(-1, 1, w, device=device)[None, None, :] * w / max(h, w)
    distance = ((y - centre[:, 0, None, None]) ** 2 + (x - centre[:, 1, None, None]) ** 2).sqrt()
    shade = torch.sigmoid((radius - distance) / softness * 4)
    dark = (torch.rand(n, 3, device=device) * 0.12)[:, :, None, None]
    some = sometimes(n, chance, device)[:, None, None, None]
    return torch.where(some, pictures * shade[:, None] + dark * (1 - shade[:, None]), pictures)


def hairs(pictures: Tensor, *, chance: float = 0.3, most: int = 10) -> Tensor:
    """Dark or fair arcs across a share of the pictures."""
    n, _, h, w = pictures.shape
    device = pictures.device
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, h, device=device),
        torch.linspace(-w / h, w / h, w, device=device),
        indexing="ij",
    )
    tint = (torch.rand(n, 3, device=device) * 0.35)[:, :, None, None]
    fair = sometimes(n, 0.15, device)[:, None, None, None]
    tint = torch.where(fair, 1 - tint / 2, tint)
    cover = torch.zeros(n, 1, h, w, device=device)
    for strand in range(most):
        # A strand is a piece of a large circle; its distance field is that of the circle, cut by
        # a half-plane.
        radius = uniform(n, 0.8, 6.0, device)[:, None, None]
        angle = uniform(n, 0, 2 * math.pi, device)[:, None, None]
        through = (torch.rand(n, 2, 1, 1, device=device) - 0.5) * 2
        centre_x, centre_y = through[:, 0] + radius * angle.cos(), through[:, 1] + radius * angle.sin()
        distance = (((x - centre_x) ** 2 + (y - centre_y) ** 2).sqrt() - radius).abs()
        near = ((x - through[:, 0]) ** 2 + (y - through[:, 1]) ** 2).sqrt() < uniform(n, 0.3, 2.0, device)[
            :, None, None
        ]
        width = uniform(n, 0.004, 0.012, device)[:, None, None]
        line = (
            (1 - distance / width).clamp(0, 1) * near * sometimes(n, 1 - strand / most, device)[:, None, None]
        )
        cover = torch.maximum(cover, line[:, None])
    cover = (
        cover
        * sometimes(n, chance, device)[:, None, None, None]
        * uniform(n, 0.4, 1.0, device)[:, None, None, None]
    )
    return pictures * (1 - cover) + tint * cover
