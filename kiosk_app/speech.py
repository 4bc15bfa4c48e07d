"""Speech: the sentences that are said aloud, by name, for eyes that are closed or look elsewhere.

A page has the ones that it may say; `static/speech.js` says them by a chime of their own, shows them, has
screen readers read them, and hands name, text and language to whatever voice a kiosk has.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask_babel import LazyString
from flask_babel import lazy_gettext as _

from kiosk_app.journey import Progress

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
            "Put a finger on the button below. Close your eyes, then press it."
            " Keep them closed until you hear three rising notes."
        ),
        "call",
        "eyes",
    ),
    "keep_closed": Spoken(_("Keep your eyes closed until you hear three rising notes."), "fall", "eyes"),
    "open_eyes": Spoken(_("You can open your eyes."), "rise", "look"),
    "goggles_on": Spoken(
        _(
            "Put the goggles on, look straight ahead and press the button below."
            " Keep them on until you hear three rising notes."
        ),
        "call",
        "goggles",
    ),
    "keep_goggles": Spoken(_("Keep the goggles on until you hear three rising notes."), "fall", "goggles"),
    "goggles_off": Spoken(_("You can take the goggles off."), "rise", "look"),
}


@dataclass(frozen=True)
class Protection:
    """What is said of one way to protect the eyes: before, during and after the UV light."""

    before: str
    during: str
    after: str


# By the board's `eye_protection`; a board that names none has no UV either.
PROTECTIONS = {
    "closed_eyes": Protection("close_eyes", "keep_closed", "open_eyes"),
    "goggles": Protection("goggles_on", "keep_goggles", "goggles_off"),
}


def protection_of(eye_protection: str) -> Protection:
    """The Protection of a board's `eye_protection`."""
    return PROTECTIONS.get(eye_protection, PROTECTIONS["closed_eyes"])


def said_at(progress: Progress, protection: Protection) -> str:
    """The name of the sentence that belongs to this moment of the scan."""
    if progress.state == "working" and progress.stage == "uv":
        return protection.during
    if progress.state == "working" and progress.stage in ("starting", "pictures"):
        return "look"
    return protection.after if progress.eyes_protected else "move"
