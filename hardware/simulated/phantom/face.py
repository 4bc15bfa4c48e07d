"""The phantom's face: shape, tissue and marks put together into a Scene, with the truth about it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float32Array
from hardware.board import Board
from hardware.simulated.lids import closed_lids
from hardware.simulated.patient import Patient
from hardware.simulated.phantom.contrast import with_contrasts
from hardware.simulated.phantom.marks import Planter
from hardware.simulated.phantom.paint import Parts, crease, paint, parts_of
from hardware.simulated.phantom.plan import Anatomy, Plan
from hardware.simulated.phantom.relief import face_depth, occlusion, surface
from hardware.simulated.phantom.skin import blood_at_rest, microrelief, relative_melanin, ring_light, shine_of
from hardware.simulated.phantom.tissue import MELANIN, PORPHYRIN, Pigments, Tissue
from hardware.simulated.scene import Scene
from hardware.simulated.shape import Shape

# Tones that a seed draws from.
_USUAL_TONES = (-35.0, 58.0)
_CHEEKS = ("left_cheek", "right_cheek")
_SAMPLES = 30_000
_BASES = (0.004, 0.9)
# How dark hair and irises are, by ITA°.
_DARKNESS = ((-20, 10, 40, 60), (1.2, 0.95, 0.6, 0.25))


class Phantom:
    """One phantom in front of `board`'s camera: everything about it follows from `seed` and `tone`.

    `tone` is the mean ITA° of the cheeks' diffuse light; None lets the seed draw it. `scene` is what the
    still camera sees. The truth: `melanin` (of epidermis and dermis together, as a volume fraction of the
    epidermis) with its part in the dermis, `melanin_dermal`, and `haemoglobin` (blood's volume fraction in
    the dermis), 0 where no bare skin is; `depth_mm` (0 at the cheeks' mean, larger is nearer), `normals` (x
    right, y down, z to the camera), `zones` (see `zone_names`; 0 = none), all float32, H×W; `marks` are the
    lists of what was planted.
    """

    def __init__(self, board: Board, anatomy: Anatomy, seed: int, tone: float | None = None) -> None:
        still = board.camera.still
        rng = np.random.default_rng([seed, 1])
        drawn = float(np.random.default_rng([seed, 2]).uniform(*_USUAL_TONES))
        self.seed, self.tone = seed, drawn if tone is None else tone
        self.plan = plan = Plan(anatomy, still.width, still.height, np.random.default_rng([seed, 3]))
        self.mm_per_px = plan.mm_per_px
        parts = parts_of(plan, np.random.default_rng([seed, 4]))
        skin = parts.bare(plan.fill(plan.outline("face_oval")))
        zones, self.zone_names = plan.zones(skin > 0.5)
        cheeks = np.isin(zones, [self.zone_names.index(name) + 1 for name in _CHEEKS])
        relief = microrelief(plan, skin, parts.lips, rng)
        planted = Planter(plan, zones, self.zone_names, relief, seed).plant()
        depth = face_depth(plan, parts.head) + planted.relief_mm
        depth -= float(depth[cheeks].mean())
        shape = surface(depth, skin, plan.mm_per_px)
        lit = _frontal_light(plan, parts, shape, cheeks)
        self._tissue = Tissue()
        rest = Pigments(
            relative_melanin(plan, rng), np.zeros_like(relief), blood_at_rest(plan, parts.lips, rng)
        )
        base = self._base_melanin(rest, planted.pigments, lit, cheeks)
        rest = rest._replace(melanin=base * rest.melanin)
        pigments = _with_marks(rest, planted.pigments)
        self.marks = with_contrasts(planted.truth, self._tissue, rest, lit, plan.mm_per_px)
        self.scene = self._scene(parts, skin, pigments, planted.glow, lit, shape, rng)
        bare = parts.bare(parts.body * (1 - parts.cloth)) > 0.5
        self.melanin = np.where(bare, pigments.melanin + pigments.deep, 0).astype(np.float32)
        self.melanin_dermal = np.where(bare, pigments.deep, 0).astype(np.float32)
        self.haemoglobin = np.where(bare, pigments.blood, 0).astype(np.float32)
        self.depth_mm, self.normals = depth.astype(np.float32), shape.normals
        self.zones = zones.astype(np.float32)

    def _base_melanin(self, rest: Pigments, marks: Pigments, lit: Float32Array, cheeks: BoolArray) -> float:
        """The melanin with which the cheeks have the mean ITA° asked for; by halving."""
        chosen = np.flatnonzero(cheeks)[:: 1 + int(cheeks.sum()) // _SAMPLES]
        rest, marks = (Pigments(*(part.ravel()[None, chosen] for part in both)) for both in (rest, marks))
        light = lit.ravel()[chosen, None]
        low, high = np.log(_BASES)
        for _ in range(24):
            middle = (low + high) / 2
            pigments = _with_marks(rest._replace(melanin=np.exp(middle) * rest.melanin), marks)
            if _mean_tone(self._tissue.white(pigments)[0] * light) > self.tone:
                low = middle
            else:
                high = middle
        return float(np.exp((low + high) / 2))

    def _scene(
        self,
        parts: Parts,
        skin: Float32Array,
        pigments: Pigments,
        glow: Float32Array,
        lit: Float32Array,
        shape: Shape,
        rng: np.random.Generator,
    ) -> Scene:
        diffuse, uv = self._tissue.white(pigments), self._tissue.ultraviolet(pigments)
        shine = shine_of(shape, self.plan, rng)
        before = diffuse.copy()
        darkness = np.interp(self.tone, *_DARKNESS) + rng.normal(0, 0.12)
        paint(self.plan, parts, diffuse, shine, float(np.clip(darkness, 0, 1)), rng)
        # What is painted over skin glows as little as it reflects.
        kept = np.clip(diffuse / np.maximum(before, 1e-3), 0, 1).mean(axis=2)
        kept *= parts.body * (1 - 0.5 * parts.cloth) * (1 - 0.6 * parts.hair)
        uv *= kept[:, :, None]
        uv += (glow * skin)[:, :, None] * PORPHYRIN
        uv *= lit[:, :, None]
        half, glossy, bare, glows = (
            values.astype(np.float16) for values in (diffuse, np.maximum(shine, 0), skin, uv)
        )
        points = np.column_stack([self.plan.landmarks, np.zeros(len(self.plan.landmarks))])
        lids = closed_lids(half, glossy, bare, glows, points)
        return Scene(half, glossy, bare, glows, shape, lids, frontal=lit.astype(np.float16))

    def truth(self) -> dict[str, Any]:
        """What truth.json says, beside the maps."""
        return {
            "seed": self.seed,
            "tone_ita_degrees": round(self.tone, 3),
            "mm_per_px": self.mm_per_px,
            "zones": {name: number for number, name in enumerate(self.zone_names, 1)},
            "landmarks": np.round(self.plan.landmarks, 2).tolist(),
            **self.marks,
        }

    def maps(self) -> dict[str, Float32Array]:
        """What truth.npz holds."""
        return {
            "melanin": self.melanin,
            "melanin_dermal": self.melanin_dermal,
            "haemoglobin": self.haemoglobin,
            "depth_mm": self.depth_mm,
            "normals": self.normals.astype(np.float32),
            "zones": self.zones,
        }


class PhantomPatient(Patient):
    """A phantom, seen by the still camera of `board` as `scene`, where a patient would be."""

    def __init__(self, board: Board, scene: Scene) -> None:
        self._stand_before(board, scene)


def _frontal_light(plan: Plan, parts: Parts, shape: Shape, cheeks: BoolArray) -> Float32Array:
    """Light of the lamps around the lens on each place, H×W float32, 1 in the mean of the `cheeks`."""
    lit = ring_light(shape) * occlusion(shape.points_mm[:, :, 2], plan.mm_per_px) * (1 - 0.3 * crease(plan))
    lit /= float(lit[cheeks].mean())
    # Hair, cloth and hood have no shape of their own here.
    flat = np.maximum.reduce([parts.hair, parts.cloth, 1 - parts.body])
    lit += flat * (0.3 + 0.5 * cv2.GaussianBlur(lit, (0, 0), 7.0 / plan.mm_per_px) - lit)
    return np.asarray(lit, np.float32)


def _with_marks(rest: Pigments, marks: Pigments) -> Pigments:
    melanin, deep, blood = (at_rest + added for at_rest, added in zip(rest, marks, strict=True))
    return Pigments(np.clip(melanin, *MELANIN), deep, blood)


def ita_degrees(colours: Float32Array) -> Float32Array:
    """Individual typology angle (Chardon 1991) of each colour (N×3 linear sRGB)."""
    lab = cv2.cvtColor(colours[None].astype(np.float32), cv2.COLOR_LRGB2Lab)[0]
    return np.asarray(np.degrees(np.arctan2(lab[:, 0] - 50, lab[:, 2])), np.float32)


def _mean_tone(colours: Float32Array) -> float:
    """ITA° of a patch (N×3): between that of its mean colour and the mean of its pixels'.

    They differ by some 2° where shading and spots vary; it lies nearer to the first, for the little gloss
    that white light adds.
    """
    mean_colour = float(ita_degrees(colours.mean(axis=0)[None])[0])
    return 0.8 * mean_colour + 0.2 * float(ita_degrees(colours).mean())
