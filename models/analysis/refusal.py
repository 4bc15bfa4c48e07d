"""Refused: a picture that could be read but not measured.

Who decides: `not_skin` lesion (`is_close_up`) by unlike_skin; `no_lesion` lesion, opaque; `no_face` face,
face_quality, acne, describe; `two_faces` face, acne; `turned` upright; `too_dark` face_quality, acne, lesion;
`too_blurred` face_quality; `too_small` whatever needs a face or a spot of some size; `not_a_picture` and
`too_big` whoever reads the file.
"""

from __future__ import annotations

from hardware.host.errors import Fault
from hardware.picture_file import NOT_A_PICTURE, TOO_BIG

SENTENCES = {
    "no_face": "No face can be seen in this picture. Look straight into the camera, whole face in view.",
    "two_faces": "There is more than one face in this picture. One person at a time, please.",
    "turned": "The face in this picture is upside down or lies on its side. Turn the picture upright.",
    "too_dark": "The picture is too dark to measure. Check that the light is on, and take it again.",
    "too_blurred": "The picture is too blurred to measure. Hold still, and take it again.",
    "not_skin": "This does not look like a dermoscopic close-up of skin. Put the attachment flat on the "
    "spot, and take it again.",
    "no_lesion": "No spot can be seen in this close-up. Put it in the middle, and take it again.",
    "not_a_picture": NOT_A_PICTURE,
    "too_big": TOO_BIG,
    "too_small": "The face in this picture is too small to measure. Come closer, or use a larger picture.",
}

# With the code "too_small", where it is the picture rather than the face in it.
NO_ROOM_FOR_A_FACE = "This picture is too small to hold a face. Use a larger one."


class Refused(Fault):
    """`code` is a key of SENTENCES; the text is one plain sentence on what to do."""

    exit_status = 2

    def __init__(self, code: str, sentence: str | None = None) -> None:
        super().__init__(code, sentence or SENTENCES[code])
