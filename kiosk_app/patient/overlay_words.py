"""The words of a patient's overlays, in the language of their session."""

from __future__ import annotations

import structlog
from babel.dates import get_month_names
from flask_babel import get_locale, gettext

from kiosk_app.patient.readings import ZONES
from models.analysis.pen import can_write
from models.analysis.words import ENGLISH, Words

log = structlog.get_logger()


def overlay_words() -> Words:
    """Words for the request at hand; English where this system cannot write the language's script."""
    locale = get_locale()
    if locale is None or locale.language == "en":
        return ENGLISH
    months = get_month_names("wide", "format", locale)
    words = Words(
        script="arabic" if locale.character_order == "right-to-left" else "latin",
        zones={zone: str(word) for zone, word in ZONES.items()},
        areas_title=gettext("Where we measured"),
        areas_line=gettext("The number is skin colour as an angle: higher is lighter."),
        areas_uncalibrated=gettext("No numbers here: the colours of this camera are not calibrated."),
        areas_label=gettext("colour %(value)s°"),
        spots_title=gettext("Darker spots"),
        spots_line=gettext("Each ring goes around one darker place."),
        spots_label=gettext("spots: %(value)s"),
        redness_title=gettext("Redness"),
        redness_line=gettext("Inside the dark lines, skin is redder than in most of this face."),
        redness_label=gettext("%(value)s %% red"),
        acne_title=gettext("Blemishes"),
        acne_line=gettext("Each ring goes around one place that may be a pimple or a blackhead."),
        acne_label=gettext("blemishes: %(value)s"),
        lights={
            "white": gettext("White light."),
            "parallel": gettext("Parallel-polarised light."),
            "cross": gettext("Cross-polarised light."),
            "white, cross": gettext("Shown in white light, measured in cross-polarised light."),
            "parallel, cross": gettext(
                "Shown in parallel-polarised light, measured in cross-polarised light."
            ),
        },
        months=tuple(months[month] for month in range(1, 13)),
        taken=gettext("%(day)s %(month)s %(year)s, %(time)s UTC."),
        simulated=gettext("SIMULATED"),
        sides=gettext("As in a mirror: your left is on the left."),
        length=gettext("%(value)s mm"),
        about_length=gettext("about %(value)s mm"),
    )
    if not can_write(words):
        log.warning("overlays_in_english", language=locale.language, why="no Raqm, FriBidi or Noto font")
        return ENGLISH
    return words
