"""The Raspberry Pi's camera, through Picamera2.

One configuration for previews and stills, so that no mode is ever switched: both are worked out of the same
raw Bayer frames, which are linear and know no white balance. Picamera2 is imported when the camera is opened;
it comes with Raspberry Pi OS, not with this package.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as JobTimeoutError
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from firmware.cameras.upright import refuse_smaller, upright
from hardware.board import Board, DriverMissing
from hardware.profile import Mode

# OpenCV names a Bayer pattern by its second row: SRGGB is its BG.
_TO_RGB = {
    "RGGB": cv2.COLOR_BayerBG2RGB,
    "GRBG": cv2.COLOR_BayerGB2RGB,
    "GBRG": cv2.COLOR_BayerGR2RGB,
    "BGGR": cv2.COLOR_BayerRG2RGB,
}
# The sensor rounds to whole lines and to its own steps of gain.
_EXPOSURE_TOLERANCE_US, _GAIN_TOLERANCE = 100, 0.05
_BUFFERS = 4
# What Picamera2 is given to take a job back that has waited in vain.
_TAKE_BACK_S = 0.2


@dataclass(frozen=True)
class PiExposure:
    """One raw frame, copied out of its request, which is back with the camera already."""

    exposure_us: int
    gain: float
    timestamp_ns: int
    end_ns: int
    mode: Mode
    rotation: int
    bits: int
    raw_bits: int
    pattern: str
    bayer: npt.NDArray[np.uint16] = field(repr=False)

    def counts(self) -> npt.NDArray[np.uint16]:
        """Demosaiced, turned upright, cut and scaled to the mode: H×W×3 RGB uint16, black level included."""
        picture = np.asarray(cv2.cvtColor(self.bayer, _TO_RGB[self.pattern]), np.uint16)
        shift = self.raw_bits - self.bits
        picture = np.right_shift(picture, shift) if shift > 0 else np.left_shift(picture, -shift)
        return upright(np.asarray(picture, np.uint16), self.rotation, self.mode)


class PiCamera:
    """A Picamera2 of `board`, running; `picamera2` is its module. Several threads may call, one at a time."""

    name = "picamera2"

    def __init__(self, board: Board, picamera2: Any) -> None:
        profile = board.camera
        self._profile = profile
        self._turn = threading.Lock()
        self._controls: tuple[int, float] | None = None
        number = profile.device
        if not isinstance(number, int):
            raise DriverMissing(
                f"camera.device = '{number}' in board '{board.name}': Picamera2 wants the camera's number."
            )
        try:
            self._camera = picamera2.Picamera2(number)
        except (IndexError, RuntimeError) as error:
            # Picamera2 wraps the reason twice.
            raise OSError(f"camera {number} cannot be opened ({_reasons(error)})") from error
        try:
            with _camera_errors(f"camera {number} does not start"):
                self._start(board)
        except BaseException:
            with contextlib.suppress(OSError):
                self.close()
            raise

    def _start(self, board: Board) -> None:
        profile, camera = self._profile, self._camera
        # Upright the picture stands; the sensor lies on its side where the board turns it.
        across = profile.rotate_deg in (90, 270)
        still = (
            (profile.still.height, profile.still.width)
            if across
            else (profile.still.width, profile.still.height)
        )
        white = board.lights["white"]
        frame_us = round(1e6 / profile.still.fps)
        configuration = camera.create_still_configuration(
            # The processed stream is not looked at; it is as small as it may be.
            main={"size": (640, 480), "format": "RGB888"},
            raw={"size": still, "format": _unpacked(camera.sensor_format)},
            buffer_count=_BUFFERS,
            queue=False,
            controls={
                "AeEnable": False,
                "AwbEnable": False,
                "ColourGains": white.colour_gains,
                "NoiseReductionMode": 0,
                "FrameDurationLimits": (frame_us, frame_us),
                "ExposureTime": white.exposure_us,
                "AnalogueGain": white.gain,
            },
        )
        camera.configure(configuration)
        raw = camera.camera_configuration()["raw"]
        if raw is None:
            raise RuntimeError("it gives no raw frames; a USB camera needs camera.driver = 'v4l2'")
        self._pattern, self._raw_bits = _bayer_format(str(raw["format"]))
        self._size = raw["size"]
        refuse_smaller(self._size, profile.rotate_deg, profile.still)
        camera.start()

    def prepare(self, mode: str, exposure_us: int, gain: float) -> None:
        """Set exposure time and gain; returns once a frame has come that was taken so. Raises OSError."""
        del mode
        with self._turn:
            if self._set(exposure_us, gain):
                with self._fitting(exposure_us, gain, 0):
                    pass

    def expose(self, mode: str, exposure_us: int, gain: float, after_ns: int) -> PiExposure:
        """The first frame taken so whose first row begins its exposure at `after_ns` or later.

        Raises OSError, TimeoutError among them: then the camera has to be opened anew.
        """
        size = self._profile.still if mode == "still" else self._profile.preview
        with self._turn:
            self._set(exposure_us, gain)
            with self._fitting(exposure_us, gain, after_ns) as (request, found):
                return self._copied(request, found, size)

    def tell(self, instruction: str) -> None:
        """Nobody listens in here."""

    def close(self) -> None:
        """Raises OSError. A camera that has frozen may hang in this too."""
        with _camera_errors("the camera does not close"):
            self._camera.close()

    def _set(self, exposure_us: int, gain: float) -> bool:
        """Ask for other settings; False where they are these already."""
        if self._controls == (exposure_us, gain):
            return False
        with _camera_errors("the camera cannot be set"):
            self._camera.set_controls({"ExposureTime": exposure_us, "AnalogueGain": gain})
        self._controls = (exposure_us, gain)
        return True

    @contextlib.contextmanager
    def _fitting(self, exposure_us: int, gain: float, after_ns: int) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The first request with these settings that begins late enough, lent with what it says of itself.

        Every request goes back to the camera at once, whatever happens: it has only a few.
        """
        deadline = time.monotonic() + self._profile.deadline_s
        lacking = "the camera sends no frames"
        while True:
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise TimeoutError(lacking)
            with self._request(rest, after_ns, lacking) as request:
                lacking = f"no frame with {exposure_us} µs and gain {gain:g} in time"
                found = request.get_metadata()
                if _begin_ns(found) >= after_ns and _fits(found, exposure_us, gain):
                    yield request, found
                    return

    @contextlib.contextmanager
    def _request(self, wait_s: float, after_ns: int, lacking: str) -> Iterator[Any]:
        """The next request that begins late enough, lent. Raises OSError; TimeoutError says `lacking`."""
        with _camera_errors("the camera failed"):
            job = self._camera.capture_request(wait=False, flush=after_ns or None)
            try:
                request = self._camera.wait(job, timeout=wait_s)
            except JobTimeoutError as error:
                self._take_back(job)
                raise TimeoutError(lacking) from error
            try:
                yield request
            finally:
                request.release()

    def _take_back(self, job: Any) -> None:
        """Picamera2 keeps a job that nobody waits for: the next frame would go to it, and never come back."""
        self._camera.cancel_all_and_flush()
        with contextlib.suppress(CancelledError, JobTimeoutError):
            self._camera.wait(job, timeout=_TAKE_BACK_S).release()

    def _end_ns(self, found: dict[str, Any]) -> int:
        """When the last row had ended its exposure: the rows are read out one after the other, all of them in
        a frame time at most, and a frame that is here has been.
        """
        frame_ns = round(1e9 / self._profile.still.fps)
        return min(int(found["SensorTimestamp"]) + frame_ns, time.monotonic_ns())

    def _copied(self, request: Any, found: dict[str, Any], mode: Mode) -> PiExposure:
        width, height = self._size
        # A row is padded to the hardware's liking, and comes as bytes.
        rows = request.make_array("raw").view(np.uint16)[:height, :width]
        return PiExposure(
            exposure_us=int(found["ExposureTime"]),
            gain=float(found["AnalogueGain"]),
            timestamp_ns=_begin_ns(found),
            end_ns=self._end_ns(found),
            mode=mode,
            rotation=self._profile.rotate_deg,
            bits=self._profile.bits,
            raw_bits=self._raw_bits,
            pattern=self._pattern,
            bayer=np.array(rows),
        )


