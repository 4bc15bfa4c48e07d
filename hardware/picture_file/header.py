"""What a picture file says of itself before it is decoded: size, depth, turn, meaning of its numbers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from hardware.picture_file import tags
from hardware.picture_file.directory import Directory, with_number
from hardware.picture_file.encoding import SRGB, Encoding
from hardware.picture_file.icc_profile import of_lab, read_profile
from hardware.picture_file.unreadable import (
    CUT_SHORT,
    NOT_A_PICTURE,
    SEVERAL,
    UNKNOWN_KIND,
    Unreadable,
    broken_profile,
)

_ORIENTATION, _XMP = 0x0112, 700
_PROFILE = 34675
MAX_PROFILE_BYTES = 32_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
# What of a PNG is pixels; the rest could be anything of any size.
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MOST_TILE_PIXELS = 64_000_000


@dataclass(frozen=True)
class PictureHeader:
    """`stated` gives what the numbers mean, None where the file does not say; it raises Unreadable where
    what it says cannot be understood. `pixels` is the file without what no decoder needs. `levels` is
    "fixed" or "floating"; `grey_inverted` is for 16-bit TIFF in which 0 is white; `lab`: the numbers are
    CIE L*a*b*.
    """

    container: str
    width: int
    height: int
    pixels: bytes
    stated: Callable[[], Encoding | None]
    bits: int = 8
    channels: int = 3
    orientation: int = 1
    levels: str = "fixed"
    clear: tuple[int, ...] = ()
    alpha_is_multiplied_in: bool = False
    alpha: bool = False
    grey_inverted: bool = False
    lab: bool = False


def read_header(data: bytes) -> PictureHeader:
    """The PictureHeader of the file in `data`. Raises Unreadable."""
    for begins, read in _CONTAINERS:
        if begins(data):
            try:
                return read(data)
            except (struct.error, IndexError, ValueError) as error:
                if isinstance(error, Unreadable):
                    raise
                raise Unreadable from error
    raise Unreadable(_foreign(data))


_CAMERAS_OWN = (
    "This is a camera's raw file, whose colours are not made yet: develop it and save it as TIFF or JPEG."
)
_FOREIGN = (
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypheim", "HEIC"),
    (4, b"ftypheis", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"GIF8", "GIF"),
)
_RAW = (
    (0, b"FUJIFILMCCD-RAW"),
    (0, b"IIRO"),
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"IIU\0"),
    (0, b"FOVb"),
    (0, b"\0MRM"),
    (4, b"ftypcrx "),
)


def _foreign(data: bytes) -> str:
    """What to say of a file that is none of ours."""
    if any(data.startswith(mark, place) for place, mark in _RAW):
        return _CAMERAS_OWN
    name = next((name for place, mark, name in _FOREIGN if data.startswith(mark, place)), None)
    if name is None:
        return NOT_A_PICTURE
    return f"This is a picture in {name}, which is not read here: save or export it as JPEG, PNG or TIFF."


def _profile_or(profile: bytes, otherwise: Callable[[], Encoding | None]) -> Callable[[], Encoding | None]:
    return (lambda: read_profile(profile)) if profile else otherwise


def _exif(block: bytes) -> Directory | None:
    """The first directory of an EXIF block, or None where it cannot be read: the pixels are whole."""
    try:
        return Directory.first(block.removeprefix(b"Exif\0\0"))
    except (struct.error, ValueError):
        return None


def _turn(first: Directory | None) -> int:
    turn = 1 if first is None else first.number(_ORIENTATION, 1)
    return turn if turn in range(1, 9) else 1


def _jpeg(data: bytes) -> PictureHeader:
    offset, frame, exif = 2, None, None
    parts: dict[int, bytes] = {}
    wanted = 0
    while offset + 4 <= len(data):
        if data[offset] != 0xFF:
            raise ValueError("not a marker")
        marker = data[offset + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            offset += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, offset + 2)
        body = data[offset + 4 : offset + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = struct.unpack_from(">BHHB", body)
        elif marker == 0xE1 and body[:6] == b"Exif\0\0" and exif is None:
            exif = _exif(body)
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
            parts.setdefault(body[12], body[14:])
            wanted = max(wanted, body[13])
        elif marker == 0xDA and frame:
            # Inside the scans every FF is stuffed, so the first FFD9 is the end of the picture.
            if data.find(b"\xff\xd9", offset) < 0:
                raise Unreadable(CUT_SHORT)
            _, height, width, channels = frame
            profile = _joined(parts, wanted)
            return PictureHeader(
                container="jpeg",
                width=width,
                height=height,
                pixels=data,
                stated=_broken if profile is None else _profile_or(profile, partial(tags.of_exif, exif)),
                channels=channels,
                orientation=_turn(exif),
            )
        offset += 2 + length
    raise Unreadable(CUT_SHORT)


def _broken() -> Encoding | None:
    raise broken_profile("it is damaged")


def _joined(parts: dict[int, bytes], wanted: int) -> bytes | None:
    """The profile in the parts of a JPEG: empty without one, None where some are lacking."""
    if sorted(parts) != list(range(1, wanted + 1)):
        return None
    return b"".join(parts[n] for n in sorted(parts))


def _png(data: bytes) -> PictureHeader:
    chunks: dict[bytes, bytes] = {}
    kept = [_PNG]
    for kind, body, whole in _png_chunks(data):
        if not chunks and kind != b"IHDR":
            raise ValueError("no header first")
        if kind in _PIXEL_CHUNKS:
            kept.append(whole)
        if kind != b"IDAT" and len(body) <= MAX_PROFILE_BYTES:
            chunks.setdefault(kind, body)
    width, height, bits, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    if b"acTL" in chunks and int.from_bytes(chunks[b"acTL"][:4], "big") > 1:
        raise Unreadable(SEVERAL, "several_pictures")
    exif = _exif(chunks[b"eXIf"]) if b"eXIf" in chunks else None
    clear = chunks.get(b"tRNS", b"") if colour in (0, 2) and bits == 16 else b""
    return PictureHeader(
        container="png",
        width=width,
        height=height,
        pixels=b"".join(kept),
        stated=lambda: _png_colour(chunks, exif),
        bits=bits if colour != 3 else 8,
        channels=1 if colour in (0, 4) else 3,
        alpha=colour in (4, 6),
        orientation=_turn(exif),
        clear=struct.unpack(f">{len(clear) // 2}H", clear[: len(clear) // 2 * 2]),
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Each chunk's kind, body, and all of it, to the end of the picture."""
    offset = len(_PNG)
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        yield kind, data[offset + 8 : offset + 8 + length], data[offset : offset + 12 + length]
        if kind == b"IEND":
            return
        offset += 12 + length
    raise Unreadable(CUT_SHORT)


