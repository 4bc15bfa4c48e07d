"""Frames on a local stream socket: a length, then CBOR, all of it before a deadline."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import cbor2

MAX_FRAME = 512 * 1024
_LENGTH = struct.Struct("!I")


class FrameError(OSError):
    """The other side said something that is no frame."""


def send_frame(connection: socket.socket, content: dict[str, Any], deadline: float) -> None:
    """Send one frame; raises OSError (TimeoutError past `deadline`, on the monotonic clock)."""
    body = cbor2.dumps(content)
    if len(body) > MAX_FRAME:
        raise FrameError(f"A frame of {len(body)} bytes is larger than {MAX_FRAME}.")
    connection.settimeout(_left(deadline))
    connection.sendall(_LENGTH.pack(len(body)) + body)


def receive_frame(connection: socket.socket, deadline: float) -> dict[str, Any]:
    """The next frame; raises OSError (TimeoutError past `deadline`, on the monotonic clock)."""
    (length,) = _LENGTH.unpack(_receive(connection, _LENGTH.size, deadline))
    if length > MAX_FRAME:
        raise FrameError(f"A frame of {length} bytes is larger than {MAX_FRAME}.")
    try:
        content = cbor2.loads(_receive(connection, length, deadline))
    except (cbor2.CBORError, ValueError, TypeError, ArithmeticError) as error:
        # The last two of what a tag makes of another kind of value, or of numbers without bound.
        raise FrameError("A frame does not hold CBOR.") from error
    if not isinstance(content, dict):
        raise FrameError("A frame does not hold a map.")
    return content


def _receive(connection: socket.socket, length: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < length:
        connection.settimeout(_left(deadline))
        part = connection.recv(min(length - len(received), 65536))
        if not part:
            raise FrameError("The other side hung up in the middle of a frame.")
        received += part
    return bytes(received)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("The deadline has passed.")
    return left