def open_picamera(board: Board) -> PiCamera:
    """The camera that `board` names, running. Raises DriverMissing or OSError."""
    try:
        import picamera2
    except ImportError as error:
        raise DriverMissing(
            f"camera.driver = 'picamera2' in board '{board.name}' needs Picamera2, which is not installed"
            f" ({error}): on Raspberry Pi OS 'apt install python3-picamera2', in a virtual environment"
            " made with --system-site-packages."
        ) from error
    return PiCamera(board, picamera2)


@contextlib.contextmanager
def _camera_errors(what: str) -> Iterator[None]:
    """What Picamera2 raises, as an OSError that says `what`; a KeyError is a field that a frame lacks."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{what} ({_reasons(error)})") from error
    except KeyError as error:
        raise OSError(f"{what} (its frames do not say their {error.args[0]})") from error


def _reasons(error: BaseException) -> str:
    """`error` and what it came from, in one line."""
    said = [str(error).rstrip(".")]
    while error.__cause__ is not None:
        error = error.__cause__
        said.append(str(error).rstrip("."))
    return ": ".join(said)


def _begin_ns(found: dict[str, Any]) -> int:
    """When the first row began its exposure, on the monotonic clock.

    The kernel stamps a frame when its readout begins, which is when the first row's exposure ends;
    Picamera2's own `flush` reckons the same way.
    """
    return int(found["SensorTimestamp"]) - 1000 * int(found["ExposureTime"])


def _fits(found: dict[str, Any], exposure_us: int, gain: float) -> bool:
    late = abs(int(found["ExposureTime"]) - exposure_us) > max(_EXPOSURE_TOLERANCE_US, exposure_us // 100)
    return not late and abs(float(found["AnalogueGain"]) - gain) <= _GAIN_TOLERANCE * gain


def _unpacked(sensor_format: str) -> str:
    """The sensor's raw format, one 16-bit word a pixel, uncompressed: "SBGGR10_CSI2P" → "SBGGR10"."""
    return str(sensor_format).split("_")[0]


def _bayer_format(name: str) -> tuple[str, int]:
    """(pattern, bits) of a raw format such as "SBGGR10" or, shifted up by the Pi 5, "SBGGR16"."""
    pattern, bits = name[1:5], name[5:]
    if not name.startswith("S") or pattern not in _TO_RGB or not bits.isdigit():
        raise OSError(f"the camera's raw format {name} is compressed or unknown: it cannot be linear light")
    return pattern, int(bits)
