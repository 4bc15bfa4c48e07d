"""The irradiance of a UV lamp at the eye plane, as far as a measurement that is still good tells it."""

from __future__ import annotations

from datetime import date, datetime, timezone

from firmware.lights.terms import LightRefused
from hardware.board import Board


def good_irradiance(board: Board, name: str, at: float, renewed_at: float | None) -> float:
    """W/m² at the eye plane under UV light `name` of `board`, whose lamp is in since `renewed_at`.

    Both times are Unix seconds; `renewed_at` is None for the first lamp. Raises LightRefused.
    """
    light = board.lights[name]
    irradiance, measured = light.irradiance_w_m2, light.calibrated_on
    if irradiance is None or measured is None:
        raise LightRefused("not_calibrated", "The irradiance of this lamp is not known.")
    if irradiance > board.limits.uv_lockout_w_m2:
        raise LightRefused("too_bright", "The lamp is brighter than the lock-out: no UV.")
    if renewed_at is not None and (measured == "simulated" or measured < _day(renewed_at)):
        raise LightRefused(
            "not_calibrated",
            f"{name} has a new lamp since {_day(renewed_at)} (UTC), and its irradiance was not measured."
            f" Measure it at the eye plane, write lights.{name}.irradiance_w_m2 and calibrated_on into the"
            " board profile, and restart the light daemon.",
        )
    if measured == "simulated":
        if not board.simulated:
            raise LightRefused("not_calibrated", "The irradiance of this lamp was never measured.")
        return irradiance
    age = (_day(at) - measured).days
    if not 0 <= age <= board.limits.uv_calibration_days:
        when = "too long ago" if age > 0 else f"on a day to come ({measured}; today is {_day(at)}, UTC)"
        raise LightRefused("not_calibrated", f"The irradiance of this lamp was measured {when}.")
    return irradiance


def _day(at: float) -> date:
    return datetime.fromtimestamp(at, timezone.utc).date()
