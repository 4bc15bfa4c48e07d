"""Handedness: on which side of a screen or a page the patient's left is.

Each is the sign that x of the canonical face, and of every picture as a camera takes it, has there. What is
written into a picture is written after it has been turned.
"""

from __future__ import annotations

# To the patient, through the whole journey: preview, drawn faces, pictures of the result.
AS_IN_A_MIRROR = -1
# To a clinician, who has the patient before them: the patient's left is on the right.
FACING = 1
