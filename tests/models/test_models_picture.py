"""Any picture file is read upright as RGB, or refused with a sentence before it can do harm."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from hardware import picture_file as module
from hardware.picture_file import PictureError
from models.analysis.face import find_face
from models.analysis.picture import read_picture


def _save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp", "a.webp"])
def test_each_format_is_read_as_rgb(tmp_path: Path, portrait: np.ndarray, name: str) -> None:
    read = read_picture(_save(tmp_path / name, portrait))
    assert read.shape == portrait.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - portrait).mean() < 6


def test_a_cmyk_jpeg_shows_the_same_face(tmp_path: Path, portrait: np.ndarray) -> None:
    Image.fromarray(portrait).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    read = read_picture(tmp_path / "a.jpg", "srgb")
    assert np.abs(read.astype(int) - portrait).mean() < 12
    assert np.abs(find_face(read).points - find_face(portrait).points).max() < 3


def test_grey_and_transparent_and_palette_pictures_become_rgb(tmp_path: Path, portrait: np.ndarray) -> None:
    image = Image.fromarray(portrait)
    for mode in ("L", "RGBA", "P", "LA"):
        image.convert(mode).save(tmp_path / f"{mode}.png")
        assert read_picture(tmp_path / f"{mode}.png").shape == (512, 512, 3)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_rotated_jpeg_is_read_upright(tmp_path: Path, portrait: np.ndarray, orientation: int) -> None:
    turns = {3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = portrait[:, :400]
    path = _save(tmp_path / "a.jpg", np.ascontiguousarray(np.rot90(upright, turns)), exif=exif, quality=95)
    assert read_picture(path).shape == upright.shape
    assert np.abs(read_picture(path).astype(int) - upright).mean() < 6


def test_a_16_bit_picture_is_linear_reflectance_where_that_is_said(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 40, 3), round(0.2159 * 65535), np.uint16))
    assert int(read_picture(tmp_path / "a.png", "linear-srgb")[0, 0, 0]) == 128
    assert int(read_picture(tmp_path / "a.png")[0, 0, 0]) == 55


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_a_picture"),
        (b"\xff\xd8\xff", "not_a_picture"),
        (b"not a picture at all", "not_a_picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not_a_picture"),
        (b"II*\0\xff\xff\xff\xff", "not_a_picture"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X", "not_a_picture"),
        (b"BM" + bytes(10), "not_a_picture"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(PictureError) as error:
        read_picture(path)
    assert error.value.code == reason
    assert error.value.exit_status == 2


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_picture_cut_short_is_refused(
    tmp_path: Path, portrait: np.ndarray, name: str, share: float
) -> None:
    path = _save(tmp_path / name, portrait)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PictureError, match="cut short"):
        read_picture(path)


def test_a_jpeg_with_a_thumbnail_cut_short_is_refused(tmp_path: Path, portrait: np.ndarray) -> None:
    small = io.BytesIO()
    Image.fromarray(portrait[::8, ::8]).save(small, "JPEG")
    path = _save(tmp_path / "a.jpg", portrait)
    data = path.read_bytes()
    thumbnail = small.getvalue()
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path.write_bytes((data[:2] + segment + data[2:])[: len(data) // 2])
    with pytest.raises(PictureError, match="cut short"):
        read_picture(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"gone\.jpg: This file cannot be read"):
        read_picture(tmp_path / "gone.jpg")


def test_a_picture_too_large_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR"
    header += (60_000).to_bytes(4, "big") + (60_000).to_bytes(4, "big") + b"\x08\x02\0\0\0" + bytes(4)
    (tmp_path / "a.png").write_bytes(header + bytes(4) + b"IEND" + bytes(4))
    monkeypatch.setattr(module, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PictureError) as error:
        read_picture(tmp_path / "a.png")
    assert error.value.code == "too_big"


def test_a_single_pixel_is_a_picture_without_a_face(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", np.zeros((1, 1, 3), np.uint8))
    assert read_picture(path).shape == (1, 1, 3)


@pytest.mark.parametrize("kind", ["a.tif", "a.png"])
def test_a_16_bit_colour_picture_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    linear = [round(value * 65535) for value in (0.0722, 0.2159, 0.5)]
    pixels = np.empty((40, 50, 3), np.uint16)
    pixels[:] = linear[::-1]
    cv2.imwrite(str(tmp_path / kind), pixels)
    read = read_picture(tmp_path / kind, "linear-srgb")
    assert read.shape == (40, 50, 3)
    assert np.unique(read.reshape(-1, 3), axis=0).tolist() == [[76, 128, 188]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_webp_is_read_upright(tmp_path: Path, portrait: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _save(tmp_path / "a.webp", portrait[:300, :400], exif=exif, lossless=True)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_picture(path), upright)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_the_decoders_say_nothing_of_their_own_about_a_damaged_picture(
    tmp_path: Path, portrait: np.ndarray, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    path = _save(tmp_path / name, portrait)
    data = bytearray(path.read_bytes())
    if name == "a.tif":
        del data[len(data) // 2 :]
    else:
        # Ends as it should, with its middle gone.
        del data[len(data) // 3 : -200]
    path.write_bytes(data)
    cv2.imread(str(path))
    assert capfd.readouterr().err
    with contextlib.suppress(PictureError):
        read_picture(path)
    assert capfd.readouterr().err == ""


def test_what_others_write_while_a_picture_is_decoded_is_passed_on(
    tmp_path: Path, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = _save(tmp_path / "a.jpg", portrait)
    pixels = np.ascontiguousarray(portrait)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: (os.write(2, b"a line of ours\n"), pixels)[1])
    read_picture(path)
    assert capfd.readouterr().err == "a line of ours\n"