def _png_colour(chunks: dict[bytes, bytes], exif: Directory | None) -> Encoding | None:
    """PNG's own order: cICP goes before iCCP, that before sRGB, that before gAMA and cHRM."""
    if len(chunks.get(b"cICP", b"")) == 4:
        return tags.of_cicp(chunks[b"cICP"])
    if b"iCCP" in chunks:
        _, _, packed = chunks[b"iCCP"].partition(b"\0")
        unpacker = zlib.decompressobj()
        try:
            return read_profile(unpacker.decompress(packed[1:], MAX_PROFILE_BYTES))
        except zlib.error as error:
            raise broken_profile("it is damaged") from error
    if b"sRGB" in chunks:
        return SRGB
    stated = tags.of_gama_and_chrm(chunks.get(b"gAMA"), chunks.get(b"cHRM"))
    return tags.of_exif(exif) if stated is None else stated


def _tiff(data: bytes) -> PictureHeader:
    page = Directory.first(data)
    bits = page.numbers(258) or (1,)
    samples, photometric = page.number(277, 1), page.number(262, 1)
    if data[8:10] == b"CR" or page.bytes(50706) or photometric in (32803, 34892):
        raise Unreadable(_CAMERAS_OWN)
    if page.number(254, 0) & 1 and page.numbers(330):
        # Nikon's, Sony's and others' raw files are TIFF with a small picture before the large one.
        raise Unreadable(_CAMERAS_OWN)
    width, height = page.number(256, 0), page.number(257, 0)
    if sum(1 for other in page.pages() if not other.number(254, 0) & 5) > 1:
        raise Unreadable(SEVERAL, "several_pictures")
    floating = page.number(339, 1) == 3
    extra = page.numbers(338)
    deep = bits[0] > 8
    unknown = Unreadable(UNKNOWN_KIND.format(kind="TIFF"))
    if len(set(bits)) > 1 or samples > 5 or page.number(322, 1) * page.number(323, 1) > _MOST_TILE_PIXELS:
        raise unknown
    if page.number(339, 1) not in ((3,) if bits[0] >= 32 else (1, 4)) or photometric == 9:
        raise unknown
    if deep and (
        bits[0] not in (16, 32, 64)
        or photometric not in (0, 1, 2)
        or samples not in ((1, 3) if floating else (1, 3, 4))
        or (samples > 1 and page.number(284, 1) != 1)
    ):
        raise unknown
    profile = page.bytes(_PROFILE)
    lab = photometric == 8

    def otherwise() -> Encoding | None:
        stated = tags.of_exif(page)
        return tags.of_tiff(page, bits[0]) if stated is None and not floating else stated

    return PictureHeader(
        container="tiff",
        width=width,
        height=height,
        pixels=_unturned(page),
        stated=of_lab if lab else _profile_or(profile, otherwise),
        bits=bits[0],
        channels={0: 1, 1: 1, 5: 4}.get(photometric, 3),
        orientation=_turn(page),
        levels="floating" if floating else "fixed",
        alpha=deep and samples == 4 and bool(extra) and extra[0] in (1, 2),
        alpha_is_multiplied_in=deep and bool(extra) and extra[0] == 1,
        grey_inverted=deep and photometric == 0,
        lab=lab,
    )


