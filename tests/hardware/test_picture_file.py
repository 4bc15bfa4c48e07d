"""Only a whole picture in a regular file is read; anything else costs one sentence, and never a wait."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from hardware.picture_file import PictureError, read_picture_file
from hardware.picture_file.header import read_header
from hardware.picture_file.unreadable import Unreadable
from tests.support import icc
from tests.support.picture_files import (
    bmp,
    bomb,
    chunk,
    exif,
    iccp,
    pillow,
    png,
    save,
    tiff,
    turned,
    with_chunks,
)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[60:188, 176:272])


def _refusal(path: Path) -> PictureError:
    with pytest.raises(PictureError) as refused:
        read_picture_file(path)
    assert refused.value.exit_status == 2 and "\n" not in str(refused.value)
    return refused.value


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


_MADE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe that nobody writes to": (os.mkfifo, "a named pipe"),
    "a device that never ends": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "a terminal": (lambda path: path.symlink_to("/dev/ptmx"), "a device"),
    "a folder": (Path.mkdir, "a folder"),
    "a socket": (_socket, "a socket"),
    "a link to nothing": (lambda path: path.symlink_to(path.parent / "gone"), "no such file"),
    "a link to itself": (lambda path: path.symlink_to(path), "symbolic link"),
    "a process's memory": (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read"),
}


@pytest.mark.parametrize("what", _MADE)
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, what: str) -> None:
    make, words = _MADE[what]
    make(tmp_path / "a.png")
    assert words in _refusal(tmp_path / "a.png").sentence
    if "pipe" in what:
        (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
        assert words in _refusal(tmp_path / "link.png").sentence


@pytest.mark.parametrize(
    "arguments", [("analyse", "face"), ("analyse", "lesion"), ("analyse", "acne"),
                  ("scan", "--board", "hardware/boards/simulated.toml", "--out", "{}/out", "--portrait"),
                  ("scan", "--board", "hardware/boards/simulated.toml", "--out", "{}/out", "--close-up"),
                  ("demo", "--once", "--out", "{}/out", "--portrait")],
)  # fmt: skip
def test_no_command_waits_for_a_pipe(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "a.png")
    command = [part.format(tmp_path) for part in arguments]
    done = subprocess.run(
        [Path(sys.executable).with_name("dermakiosk"), *command, tmp_path / "a.png"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2 and "a named pipe" in done.stderr and "Traceback" not in done.stderr


def test_a_capture_folder_whose_index_is_a_pipe_is_refused(tmp_path: Path) -> None:
    from hardware.capture import CaptureError
    from hardware.capture_folder import read_capture_folder

    os.mkfifo(tmp_path / "capture.json")
    with pytest.raises(CaptureError, match="not a regular file"):
        read_capture_folder(tmp_path)


def _grown(kind: str) -> bytes:
    """A few bytes that claim 3.6 thousand million pixels, or unpack to far more than they are."""
    side = 60_000
    if kind == "png":
        return bomb(side, side)
    if kind == "webp":
        body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (side - 1).to_bytes(3, "little") * 2
        return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    if kind == "bmp":
        head = b"BM" + struct.pack("<IHHI", 100, 0, 0, 54)
        return head + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 9)]
    if kind == "tiff of one tile":
        tags[:2] = [(256, 10), (257, 10)]
        tags = [*tags[:5], (277, 1), (322, side), (323, side), (324, 8), (325, 9)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "tiff", "tiff of one tile"])
def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, kind: str
) -> None:
    path = save(tmp_path / "a", _grown(kind))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = _refusal(path)
    assert refused.code == "too_big" or kind == "tiff of one tile"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_what_lies_beside_the_pixels_of_a_png_is_not_unpacked(tmp_path: Path, face: np.ndarray) -> None:
    huge = zlib.compress(bytes(300_000_000), 9)
    made = with_chunks(png(face), (b"zTXt", b"a\0\0" + huge), (b"iTXt", b"a\0\1\0\0\0" + huge))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.array_equal(read_picture_file(save(tmp_path / "a.png", made)).pixels, face)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    with_profile = with_chunks(png(face), (b"iCCP", b"a\0\0" + huge))
    assert "colour profile" in _refusal(save(tmp_path / "b.png", with_profile)).sentence


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "png 16", "webp", "tiff", "tiff 16", "jpeg", "jpeg of inks"])
def test_a_turned_picture_is_read_upright(
    tmp_path: Path, face: np.ndarray, kind: str, orientation: int
) -> None:
    stored, block = turned(face, orientation), exif(orientation)
    deep = stored.astype(np.uint16) * 257
    jpeg = {"quality": 100, "subsampling": 0, "exif": b"Exif\0\0" + block}
    inks = np.dstack([255 - stored, np.zeros(stored.shape[:2], np.uint8)])
    made = {
        "png": lambda: png(stored, (b"eXIf", block)),
        "png 16": lambda: png(deep, (b"eXIf", block)),
        "webp": lambda: pillow(stored, "WEBP", lossless=True, exif=b"Exif\0\0" + block),
        "tiff": lambda: tiff(stored, orientation=orientation),
        "tiff 16": lambda: tiff(deep, orientation=orientation),
        "jpeg": lambda: pillow(stored, "JPEG", **jpeg),
        "jpeg of inks": lambda: pillow(inks, "JPEG", mode="CMYK", **jpeg),
    }[kind]()
    read = read_picture_file(save(tmp_path / "a", made), "srgb" if "inks" in kind else "auto").srgb8()
    assert read.shape == face.shape
    assert np.abs(read.astype(int) - face).mean() < (2.5 if "jpeg" in kind else 0.01)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("kind", ["B", "H", "I", "b", "h", "i"])
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "zlib"}], ids=str)
def test_a_tiff_is_turned_once_whatever_the_type_of_its_tag(
    tmp_path: Path, face: np.ndarray, kind: str, orientation: int, options: dict[str, str]
) -> None:
    stored = turned(face, orientation)
    for pixels in (stored, stored.astype(np.uint16) * 257):
        made = tiff(pixels, orientation=orientation, orientation_type=kind, **options)
        assert np.array_equal(read_picture_file(save(tmp_path / "a.tif", made)).srgb8(), face)


@pytest.mark.parametrize("kind", [None, "H"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_what_the_xmp_of_a_tiff_says_turns_nothing(
    tmp_path: Path, face: np.ndarray, kind: str | None, compression: str | None
) -> None:
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    extra = [(700, "B", len(xmp), xmp, True)]
    made = tiff(face, orientation_type=kind, extratags=extra, compression=compression)
    assert np.array_equal(read_picture_file(save(tmp_path / "a.tif", made)).pixels, face)


@pytest.mark.parametrize(("tag", "kind"), [(256, 4), (258, 3), (277, 4), (301, 3), (318, 5), (339, 3)])
def test_a_tag_with_millions_of_numbers_is_not_unpacked(face: np.ndarray, tag: int, kind: int) -> None:
    made = bytearray(tiff(face, orientation_type=None))
    (first,) = struct.unpack_from("<I", made, 4)
    (count,) = struct.unpack_from("<H", made, first)
    entries = [bytes(made[first + 2 + 12 * n : first + 14 + 12 * n]) for n in range(count)]
    many = struct.pack("<HHII", tag, kind, 4_000_000, len(made))
    entries = [many, *(entry for entry in entries if entry[:2] != many[:2])]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    made += bytes(range(256)) * (4 * 8_000_000 // 256)
    made[4:8] = len(made).to_bytes(4, "little")
    whole = bytes(made) + directory
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            read_header(whole)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_each_kind_of_numbers_is_read(tmp_path: Path, face: np.ndarray) -> None:
    image, grey = Image.fromarray(face), face[:, :, 1]
    for mode in ("L", "P", "LA", "RGBA"):
        image.convert(mode).save(tmp_path / "a.png")
        assert read_picture_file(tmp_path / "a.png").pixels.shape == face.shape
    image.convert("1").save(tmp_path / "b.png")
    assert np.unique(read_picture_file(tmp_path / "b.png").pixels).tolist() == [0, 255]
    wanted = np.repeat(grey[:, :, None], 3, axis=2)
    deep = grey.astype(np.uint16) * 257
    for name, made in {
        "16-bit grey PNG": png(deep),
        "16-bit grey TIFF": tiff(deep, photometric="minisblack"),
        "16-bit grey TIFF, 0 is white": tiff(65535 - deep, photometric="miniswhite"),
        "8-bit grey TIFF, 0 is white": tiff(255 - grey, photometric="miniswhite"),
        "8-bit grey BMP": pillow(grey, "BMP"),
    }.items():
        assert np.array_equal(read_picture_file(save(tmp_path / "c", made)).srgb8(), wanted), name
    planes = np.ascontiguousarray(face.transpose(2, 0, 1))
    for name, made in {
        "planes": tiff(planes, planarconfig="separate"),
        "tiles": tiff(face.astype(np.uint16) * 257, tile=(64, 64)),
        "deflate": tiff(face.astype(np.uint16) * 257, compression="zlib", predictor=True),
        "big endian": tiff(face.astype(np.uint16) * 257, byteorder=">"),
    }.items():
        assert np.array_equal(read_picture_file(save(tmp_path / "d", made)).srgb8(), face), name


def test_numbers_that_no_decoder_reads_rightly_are_refused(tmp_path: Path, face: np.ndarray) -> None:
    deep = face.astype(np.uint16) * 257
    for made in (
        tiff(np.ascontiguousarray(deep.transpose(2, 0, 1)), planarconfig="separate"),
        tiff(face.astype(np.uint32)),
        tiff((face / 255).astype(np.float16)),
    ):
        assert "8 or 16 bits" in _refusal(save(tmp_path / "a.tif", made)).sentence


@pytest.mark.parametrize("kind", ["png", "png 16", "png palette", "png grey key", "tiff", "tiff 16", "webp"])
def test_what_is_transparent_is_white_and_not_shown(tmp_path: Path, face: np.ndarray, kind: str) -> None:
    clear = np.zeros(face.shape[:2], bool)
    clear[:, :30] = True
    alpha = np.where(clear, 0, 255).astype(np.uint8)
    four = np.dstack([face, alpha])
    if kind == "png palette":
        image = Image.fromarray(np.where(clear, 7, 1).astype(np.uint8), "P")
        image.putpalette([n % 256 for n in range(768)])
        image.save(tmp_path / "a", "PNG", transparency=7)
    elif kind == "png grey key":
        grey = np.where(clear, 9, np.maximum(face[:, :, 1], 10)).astype(np.uint16) * 257
        save(tmp_path / "a", png(grey, (b"tRNS", struct.pack(">H", 9 * 257))))
    else:
        save(tmp_path / "a", {
            "png": lambda: png(four),
            "png 16": lambda: png(four.astype(np.uint16) * 257),
            "tiff": lambda: tiff(four, alpha="unassalpha"),
            "tiff 16": lambda: tiff(four.astype(np.uint16) * 257, alpha="unassalpha"),
            "webp": lambda: pillow(four, "WEBP", lossless=True, exact=True),
        }[kind]())  # fmt: skip
    read = read_picture_file(tmp_path / "a")
    assert read.shown is not None and np.array_equal(read.shown, ~clear)
    assert (read.srgb8()[clear] == 255).all()
    if "key" not in kind and "palette" not in kind:
        assert np.array_equal(read.srgb8()[~clear], face[~clear])


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_that_is_multiplied_in_already_is_not_taken_twice(
    tmp_path: Path, face: np.ndarray, bits: int
) -> None:
    most, kind = (1 << bits) - 1, (np.uint8 if bits == 8 else np.uint16)
    share = np.linspace(0.3, 1, face.shape[1])[None, :, None]
    held = np.round(face / 255 * share * most).astype(kind)
    alpha = np.broadcast_to(np.round(share * most).astype(kind), (*face.shape[:2], 1))
    read = read_picture_file(save(tmp_path / "a.tif", tiff(np.dstack([held, alpha]), alpha="assocalpha")))
    assert np.abs(read.srgb8() - (face * share + 255 * (1 - share))).max() <= 3


def test_a_picture_that_is_all_transparent_is_refused(tmp_path: Path, face: np.ndarray) -> None:
    path = save(tmp_path / "a.png", png(np.dstack([face, np.zeros(face.shape[:2], np.uint8)])))
    assert "transparent everywhere" in _refusal(path).sentence


def test_a_file_of_several_pictures_is_refused_and_a_thumbnail_beside_one_is_none(
    tmp_path: Path, face: np.ndarray
) -> None:
    image, other = Image.fromarray(face), Image.fromarray(255 - face)
    for name in ("a.png", "a.webp", "a.tif"):
        image.save(tmp_path / name, save_all=True, append_images=[other])
        assert _refusal(tmp_path / name).code == "several_pictures"
    import tifffile

    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(face, photometric="rgb", metadata=None)
        writer.write(face[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
    assert np.array_equal(read_picture_file(tmp_path / "b.tif").pixels, face)
    # A phone's JPEG carries more behind its end.
    image.save(tmp_path / "a.jpg", quality=100, subsampling=0)
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(pillow(255 - face, "JPEG"))
    assert np.abs(read_picture_file(tmp_path / "a.jpg").pixels.astype(int) - face).mean() < 1.5


@pytest.mark.parametrize(
    ("begins", "words"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypmif1", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"GIF89a", "GIF"),
        (b"\0\0\0\x18ftypcrx ", "raw file"),
        (b"FUJIFILMCCD-RAW ", "raw file"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw file"),
        (b"IIU\0\x18\0\0\0", "raw file"),
    ],
)
def test_a_kind_that_is_not_read_is_named_with_what_to_do(tmp_path: Path, begins: bytes, words: str) -> None:
    directory = struct.pack("<HHHII", 1, 256, 4, 1, 10) + bytes(60)
    sentence = _refusal(save(tmp_path / "a.jpg", begins + bytes(16 - len(begins) % 16) + directory)).sentence
    assert words in sentence and "save" in sentence


def test_a_cameras_raw_file_in_the_clothes_of_a_tiff_is_named(tmp_path: Path, face: np.ndarray) -> None:
    tags = [(254, 1), (256, 24), (257, 32), (258, 8), (259, 1), (262, 2), (330, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    nef = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    dng = tiff(face, extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    for made in (dng, nef):
        assert "raw file" in _refusal(save(tmp_path / "a.tif", made)).sentence


@pytest.mark.parametrize("kind", ["png", "png 16", "jpeg", "webp", "tiff", "tiff 16", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_file_cut_short_anywhere_is_refused(
    tmp_path: Path, face: np.ndarray, kind: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    deep = face.astype(np.uint16) * 257
    whole = {
        "png": lambda: png(face),
        "png 16": lambda: png(deep),
        "jpeg": lambda: pillow(face, "JPEG"),
        "webp": lambda: pillow(face, "WEBP"),
        "tiff": lambda: tiff(face),
        "tiff 16": lambda: tiff(deep),
        "bmp": lambda: pillow(face, "BMP"),
    }[kind]()
    _refusal(save(tmp_path / "a", whole[: int(len(whole) * share)]))
    assert capfd.readouterr().err == ""


def test_noise_in_any_place_of_a_file_is_read_or_refused(tmp_path: Path, face: np.ndarray) -> None:
    draw = np.random.default_rng(5)
    small = np.ascontiguousarray(face[::4, ::4])
    profile, ends = icc.matrix_profile("Display P3", 4), (0.4, 0.2, 0.02, 0.36, 0.7, 0.1, 0.18, 0.1, 0.9)
    said = exif(6, 0xFFFF, b"R03")
    chrm = b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    wholes = [png(small), png(small.astype(np.uint16) * 257), pillow(small, "JPEG"), pillow(small, "WEBP"),
              tiff(small), tiff(small.astype(np.uint16) * 257), pillow(small, "BMP"),
              png(small, iccp(profile)), png(small, (b"gAMA", bytes((0, 0, 200, 0))), chrm, (b"eXIf", said)),
              pillow(small, "JPEG", icc_profile=profile, exif=b"Exif\0\0" + said),
              pillow(small, "WEBP", icc_profile=profile, exif=b"Exif\0\0" + said), tiff(small, profile),
              bmp(small, profile), bmp(small[:, :, 1], profile), bmp(small, ends=ends)]  # fmt: skip
    for whole in wholes:
        for _ in range(60):
            damaged = bytearray(whole)
            for place in draw.integers(0, min(len(whole), 400), 3):
                damaged[place] = draw.integers(0, 256)
            _read_or_refused(tmp_path, bytes(damaged))
        for end in range(0, min(len(whole), 400), 3):
            _read_or_refused(tmp_path, whole[:end])


def test_noise_in_any_place_of_a_profile_is_read_or_refused(tmp_path: Path, face: np.ndarray) -> None:
    draw = np.random.default_rng(6)
    small = np.ascontiguousarray(face[::4, ::4])
    for whole in (
        *(icc.matrix_profile("Display P3", version) for version in (2, 4)),
        *(icc.rgb_table_profile(form, "Display P3", 5) for form in ("mft1", "mft2", "mAB ")),
    ):
        for _ in range(60):
            damaged = bytearray(whole)
            for place in draw.integers(0, min(len(whole), 900), 3):
                damaged[place] = draw.choice([0, 1, 128, 255])
            _read_or_refused(tmp_path, png(small, iccp(bytes(damaged))))


def _read_or_refused(folder: Path, data: bytes) -> None:
    """Whatever else comes out of the reader fails the test, a warning too: it would stand on a log."""
    path = save(folder / "a", data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_picture_file(path)
    except PictureError as refused:
        assert "\n" not in str(refused)


def test_a_chunk_that_is_not_its_own_sum_is_refused(tmp_path: Path, face: np.ndarray) -> None:
    made = bytearray(png(face))
    place = made.index(b"IDAT") + 40
    made[place] ^= 255
    _refusal(save(tmp_path / "a.png", bytes(made)))
    assert chunk(b"IEND", b"") in bytes(made)


def test_opencv_reads_16_bits_with_the_channels_in_our_order(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint16)
    pixels[:] = [1000, 20_000, 60_000]
    cv2.imwrite(str(tmp_path / "a.png"), pixels[:, :, ::-1])
    assert np.array_equal(read_picture_file(tmp_path / "a.png").pixels, pixels)
