"""A directory of tags as TIFF has it, in TIFF files and in EXIF: looked up within the bytes there are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

# Bytes of one value by the tag's type: BYTE, ASCII, SHORT, LONG, RATIONAL, …
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
MOST_PAGES = 100
# More than any picture has: a strip for each row, a tile for each 16 × 16 pixels, a curve of 16 bits.
_MOST_NUMBERS, _MOST_FRACTIONS = 1_000_000, 6


@dataclass(frozen=True)
class Directory:
    """One directory, at byte `offset` of `data`; `entries` has type, count and first byte of each tag's
    values.
    """

    data: bytes
    order: str
    offset: int
    entries: dict[int, tuple[int, int, int]]
    next: int

    @classmethod
    def at(cls, data: bytes, order: str, offset: int) -> Directory:
        """The directory at byte `offset`.

        Raises struct.error where it leaves the bytes, ValueError where a tag has too many numbers.
        """
        (count,) = struct.unpack_from(order + "H", data, offset)
        entries: dict[int, tuple[int, int, int]] = {}
        for place in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, place)
            size = _SIZES.get(kind, 0) * number
            if number > _MOST_NUMBERS and _SIZES.get(kind, 0) > 1:
                raise ValueError("too many numbers")
            start = place + 8 if size <= 4 else struct.unpack_from(order + "I", data, place + 8)[0]
            if size and start + size <= len(data):
                entries.setdefault(tag, (kind, number, start))
        (following,) = struct.unpack_from(order + "I", data, offset + 2 + 12 * count)
        return cls(data, order, offset, entries, following)

    @classmethod
    def first(cls, data: bytes) -> Directory:
        """The first one of a TIFF file, or of an EXIF block. Raises struct.error, ValueError."""
        if data[:4] not in (b"II*\0", b"MM\0*"):
            raise ValueError("no TIFF header")
        order = "<" if data[:2] == b"II" else ">"
        return cls.at(data, order, struct.unpack_from(order + "I", data, 4)[0])

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The whole numbers of `tag`; empty where it is absent or holds something else, or far too many."""
        kind, count, start = self.entries.get(tag, (0, 0, 0))
        if kind not in _LETTERS or count > _MOST_NUMBERS:
            return ()
        return struct.unpack_from(f"{self.order}{count}{_LETTERS[kind]}", self.data, start)

    def number(self, tag: int, default: int) -> int:
        """The first whole number of `tag`."""
        kind, _, start = self.entries.get(tag, (0, 0, 0))
        if kind not in _LETTERS:
            return default
        return int(struct.unpack_from(self.order + _LETTERS[kind], self.data, start)[0])

    def fractions(self, tag: int) -> tuple[Fraction, ...]:
        """The rational numbers of `tag`; empty where it is absent, one of them has no value, or
        there are more than describe a colour space.
        """
        kind, count, start = self.entries.get(tag, (0, 0, 0))
        if kind not in (5, 10) or count > _MOST_FRACTIONS:
            return ()
        pairs = struct.unpack_from(f"{self.order}{2 * count}{'I' if kind == 5 else 'i'}", self.data, start)
        if not all(pairs[1::2]):
            return ()
        return tuple(Fraction(n, d) for n, d in zip(pairs[::2], pairs[1::2], strict=True))

    def bytes(self, tag: int) -> bytes:
        """The bytes of `tag` as they are; empty where it is absent."""
        kind, count, start = self.entries.get(tag, (0, 0, 0))
        return self.data[start : start + _SIZES.get(kind, 0) * count]

    def below(self, tag: int) -> Directory | None:
        """The directory that `tag` points to, or None."""
        try:
            return Directory.at(self.data, self.order, self.number(tag, len(self.data)))
        except (struct.error, ValueError):
            return None

    def pages(self) -> Iterator[Directory]:
        """This directory with those that follow it. Raises struct.error, ValueError."""
        page, seen = self, set[int]()
        yield page
        while page.next and page.next not in seen and len(seen) < MOST_PAGES:
            seen.add(page.next)
            page = Directory.at(self.data, self.order, page.next)
            yield page


def with_number(page: Directory, tag: int, number: int, *in_place_of: int) -> bytes:
    """The bytes that `page` is in, where each entry of `tag`, or of one `in_place_of` which it comes, is the
    SHORT `number`.
    """
    wanted = {tag, *in_place_of}
    entry = struct.pack(page.order + "HHIHH", tag, 3, 1, number, 0)
    (count,) = struct.unpack_from(page.order + "H", page.data, page.offset)
    every = range(page.offset + 2, page.offset + 2 + 12 * count, 12)
    places = [p for p in every if struct.unpack_from(page.order + "H", page.data, p)[0] in wanted]
    if all(page.data[place : place + 12] == entry for place in places):
        return page.data
    data = bytearray(page.data)
    for place in places:
        data[place : place + 12] = entry
    return bytes(data)
