"""Speech: the sentences that are said aloud, by name, for eyes that are closed or look elsewhere.

A page has the ones that it may say; `static/speech.js` says them by a chime of their own, shows them, has
screen readers read them, and hands name, text and language to whatever voice a kiosk has.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask_babel import LazyString
from flask_babel import lazy_gettext as _

from kiosk_app.scanning.progress import Progress, Stage, Step

# The light daemon takes a word about the eyes for 30 s, and a pulse lasts 1 s at most: after this many
# seconds there is no UV, whatever has become of the application, and the page says so by itself.
CLOSED_AT_MOST_S = 32


@dataclass(frozen=True)
class Spoken:
    """One sentence, with the chime of `static/speech.js` before it and the drawing beside it."""

    text: LazyString
    chime: str
    drawing: str


SPOKEN: dict[str, Spoken] = {
    "look": Spoken(_("Keep your eyes open, look at the small light and hold still."), "call", "look"),
    "move": Spoken(_("Thank you. You can move again."), "rise", "look"),
    "close_eyes": Spoken(
        _(
            "Put a finger on the large button. Close your eyes, then press it."
            " Keep them closed until you hear three rising notes."
        ),
        "call",
        "eyes",
    ),
    "keep_closed": Spoken(_("Keep your eyes closed until you hear three rising notes."), "fall", "eyes"),
    "open_eyes": Spoken(_("You can open your eyes."), "rise", "look"),
    "mark_spot": Spoken(
        _("Touch the place on the drawn face, or choose an area. If there is none, go on."), "call", "face"
    ),
    "hold_close_up": Spoken(
        _("Hold the close-up camera flat on the spot and keep still. Then tap “Take the picture”."),
        "call",
        "dermatoscope",
    ),
    "mark_another": Spoken(_("You can mark another spot, or go on."), "call", "face"),
    "spot_taken": Spoken(_("The picture is taken. You can mark another spot, or go on."), "rise", "face"),
}


# What is said of closed eyes before, during and after the UV light.
BEFORE_UV, DURING_UV, AFTER_UV = "close_eyes", "keep_closed", "open_eyes"


def said_at(progress: Progress) -> str:
    """The name of the sentence that belongs to this moment of the scan."""
    if progress.state is Step.WORKING and progress.stage is Stage.UV:
        return DURING_UV
    if progress.state is Step.WORKING and progress.stage in (Stage.STARTING, Stage.PICTURES):
        return "look"
    return AFTER_UV if progress.eyes_protected else "move"
