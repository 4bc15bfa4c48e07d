"""Which pictures are for validation: by lesion or person, the same on every machine and in every run."""

from __future__ import annotations

import hashlib

FAMILIES_HELD_OUT = 0.25


def held_out(group: str, share: float = 0.2, salt: str = "dermakiosk") -> bool:
    """Whether everything of one lesion or person is kept for validation; decided by a hash of its name."""
    digest = hashlib.sha256(f"{salt}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def held_out_block(position: int, block: int = 10) -> bool:
    """Whether the picture at `position` of a sorted folder is kept for validation: each fifth block.

    For folders where one person's, or siblings', pictures are neighbours.
    """
    return position // block % 5 == 2


def first_half(group: str) -> bool:
    """Whether a validation lesion is used to choose constants; the others report."""
    return held_out(group, 0.5, "calibration")
