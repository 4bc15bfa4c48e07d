"""What the kiosk says to a patient: guidance, stages of the work, troubles with a way on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flask_babel import LazyString
from flask_babel import lazy_gettext as _

from kiosk_app.scanning.delivery import Delivery
from kiosk_app.scanning.progress import Progress, Stage

# By the guidance codes of the preview. Left and right are the patient's own.
GUIDANCE: dict[str, LazyString] = {
    "no_face": _("Please look into the camera"),
    "two_faces": _("One person at a time, please"),
    "too_far": _("Come a little closer"),
    "too_near": _("Move back a little"),
    "move_left": _("Move a little to your left"),
    "move_right": _("Move a little to your right"),
    "move_up": _("Move up a little"),
    "move_down": _("Move down a little"),
    "turn_to_front": _("Turn your face to the camera"),
    "too_dark": _("It is a little dark here"),
    "open_eyes": _("Please open your eyes"),
    "hold_still": _("That is just right"),
}

STAGES: dict[Stage, LazyString] = {
    Stage.STARTING: _("Getting ready"),
    Stage.PICTURES: _("Taking pictures"),
    Stage.UV: _("The UV picture"),
    Stage.KEEPING: _("Locking your pictures away"),
    Stage.MEASURING: _("Measuring"),
    Stage.SEALING: _("Sealing your result"),
}

STILL_MEASURING = _("This takes longer than usual. You need not do anything.")


def stage(progress: Progress) -> LazyString:
    """What is being done, for the patient who waits for it."""
    return STILL_MEASURING if progress.takes_long else STAGES[progress.stage]


# Why a patient is asked once more to close the eyes, by the codes of `phases.ASK_AGAIN`.
EYES_AGAIN: dict[str, LazyString] = {
    "eyes_open": _("It looked as if your eyes were open, so the UV light stayed off."),
    "no_face": _("We could not see your face, so the UV light stayed off."),
    "two_faces": _("We saw more than one face, so the UV light stayed off."),
    "eyes_not_confirmed": _("It took us too long, so the UV light stayed off."),
}

# The overlay pictures of a result, by the names that the analysis gives them.
OVERLAYS: dict[str, LazyString] = {
    "zones": _("Areas"),
    "redness": _("Redness"),
    "spots": _("Darker spots"),
    # Of a patient's words none names a disease.
    "acne": _("Blemishes"),
}

# What is known of the measurements' way to the clinic; the page says no more than that.
DELIVERIES: dict[Delivery, LazyString] = {
    Delivery.MEASURING: _(
        "Your pictures are kept safe in this kiosk. It measures them by itself, and sends the result to"
        " %(clinic)s once there is one."
    ),
    Delivery.KEPT: _(
        "Your measurements are kept safe in this kiosk until %(clinic)s confirms that it has them."
    ),
    Delivery.WAITING: _(
        "Your measurements are kept safe in this kiosk. They go to %(clinic)s as soon as the connection is"
        " back."
    ),
    Delivery.UNDER_WAY: _("Your measurements are on their way to %(clinic)s."),
    Delivery.RECEIVED: _("Your measurements have reached %(clinic)s."),
    Delivery.HELD: _(
        "Your measurements have reached %(clinic)s, where someone has to look at the message first."
        " Please tell someone at the desk."
    ),
    Delivery.NOT_MEASURED: _(
        "Your pictures could not be measured, so they have been deleted. Nothing of them was sent to"
        " %(clinic)s."
    ),
    Delivery.NOTHING_SENT: _("Nothing of it had been sent to %(clinic)s."),
    Delivery.UNTOLD: _(
        "Your measurements may have reached %(clinic)s already. It could not be told yet to erase them;"
        " this kiosk tells it as soon as it can."
    ),
    Delivery.TELLING: _(
        "Your measurements may have reached %(clinic)s already. It is being told now to erase them."
    ),
    Delivery.TOLD: _("%(clinic)s has confirmed that it knows, and erases the measurements that it was sent."),
    Delivery.TOLD_HELD: _(
        "%(clinic)s knows that it has to erase your measurements, but someone there has to see to it."
        " Please tell someone at the desk."
    ),
}

# Why a result has no UV picture, where the patient should hear it, by the Capture's codes.
UV_LEFT_OUT: dict[str, LazyString] = {
    "shroud_open": _(
        "The hood was open at the UV picture, so the UV light went off. The measurements shown here do not"
        " need it."
    ),
    **dict.fromkeys(
        EYES_AGAIN,
        _(
            "We could not be sure that your eyes were closed, so the UV picture was left out."
            " The measurements shown here do not need it."
        ),
    ),
}
_UV_NOT_TAKEN: LazyString = _(
    "The UV picture could not be taken. The measurements shown here do not need it."
)
# The patient left it out, or was not to have it: they know.
_UV_NOT_WANTED = (None, "not_allowed", "skipped")

_COLOUR = _("Skin colour is not given as a number: the colours of this picture are not those of your skin.")
# What a picture could not show, by the flag that its Findings carry.
_NOT_MEASURED: dict[str, LazyString] = {
    "uncalibrated_colour": _COLOUR,
    "implausible_colour": _COLOUR,
    "spots_not_counted": _(
        "Darker spots were not counted: this picture cannot show them well enough. That does not mean that"
        " there are none."
    ),
}

# What a result says of a board without lamps of its own.
ROOM_LIGHT: LazyString = _(
    "Your pictures were taken in white light only, that of this room. Their colours are as good as it is."
)


@dataclass(frozen=True)
class Trouble:
    """A page about something that went wrong: what happened, what to do now. `again`: a try may help."""

    title: LazyString
    happened: LazyString
    now: LazyString
    again: bool = True


# Where nobody knows what is lit.
_LOOK_AWAY: LazyString = _(
    "If a light is still on, look away from it. You can try again. If it happens twice, please tell someone"
    " at the desk."
)
_SILENT = Trouble(
    _("The camera needs a moment"),
    _("The camera did not answer, so we stopped. Nothing of this try was kept."),
    _LOOK_AWAY,
)
TROUBLES: dict[str, Trouble] = {
    "no_face": Trouble(
        _("We could not see your face"),
        _("The pictures show no face that we can measure. They have been deleted."),
        _("Please sit so that your whole face is in the oval, then try again."),
    ),
    "two_faces": Trouble(
        _("We saw more than one face"),
        _("We can only measure one person at a time. The pictures have been deleted."),
        _("Please make sure that nobody is beside or behind you, then try again."),
    ),
    "too_dark": Trouble(
        _("The picture is a little dark"),
        _("There was not enough light to measure your skin. The pictures have been deleted."),
        _("Please come closer under the hood, then try again."),
    ),
    "too_blurred": Trouble(
        _("The picture is a little blurred"),
        _("You may have moved while the pictures were taken. They have been deleted."),
        _("Please rest your head and hold still for ten seconds, then try again."),
    ),
    "moved": Trouble(
        _("You moved a little"),
        _("The pictures do not fit together, so we stopped. Nothing of this try was kept."),
        _("Please rest your head and hold still for ten seconds, then try again."),
    ),
    "shroud_open": Trouble(
        _("The hood was open"),
        _("The hood was open while the pictures were taken, so we stopped. Nothing of this try was kept."),
        _("Please close the hood, hold still for ten seconds, then try again."),
    ),
    "storage_full": Trouble(
        _("This kiosk cannot keep your scan"),
        _("There is no room left for your pictures, so we stopped. Nothing of this try was kept."),
        _("Please tell someone at the desk. They can look at your skin with you, without this kiosk."),
        again=False,
    ),
    "storage": Trouble(
        _("One moment, please"),
        _("Your pictures could not be put away just now, so we stopped. Nothing of this try was kept."),
        _("You can try again. If it happens twice, please tell someone at the desk."),
    ),
    "no_room": Trouble(
        _("This kiosk is resting"),
        _("There is no room left for new pictures, so we cannot take new scans now."),
        _("Please tell someone at the desk. They can look at your skin with you, without this kiosk."),
        again=False,
    ),
    "storage_lost": Trouble(
        _("This kiosk is resting"),
        _("It cannot lock new pictures away safely, so we cannot take new scans now."),
        _("Please tell someone at the desk. They can look at your skin with you, without this kiosk."),
        again=False,
    ),
    "outbox_full": Trouble(
        _("This kiosk is resting"),
        _("Too many results are waiting to be sent, so we cannot take new scans now."),
        _("Please tell someone at the desk. They can look at your skin with you, without this kiosk."),
        again=False,
    ),
    "research_only": Trouble(
        _("This kiosk is resting"),
        _(
            "What it measures with is for research only, and your clinic has not signed for that, so we"
            " cannot take new scans now."
        ),
        _("Please tell someone at the desk. They can look at your skin with you, without this kiosk."),
        again=False,
    ),
    "analysis_failed": Trouble(
        _("We could not finish measuring"),
        _(
            "Your pictures are safe in this kiosk. It tries again by itself, and sends the result once"
            " there is one."
        ),
        _("There is nothing more to do here. If you have questions, please ask at the desk."),
        again=False,
    ),
    "unreadable": Trouble(
        _("We could not finish measuring"),
        _(
            "This kiosk cannot read your pictures any more, so there is no result of this scan. What is left"
            " of them stays locked in it until it is deleted."
        ),
        _("Please tell someone at the desk. They can look at your skin with you, without this kiosk."),
        again=False,
    ),
    "state_unknown": Trouble(
        _("We could not finish your scan"),
        _(
            "This kiosk cannot tell just now whether your pictures were put away. If they were, it measures"
            " them by itself and sends the result."
        ),
        _("Please tell someone at the desk. They can look at your skin with you, without this kiosk."),
        again=False,
    ),
    "not_measurable": Trouble(
        _("We could not measure these pictures"),
        _("Something about the pictures kept us from measuring them. They have been deleted."),
        _("You can try again. If it happens twice, please tell someone at the desk."),
    ),
    "light_fault": Trouble(
        _("A light did not work as it should"),
        _("We told all lights to go off, and stopped. Nothing of this try was kept."),
        _(
            "If a light is still on, look away from it. Please tell someone at the desk: they can look at"
            " your skin with you, without this kiosk."
        ),
        again=False,
    ),
    "light_lost": Trouble(
        _("The lights did not answer"),
        _("We could not reach the lights, so we stopped. Nothing of this try was kept."),
        _LOOK_AWAY,
    ),
    "not_calibrated": Trouble(
        _("This kiosk is resting"),
        _("The check of its camera and lights is due, so we cannot take new scans now."),
        _("Please tell someone at the desk. They can look at your skin with you, without this kiosk."),
        again=False,
    ),
    "busy": Trouble(
        _("The camera is still busy"),
        _("It is finishing something else. Nothing of this try was kept."),
        _("Please wait a few seconds, then try again."),
    ),
    "answer_waits": Trouble(
        _("One moment, please"),
        _("This kiosk is still finishing something else, so what you chose has not been done yet."),
        _("Please wait a few seconds, then try again."),
    ),
    "not_deleted": Trouble(
        _("Your scan is not deleted yet"),
        _("This kiosk could not delete it just now."),
        _("You can try again. If it happens twice, please tell someone at the desk."),
    ),
    "no_room_to_delete": Trouble(
        _("Your scan is not deleted yet"),
        _("There is no room left in this kiosk to delete it safely."),
        _("Please tell someone at the desk: they make room, and then it can be deleted."),
    ),
    "page_waits": Trouble(
        _("One moment, please"),
        _("This kiosk is still finishing something else, so this page cannot be shown yet."),
        _("Please wait a few seconds, then try again."),
    ),
    "unread": Trouble(
        _("This page cannot be shown just now"),
        _("This kiosk cannot read what it keeps of your scan, so it cannot say what became of it."),
        _("You can try again. If it happens twice, please tell someone at the desk."),
    ),
    "camera_frozen": _SILENT,
    "unavailable": _SILENT,
    "deadline": _SILENT,
    "no_consent": _SILENT,
}


def deliveries(clinic: str) -> dict[str, str]:
    """Every sentence about the way to the clinic, by its code."""
    return {known.value: str(sentence) % {"clinic": clinic} for known, sentence in DELIVERIES.items()}


def uv_left_out(code: str | None) -> LazyString | None:
    """Why a result has no UV picture, by the Capture's code; None where the patient need not hear of it."""
    return None if code in _UV_NOT_WANTED else UV_LEFT_OUT.get(code or "", _UV_NOT_TAKEN)


def trouble(reason: str | None) -> Trouble:
    """The Trouble for a reason's code; an unknown reason is one of the analysis."""
    return TROUBLES.get(reason or "", TROUBLES["not_measurable"])


def not_measured(flags: Iterable[str]) -> list[LazyString]:
    """What the result page says of measures that could not be made, each sentence once."""
    return list(dict.fromkeys(_NOT_MEASURED[flag] for flag in flags if flag in _NOT_MEASURED))
