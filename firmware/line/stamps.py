"""The app's word, with its time: what the lights and the camera may be used for in one session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hardware.host.errors import PlainError


class StampError(PlainError, ValueError):
    """A stamp that cannot be understood; without it nothing is lit and no picture is taken."""

    exit_status = 2


def text_of(data: Mapping[str, Any], key: str) -> str:
    """The text under `key`: what a message leaves null or puts as a number names nobody. Raises KeyError,
    TypeError.
    """
    value = data[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is no text")
    return value


@dataclass(frozen=True)
class ConsentStamp:
    """The patient's consent of this session: text version, language, time (with a time zone)."""

    text_version: str
    language: str
    at: datetime

    def __post_init__(self) -> None:
        if not self.text_version or not self.language:
            raise StampError("The consent names no text version or no language.")
        if self.at.tzinfo is None:
            raise StampError("The time of the consent has no time zone.")

    def to_dict(self) -> dict[str, Any]:
        return {
            "text_version": self.text_version,
            "language": self.language,
            "at": self.at.isoformat(),
        }

    @classmethod
    def from_dict(cls, data: Any) -> ConsentStamp:
        """The stamp in `data`. Raises StampError."""
        try:
            at = datetime.fromisoformat(data["at"])
            return cls(text_of(data, "text_version"), text_of(data, "language"), at)
        except (KeyError, TypeError, ValueError) as error:
            raise StampError("There is no consent of this session.") from error


@dataclass(frozen=True)
class UvAllowance:
    """What the app asserts so that UV may be used.

    `patient_reference` is the clinic's pseudonymous id (its HMAC is all that is kept). `screened` says that
    the UV questions were all answered with a clear no. `eyes_closed_confirmed_at` (Unix seconds) is when the
    patient confirmed the board's eye protection, at most 30 s before the first pulse.
    `dose_elsewhere_j_m2` is the dose on other kiosks in the last 24 h, from the check-in token.
    """

    patient_reference: str
    screened: bool
    eyes_closed_confirmed_at: float
    dose_elsewhere_j_m2: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "patient_reference": self.patient_reference,
            "screened": self.screened,
            "eyes_closed_confirmed_at": self.eyes_closed_confirmed_at,
            "dose_elsewhere_j_m2": self.dose_elsewhere_j_m2,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UvAllowance:
        """The allowance in `data`. Raises StampError."""
        try:
            allowance = cls(
                patient_reference=text_of(data, "patient_reference"),
                screened=data["screened"] is True,
                eyes_closed_confirmed_at=float(data["eyes_closed_confirmed_at"]),
                dose_elsewhere_j_m2=float(data.get("dose_elsewhere_j_m2", 0.0)),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            # What these say may quote the reference.
            raise StampError("The UV allowance of this session cannot be understood.") from error
        if not allowance.dose_elsewhere_j_m2 >= 0.0:
            raise StampError("The UV dose of other kiosks is not a number of J/m² from 0 up.")
        return allowance
