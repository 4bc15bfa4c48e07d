"""Peers: whose process is at the other side of a Unix socket, by the kernel's word."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

_CREDENTIALS = struct.Struct("3i")
_ROOT = 0


class StrangeServer(OSError):
    """Another user's process serves where one of ours should."""


def peer_uid(connected: socket.socket) -> int:
    """The user id of the process at the other side."""
    said = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(said)[1]
    return uid


def servers_of(socket_path: Path, folder: str, named: int | None = None) -> frozenset[int]:
    """Who may serve at `socket_path`: the user `named`.

    Without a name it is root, our own user, or whoever owns `folder` of the state that the socket is in: on
    an installed kiosk each service owns its own, so staff's commands find it whoever they run as.
    """
    if named is not None:
        return frozenset({named})
    allowed = {os.geteuid(), _ROOT}
    try:
        allowed.add((socket_path.parent.parent / folder).stat().st_uid)
    except OSError:
        return frozenset(allowed)  # there is none yet, or it is not ours to see
    return frozenset(allowed)


def refuse_strangers(connected: socket.socket, allowed: Collection[int], path: Path) -> None:
    """Raise StrangeServer, before anything is said, unless a process of `allowed` serves at `path`."""
    uid = peer_uid(connected)
    if uid not in allowed:
        raise StrangeServer(
            f"what serves at {path} belongs to user {uid}, who is none of its servers: nothing was said to it"
        )


class User(click.ParamType):  # type: ignore[type-arg]  # older clicks, which we take, have no parameter
    """A user of this machine, by name or number: its number."""

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int) or value.isdecimal():
            return int(value)
        try:
            return pwd.getpwnam(value).pw_uid
        except KeyError:
            return self.fail(f"this machine has no user {value!r}.", param, ctx)


USER = User()
