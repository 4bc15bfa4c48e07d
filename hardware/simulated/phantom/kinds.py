"""Kinds: what is planted in a phantom's skin, how many, how large, how strong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_EVERYWHERE = {
    "forehead": 3.0,
    "left_cheek": 2.5,
    "right_cheek": 2.5,
    "nose": 0.8,
    "chin": 0.8,
    "left_periorbital": 0.3,
    "right_periorbital": 0.3,
}
_CHEEKS = {"left_cheek": 3.0, "right_cheek": 3.0, "forehead": 1.0, "nose": 0.5}
_OILY = {"nose": 5.0, "forehead": 2.5, "chin": 2.0, "left_cheek": 0.8, "right_cheek": 0.8}
_FLUSHED = {"left_cheek": 3.0, "right_cheek": 3.0, "nose": 1.5, "chin": 1.0}


@dataclass(frozen=True)
class Kind:
    """One kind of mark, with ranges from which each face and each mark draws.

    `count` a face; `diameter_mm`; what it adds at its middle: `melanin` to the epidermis, `deep` to the
    dermis, `blood` (volume fractions), `height_mm` to the relief. `soft` is the share of the radius over
    which its edge fades, `rough` how far its outline strays from a circle. `zones` says where, by weight.
    """

    count: tuple[int, int]
    diameter_mm: tuple[float, float]
    zones: Mapping[str, float]
    melanin: tuple[float, float] = (0.0, 0.0)
    deep: tuple[float, float] = (0.0, 0.0)
    blood: tuple[float, float] = (0.0, 0.0)
    height_mm: tuple[float, float] = (0.0, 0.0)
    soft: float = 0.2
    rough: float = 0.1
    depth: str = ""


# Diameters as textbooks have them (Bolognia, Dermatology): ephelides of 1 to 3 mm, solar lentigines of some
# mm to a centimetre, dermal patches larger and blurred. How much pigment each adds is this project's
# choice: on light skin it makes optical densities of 0.03 to 0.3 above the skin around, about the spot
# finder's limit.
SPOTS: Mapping[str, Kind] = {
    "freckle": Kind(
        (0, 60),
        (1.2, 2.8),
        _CHEEKS | {"nose": 1.5},
        melanin=(0.02, 0.06),
        soft=0.5,
        rough=0.22,
        depth="epidermal",
    ),
    "lentigo": Kind(
        (3, 12), (2.8, 7.0), _EVERYWHERE, melanin=(0.025, 0.08), soft=0.32, rough=0.3, depth="epidermal"
    ),
    "dermal patch": Kind((1, 4), (4.0, 9.0), _CHEEKS, deep=(0.18, 0.5), soft=0.7, rough=0.25, depth="dermal"),
    "mixed patch": Kind(
        (1, 4),
        (3.5, 8.0),
        _CHEEKS,
        melanin=(0.03, 0.06),
        deep=(0.12, 0.3),
        soft=0.5,
        rough=0.28,
        depth="mixed",
    ),
}
# Papules are raised and below 5 mm, common naevi below 6 mm (Bolognia). Inflamed skin is given two to six
# times the blood of skin at rest.
LESIONS: Mapping[str, Kind] = {
    "papule": Kind(
        (0, 9), (2.0, 4.5), _FLUSHED | {"forehead": 2.0}, blood=(0.02, 0.05), height_mm=(0.2, 0.6), soft=0.45
    ),
    "redness": Kind((0, 3), (12.0, 24.0), _FLUSHED, blood=(0.008, 0.02), soft=0.6, rough=0.2),
    "naevus": Kind(
        (1, 2), (2.5, 5.5), _EVERYWHERE, melanin=(0.25, 0.5), deep=(0.1, 0.3), height_mm=(0.1, 0.5), soft=0.12
    ),
}
# Vessels dilated to 0.1 to 1 mm are called so (Goldman, Sclerotherapy); these are the fine ones of cheeks
# and nose.
VESSEL_COUNT, VESSEL_MM, VESSEL_LENGTH_MM, VESSEL_BLOOD = (0, 7), (0.15, 0.35), (3.0, 9.0), (0.02, 0.05)
VESSEL_ZONES: Mapping[str, float] = _FLUSHED | {"nose": 3.0}
# Follicles that glow: brightness is that of the camera under the board's 365 nm light, size that of a
# follicle's opening with the light spread around it in the skin.
PORPHYRIN_COUNT, PORPHYRIN_MM, PORPHYRIN_GLOW = (25, 140), (0.35, 0.8), (0.25, 0.9)
PORPHYRIN_ZONES: Mapping[str, float] = _OILY
# Openings count as visible from 0.25 mm (Flament, Clin Cosmet Investig Dermatol 2015); some here are smaller.
PORES_PER_CM2: Mapping[str, tuple[float, float]] = {
    "nose": (20.0, 45.0),
    "left_cheek": (6.0, 22.0),
    "right_cheek": (6.0, 22.0),
    "forehead": (4.0, 14.0),
    "chin": (5.0, 16.0),
}
PORE_MM, PORE_DEPTH_MM = (0.2, 0.5), (0.04, 0.14)
# Just visible lines are less than 0.2 mm deep (Lemperle, Plast Reconstr Surg 2001); folds are left out. At
# the corners of the eyes they deepen from 40 to 60 years.
WRINKLE_DEPTH_MM, WRINKLE_BREADTH_MM = (0.04, 0.45), (0.5, 1.5)
AGES = (20, 78)
