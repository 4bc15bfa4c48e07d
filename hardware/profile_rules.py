"""Coherence: what the keys of a board profile must be to each other."""

from __future__ import annotations

from collections.abc import Iterator

from hardware.header import I2C, SPI
from hardware.profile import UVA_NM, Light, Profile

# The fastest that lgpio's own pulses can be.
_LGPIO_HZ = 10_000


def incoherences(board: Profile) -> Iterator[str]:
    """Each contradiction in `board`, beginning with its key."""
    yield from _pin_problems(board)
    yield from _driver_problems(board)
    yield from _camera_problems(board)
    yield from _uv_problems(board)
    yield from _simulation_problems(board)
    for name, light in board.lights.items():
        yield from _light_problems(name, light, board)


def _pin_problems(board: Profile) -> Iterator[str]:
    used = list(board.pins.values())
    for pin in sorted({pin for pin in used if used.count(pin) > 1}):
        yield f"pin {pin} is used twice: {', '.join(key for key, at in board.pins.items() if at == pin)}"
    if board.room_lit:
        for key in board.pins:
            yield f"{key} must go: pin_factory = 'none' means that there are no pins"
    header = board.connector
    if header is None:
        return
    for key, pin in board.pins.items():
        if pin not in header.at:
            yield f"{key} = {pin} is not on the header of '{board.header}'"
        elif key.startswith("lights.") and pin in header.pulled_up:
            yield f"{key} = {pin} idles high at power-on, which would light the lamp: take another pin"
        elif board.sensors is not None and header.at[pin] in I2C:
            yield f"{key} = {pin} carries the I2C bus of the sensors: take another pin"
        elif board.key_store == "tpm2" and header.at[pin] in SPI:
            yield f"{key} = {pin} carries the SPI bus of the TPM: take another pin"
    if board.sensors is not None and board.sensors.adc.bus != header.i2c_bus:
        yield f"sensors.adc.bus must be {header.i2c_bus}: that is the bus on the header of '{board.header}'"


def _driver_problems(board: Profile) -> Iterator[str]:
    if "white" not in board.lights:
        yield "lights.white is missing: positioning and every measurement need it"
    if not board.simulated:
        named = {"camera.driver": board.camera.driver, "pin_factory": board.pin_factory}
        if board.close_up is not None:
            named["close_up.driver"] = board.close_up.driver
        for key, value in named.items():
            if value in ("simulated", "mock"):
                yield f"{key} = '{value}' needs simulated = true"
        if "simulation" in board.model_fields_set:
            yield "[simulation] needs simulated = true"
    real_pins = board.pin_factory in ("lgpio", "gpiod")
    if real_pins and board.simulated:
        yield f"simulated = true must go: pin_factory = '{board.pin_factory}' lights real lamps"
    if real_pins and board.header is None:
        yield f"header is missing: pin_factory = '{board.pin_factory}' needs to know which pins there are"
    if (board.pin_factory == "gpiod") != (board.gpio_chip is not None):
        yield "gpio_chip belongs to pin_factory = 'gpiod' (for example '/dev/gpiochip0'), and to no other"


def _camera_problems(board: Profile) -> Iterator[str]:
    if board.camera.driver == "v4l2" and not isinstance(board.camera.device, str):
        yield "camera.device is missing: a v4l2 camera needs its path (for example '/dev/video0')"
    if board.camera.driver == "picamera2" and board.camera.preview.fps < board.camera.still.fps:
        yield "camera.preview.fps is less than camera.still.fps, at which this camera takes previews too"
    close_up = board.close_up
    if close_up is not None and close_up.driver == "v4l2":
        if close_up.device is None:
            yield "close_up.device is missing: name the path or the number of the close-up camera"
        elif board.camera.driver == "v4l2" and close_up.device == board.camera.device:
            yield "close_up.device is the face camera's: name the other one"


