"""The pin page: shared memory in which mock pins publish their timed states, as a lamp would shine.

One process writes, any number read; there is no other path between the simulated pins and what the
simulated camera sees. The file starts with 64-bit words (magic, number of transitions, time of the writer's
last sign of life, length of the light names), then the names, then one (since, level) pair per light,
then a ring of (time, light, level) transitions. The number of transitions is written last, so a reader
that finds it not yet a whole ring ahead has read whole entries. The writer holds a lock on the file; once
that is gone the writer is dead and every pin is low, as the pull-downs on the gates would make it. A last
word says when the supply failed: from then on nothing shines, whatever a pin or a lamp did.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MAGIC = int.from_bytes(b"DKPINS1\n", "little")
_COUNT, _ALIVE, _NAMES, _POWER = 1, 2, 3, 4
_NAMES_AT = 256
_SLOTS_AT = 1024 // 8
_RING_AT = 4096 // 8
_RING = 4096
_SIZE = 4096 + _RING * 24
_LEVEL_SCALE = 1_000_000


class PinPageError(OSError):
    """The pin page is missing or is not one: no light daemon has run here."""


@dataclass(frozen=True)
class Transition:
    """One change of one light: at `at_ns` (monotonic) it went to `level` in 0…1."""

    at_ns: int
    light: str
    level: float


class PinPage:
    """The writer's side, for the process that owns the pins. A new page replaces an older one at `path`."""

    def __init__(self, path: Path, lights: Sequence[str]) -> None:
        names = json.dumps(list(lights)).encode()
        if len(names) > 1024 - _NAMES_AT or len(lights) * 16 > 4096 - 1024:
            raise PinPageError(f"{len(lights)} lights do not fit on a pin page.")
        self._index = {name: i for i, name in enumerate(lights)}
        fd, temporary = tempfile.mkstemp(prefix=".pins", dir=path.parent)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.ftruncate(fd, _SIZE)
            self._map = mmap.mmap(fd, _SIZE)
            self._map[_NAMES_AT : _NAMES_AT + len(names)] = names
            self._words = memoryview(self._map).cast("Q")
            self._words[_NAMES] = len(names)
            self._words[_ALIVE] = time.monotonic_ns()
            self._words[0] = _MAGIC
            os.replace(temporary, path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        self._fd = fd

    def write(self, light: str, level: float) -> None:
        """`light` is at `level` from now on."""
        index, now = self._index[light], time.monotonic_ns()
        count = self._words[_COUNT]
        scaled = round(level * _LEVEL_SCALE)
        entry = _RING_AT + count % _RING * 3
        self._words[entry] = now
        self._words[entry + 1] = index
        self._words[entry + 2] = scaled
        self._words[_SLOTS_AT + index * 2] = now
        self._words[_SLOTS_AT + index * 2 + 1] = scaled
        self._words[_ALIVE] = now
        self._words[_COUNT] = count + 1

    def alive(self) -> None:
        """Say that the writer still holds the pins; called a few times a second."""
        self._words[_ALIVE] = time.monotonic_ns()

    def close(self) -> None:
        """Let go of the pins: from now on they read low."""
        if self._fd >= 0:
            self._words[_ALIVE] = time.monotonic_ns()
            self._words.release()
            self._map.close()
            os.close(self._fd)
            self._fd = -1


def cut_power(path: Path) -> int:
    """The supply fails now: on the page at `path` all is dark from here on, for good; returns when (ns).

    A light daemon that starts after it makes a page of its own. Raises PinPageError when there is no page.
    """
    try:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), _SIZE) as page:
            now = time.monotonic_ns()
            page[_POWER * 8 : _POWER * 8 + 8] = now.to_bytes(8, "little")
    except (OSError, ValueError) as error:
        raise PinPageError(f"There is no pin page at {path}: start the light daemon.") from error
    return now


