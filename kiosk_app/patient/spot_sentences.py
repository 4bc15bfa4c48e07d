"""What the kiosk says of a marked spot; never what the spot might be."""

from __future__ import annotations

from flask_babel import LazyString
from flask_babel import lazy_gettext as _

from kiosk_app.patient.sentences import Trouble

# By the guidance codes of the close-up preview.
GUIDANCE: dict[str, LazyString] = {
    "too_dark": _("Put the close-up camera flat on your skin"),
    "too_blurred": _("Hold it still, flat on your skin"),
    "hold_still": _("That is just right"),
}

# Where a result carries less than was marked.
NOT_KEPT: LazyString = _(
    "This kiosk could not keep what you marked: your clinician knows of it only from you."
)

_LOST = Trouble(
    _("The close-up camera needs a moment"),
    _("It gave no picture. The pictures of your face are safe."),
    _("You can go on without it. Your clinician will look at the spot."),
)

# By the reasons why a close-up is not kept; any other reason is the camera's.
TROUBLES: dict[str, Trouble] = {
    "too_dark": Trouble(
        _("The picture is a little dark"),
        _("The close-up camera may not be flat on your skin."),
        _("We can take it again. If not, your clinician will look at this spot."),
    ),
    "too_blurred": Trouble(
        _("The picture is a little blurred"),
        _("The close-up camera may have moved."),
        _("We can take it again. If not, your clinician will look at this spot."),
    ),
    "not_skin": Trouble(
        _("We could not see your skin well"),
        _("The close-up camera may not be flat on the spot, or hair may cover it."),
        _("We can take it again. If not, your clinician will look at this spot."),
    ),
    "no_lesion": Trouble(
        _("We could not see a spot"),
        _("The spot may be beside the middle of the picture."),
        _("We can take it again. If not, your clinician will look at this spot."),
    ),
}
TROUBLES["too_small"] = TROUBLES["not_skin"]


def trouble(why: str | None) -> Trouble:
    """The Trouble for the reason why a close-up was not kept."""
    return TROUBLES.get(why or "", _LOST)