def _uv_problems(board: Profile) -> Iterator[str]:
    """What a board with a UV lamp must have; the rules without which none is lit."""
    if not board.has_uv:
        return
    if board.interlocks is None:
        yield "interlocks is missing: a board with UV has a shroud with two switches"
    if board.sensors is None and not board.simulated:
        yield "sensors is missing: a board with UV has a photodiode, a current sense and a thermometer"
    if board.eye_protection == "none":
        yield "eye_protection = 'none' is for boards without UV"
    if board.eye_protection == "goggles":
        yield "eye_protection = 'goggles' has no detector in this version: use 'closed_eyes'"
    sensors = board.sensors
    if sensors is not None:
        channels = [sensors.photodiode, sensors.lamp_current, sensors.lamp_temperature]
        if len({sensor.channel for sensor in channels}) < len(channels):
            yield "sensors: two sensors share a channel of the ADC"
        uv = next(light for light in board.lights.values() if light.is_uv)
        if sensors.photodiode.lit_above > (uv.irradiance_w_m2 or 0.0) / 2:
            yield "sensors.photodiode.lit_above is more than half of the UV lamp: it would not be seen lit"
        torn = -sensors.lamp_temperature.zero_v * sensors.lamp_temperature.per_v
        if torn > sensors.lamp_temperature.broken_below:
            yield f"sensors.lamp_temperature.broken_below must be {torn:g} or more: a torn wire reads 0 V"


def _pwm_problem(light: Light, pin_factory: str) -> str | None:
    if light.pwm_hz is None:
        return None
    if light.is_uv:
        return "pwm_hz must go: UV is switched"
    if pin_factory == "gpiod":
        return "pwm_hz must go: libgpiod cannot dim; set the lamp's level by its driver's current"
    if pin_factory == "lgpio" and light.pwm_hz > _LGPIO_HZ:
        return f"pwm_hz is more than lgpio can do: at most {_LGPIO_HZ}"
    return None


def _simulation_problems(board: Profile) -> Iterator[str]:
    """Faults of lamps that there are not."""
    simulation, opens = board.simulation, board.simulation.patient_opens_shroud_at
    named = {"dead_lamps": simulation.dead_lamps, "stuck_lamps": simulation.stuck_lamps}
    if opens is not None:
        named["patient_opens_shroud_at.light"] = (opens.light,)
    for key, lights in named.items():
        for light in lights:
            if light not in board.lights:
                yield f"simulation.{key} = '{light}' is no light of this board: name one of lights"


def _light_problems(name: str, light: Light, board: Profile) -> Iterator[str]:
    if light.pin is None and (name != "white" or not board.room_lit):
        yield f"lights.{name}.pin is missing"
    if name.startswith("uv") and not light.is_uv:
        yield f"lights.{name}.wavelength_nm must be {UVA_NM[0]}…{UVA_NM[1]} for UV"
    if light.is_uv and light.irradiance_w_m2 is None:
        yield f"lights.{name} is UV: irradiance_w_m2 at the eye plane is needed"
    if light.is_uv and not name.startswith("uv"):
        yield f"lights.{name}.wavelength_nm = {light.wavelength_nm} is UV: only uv365 may be, and is watched"
    pwm = _pwm_problem(light, board.pin_factory)
    if pwm is not None:
        yield f"lights.{name}.{pwm}"
    if board.camera.driver == "picamera2" and light.exposure_us * board.camera.still.fps > 1e6:
        yield f"lights.{name}.exposure_us is longer than a frame at camera.still.fps"
    if name.startswith("dir") and light.position_mm is None:
        yield f"lights.{name}.position_mm is missing"
    if light.expect[0] >= light.expect[1]:
        yield f"lights.{name}.expect must be a band: lower bound first"
    if light.calibrated_on == "simulated" and not board.simulated:
        yield f"lights.{name}.calibrated_on must be a date on a board that is not simulated"
    if light.white_counts + board.camera.black_level >= 2**board.camera.bits:
        yield f"lights.{name}.white_counts is beyond what camera.bits can count"
