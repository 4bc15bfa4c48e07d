"""The keys of a board profile: pins, lights, camera, interlocks, sensors, limits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hardware.header import HEADERS, PinHeader
from hardware.simulation import Simulation

UVA_NM = (315, 400)

Pin = Annotated[int, Field(ge=0, le=255)]
LightName = Annotated[str, Field(pattern=r"^(white|parallel|cross|uv365|dir[0-7])$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_LIST = Field(strict=False)
Part = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Strict(BaseModel):
    # Strict: what is meant as a number is written as one, and true is no pin. TOML has no tuples.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Mode(_Strict):
    """One camera mode: picture size as it leaves the camera, upright, with its frame rate."""

    width: Annotated[int, Field(ge=16, le=10_000)]
    height: Annotated[int, Field(ge=16, le=10_000)]
    fps: Annotated[float, Field(gt=0, le=240)]


class CameraProfile(_Strict):
    """The camera: driver, modes, and what its numbers mean (linear counts, black at `black_level`).

    `colour` is what the camera itself delivers; a driver makes srgb linear first. `device` is the path of
    a V4L2 camera or the number of a libcamera one. The sensor's picture is turned by `rotate_deg` clockwise
    to stand upright. `port` is the socket that its cable goes to. A face less sharp than
    `sharpness_at_least` (see `firmware.capture.frame_checks`) is blurred. `sensor` names its colours in
    `hardware.spectra`.
    """

    driver: Literal["simulated", "picamera2", "v4l2"]
    part: Part | None = None
    port: Part | None = None
    rotate_deg: Literal[0, 90, 180, 270] = 0
    colour: Literal["raw", "linear-srgb", "srgb"] = "linear-srgb"
    still: Mode
    preview: Mode
    bits: Annotated[int, Field(ge=8, le=16)]
    black_level: Annotated[int, Field(ge=0)]
    settle_ms: Annotated[int, Field(ge=0, le=1000)]
    sensor: Literal["srgb", "bayer"] | None = None
    deadline_s: Annotated[float, Field(gt=0, le=10)] = 2.0
    device: Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^/dev/")] = 0
    sharpness_at_least: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class CloseUpProfile(_Strict):
    """The hand-held close-up camera, with a light of its own: a USB dermatoscope.

    `mm_per_px` is the scale of its pictures at contact, where it was measured. A picture less sharp than
    `sharpness_at_least` (see `firmware.cameras.close_up`) is blurred.
    """

    driver: Literal["simulated", "v4l2"]
    part: Part | None = None
    port: Part | None = None
    device: Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^/dev/")] | None = None
    width: Annotated[int, Field(ge=160, le=4096)] = 800
    height: Annotated[int, Field(ge=120, le=4096)] = 600
    mm_per_px: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    deadline_s: Annotated[float, Field(gt=0, le=10)] = 3.0
    sharpness_at_least: Annotated[float, Field(ge=0)] = 0.0


class Light(_Strict):
    """One lamp channel. `white_counts` is the nominal flat field at this exposure and gain.

    `irradiance_w_m2` is at the eye plane, with the date of its measurement; without the date it is the
    design value, and a UV lamp stays locked. A light without `pwm_hz` is switched, not dimmed; UV is always
    switched. A light without `pin` is the room's, which nobody here switches. `driver` names the
    constant-current driver of the LEDs, set to `current_ma`. `colour_gains` (red,
    blue) over green make the nominal flat field neutral: the white balance, locked for this light. `expect`
    is the band in which the median reflectance in the middle of a frame lies, whoever stands there. `led`
    names its spectrum in `hardware.spectra`, `rated_h` the hours after which its maker calls it worn out.
    """

    pin: Pin | None = None
    driver: Part | None = None
    current_ma: Annotated[int, Field(gt=0, le=5000)] | None = None
    pwm_hz: Annotated[int, Field(ge=1000, le=100_000)] | None = None
    wavelength_nm: Annotated[int, Field(ge=UVA_NM[0], le=1100)] | None = None
    irradiance_w_m2: Positive | None = None
    calibrated_on: date | Literal["simulated"] | None = None
    exposure_us: Annotated[int, Field(gt=0, le=500_000)]
    gain: Positive = 1.0
    white_counts: Positive
    colour_gains: Annotated[tuple[Positive, Positive], _LIST] = (1.0, 1.0)
    expect: Annotated[tuple[Positive, Positive], _LIST] = (0.010, 0.97)
    position_mm: Annotated[tuple[Finite, Finite, Finite], _LIST] | None = None
    led: Literal["d65", "blue-pump-ra90", "violet-pump-6500k"] | None = None
    rated_h: Positive | None = None

    @property
    def is_uv(self) -> bool:
        return self.wavelength_nm is not None and self.wavelength_nm <= UVA_NM[1]


class Interlocks(_Strict):
    """The shroud's two switches, and the time after which the lamp's own one-shot cuts UV off.

    A switch reads high while the shroud is closed; a cut wire reads as an open shroud.
    """

    shroud_pins: Annotated[tuple[Pin, Pin], _LIST]
    one_shot_s: Annotated[float, Field(gt=0, le=2.0)]


class Adc(_Strict):
    """The converter that the analogue sensors share, on an I2C bus."""

    driver: Literal["ads1115"]
    bus: Annotated[int, Field(ge=0, le=31)]
    address: Annotated[int, Field(ge=0x48, le=0x4B)]


class Sensor(_Strict):
    """A linear sensor on one channel of the ADC: (volts − `zero_v`) · `per_v` in the sensor's unit."""

    part: Part
    channel: Annotated[int, Field(ge=0, le=3)]
    zero_v: Finite = 0.0
    per_v: Positive

    def reading(self, volts: float) -> float:
        return (volts - self.zero_v) * self.per_v