def _unturned(page: Directory) -> bytes:
    """The file as one that is upright: Pillow turns TIFF, and no other kind, on its own: by the tag, or by
    what its XMP says, which is not read here.
    """
    return with_number(page, _ORIENTATION, 1, _XMP)


def _webp(data: bytes) -> PictureHeader:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise Unreadable(CUT_SHORT)
    size, flags, profile, exif = None, 0, b"", None
    offset = 12
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, offset)
        body = data[offset + 8 : offset + 8 + length]
        if kind == b"VP8X":
            flags = body[0]
            size = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        elif kind == b"VP8L" and size is None:
            (packed,) = struct.unpack_from("<I", body, 1)
            size = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        elif kind == b"VP8 " and size is None:
            across, down = struct.unpack_from("<HH", body, 6)
            size = across & 0x3FFF, down & 0x3FFF
        elif kind == b"ICCP" and not profile:
            profile = body
        elif kind == b"EXIF" and exif is None:
            exif = _exif(body)
        offset += 8 + length + length % 2
    if size is None:
        raise ValueError("no size")
    if flags & 2:
        raise Unreadable(SEVERAL, "several_pictures")
    return PictureHeader(
        container="webp",
        width=size[0],
        height=size[1],
        pixels=data,
        stated=_profile_or(profile, lambda: tags.of_exif(exif)),
        orientation=_turn(exif),
    )


def _bmp(data: bytes) -> PictureHeader:
    (length,) = struct.unpack_from("<I", data, 14)
    if len(data) < 14 + length:
        raise Unreadable(CUT_SHORT)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
    return PictureHeader("bmp", abs(width), abs(height), data, lambda: _bmp_colour(data[14:], length))


def _bmp_colour(header: bytes, length: int) -> Encoding | None:
    if length < 108:
        return None
    kind = header[56:60][::-1]
    if kind == b"LINK":
        raise broken_profile("it is another file's")
    if kind == b"MBED" and length >= 124:
        offset, size = struct.unpack_from("<II", header, 112)
        return read_profile(header[offset : offset + size])
    return tags.of_bmp(header) if kind == bytes(4) else None


_CONTAINERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], PictureHeader]], ...] = (
    (lambda data: data[:3] == b"\xff\xd8\xff", _jpeg),
    (lambda data: data[:8] == _PNG, _png),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*"), _tiff),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    (lambda data: data[:2] == b"BM", _bmp),
)
