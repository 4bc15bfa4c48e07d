"""Board: one board profile (pins, lights, camera, interlocks, limits), read from TOML."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UVA_NM = (315, 400)
BOARDS = Path(__file__).parent / "boards"

Pin = Annotated[int, Field(ge=0, le=63)]
LightName = Annotated[str, Field(pattern=r"^(white|parallel|cross|uv365|dir[0-7])$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BoardError(ValueError):
    """A board profile that cannot be used; the message names each key with its reason."""

    exit_status = 2

    def __init__(self, path: Path, problems: list[str]) -> None:
        super().__init__(f"{path} is not a usable board profile: " + "; ".join(problems) + ".")
        self.problems = problems


class DriverMissing(Exception):
    """The board names a driver that this kiosk does not have; nothing is put in its place."""

    exit_status = 2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mode(_Strict):
    """One camera mode: picture size as it leaves the camera, upright, with its frame rate."""

    width: Annotated[int, Field(ge=16, le=10_000)]
    height: Annotated[int, Field(ge=16, le=10_000)]
    fps: Annotated[float, Field(gt=0, le=240)]


class CameraProfile(_Strict):
    """The camera: driver, modes, and what its numbers mean (linear counts, black at `black_level`).

    `sensor` names its colours in `hardware.spectra`.
    """

    driver: Literal["simulated", "picamera2", "v4l2"]
    still: Mode
    preview: Mode
    bits: Annotated[int, Field(ge=8, le=16)]
    black_level: Annotated[int, Field(ge=0)]
    settle_ms: Annotated[int, Field(ge=0, le=1000)]
    sensor: Literal["srgb", "bayer"] | None = None
    deadline_s: Annotated[float, Field(gt=0, le=10)] = 2.0


class Light(_Strict):
    """One lamp channel. `white_counts` is the nominal flat field at this exposure and gain.

    `irradiance_w_m2` is at the eye plane, with the date of its measurement. A light without `pwm_hz` is
    switched, not dimmed; UV is always switched. `led` names its spectrum in `hardware.spectra`.
    """

    pin: Pin
    pwm_hz: Annotated[int, Field(ge=1000, le=100_000)] | None = None
    wavelength_nm: Annotated[int, Field(ge=UVA_NM[0], le=1100)] | None = None
    irradiance_w_m2: Positive | None = None
    calibrated_on: date | Literal["simulated"] | None = None
    exposure_us: Annotated[int, Field(gt=0, le=500_000)]
    gain: Positive = 1.0
    white_counts: Positive
    position_mm: tuple[float, float, float] | None = None
    led: Literal["d65", "blue-pump-ra90", "violet-pump-6500k"] | None = None

    @property
    def is_uv(self) -> bool:
        return self.wavelength_nm is not None and self.wavelength_nm <= UVA_NM[1]


class Interlocks(_Strict):
    """The shroud's two switches, and the time after which the lamp's own one-shot cuts UV off."""

    shroud_pins: tuple[Pin, Pin]
    one_shot_s: Annotated[float, Field(gt=0, le=2.0)]


class Limits(_Strict):
    """What the light daemon enforces. Each may be stricter than its bound here, never looser."""

    uv_design_w_m2: Annotated[float, Field(gt=0, le=10.0)] = 10.0
    uv_lockout_w_m2: Annotated[float, Field(gt=0, le=33.0)] = 33.0
    uv_pulse_s: Annotated[float, Field(gt=0, le=1.0)] = 1.0
    uv_pulses_per_scan: Annotated[int, Field(ge=0, le=6)] = 6
    uv_dose_per_scan_j_m2: Annotated[float, Field(ge=0, le=150.0)] = 150.0
    uv_dose_per_day_j_m2: Annotated[float, Field(ge=0, le=450.0)] = 450.0
    uv_calibration_days: Annotated[int, Field(gt=0, le=365)] = 365
    heartbeat_s: Annotated[float, Field(gt=0, le=0.2)] = 0.2
    lease_silence_s: Annotated[float, Field(gt=0, le=2.0)] = 2.0
    light_after_off_s: Annotated[float, Field(gt=0, le=0.05)] = 0.05
    lamp_temperature_c: Annotated[float, Field(gt=0, le=60.0)] = 60.0
    eye_protection_s: Annotated[float, Field(gt=0, le=30.0)] = 30.0
    flashes_per_s: Annotated[float, Field(gt=0, le=3.0)] = 3.0


class Simulation(_Strict):
    """What is wrong with a simulated kiosk, for tests: all is well by default."""

    dead_lamps: tuple[LightName, ...] = ()
    stuck_lamps: tuple[LightName, ...] = ()
    shroud_closed: tuple[bool, bool] = (True, True)
    lamp_temperature_c: float = 35.0
    camera_freezes_after: Annotated[int, Field(ge=0)] | None = None
    # How much darker the corners are than the middle; lamps are a little uneven, too.
    uneven: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class Board(_Strict):
    """One board profile. `simulated` boards say so on every page; `engine` runs the networks."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    simulated: bool = False
    engine: Literal["ai-edge-litert", "tflite-runtime"]
    pin_factory: Literal["mock", "lgpio"]
    key_store: Literal["file", "tpm2", "luks"]
    eye_protection: Literal["goggles", "closed_eyes"]
    camera: CameraProfile
    lights: dict[LightName, Light]
    interlocks: Interlocks
    # No scan without a grey-card check that passed this recently; None asks for none.
    grey_card_every_h: Positive | None = None
    limits: Limits = Limits()
    simulation: Simulation = Simulation()

    @property
    def calibration(self) -> str:
        """The id of the calibration applied: nominal constants, until this kiosk has been measured."""
        return f"nominal-{self.name}"

    @model_validator(mode="after")
    def _is_coherent(self) -> Board:
        pins = [light.pin for light in self.lights.values()] + list(self.interlocks.shroud_pins)
        twice = sorted({pin for pin in pins if pins.count(pin) > 1})
        if twice:
            raise ValueError(f"pin {twice[0]} is used twice")
        if "white" not in self.lights:
            raise ValueError("lights.white is missing: positioning and every measurement need it")
        for name, light in self.lights.items():
            _check_light(name, light, self)
        if not self.simulated:
            simulated = {"camera.driver": self.camera.driver, "pin_factory": self.pin_factory}
            for key, value in simulated.items():
                if value in ("simulated", "mock"):
                    raise ValueError(f"{key} = '{value}' needs simulated = true")
            if "simulation" in self.model_fields_set:
                raise ValueError("[simulation] needs simulated = true")
        return self


