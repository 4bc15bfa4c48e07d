"""Simulation: what goes wrong on a simulated kiosk, as its board profile says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_Lamp = Annotated[str, Field(pattern=r"^(white|parallel|cross|uv365|dir[0-7])$")]
_Sense = Literal["photodiode", "lamp_current", "lamp_temperature"]
# What a phantom (hardware.simulated.phantom) can be made from: any seed; a skin tone in ITA°, beyond which no
# melanin in the model of skin gives that colour.
PHANTOM_SEEDS = (0, 2**32 - 1)
PHANTOM_TONES = (-45.0, 62.0)
_Count = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(ge=0, le=3600)]


class Cue(BaseModel):
    """`after_s` after `light` was switched on for the `nth` time since the light daemon has started."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    light: _Lamp
    nth: Annotated[int, Field(ge=1, le=1000)] = 1
    after_s: _Seconds = 0.0


class Simulation(BaseModel):
    """All is well by default; each fault is for tests and for showing what a fault does.

    Exposures are counted from the camera's opening, previews too. `camera_fault` happens at exposure
    `camera_fault_at` and, but for "raises", at every later one. `camera_control_frames` is how many frame
    times pass until a new exposure time works, `camera_readout_ms` how long after the shutter has closed a
    picture is there, `camera_drops_every` loses each n-th frame. `close_up_fault` befalls the close-up
    camera from its picture `close_up_fault_at` on, counted from its opening. The patient stands still and
    does as asked, unless told to move (`patient_moves_mm` to the side from exposure `patient_moves_at` on),
    to sway by `patient_sways_mm` while the shutter is open, to leave, to keep the eyes open, or to open the
    shroud once, for `patient_opens_shroud_s`. A welded switch says closed when staff hold the shroud open.

    A dead lamp is a broken circuit: no light, no current. A stuck one does not go out once it was lit. The UV
    lamp is at `lamp_temperature_c` when it has been dark for long, warms by `lamp_warms_c_per_s` while lit
    and cools down by a factor of e in `lamp_cools_s`. A dead photodiode or current sense reads nothing, a
    dead thermometer cannot be read. Where the power fails every pin falls low and every process of the kiosk
    ends, so that is not in a profile: `dermakiosk demo` does it when asked to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dead_lamps: tuple[_Lamp, ...] = ()
    stuck_lamps: tuple[_Lamp, ...] = ()
    shroud_closed: tuple[bool, bool] = (True, True)
    welded_switches: tuple[bool, bool] = (False, False)
    dead_senses: tuple[_Sense, ...] = ()
    lamp_temperature_c: float = 35.0
    lamp_warms_c_per_s: Annotated[float, Field(ge=0, le=1000)] = 0.5
    lamp_cools_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    # How much darker the corners are than the middle; lamps are a little uneven, too.
    uneven: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    camera_freezes_after: _Count | None = None
    camera_fault: Literal["raises", "hangs", "disconnects"] | None = None
    camera_fault_at: _Count = 0
    camera_control_frames: Annotated[int, Field(ge=0, le=20)] = 0
    camera_readout_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0
    camera_drops_every: Annotated[int, Field(ge=2)] | None = None
    close_up_fault: Literal["dark", "blurred", "hangs", "disconnects"] | None = None
    close_up_fault_at: _Count = 0
    patient_moves_at: _Count | None = None
    patient_moves_mm: float = 15.0
    patient_sways_mm: Annotated[float, Field(ge=0, le=50)] = 0.0
    patient_leaves_at: _Count | None = None
    patient_keeps_eyes_open: bool = False
    patient_opens_shroud_at: Cue | None = None
    patient_opens_shroud_s: _Seconds = 3.0