class LightSensor(Sensor):
    """A sensor that says whether the UV lamp is lit: it is, where the reading is above `lit_above`."""

    lit_above: Positive


class Thermometer(Sensor):
    """A thermometer. A torn wire reads far too cold, so a reading at `broken_below` or less is none."""

    broken_below: Finite

    def reading(self, volts: float) -> float:
        """°C. Raises OSError when the sensor or its wire is broken."""
        celsius = super().reading(volts)
        if celsius <= self.broken_below:
            raise OSError(f"{self.part} reads {celsius:.0f} °C: the sensor or its wire is broken")
        return celsius


class Sensors(_Strict):
    """What the light daemon senses by itself of the UV lamp.

    `photodiode` reads the irradiance at the eye plane in W/m², `lamp_current` A, `lamp_temperature` °C.
    """

    adc: Adc
    photodiode: LightSensor
    lamp_current: LightSensor
    lamp_temperature: Thermometer


class Limits(_Strict):
    """What the light daemon enforces, but for `uv_design_w_m2`: of a lamp beyond it `board check` only warns.

    Each may be stricter than its bound here, never looser.
    """

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


class Profile(_Strict):
    """One board profile, key by key. `simulated` boards say so on every page; `engine` runs the networks.

    `eye_protection` names its detector too: `closed_eyes` are eyelids seen closed right before each UV pulse.
    `goggles` has none yet, so such a board has no UV; `none` is for boards without UV. `header` is the
    connector that the pin numbers belong to.
    """

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    title: Part | None = None
    simulated: bool = False
    engine: Literal["ai-edge-litert", "tflite-runtime"]
    pin_factory: Literal["mock", "lgpio", "gpiod", "none"]
    gpio_chip: Part | None = None
    header: Literal["raspberrypi", "jetson-orin-nano"] | None = None
    key_store: Literal["file", "tpm2", "luks"]
    eye_protection: Literal["goggles", "closed_eyes", "none"]
    camera: CameraProfile
    # Without one the patient is never asked for a spot to be looked at.
    close_up: CloseUpProfile | None = None
    lights: dict[LightName, Light]
    interlocks: Interlocks | None = None
    sensors: Sensors | None = None
    # No scan without a grey-card check that passed this recently; None asks for none.
    grey_card_every_h: Positive | None = None
    # A lamp fades by the hour: staff hear it when one was lit for so long since the calibration.
    calibrate_after_lamp_h: Positive | None = None
    limits: Limits = Limits()
    simulation: Simulation = Simulation()

    @property
    def calibration(self) -> str:
        """The id of the calibration applied: nominal constants, until this kiosk has been measured."""
        return f"nominal-{self.name}"

    @property
    def has_uv(self) -> bool:
        return self.uv_among(self.lights)

    def uv_among(self, names: Iterable[str]) -> bool:
        """Whether one of the lights `names` is UV here; a light that this board lacks is not."""
        return any(self.lights[name].is_uv for name in names if name in self.lights)

    @property
    def room_lit(self) -> bool:
        """No lamp of ours: the face is seen in the light of the room, so there is no dark frame either."""
        return self.pin_factory == "none"

    @property
    def connector(self) -> PinHeader | None:
        return None if self.header is None else HEADERS[self.header]

    @property
    def pins(self) -> dict[str, int]:
        """Every GPIO line in use, by the key that names it."""
        pins = {
            f"lights.{name}.pin": light.pin for name, light in self.lights.items() if light.pin is not None
        }
        if self.interlocks is not None:
            for n, pin in enumerate(self.interlocks.shroud_pins):
                pins[f"interlocks.shroud_pins.{n}"] = pin
        return pins
