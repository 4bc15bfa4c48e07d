"""The words of the overlays, handed in as data: English unless somebody says otherwise."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Words(BaseModel):
    """Every text that an overlay can hold. %(names)s are filled in by the drawing.

    `lights` is by the light that shows the face, then by that and the light that is measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    script: Literal["latin", "arabic"] = "latin"
    zones: dict[str, str] = {
        "forehead": "Forehead",
        "left_periorbital": "Around left eye",
        "right_periorbital": "Around right eye",
        "left_cheek": "Left cheek",
        "right_cheek": "Right cheek",
        "nose": "Nose",
        "chin": "Chin",
    }
    areas_title: str = "Where we measured"
    areas_line: str = "The number is skin colour as an angle: higher is lighter."
    areas_uncalibrated: str = "No numbers here: the colours of this camera are not calibrated."
    areas_label: str = "colour %(value)s°"
    spots_title: str = "Darker spots"
    spots_line: str = "Each ring goes around one darker place."
    spots_label: str = "spots: %(value)s"
    redness_title: str = "Redness"
    redness_line: str = "Inside the dark lines, skin is redder than in most of this face."
    redness_label: str = "%(value)s %% red"
    acne_title: str = "Blemishes"
    acne_line: str = "Each ring goes around one place that may be a pimple or a blackhead."
    acne_label: str = "blemishes: %(value)s"
    lights: dict[str, str] = {
        "white": "White light.",
        "parallel": "Parallel-polarised light.",
        "cross": "Cross-polarised light.",
        "white, cross": "Shown in white light, measured in cross-polarised light.",
        "parallel, cross": "Shown in parallel-polarised light, measured in cross-polarised light.",
    }
    # January is the first.
    months: tuple[str, ...] = (
        "January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December",
    )  # fmt: skip
    taken: str = "%(day)s %(month)s %(year)s, %(time)s UTC."
    simulated: str = "SIMULATED"
    sides: str = "As in a mirror: your left is on the left."
    length: str = "%(value)s mm"
    about_length: str = "about %(value)s mm"

    @property
    def right_to_left(self) -> bool:
        return self.script == "arabic"


ENGLISH = Words()
