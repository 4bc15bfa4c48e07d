"""The light daemon: the only process that owns the light pins."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import structlog

from firmware.lights.clock import real_moment
from firmware.lights.core import LightCore, LightRefused
from firmware.lights.doses import DoseLedger, Moment
from firmware.lights.lamp_hours import LampHours
from firmware.line.link import Link, LinkError, Listener, close_all
from firmware.line.stamps import ConsentStamp, StampError, UvAllowance, text_of
from firmware.pins.opening import open_light_hardware
from firmware.pins.protocols import readings
from firmware.pins.sampler import go_first
from hardware.board import Board
from hardware.host.errors import PlainError
from hardware.host.folders import make_folder
from hardware.host.notify import Notifier
from hardware.host.own_file import open_own
from hardware.host.unasked import Unasked

PROTOCOL = 1
_MAX_CLIENTS = 8  # that have asked something; they stay as long as they like
_MAX_UNASKED = 6  # of one user; there are two
# What the selector has announced is there; the loop that puts lights out waits for nobody.
_THERE_S = 0.001
# Less than a client waits for its answer, or systemd for a sign of life.
_WRITTEN_S = 0.5
_FULL = (
    f"{_MAX_CLIENTS} others are connected to the light daemon, the most that it serves at once. Try again"
    " when one of them has ended."
)

log = structlog.get_logger()


class LightDaemonError(PlainError):
    """The light daemon cannot start; the message says why."""


class LightDaemon:
    """Serves the light protocol at `state/run/light.sock` until told to stop.

    One loop in one thread: each turn handles at most one message per client, then lets the core put out what
    may not be lit. Whatever ends the loop, the lights go out first.
    """

    def __init__(self, board: Board, state: Path, peers: Collection[int] = ()) -> None:
        light, run = state / "light", state / "run"
        for folder in (light, run):
            make_folder(folder)
        self._simulated, self._has_uv = board.simulated, board.has_uv
        self._owner = _own(light / "owner.lock")
        self._hardware = open_light_hardware(board, run)
        self._ledger = DoseLedger(light / "doses.sqlite")
        self._hours = LampHours(self._hardware.pins, light / "hours.json", time.monotonic).start()
        self._log_later: list[tuple[str, dict[str, Any]]] = []
        self._core = LightCore(
            board,
            self._hours,
            self._hardware.senses,
            self._ledger,
            time.monotonic,
            # Nothing has to vouch for the time of a simulated kiosk: its patients get no UV.
            moment=Moment.now if board.simulated else real_moment,
            on_fault=lambda fault: self._note("fault", fault=fault),
            renewals=self._hours.renewals,
        )
        self._listener = Listener(run / "light.sock", peers)
        self._clients: dict[int, Link] = {}
        self._asked: set[int] = set()
        self._unasked = Unasked(_MAX_UNASKED)
        self._next_client = 1
        self._stopping = False
        self._notifier = Notifier()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then all lights are off. Call from the main thread."""
        wake_reader, wake_writer = socket.socketpair()
        wake_writer.setblocking(False)
        signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(wake_reader, selectors.EVENT_READ, None)
                selector.register(self._listener, selectors.EVENT_READ, 0)
                log.info("ready", daemon="lightd", simulated=self._simulated, realtime=go_first())
                self._notifier.ready()
                while not self._stopping:
                    self._turn(selector)
        finally:
            # From the last to the first: whatever one of them raises, the others have their turn.
            with contextlib.ExitStack() as ending:
                ending.callback(self._close)
                ending.callback(wake_writer.close)
                ending.callback(wake_reader.close)
                ending.callback(signal.set_wakeup_fd, -1)
                ending.callback(self._notifier.stopping)
                ending.callback(self._core.stop)
        log.info("stopped", daemon="lightd")

    def _stop(self, *_: Any) -> None:
        self._stopping = True

    def _turn(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select(self._core.next_tick_s()):
            if key.data == 0:
                self._welcome(selector)
            elif key.data is not None and not self._serve(key.data):
                selector.unregister(self._clients[key.data])
                self._asked.discard(key.data)
                self._clients.pop(key.data).close()
            self._core.tick()
        self._core.tick()
        self._hardware.mark_alive()
        self._notifier.alive()
        # Whoever reads our log may be slow; with UV on we do not wait for anyone.
        if self._log_later and not self._core.status()["pulse"]:
            for event, fields in self._log_later:
                log.info(event, **fields)
            self._log_later.clear()

    def _note(self, event: str, **fields: Any) -> None:
        self._log_later.append((event, fields))

    def _welcome(self, selector: selectors.BaseSelector) -> None:
        link = self._listener.accept(_THERE_S)
        if link is None:
            return
        self._unasked.add(link.peer_uid(), link)
        self._clients[self._next_client] = link
        selector.register(link, selectors.EVENT_READ, self._next_client)
        self._next_client += 1

    def _serve(self, client: int) -> bool:
        """Answer one message of `client`; False when it has to go, its lights are off then."""
        link = self._clients[client]
        if client not in self._asked:
            self._unasked.has_asked(link)
        try:
            request, fds = link.receive(_THERE_S)
            close_all(fds)
            if len(self._asked) < _MAX_CLIENTS:
                self._asked.add(client)
            link.send(self._answer(client, request), timeout=0.0)
        except LinkError:
            self._core.release(client)
            return False
        return client in self._asked

    def _answer(self, client: int, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if client not in self._asked:
                raise LightRefused("full", _FULL)
            if request.get("v") != PROTOCOL:
                raise LightRefused("bad_request", f"This daemon speaks version {PROTOCOL} of its protocol.")
            return {"v": PROTOCOL, "ok": True, **self._do(client, request)}
        except StampError as error:
            code, sentence, retry = "bad_request", f"The request is not understood. {error}", None
        except (KeyError, TypeError, ValueError, OverflowError):
            # What these say may quote the request.
            code, sentence, retry = "bad_request", "The request is not understood.", None
        except LightRefused as refused:
            code, sentence, retry = refused.code, str(refused), refused.retry_s
            if code not in ("too_soon", "busy"):
                self._note("refused", code=code)
        return {"v": PROTOCOL, "ok": False, "code": code, "sentence": sentence, "retry_s": retry}

    def _do(self, client: int, request: dict[str, Any]) -> dict[str, Any]:
        what = request.get("do")
        if what == "lease":
            uv = request.get("uv")
            self._core.lease(
                client,
                text_of(request, "session"),
                ConsentStamp.from_dict(request.get("consent")),
                None if uv is None else UvAllowance.from_dict(uv),
            )
        elif what == "on":
            at = self._core.on(client, text_of(request, "light"), float(request["level"]))
            return {"at_ns": round(at * 1e9)}
        elif what == "pulse":
            light, seconds = text_of(request, "light"), float(request["seconds"])
            at = self._core.pulse(client, light, seconds)
            self._note("pulse", light=light, seconds=seconds)
            return {"at_ns": round(at * 1e9)}
        elif what == "off":
            self._core.off(client)
        elif what == "beat":
            self._core.beat(client)
        elif what == "release":
            self._core.release(client)
        elif what == "clear":
            self._refuse_if_not_staff(client, "clears a fault")
            staff = text_of(request, "staff")
            self._core.clear(client, staff)
            self._note("light_check", staff=staff)
        elif what == "new_lamp":
            self._refuse_if_not_staff(client, "says that a lamp is new")
            light, staff = text_of(request, "light"), text_of(request, "staff")
            measure = self._core.new_lamp(light, staff)
            self._note("new_lamp", light=light, staff=staff, hours=self._hours.hours().get(light, 0.0))
            self._hours.renew(light)
            # Nothing is lit, so the loop may wait: a power cut after the answer does not forget the lamp.
            written = self._hours.written(_WRITTEN_S)
            if not written:
                self._note("new_lamp_not_written", light=light)
            return {"measure": measure, "written": written}
        elif what == "status":
            return {
                **self._core.status(),
                **self._core.interlocks(),
                "has_uv": self._has_uv,
                "sensors": readings(self._hardware.senses),
                "uv_seen": self._hardware.senses.uv_seen(),
                "lamp_hours": self._hours.hours(),
                "lamp_renewals": self._hours.renewals(),
            }
        else:
            raise LightRefused("bad_request", f"{what!r} is not something this daemon does.")
        return {}

    def _refuse_if_not_staff(self, client: int, does: str) -> None:
        # The capture daemon may ask for light; for this it takes the light daemon's own user.
        if self._clients[client].peer_uid() != os.getuid():
            raise LightRefused("not_staff", f"Only staff, as the light daemon's own user, {does}.")

    def _close(self) -> None:
        """Close everything, whatever another raises; the pins' lock is the last to go."""
        with contextlib.ExitStack() as closing:
            closing.callback(os.close, self._owner)
            for each in (self._ledger, self._hardware, self._hours, self._listener, self._notifier):
                closing.callback(each.close)
            for link in self._clients.values():
                closing.callback(link.close)


def _own(path: Path) -> int:
    """A lock that makes this process the pins' only owner, for as long as it lives."""
    fd = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise LightDaemonError(
            f"Another light daemon already owns the pins ({path}): stop it first."
        ) from error
    return fd
