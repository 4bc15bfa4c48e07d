"""The calibration procedure: what is measured of each target, what it must come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from firmware.bench.card import blocks, middle, seen_share, unevenness
from firmware.bench.chart import read_chart
from firmware.bench.colour import delta_e00, skin_matrix
from firmware.bench.lamp_position import find_ball, locate_lamp
from firmware.bench.workbench import Workbench
from firmware.cameras.calibration import Calibration, CalibrationError, Floats, cells
from firmware.cameras.exposing import DARK
from hardware.board import Board
from hardware.colour import ita_of_lab, lab
from hardware.host.errors import PlainError
from hardware.skin_spectra import skin_spectra
from hardware.spectra import camera_rgb, linear_srgb
from hardware.targets import WHITE_REFLECTANCE, Chart, Sphere

# What a calibration must come to, or it is not kept.
FLAT_RESIDUAL = 0.01
_BLACK_OFF = 0.01
# So near to the sensor's full scale that some of it is cut off; a few pixels of a sensor are always so.
_NEARLY, _CLIPPED_SHARE = 0.98, 0.001
_CHART_DE00 = 4.0
_LAMP_OFF_MM = 60.0
_LAMP_MISFIT = 0.03
_LEAST_SHARE = 0.2
_FLAT_LIGHTS = ("white", "parallel", "cross")
# Paper glows blue-white under UV; so many pulses of it, and glow of at least this share of a white card.
_UV_FRAMES, _LEAST_GLOW = 4, 0.05


class CalibrationFailed(PlainError):
    """The calibration came out beyond what it may; it is not kept. The message says what to look at."""


def calibrate(bench: Workbench, chart: Chart, say: Callable[[str], None]) -> Calibration:
    """Measure `bench`'s kiosk: black, flat fields, colour, scale, lamp positions. `say` hears what is done.

    UV has its flat field measured where the hood is empty.

    Raises CalibrationFailed, CalibrationError, LightsFault, CameraFrozen, OSError.
    """
    board = bench.board
    led, sensor = led_and_sensor(board)
    say("black")
    bench.show("white")
    black = _black(bench)
    calibration = Calibration(
        board=board.name,
        made_at=datetime.now(timezone.utc).replace(microsecond=0),
        still=(board.camera.still.width, board.camera.still.height),
        black=black,
        gains={},
        matrix=np.eye(3),
    )
    flat, scores = {}, {}
    for light in [name for name in _FLAT_LIGHTS if name in board.lights]:
        say(f"flat field of {light}")
        flat[light] = _flat_field(bench, light, black)
    calibration = replace(calibration, gains=flat)
    scores["flat_residual"] = {light: flat_residual(bench, calibration, light) for light in flat}
    for light in [name for name, profile in board.lights.items() if profile.is_uv]:
        if not bench.hood_empty:
            say(f"no flat field of {light}: it needs --hood-empty")
            continue
        say(f"flat field of {light}")
        bench.show("paper")
        glow = _uv_flat_field(bench, light, black)
        calibration = replace(calibration, gains={**calibration.gains, light: glow})
        scores["flat_residual"][light] = flat_residual(bench, calibration, light)
    matrix, scores["modelled_skin"] = _colour(led, sensor)
    calibration = replace(calibration, matrix=matrix)
    say("colour chart")
    bench.show("chart")
    counts, exposure = bench.expose("white")[0]
    seen = read_chart(calibration.apply(board, "white", counts, exposure), chart)
    errors = delta_e00(lab(seen.colours / 65_535), lab(chart.colours))
    scores["chart_de00"] = {"mean": _round(errors.mean()), "worst": _round(errors.max())}
    calibration = replace(calibration, mm_per_px=seen.mm_per_px)
    calibration = _lamps(bench, calibration, scores, say)
    lamps = {key: bench.status()[key] for key in ("lamp_hours", "lamp_renewals")}
    calibration = replace(calibration, scores=scores, **lamps)
    _refuse_if_poor(calibration)
    return calibration


def led_and_sensor(board: Board) -> tuple[str, str]:
    """What colour is fitted by. Raises CalibrationError where `board` cannot be calibrated."""
    if board.room_lit:
        raise CalibrationError(
            f"Board '{board.name}' has no lamps of its own: the room's cannot be measured."
        )
    led, sensor = board.lights["white"].led, board.camera.sensor
    if led is None or sensor is None:
        key = "lights.white.led" if led is None else "camera.sensor"
        raise CalibrationError(f"{key} is missing in board '{board.name}': colour cannot be fitted without.")
    return led, sensor


def flat_residual(bench: Workbench, calibration: Calibration, light: str) -> float:
    """How uneven fresh pictures of the white card are after correction: the largest relative deviation of
    any of 16×16 blocks, in any colour.
    """
    pictures = [
        calibration.apply(bench.board, light, counts, exposure) for counts, exposure in bench.expose(light, 2)
    ]
    return unevenness(np.mean(pictures, axis=0))


def _black(bench: Workbench) -> Floats:
    seen, wanted = bench.mean(DARK), bench.board.camera.black_level
    # Light that falls into this picture is taken off every other one: skin would read too dark, unnoticed.
    off = float(np.abs(blocks(seen) - wanted).max()) / bench.board.lights["white"].white_counts
    if off > _BLACK_OFF:
        raise CalibrationFailed(
            f"With all lights off the picture is {100 * off:.1f} % of white away from camera.black_level"
            f" ({wanted}; at most {100 * _BLACK_OFF:g} %): does light from outside fall into the hood, does a"
            " lamp stay on, is that the black level of this kiosk's camera?"
        )
    return cells(seen)


def _lit_card(bench: Workbench, light: str, frames: int = 4) -> npt.NDArray[np.float32]:
    """The mean picture of the card under `light`, H×W×3 counts, none of which the sensor has cut off."""
    seen = bench.mean(light, frames)
    full = 2**bench.board.camera.bits - 1
    if float((seen > _NEARLY * full).mean()) > _CLIPPED_SHARE:
        raise CalibrationFailed(
            f"The card under {light} is too bright for the camera in places: make lights.{light}.exposure_us"
            " or gain in the board profile less, with white_counts in proportion, then calibrate anew."
        )
    return seen


def _flat_field(bench: Workbench, light: str, black: Floats) -> Floats:
    seen = cells(_lit_card(bench, light)) - black
    if seen.min() < _LEAST_SHARE * bench.board.lights[light].white_counts * seen_share(light):
        raise CalibrationFailed(
            f"The white card under {light} is too dark in places: is the lamp lit, does the card fill the"
            " picture, is the lens clean?"
        )
    return np.asarray(np.float32(WHITE_REFLECTANCE * seen_share(light)) / seen, np.float32)


def _uv_flat_field(bench: Workbench, light: str, black: Floats) -> Floats:
    """What makes the paper even: how much of its glow a face would have is not known, so the nominal
    constant holds in the middle.
    """
    frames = min(_UV_FRAMES, max(1, bench.board.limits.uv_pulses_per_scan - 2))
    seen = cells(_lit_card(bench, light, frames)) - black
    glow = middle(seen).mean(axis=(0, 1))
    nominal = bench.board.lights[light].white_counts
    if glow.max() < _LEAST_GLOW * nominal or seen.min() <= _LEAST_SHARE * glow.min():
        raise CalibrationFailed(
            f"The paper hardly glows under {light}, or not everywhere: is the lamp lit, is it plain white"
            " copy paper, does it fill the picture?"
        )
    return np.asarray(glow / seen / nominal, np.float32)


def _colour(led: str, sensor: str) -> tuple[npt.NDArray[np.float64], dict[str, float]]:
    """(matrix, how well it does on the modelled skins that it was fitted to)."""
    matrix = skin_matrix(led, sensor)
    spectra = skin_spectra()
    right, got = lab(linear_srgb(spectra)), lab(camera_rgb(spectra, led, sensor) @ matrix)
    errors = delta_e00(got, right)
    ita = np.abs(ita_of_lab(got) - ita_of_lab(right))
    return matrix, {
        "de00_mean": _round(errors.mean()),
        "de00_p95": _round(np.percentile(errors, 95)),
        "ita_degrees": _round(ita.mean()),
    }


def _lamps(
    bench: Workbench, calibration: Calibration, scores: dict[str, Any], say: Callable[[str], None]
) -> Calibration:
    """`calibration` with position and strength of each directional light."""
    board, scale = bench.board, calibration.mm_per_px
    names = [name for name, light in board.lights.items() if light.position_mm]
    if not names or scale is None:
        return calibration
    say("lamp positions")
    bench.show("sphere")
    sphere = Sphere()
    counts, exposure = bench.expose("white")[0]
    ball = find_ball(calibration.apply(board, "white", counts, exposure), sphere, scale)
    # The lens dims the corners alike; what is left and right, or above and below, unlike is the white lamp's.
    gain = calibration.gains["white"]
    lens = 1.0 / (gain + gain[::-1, ::-1])
    lens /= lens[lens.shape[0] // 2, lens.shape[1] // 2]
    size = counts.shape[1::-1]
    gains, lamps, off = dict(calibration.gains), {}, {}
    for name in names:
        start = board.lights[name].position_mm
        if start is None:
            raise CalibrationFailed(f"lights.{name}.position_mm is missing in the board profile: add it.")
        above = bench.mean(name) - _full(calibration.black, size)
        lamp = locate_lamp(above / _full(lens, size), ball, sphere, scale, start)
        distance = float(np.linalg.norm(np.subtract(lamp.position_mm, start)))
        if distance > _LAMP_OFF_MM or lamp.misfit > _LAMP_MISFIT:
            raise CalibrationFailed(
                f"{name} seems to shine from {distance:.0f} mm beside its place in the profile (misfit"
                f" {100 * lamp.misfit:.1f} %): is another lamp lit, or the ball not in the plane of the face?"
            )
        x, y, z = (round(value, 1) for value in lamp.position_mm)
        lamps[name], off[name] = (x, y, z), round(distance, 1)
        gains[name] = np.asarray(1.0 / lamp.strength, np.float32).reshape(1, 1, 3)
    scores["lamp_beside_profile_mm"] = off
    return replace(calibration, gains=gains, lamps_mm=lamps)


def _full(values: Floats, size: tuple[int, ...]) -> Floats:
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _refuse_if_poor(calibration: Calibration) -> None:
    for light, residual in calibration.scores["flat_residual"].items():
        if residual > FLAT_RESIDUAL:
            raise CalibrationFailed(
                f"The picture under {light} stays uneven by {100 * residual:.1f} % after correction (at most"
                f" {100 * FLAT_RESIDUAL:g} %): did the card move, does a lamp flicker?"
            )
    mean = calibration.scores["chart_de00"]["mean"]
    if mean > _CHART_DE00:
        raise CalibrationFailed(
            f"The colour chart comes out {mean:.1f} ΔE00 off (at most {_CHART_DE00:g}): is it the right"
            " chart, are camera.sensor and lights.white.led those of this kiosk, is other light falling in?"
        )


def _round(value: Any) -> float:
    return round(float(value), 3)
