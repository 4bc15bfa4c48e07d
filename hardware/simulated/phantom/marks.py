"""Marks: spots, lesions, vessels, pores, porphyrins, wrinkles, put into a phantom's maps with their truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array, FloatArray, Int64Array, UInt8Array
from hardware.simulated.phantom import kinds
from hardware.simulated.phantom.kinds import Kind
from hardware.simulated.phantom.plan import Plan, rounded
from hardware.simulated.phantom.tissue import PORPHYRIN, Pigments

_TRIES = 60
_APART_MM = 0.8
_LISTS = ("spots", "lesions", "porphyrins", "pores", "wrinkles")

Record = dict[str, Any]


@dataclass(frozen=True)
class Planted:
    """What marks add to skin at rest: `pigments`, `relief_mm` and `glow` (0…1), H×W float32, all in place.

    `truth` has the lists of truth.json.
    """

    pigments: Pigments
    relief_mm: Float32Array
    glow: Float32Array
    truth: dict[str, list[Record]]


class Planter:
    """Puts marks into the zones of one phantom's skin. `zones` is H×W uint8 as `Plan.zones` gives it."""

    def __init__(
        self, plan: Plan, zones: UInt8Array, names: tuple[str, ...], relief_mm: Float32Array, seed: int
    ) -> None:
        self._plan, self._mm, self._names, self._zones = plan, plan.mm_per_px, names, zones
        self._seed = seed
        # Distance of each place from the edge of its zone, in mm.
        self._room = np.zeros(zones.shape, np.float32)
        for number in range(1, len(names) + 1):
            inside = (zones == number).astype(np.uint8)
            self._room += cv2.distanceTransform(inside, cv2.DIST_L2, 3) * self._mm
        self._taken = np.zeros(zones.shape, bool)
        self._places: dict[str, tuple[Int64Array, Int64Array]] = {}
        melanin, deep, blood, glow = np.zeros((4, *zones.shape), np.float32)
        self._truth: dict[str, list[Record]] = {name: [] for name in _LISTS}
        self._planted = Planted(Pigments(melanin, deep, blood), relief_mm, glow, self._truth)

    def plant(self) -> Planted:
        """Every kind of mark, as the seed has it."""
        for number, (kind, spec) in enumerate({**kinds.LESIONS, **kinds.SPOTS}.items()):
            rng = self._rng(number)
            for _ in range(int(rng.integers(spec.count[0], spec.count[1] + 1))):
                self._blob(kind, spec, rng)
        self._vessels(self._rng(20))
        self._porphyrins(self._rng(21))
        self._pores(self._rng(22))
        self._wrinkles(self._rng(23))
        return self._planted

    def _rng(self, stage: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, 100 + stage])

    def _seat(
        self, weights: Mapping[str, float], radius_mm: float, rng: np.random.Generator, alone: bool = True
    ) -> tuple[int, int] | None:
        """A free place (x, y) for something of that size, or None where there is none left."""
        present = [name for name in weights if name in self._names]
        shares = np.array([weights[name] for name in present])
        for _ in range(_TRIES):
            name = present[int(rng.choice(len(present), p=shares / shares.sum()))]
            rows, columns = self._inside(name)
            at = int(rng.integers(len(rows)))
            y, x = int(rows[at]), int(columns[at])
            around = self._window(x, y, round((radius_mm + _APART_MM) / self._mm))
            if self._room[y, x] >= radius_mm + 0.3 and not (alone and self._taken[around].any()):
                return x, y
        return None

    def _inside(self, name: str) -> tuple[Int64Array, Int64Array]:
        if name not in self._places:
            rows, columns = np.nonzero(self._zones == self._names.index(name) + 1)
            self._places[name] = (rows, columns)
        return self._places[name]

    def _window(self, x: int, y: int, reach: int) -> tuple[slice, slice]:
        return slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)

    def _record(self, x: float, y: float, **sizes: float) -> Record:
        zone = int(self._zones[round(y), round(x)])
        return {
            "place": [round(x, 1), round(y, 1)],
            "zone": self._names[zone - 1] if zone else None,
            **{name: round(float(size), 4) for name, size in sizes.items()},
        }

    def _blob(self, name: str, kind: Kind, rng: np.random.Generator) -> None:
        low, high = kind.diameter_mm
        radius_mm = low * (high / low) ** float(rng.beta(1.3, 1.8)) / 2
        seat = self._seat(kind.zones, radius_mm * (1 + kind.soft / 2), rng)
        amounts = [
            float(rng.uniform(*span)) for span in (kind.melanin, kind.deep, kind.blood, kind.height_mm)
        ]
        turns, strays = rng.uniform(0, 2 * np.pi, 5), rng.normal(0, 1, 5)
        if seat is None:
            return
        x, y = seat
        here = self._window(x, y, round(2.2 * radius_mm * (1 + kind.soft) / self._mm) + 2)
        rows, columns = np.mgrid[here]
        right, down = (columns - x) * self._mm, (rows - y) * self._mm
        angle, distance = np.arctan2(down, right), np.hypot(right, down)
        outline = np.ones_like(distance)
        for wave in range(5):
            amount = 1.2 * kind.rough * strays[wave] / (wave + 1.5) ** 1.5
            outline += amount * np.cos((wave + 2) * angle + turns[wave])
        outline = (1 + 0.5 * np.tanh(2 * (outline - 1))) * radius_mm
        profile = 1 / (1 + np.exp(np.minimum((distance / outline - 1) * 4 / kind.soft, 30)))
        profile = cv2.GaussianBlur(profile.astype(np.float32), (0, 0), max(0.6, 0.12 * radius_mm / self._mm))
        self._taken[here] |= profile > 0.05
        melanin, deep, blood, height = amounts
        # Pigment is never even: a faint net in it.
        mottle = cv2.GaussianBlur(rng.standard_normal(profile.shape).astype(np.float32), (0, 0), 1.6)
        self._planted.pigments.melanin[here] += melanin * profile * np.clip(1 + 0.6 * mottle, 0.5, 1.5)
        self._planted.pigments.deep[here] += deep * profile
        self._planted.pigments.blood[here] += blood * profile
        dome = np.clip(1 - (distance / (1.15 * outline)) ** 2, 0, None) ** 1.5
        self._planted.relief_mm[here] += (height * dome).astype(np.float32)
        area = float(np.count_nonzero(profile > 0.5)) * self._mm**2
        record = self._record(
            float(x), float(y), area_mm2=area, melanin=melanin, deep=deep, blood=blood, height_mm=height
        )
        if kind.depth:
            self._truth["spots"].append(record | {"class": kind.depth, "kind": name})
        else:
            self._truth["lesions"].append(record | {"class": name})

    def _vessels(self, rng: np.random.Generator) -> None:
        for _ in range(int(rng.integers(kinds.VESSEL_COUNT[0], kinds.VESSEL_COUNT[1] + 1))):
            seat = self._seat(kinds.VESSEL_ZONES, 3.0, rng, alone=False)
            length, breadth = rng.uniform(*kinds.VESSEL_LENGTH_MM), rng.uniform(*kinds.VESSEL_MM)
            blood = float(rng.uniform(*kinds.VESSEL_BLOOD))
            angle = rng.uniform(0, 2 * np.pi)
            bends = np.cumsum(rng.normal(0, 0.35, 8))
            if seat is None:
                continue
            steps = length / 8 / self._mm * np.column_stack([np.cos(angle + bends), np.sin(angle + bends)])
            path = rounded(np.vstack([seat, seat + np.cumsum(steps, axis=0)]), closed=False)
            path = path[[self._zones[self._pixel(point)] > 0 for point in path]]
            if len(path) < 4:
                continue
            here, distance, along = self._beside(path, 3 * breadth)
            profile = np.exp(-((distance / (0.6 * breadth)) ** 2)) * (1 - 0.5 * along)
            self._planted.pigments.blood[here] += (blood * profile).astype(np.float32)
            middle = path[len(path) // 2]
            long_mm = _length(path) * self._mm
            self._truth["lesions"].append(
                self._record(
                    *middle.tolist(),
                    area_mm2=long_mm * breadth,
                    length_mm=long_mm,
                    breadth_mm=float(breadth),
                    melanin=0.0,
                    deep=0.0,
                    blood=blood * 0.75,
                )
                | {"class": "telangiectasia", "path": np.round(path, 1).tolist()}
            )

    def _porphyrins(self, rng: np.random.Generator) -> None:
        for _ in range(int(rng.integers(*kinds.PORPHYRIN_COUNT))):
            seat = self._seat(kinds.PORPHYRIN_ZONES, 0.6, rng, alone=False)
            across, glow = float(rng.uniform(*kinds.PORPHYRIN_MM)), float(rng.uniform(*kinds.PORPHYRIN_GLOW))
            if seat is None:
                continue
            radius = across / 2
            here, distance = self._around(seat, 3 * radius)
            # Half of its brightness at its radius.
            blob = glow * np.exp(-np.log(2) * (distance / radius) ** 2)
            np.maximum(self._planted.glow[here], blob.astype(np.float32), out=self._planted.glow[here])
            area = np.pi * radius**2
            self._truth["porphyrins"].append(
                self._record(*map(float, seat), area_mm2=area, contrast=glow * float(PORPHYRIN[0]))
                | {"class": "follicular"}
            )

    def _pores(self, rng: np.random.Generator) -> None:
        for zone, density in kinds.PORES_PER_CM2.items():
            if zone not in self._names:
                continue
            cm2 = np.count_nonzero(self._zones == self._names.index(zone) + 1) * self._mm**2 / 100
            for _ in range(round(cm2 * rng.uniform(*density))):
                seat = self._seat({zone: 1.0}, 0.4, rng, alone=False)
                low, high = kinds.PORE_MM
                across = float(low + (high - low) * rng.beta(1.6, 2.4))
                deep = float(rng.uniform(*kinds.PORE_DEPTH_MM))
                if seat is None:
                    continue
                radius = across / 2
                here, distance = self._around(seat, 3 * across)
                pit = deep * np.exp(-np.log(2) * (distance / radius) ** 2)
                self._planted.relief_mm[here] -= pit.astype(np.float32)
                self._truth["pores"].append(
                    self._record(
                        *map(float, seat),
                        area_mm2=np.pi * radius**2,
                        diameter_mm=across,
                        depth_mm=deep,
                    )
                    | {"class": "pore"}
                )

    def _wrinkles(self, rng: np.random.Generator) -> None:
        age = float(rng.uniform(*kinds.AGES))
        share = (age - kinds.AGES[0]) / (kinds.AGES[1] - kinds.AGES[0])
        for kind, path in _furrows(share, rng):
            low, high = kinds.WRINKLE_DEPTH_MM
            depth = low + (high - low) * share**1.2 * float(rng.uniform(0.45, 1.0))
            breadth = float(np.interp(share, (0, 1), kinds.WRINKLE_BREADTH_MM) * rng.uniform(0.8, 1.2))
            points = rounded(self._plan.picture(path), closed=False, rounds=4)
            points = points[[self._zones[self._pixel(point)] > 0 for point in points]]
            if len(points) < 6 or _length(points) * self._mm < 3:
                continue
            here, distance, along = self._beside(points, 3 * breadth)
            taper = np.clip(4 * np.minimum(along, 1 - along), 0, 1) ** 0.7
            trench = depth * taper * np.exp(-((2 * distance / breadth) ** 2) * np.log(2))
            self._planted.relief_mm[here] -= trench.astype(np.float32)
            middle = points[len(points) // 2]
            self._truth["wrinkles"].append(
                self._record(
                    *middle.tolist(),
                    length_mm=_length(points) * self._mm,
                    depth_mm=depth,
                    breadth_mm=breadth,
                    area_mm2=_length(points) * self._mm * breadth,
                )
                | {"class": kind, "path": np.round(points[::4], 1).tolist()}
            )

    def _pixel(self, point: Float64Array) -> tuple[int, int]:
        x, y = np.round(point).astype(int)
        return min(max(0, y), self._plan.height - 1), min(max(0, x), self._plan.width - 1)

    def _around(self, seat: tuple[int, int], reach_mm: float) -> tuple[tuple[slice, slice], Float64Array]:
        """The window around `seat`, with each pixel's distance in mm."""
        here = self._window(*seat, int(reach_mm / self._mm) + 2)
        rows, columns = np.mgrid[here]
        return here, np.hypot(columns - seat[0], rows - seat[1]) * self._mm

    def _beside(
        self, path: Float64Array, reach_mm: float
    ) -> tuple[tuple[slice, slice], FloatArray, FloatArray]:
        """The window around `path`: distance in mm, and how far along it the nearest point lies (0…1)."""
        reach = int(reach_mm / self._mm) + 2
        low, high = np.floor(path.min(axis=0)).astype(int), np.ceil(path.max(axis=0)).astype(int)
        here = (
            slice(max(0, low[1] - reach), min(self._plan.height, high[1] + reach + 1)),
            slice(max(0, low[0] - reach), min(self._plan.width, high[0] + reach + 1)),
        )
        rows, columns = np.mgrid[here].astype(np.float32)
        best = np.full(rows.shape, np.inf, np.float32)
        along = np.zeros(rows.shape, np.float32)
        for n, ((x0, y0), (x1, y1)) in enumerate(zip(path[:-1], path[1:], strict=True)):
            dx, dy = x1 - x0, y1 - y0
            share = np.clip(((columns - x0) * dx + (rows - y0) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
            distance = np.hypot(columns - x0 - share * dx, rows - y0 - share * dy)
            nearer = distance < best
            best = np.where(nearer, distance, best)
            along = np.where(nearer, (n + share) / (len(path) - 1), along)
        return here, best * self._mm, along


def _length(path: Float64Array) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


def _furrows(share: float, rng: np.random.Generator) -> list[tuple[str, Float64Array]]:
    """(class, path on the mean face) of a face whose age is `share` of the way from young to old."""
    found: list[tuple[str, Float64Array]] = []
    for n in range(round(1 + 3.2 * share + rng.uniform(-0.5, 0.5))):
        v = -0.37 - 0.085 * n + rng.normal(0, 0.012)
        left, right = -rng.uniform(0.28, 0.55), rng.uniform(0.28, 0.55)
        us = np.linspace(left, right, 9)
        vs = v + 0.02 * np.cos(us * rng.uniform(3, 6)) + rng.normal(0, 0.006, 9)
        found.append(("forehead line", np.column_stack([us, vs])))
    for side in (-1, 1):
        for n in range(round(1 + 3.4 * share + rng.uniform(-0.4, 0.4))):
            angle = -0.55 + 0.38 * n + rng.normal(0, 0.06)
            reach = np.linspace(0.04, rng.uniform(0.14, 0.22), 5)
            us = 0.685 + reach * np.cos(angle)
            vs = 0.01 + reach * np.sin(angle) + 0.6 * reach**2 + rng.normal(0, 0.003, 5)
            found.append(("crow's foot", np.column_stack([side * us, vs])))
        for n in range(round(0.6 + 1.6 * share)):
            us = np.linspace(0.30 + 0.03 * n, 0.58, 7)
            vs = 0.135 + 0.035 * n + 0.05 * np.sin((us - 0.25) / 0.36 * np.pi) + rng.normal(0, 0.003, 7)
            found.append(("under-eye line", np.column_stack([side * us, vs])))
        if rng.random() < share:
            vs = np.linspace(-0.24, -0.33, 5)
            us = 0.075 + rng.normal(0, 0.006, 5)
            found.append(("frown line", np.column_stack([side * us, vs])))
    return found