def _check_light(name: str, light: Light, board: Board) -> None:
    if name.startswith("uv") and not light.is_uv:
        raise ValueError(f"lights.{name}.wavelength_nm must be {UVA_NM[0]}…{UVA_NM[1]} for UV")
    if light.is_uv and (light.irradiance_w_m2 is None or light.calibrated_on is None):
        raise ValueError(
            f"lights.{name} is UV: irradiance_w_m2 at the eye plane and calibrated_on are needed"
        )
    if light.is_uv and light.pwm_hz is not None:
        raise ValueError(f"lights.{name} is UV: it is switched, so pwm_hz must go")
    if name.startswith("dir") and light.position_mm is None:
        raise ValueError(f"lights.{name}.position_mm is missing")
    if light.calibrated_on == "simulated" and not board.simulated:
        raise ValueError(f"lights.{name}.calibrated_on must be a date on a board that is not simulated")
    if light.white_counts + board.camera.black_level >= 2**board.camera.bits:
        raise ValueError(f"lights.{name}.white_counts is beyond what camera.bits can count")


def load_board(path: Path) -> Board:
    """The board profile at `path`. Raises BoardError, which names each wrong key with the reason."""
    try:
        data = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise BoardError(path, [f"it cannot be read ({error.strerror or error})"]) from error
    except ValueError as error:
        raise BoardError(path, [f"it is no TOML ({error})"]) from error
    try:
        return Board.model_validate(data)
    except ValidationError as error:
        raise BoardError(path, [_problem(item) for item in error.errors()]) from error


def _problem(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"] if part not in ("constrained-str", "[key]"))
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] in ("value_error", "missing", "extra_forbidden") or isinstance(item["input"], dict):
        return f"{key}: {message}" if key else message
    return f"{key} = {item['input']!r}: {message}"