class PinReader:
    """The reader's side. `one_shot_s` names the lights that the lamp's own circuit cuts off, and when.

    `dead` lights never shine; `stuck` lights do not go out once they were lit.
    """

    def __init__(
        self,
        path: Path,
        one_shot_s: Mapping[str, float] | None = None,
        dead: Sequence[str] = (),
        stuck: Sequence[str] = (),
    ) -> None:
        self._path = path
        self._one_shot = dict(one_shot_s or {})
        self._dead, self._stuck = frozenset(dead), frozenset(stuck)
        self._fd = -1
        self._inode = 0

    def close(self) -> None:
        if self._fd >= 0:
            self._map.close()
            os.close(self._fd)
            self._fd = -1

    def history(self) -> list[Transition]:
        """Every transition still in the ring, oldest first; the pins of a dead writer, or without power, end
        low.
        """
        self._open()
        rows, _ = self._rows()
        found = [Transition(at, self._names[which], level / _LEVEL_SCALE) for at, which, level in rows]
        power_ns = self._power_end_ns()
        ends = [end for end in (self._writer_end_ns(), power_ns) if end is not None]
        if ends:
            end = min(ends)
            found = [item for item in found if power_ns is None or item.at_ns <= power_ns]
            last = {item.light: item for item in found}
            found += [Transition(end, name, 0.0) for name, item in last.items() if item.level > 0]
        return found

    def levels(self, start_ns: int, end_ns: int) -> dict[str, float]:
        """The mean level of each light between two monotonic times, 0 where it was dark."""
        try:
            self._open()
        except PinPageError:
            return {}
        span = max(1, end_ns - start_ns)
        result = {}
        for name, intervals in self._shining(self._names).items():
            lit = [level * max(0, min(to, end_ns) - max(since, start_ns)) for since, to, level in intervals]
            result[name] = sum(lit) / span
        return result

    def shone(self, light: str) -> list[tuple[int, int, float]]:
        """When `light` shone: (from, to, level) in monotonic ns, `to` in the future while it does."""
        try:
            self._open()
        except PinPageError:
            return []
        return self._shining([light])[light]

    def rise_ns(self, light: str, nth: int) -> int | None:
        """When the pin of `light` went high for the `nth` time; None before that, and once the ring has
        forgotten its first entries.
        """
        try:
            self._open()
        except PinPageError:
            return None
        rows, _ = self._rows()
        if len(rows) >= _RING - 1:
            return None
        index, before, rises = self._names.index(light), 0, []
        for at, which, level in rows:
            if which == index:
                if level > 0 and before == 0:
                    rises.append(at)
                before = level
        return rises[nth - 1] if len(rises) >= nth else None

    def _shining(self, lights: Sequence[str]) -> dict[str, list[tuple[int, int, float]]]:
        rows, slots = self._rows()
        dead_at = self._writer_end_ns()
        found = {}
        for name in lights:
            index = self._names.index(name)
            own = [(at, level / _LEVEL_SCALE) for at, which, level in rows if which == index]
            if not own and slots[index][0]:
                own = [(slots[index][0], slots[index][1] / _LEVEL_SCALE)]
            found[name] = self._intervals(name, own, dead_at)
        return found

    def _intervals(
        self, name: str, changes: list[tuple[int, float]], dead_at: int | None
    ) -> list[tuple[int, int, float]]:
        """When `name` really shone: (from, to, level), after one-shot, faults, the writer's death, power."""
        if name in self._dead:
            return []
        if name in self._stuck:
            changes = [change for change in changes if change[1] > 0][:1]
        forever = 2**63
        power_ns = self._power_end_ns() or forever
        one_shot = int(self._one_shot.get(name, 0.0) * 1e9)
        intervals = []
        triggered = 0
        before = 0.0
        for i, (at, level) in enumerate(changes):
            if before == 0.0:
                triggered = at
            before = level
            finish = changes[i + 1][0] if i + 1 < len(changes) else forever
            if one_shot:
                finish = min(finish, triggered + one_shot)
            if dead_at is not None and name not in self._stuck:
                finish = min(finish, dead_at)
            finish = min(finish, power_ns)
            if level > 0 and finish > at:
                intervals.append((at, finish, level))
        return intervals

    def _open(self) -> None:
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError as error:
            raise PinPageError(f"There is no pin page at {self._path}: start the light daemon.") from error
        if self._fd >= 0 and inode == self._inode:
            return
        self.close()
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(fd, _SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
            words = self._words()
            if words[0] != _MAGIC:
                raise PinPageError(f"{self._path} is not a pin page.")
            names = self._map[_NAMES_AT : _NAMES_AT + words[_NAMES]]
            self._names: list[str] = json.loads(names)
        except (ValueError, PinPageError) as error:
            os.close(fd)
            raise PinPageError(f"{self._path} is not a pin page.") from error
        self._fd, self._inode = fd, os.fstat(fd).st_ino

    def _words(self, count: int = 8) -> memoryview:
        """A copy of the page's first words: those that are numbered, unless more are asked for."""
        return memoryview(self._map[: count * 8]).cast("Q")

    def _rows(self) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
        """The ring's whole entries, oldest first, with the (since, level) slot of each light."""
        words = self._words(_SIZE // 8)
        before, after = words[_COUNT], self._words()[_COUNT]
        entries = (_RING_AT + number % _RING * 3 for number in range(max(0, after - _RING + 1), before))
        rows = [(words[at], words[at + 1], words[at + 2]) for at in entries]
        slots = (_SLOTS_AT + 2 * index for index in range(len(self._names)))
        return rows, [(words[at], words[at + 1]) for at in slots]

    def _power_end_ns(self) -> int | None:
        """When the supply failed; None while there is power."""
        return self._words()[_POWER] or None

    def _writer_end_ns(self) -> int | None:
        """When the writer died, at the latest sign of life; None while it holds its lock."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return self._words()[_ALIVE]
