"""What a picture shows is what is read, whatever its numbers stand for and wherever it says so."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from skimage import data

from hardware.picture_file import PictureError, read_picture_file
from hardware.picture_file.icc_profile import read_profile
from models.analysis.colour import linear
from tests.support import icc
from tests.support.picture_files import bmp, exif, iccp, pillow, png, save, tiff, turned

SPACES = [name for name in icc.SPACES if name != "linear sRGB"]


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A face in 8 bits of sRGB, higher than wide."""
    return np.ascontiguousarray(data.astronaut()[60:188, 176:272])


def _in(space: str, face: np.ndarray, bits: int = 8) -> np.ndarray:
    most = (1 << bits) - 1
    return np.round(icc.coded_in(space, face / 255) * most).astype(np.uint8 if bits == 8 else np.uint16)


def _difference(path: Path, face: np.ndarray, colour: str = "auto") -> int:
    """By how many steps of 8 bits what is read is off at most."""
    read = read_picture_file(path, colour).srgb8()  # type: ignore[arg-type]
    assert read.shape == face.shape
    return int(np.abs(read.astype(int) - face).max())


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("space", SPACES)
def test_each_working_space_reads_as_its_srgb_twin(
    tmp_path: Path, face: np.ndarray, space: str, version: int
) -> None:
    profile = icc.matrix_profile(space, version)
    # 8 bits of a wide space are coarser steps of sRGB, most of all in the dark.
    assert _difference(save(tmp_path / "8.png", png(_in(space, face), iccp(profile))), face) <= 4
    assert _difference(save(tmp_path / "16.png", png(_in(space, face, 16), iccp(profile))), face) <= 1
    assert _difference(save(tmp_path / "16.tif", tiff(_in(space, face, 16), profile)), face) <= 1
    assert (
        _difference(save(tmp_path / "8.tif", pillow(_in(space, face), "TIFF", icc_profile=profile)), face)
        <= 4
    )
    for kind, options in (("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"lossless": True})):
        path = save(tmp_path / kind, pillow(_in(space, face), kind, icc_profile=profile, **options))
        assert np.abs(read_picture_file(path).srgb8().astype(int) - face).mean() < 1


@pytest.mark.parametrize("space", SPACES)
def test_lcms_reads_the_same_from_each_profile(space: str) -> None:
    inks = np.random.default_rng(3).integers(40, 200, (2000, 3)).astype(np.uint8)
    for made in (
        icc.matrix_profile(space),
        icc.matrix_profile(space, 4),
        icc.rgb_table_profile("mft2", space),
    ):
        into = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        ours = read_profile(made).linear(inks / 255)
        change = ImageCms.buildTransform(
            icc.opened(made), into, "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        theirs = np.asarray(ImageCms.applyTransform(Image.fromarray(inks[None]), change))[0].astype(int)
        known = ((ours > 0.001) & (ours < 0.999)).all(axis=1)
        assert known.sum() > 300
        difference = np.abs(np.round(icc.srgb_coded(ours) * 255) - theirs)[known]
        # lcms2 halves each cube of a table where we interpolate across it.
        assert difference.max() <= (16 if b"A2B0" in made else 1) and difference.mean() < 0.3


@pytest.mark.parametrize("form", ["mft1", "mft2", "mAB "])
def test_a_profile_that_is_a_table_reads_as_its_srgb_twin(
    tmp_path: Path, face: np.ndarray, form: str
) -> None:
    profile = icc.rgb_table_profile(form, "Display P3")
    for bits in (8, 16):
        path = save(tmp_path / f"{bits}.png", png(_in("Display P3", face, bits), iccp(profile)))
        read = read_picture_file(path).srgb8().astype(int)
        assert np.abs(read - face).mean() < 0.7 and np.abs(read - face)[face.min(axis=2) > 40].max() <= 4


@pytest.mark.parametrize("form", ["mft1", "mft2", "mAB "])
def test_inks_are_read_by_their_profile(tmp_path: Path, face: np.ndarray, form: str) -> None:
    cmyk = np.dstack([255 - face, np.zeros(face.shape[:2], np.uint8)])
    data = pillow(cmyk, "TIFF", mode="CMYK", icc_profile=icc.inks_profile(form, 17))
    assert np.abs(read_picture_file(save(tmp_path / "a.tif", data)).srgb8().astype(int) - face).mean() < 2
    image = Image.frombytes("CMYK", face.shape[1::-1], cmyk.tobytes())
    image.save(tmp_path / "a.jpg", quality=100, icc_profile=icc.inks_profile(form, 17))
    assert np.abs(read_picture_file(tmp_path / "a.jpg").srgb8().astype(int) - face).mean() < 3


def test_inks_without_a_profile_are_asked_about(tmp_path: Path, face: np.ndarray) -> None:
    Image.fromarray(face).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    with pytest.raises(PictureError, match="has no profile that says which") as refused:
        read_picture_file(tmp_path / "a.jpg")
    assert refused.value.code == "colour_unknown"
    assert np.abs(read_picture_file(tmp_path / "a.jpg", "srgb").srgb8().astype(int) - face).mean() < 3


def test_grey_is_read_by_its_own_profile_and_by_one_of_colours(tmp_path: Path, face: np.ndarray) -> None:
    grey = face[:, :, 1]
    twin = np.repeat(grey[:, :, None], 3, axis=2)
    light = icc.srgb_linear(grey / 255)
    for connection in (b"XYZ ", b"Lab "):
        # In a profile by L* the curve leads to lightness.
        shown = light if connection == b"XYZ " else icc.lab_of(light[..., None] * icc.D50)[..., 0] / 100
        coded = np.round(shown ** (1 / 1.8) * 255).astype(np.uint8)
        path = save(tmp_path / "a.png", png(coded, iccp(icc.grey_profile(1.8, connection))))
        assert _difference(path, twin) <= 3
    coded = np.round(light ** (256 / 563) * 65535).astype(np.uint16)
    assert _difference(save(tmp_path / "b.png", png(coded, iccp(icc.matrix_profile("Adobe RGB")))), twin) <= 1


def test_srgb_stays_as_it_is_to_the_last_bit(tmp_path: Path, face: np.ndarray) -> None:
    for profile in (icc.matrix_profile("sRGB"), icc.matrix_profile("sRGB", 4),
                    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):  # fmt: skip
        read = read_picture_file(save(tmp_path / "a.png", png(face, iccp(profile))))
        assert read.colour == "srgb" and np.array_equal(read.pixels, face)


def test_16_bits_are_srgb_unless_something_says_that_they_are_light(tmp_path: Path, face: np.ndarray) -> None:
    untagged = save(tmp_path / "a.png", png(face.astype(np.uint16) * 257))
    assert _difference(untagged, face) == 0
    light = np.round(icc.srgb_linear(face / 255) * 65535).astype(np.uint16)
    read = read_picture_file(save(tmp_path / "b.png", png(light)), "linear-srgb")
    assert np.array_equal(read.pixels, light) and np.array_equal(read.srgb8(), face)
    assert np.allclose(linear(read.pixels, read.colour), light / 65535)
    for name, said in (
        ("cICP", (b"cICP", bytes((1, 8, 0, 1)))),
        ("gAMA", (b"gAMA", (100_000).to_bytes(4, "big"))),
        ("profile", iccp(icc.matrix_profile("linear sRGB"))),
    ):
        tagged = read_picture_file(save(tmp_path / "c.png", png(light, said)))
        assert tagged.colour == "linear-srgb" and np.array_equal(tagged.pixels, light), name


def test_what_the_command_says_goes_before_what_the_file_says(tmp_path: Path, face: np.ndarray) -> None:
    path = save(tmp_path / "a.png", png(face, iccp(icc.matrix_profile("ProPhoto"))))
    assert _difference(path, face) > 20
    assert _difference(path, face, "srgb") == 0
    assert np.array_equal(read_picture_file(path, "linear-srgb").pixels, face)


def test_a_fine_ramp_keeps_its_steps_through_a_profile(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(20_000, 24_000, dtype=np.uint16)[None, :, None], 3, axis=2)
    for profile in (icc.matrix_profile("Adobe RGB"), icc.rgb_table_profile("mft2", "Adobe RGB")):
        read = read_picture_file(save(tmp_path / "a.png", png(ramp, iccp(profile))))
        light = linear(read.pixels, read.colour)[0, :, 1]
        assert len(np.unique(light)) > 1900 and (np.diff(light) >= 0).all()


def test_colours_beyond_srgb_keep_their_luminance_and_hue(tmp_path: Path) -> None:
    pixels = np.full((20, 20, 3), [40, 200, 60], np.uint8)
    path = save(tmp_path / "a.png", png(pixels, iccp(icc.matrix_profile("Rec. 2020"))))
    beyond = read_profile(icc.matrix_profile("Rec. 2020")).linear(pixels[0, :1] / 255)[0]
    assert beyond.min() < -0.05
    picture = read_picture_file(path)
    read = linear(picture.pixels, picture.colour)[0, 0]
    weights = np.array([0.2126, 0.7152, 0.0722])
    assert abs(read @ weights - beyond @ weights) < 0.001 and read.min() >= 0
    grey = beyond @ weights
    drawn, was = read - grey, beyond - grey
    assert np.allclose(drawn / np.linalg.norm(drawn), was / np.linalg.norm(was), atol=0.01)


def _chrm(space: str) -> tuple[bytes, bytes]:
    places, white, _ = icc.SPACES[space]
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in (*white, *np.ravel(places))))


def test_png_says_its_colours_in_four_ways_and_the_first_of_them_counts(
    tmp_path: Path, face: np.ndarray
) -> None:
    wrong = iccp(icc.matrix_profile("ProPhoto"))
    p3 = _in("Display P3", face)
    cicp, gama = (b"cICP", bytes((12, 13, 0, 1))), (b"gAMA", (100_000).to_bytes(4, "big"))
    assert _difference(save(tmp_path / "a.png", png(p3, cicp, wrong, (b"sRGB", b"\0"))), face) <= 2
    named = iccp(icc.matrix_profile("Display P3"))
    assert _difference(save(tmp_path / "b.png", png(p3, (b"sRGB", b"\0"), named, gama)), face) <= 2
    assert (
        _difference(save(tmp_path / "c.png", png(face, (b"sRGB", b"\0"), gama, _chrm("ProPhoto"))), face) == 0
    )
    adobe = _in("Adobe RGB", face)
    gama_2_2 = (b"gAMA", round(100_000 * 256 / 563).to_bytes(4, "big"))
    assert _difference(save(tmp_path / "d.png", png(adobe, gama_2_2, _chrm("Adobe RGB"))), face) <= 3
    # What most writers of sRGB pictures put there.
    usual = (b"gAMA", (45_455).to_bytes(4, "big"))
    assert _difference(save(tmp_path / "e.png", png(face, usual, _chrm("sRGB"))), face) == 0
    assert _difference(save(tmp_path / "f.png", png(face, (b"gAMA", bytes(4)))), face) == 0


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused(tmp_path: Path, face: np.ndarray, transfer: int) -> None:
    path = save(tmp_path / "a.png", png(face, (b"cICP", bytes((9, transfer, 0, 1)))))
    with pytest.raises(PictureError, match="high dynamic range"):
        read_picture_file(path)
    assert _difference(path, face, "srgb") == 0


@pytest.mark.parametrize(
    ("space", "index", "is_adobe"), [(1, b"R98", False), (0xFFFF, b"R03", True), (2, b"", True),
                                     (0xFFFF, b"", False), (1, b"R03", False)],
)  # fmt: skip
def test_exif_says_adobe_rgb_in_every_container(
    tmp_path: Path, face: np.ndarray, space: int, index: bytes, is_adobe: bool
) -> None:
    pixels = _in("Adobe RGB", face) if is_adobe else face
    block = exif(1, space, index)
    for kind, options in (("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"lossless": True})):
        path = save(tmp_path / kind, pillow(pixels, kind, exif=b"Exif\0\0" + block, **options))
        assert np.abs(read_picture_file(path).srgb8().astype(int) - face).mean() < 1
    assert _difference(save(tmp_path / "a.png", png(pixels, (b"eXIf", block))), face) <= 3
    # A profile knows better.
    both = png(face, (b"eXIf", block), iccp(icc.matrix_profile("sRGB")))
    assert _difference(save(tmp_path / "b.png", both), face) == 0


def test_tiff_says_its_curve_and_its_primaries_in_tags(tmp_path: Path, face: np.ndarray) -> None:
    levels = np.arange(65536) / 65535
    curve = np.round(levels ** (563 / 256) * 65535).astype(int)
    places, white, _ = icc.SPACES["Adobe RGB"]
    fractions = [part for v in np.ravel(places) for part in (round(v * 10_000), 10_000)]
    middle = [part for v in white for part in (round(v * 10_000), 10_000)]
    tags = [
        (301, "H", 65536, curve.tolist(), True),
        (319, "2I", 6, fractions, True),
        (318, "2I", 2, middle, True),
    ]
    path = save(tmp_path / "a.tif", tiff(_in("Adobe RGB", face, 16), extratags=tags))
    assert _difference(path, face) <= 1


def test_bmp_says_its_colours_in_its_header(tmp_path: Path, face: np.ndarray) -> None:
    profile = icc.matrix_profile("Display P3")
    assert _difference(save(tmp_path / "a.bmp", bmp(_in("Display P3", face), profile)), face) <= 4
    places, white, _ = icc.SPACES["Adobe RGB"]
    chromaticities = np.array([(x, y, 1 - x - y) for x, y in places])
    x, y = white
    parts = np.linalg.solve(chromaticities.T, np.array([x / y, 1, (1 - x - y) / y]))
    coded = _in("Adobe RGB", face)
    for ends in (chromaticities * parts[:, None], chromaticities):
        made = bmp(coded, ends=tuple(ends.ravel()), exponent=563 / 256)
        assert _difference(save(tmp_path / "b.bmp", made), face) <= 3
    grey = face[:, :, 1]
    twin = np.repeat(grey[:, :, None], 3, axis=2)
    assert _difference(save(tmp_path / "c.bmp", bmp(grey, icc.matrix_profile("sRGB"))), twin) == 0
    shown = np.round(icc.srgb_linear(grey / 255) ** (256 / 563) * 255).astype(np.uint8)
    assert _difference(save(tmp_path / "d.bmp", bmp(shown, icc.matrix_profile("Adobe RGB"))), twin) <= 3


def test_lab_is_read_as_lab(tmp_path: Path, face: np.ndarray) -> None:
    into = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(Image.fromarray(face), into)
    lab.save(tmp_path / "a.tif")
    for colour in ("auto", "srgb", "linear-srgb"):
        read = read_picture_file(tmp_path / "a.tif", colour)  # type: ignore[arg-type]
        assert np.abs(read.srgb8().astype(int) - face).mean() < 1.5


def test_floating_point_is_light_or_srgb_as_it_is_said_to_be(tmp_path: Path, face: np.ndarray) -> None:
    coded = (face / 255).astype(np.float32)
    path = save(tmp_path / "a.tif", tiff(coded))
    with pytest.raises(PictureError, match="--colour linear-srgb or --colour srgb"):
        read_picture_file(path)
    assert _difference(path, face, "srgb") == 0
    light = icc.srgb_linear(coded).astype(np.float32)
    assert _difference(save(tmp_path / "b.tif", tiff(light)), face, "linear-srgb") == 0
    assert _difference(save(tmp_path / "c.tif", tiff(light, icc.matrix_profile("linear sRGB"))), face) == 0
    for numbers in (light * 255, np.where(light > 0.9, np.nan, light)):
        with pytest.raises(PictureError, match="outside 0…1"):
            read_picture_file(save(tmp_path / "d.tif", tiff(numbers.astype(np.float32))), "linear-srgb")


def _broken_profiles() -> dict[str, bytes]:
    whole = icc.matrix_profile("Display P3")
    no_curve = whole.replace(b"rTRC", b"xTRC", 1)
    of_colours = icc.rgb_table_profile("mft2", "sRGB", 9)
    cut_table = of_colours[:20] + b"Lab " + of_colours[24:-3000]
    return {
        "empty": b"\1",
        "noise": bytes(range(256)) * 3,
        "cut short": whole[:300],
        "a curve missing": no_curve,
        "a table cut short": len(cut_table).to_bytes(4, "big") + cut_table[4:],
        "a link": whole[:12] + b"link" + whole[16:],
        "of L*a*b*": of_colours[:16] + b"Lab " + of_colours[20:],
        "colours all one": icc.profile(
            {name: icc._xyz(np.zeros(3)) for name in (b"rXYZ", b"gXYZ", b"bXYZ")}
            | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), icc.curve(2.2, 2))
        ),
        "of inks": icc.inks_profile(),
        "of grey": icc.grey_profile(2.2),
    }


@pytest.mark.parametrize("fault", _broken_profiles())
def test_a_profile_that_says_nothing_is_no_guess(tmp_path: Path, face: np.ndarray, fault: str) -> None:
    profile = _broken_profiles()[fault]
    for name, made in (
        ("a.png", png(face, iccp(profile))),
        ("b.jpg", pillow(face, "JPEG", icc_profile=profile)),
    ):
        with pytest.raises(PictureError, match=r"colour profile .* --colour") as refused:
            read_picture_file(save(tmp_path / name, made))
        assert refused.value.code == "colour_unknown" and "\n" not in str(refused.value)
    assert _difference(tmp_path / "a.png", face, "srgb") == 0


def test_a_jpeg_that_lacks_a_part_of_its_profile_is_no_guess(tmp_path: Path, face: np.ndarray) -> None:
    made = bytearray(pillow(face, "JPEG", icc_profile=icc.matrix_profile("Display P3")))
    place = made.index(b"ICC_PROFILE\0") + 13
    made[place] = 2
    with pytest.raises(PictureError, match="colour profile"):
        read_picture_file(save(tmp_path / "a.jpg", bytes(made)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    space=st.sampled_from([*SPACES, "table", "none"]),
    version=st.sampled_from([2, 4]),
    bits=st.sampled_from([8, 16]),
    container=st.sampled_from(["png", "tiff", "webp", "jpeg"]),
    orientation=st.integers(1, 8),
    alpha=st.sampled_from(["none", "hidden", "half"]),
)
def test_any_profile_depth_container_turn_and_alpha_shows_the_same_face(
    tmp_path: Path, face: np.ndarray, space: str, version: int, bits: int, container: str, orientation: int,
    alpha: str,
) -> None:  # fmt: skip
    if container in ("webp", "jpeg"):
        bits = 8
    if container == "jpeg":
        alpha = "none"
    named = {"table": "Display P3", "none": "sRGB"}.get(space, space)
    profile = {"table": icc.rgb_table_profile("mft2", named), "none": None}.get(
        space, icc.matrix_profile(named, version)
    )
    most = (1 << bits) - 1
    pixels = _in(named, face, bits)
    cover = np.full(face.shape[:2], most, pixels.dtype)
    cover[:40] = {"none": most, "hidden": 0, "half": most // 2}[alpha]
    pixels = turned(pixels if alpha == "none" else np.dstack([pixels, cover]), orientation)
    if container == "png":
        said = [(b"eXIf", exif(orientation))] + ([iccp(profile)] if profile else [])
        made = png(pixels, *said)
    elif container == "tiff":
        made = tiff(pixels, profile, orientation, None if alpha == "none" else "unassalpha")
    else:
        options = {"lossless": True} if container == "webp" else {"quality": 100, "subsampling": 0}
        if profile:
            options["icc_profile"] = profile
        made = pillow(pixels, container.upper(), exif=b"Exif\0\0" + exif(orientation), **options)
    read = read_picture_file(save(tmp_path / "any", made))
    twin = face.astype(float)
    if alpha != "none":
        share = (most // 2) / most if alpha == "half" else 0
        twin[:40] = twin[:40] * share + 255 * (1 - share)
        assert read.shown is not None and not read.shown[:40].any() and read.shown[40:].all()
    else:
        assert read.shown is None
    assert read.pixels.shape == face.shape
    difference = np.abs(read.srgb8() - twin)
    assert difference.mean() < 1.2 and np.percentile(difference, 99) <= 6
