"""Link: JSON messages, with file descriptors beside them, over a Unix socket of this machine."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hardware.host import peers as host
from hardware.host.errors import PlainError
from hardware.host.patience import so_long
from hardware.host.sockets import check_folder

MAX_MESSAGE = 64 * 1024
_MAX_FDS = 4
SEND_S = 5.0
# For a socket, 0 would mean another kind of waiting.
_LEAST_S = 0.001
# Until a process of ours has closed what it can close, and another connection can be taken.
_NO_ROOM_S = 0.01
# A daemon that listens accepts at once.
_PROBE_S = 1.0


class LinkError(PlainError):
    """The other side cannot be reached, went away, or said something that is not a message."""


class LinkClosed(LinkError):
    """The other side hung up."""


class LinkTimeout(LinkError):
    """No message came before the deadline."""


class Link:
    """One connection. SOCK_SEQPACKET keeps message borders, so a message arrives whole or not at all."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    @classmethod
    def connect(cls, path: Path, timeout: float, servers: Collection[int] | None = None) -> Link:
        """A Link to the daemon that listens at `path`, a process of `servers` (own user or root).

        Raises LinkTimeout or LinkError.
        """
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connected.settimeout(timeout)
        try:
            connected.connect(str(path))
            host.refuse_strangers(connected, servers or {os.geteuid(), 0}, path)
        except host.StrangeServer as error:
            connected.close()
            raise LinkError(f"It is not our daemon: {error}.") from error
        except TimeoutError as error:
            connected.close()
            raise LinkTimeout(f"Nothing answered at {path} within {so_long(timeout)}.") from error
        except BlockingIOError as error:  # the kernel lets nobody wait for a place among these
            connected.close()
            raise LinkError(f"Too many others wait at {path} just now.") from error
        except OSError as error:
            connected.close()
            raise LinkError(f"Nothing answers at {path}: {error.strerror or error}.") from error
        return cls(connected)

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def hang_up(self) -> None:
        """End the line, from any thread: whoever waits for a message here gets LinkClosed."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = (), timeout: float = SEND_S) -> None:
        """Send `message`; the other side gets its own copies of `fds`. Raises LinkError."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MAX_MESSAGE:
            raise LinkError(f"A message of {len(data)} bytes is over the bound of {MAX_MESSAGE}.")
        self._socket.settimeout(timeout)
        try:
            socket.send_fds(self._socket, [data], list(fds))
        except (TimeoutError, BlockingIOError) as error:  # the second where nothing is waited for
            raise LinkTimeout(f"The other side took no message within {so_long(timeout)}.") from error
        except OSError as error:
            raise LinkClosed(f"The other side hung up: {error.strerror or error}.") from error

    def receive(self, timeout: float) -> tuple[dict[str, Any], list[int]]:
        """The next message with the file descriptors that came along, which the caller closes.

        Raises LinkTimeout, LinkClosed or LinkError.
        """
        self._socket.settimeout(max(timeout, _LEAST_S))
        try:
            data, fds, flags, _ = socket.recv_fds(
                self._socket, MAX_MESSAGE + 1, _MAX_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except TimeoutError as error:
            raise LinkTimeout(f"There was no answer within {so_long(timeout)}.") from error
        except OSError as error:
            raise LinkClosed(f"The other side hung up: {error.strerror or error}.") from error
        try:
            if not data:
                raise LinkClosed("The other side hung up.")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise LinkError("A message came over the bound and was cut off.")
            message = json.loads(data)
            if not isinstance(message, dict):
                raise LinkError("A message came that is no JSON object.")
        except (ValueError, RecursionError) as error:
            close_all(fds)
            raise LinkError("A message came that is no JSON.") from error
        except LinkError:
            close_all(fds)
            raise
        return message, list(fds)

    def peer_gone(self) -> bool:
        """Whether the other side has hung up; costs nothing and takes nothing off the line."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | getattr(select, "POLLRDHUP", 0))
        for _, events in poller.poll(0):
            if events & (select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)):
                return True
        return False

    def peer_uid(self) -> int:
        """The user id of the process at the other side, by the kernel's word."""
        return host.peer_uid(self._socket)


class Listener:
    """The daemon's end: a socket at `path` that only our own user and `peers` (user ids) may talk to."""

    def __init__(self, path: Path, peers: Collection[int] = ()) -> None:
        check_folder(path.parent, "--state")
        self.path = path
        self._allowed = {os.getuid(), *peers}
        _remove_stale(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        old = os.umask(0o177 if not peers else 0o111)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(old)
        self._socket.listen(16)

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self, timeout: float) -> Link | None:
        """The next permitted peer, or None when nobody came in time or a stranger was turned away."""
        self._socket.settimeout(max(timeout, _LEAST_S))
        try:
            connected, _ = self._socket.accept()
        except TimeoutError:
            return None
        except OSError as error:
            if error.errno in (errno.ECONNABORTED, errno.EMFILE, errno.ENFILE):
                time.sleep(_NO_ROOM_S)
                return None
            raise
        link = Link(connected)
        if link.peer_uid() not in self._allowed:
            link.close()
            return None
        return link

    def close(self) -> None:
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def close_all(fds: Sequence[int]) -> None:
    """Close file descriptors that came with a message nobody wants."""
    for fd in fds:
        os.close(fd)


def _remove_stale(path: Path) -> None:
    """Remove the socket a dead daemon left at `path`; raise LinkError if a live one answers there."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    probe.settimeout(_PROBE_S)
    try:
        with contextlib.suppress(BlockingIOError):  # too many others wait for a live one
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink()
    else:
        raise LinkError(f"Another daemon already serves {path}: stop it first.")
    finally:
        probe.close()
