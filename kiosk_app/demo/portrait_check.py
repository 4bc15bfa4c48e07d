"""The portrait of a simulated patient, looked at before anything is started for it."""

from __future__ import annotations

from hardware.simulated.patient_options import SimulatedPatient
from models.analysis.face import find_faces
from models.analysis.upright import require_upright
from models.networks.runtime import DEFAULT_ENGINE


def check_portrait(patient: SimulatedPatient, engine: str = DEFAULT_ENGINE) -> None:
    """Raises Refused("turned") where the face in --portrait is upside down or lies on its side.

    A portrait without a face may be shown to the camera: it is refused as it would be in life.
    """
    portrait = patient.portrait_picture()
    if portrait is not None:
        require_upright(portrait, find_faces(portrait, engine), engine)
