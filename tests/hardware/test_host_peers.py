"""Both ends of a local socket look at whose process the other one is."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from firmware.capture.client import CaptureClient, CaptureFault
from firmware.lights.client import Lights, LightsFault
from hardware.host.peers import servers_of
from sync.kiosk.client import OutboxClient, OutboxUnavailable

ANOTHER = os.geteuid() + 1


@contextmanager
def listening(path: Path, kind: int) -> Iterator[list[bytes]]:
    """Serve one caller at `path`, as a stranger would; has what it was told once the block has ended."""
    said: list[bytes] = []
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(30)

        def serve() -> None:
            connected, _ = listener.accept()
            with connected:
                said.append(connected.recv(65536))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield said
        thread.join(30)


def test_a_strange_outbox_is_given_no_envelope(tmp_path: Path) -> None:
    with listening(tmp_path / "s", socket.SOCK_STREAM) as said:
        outbox = OutboxClient(tmp_path / "s", server=ANOTHER)
        with pytest.raises(OutboxUnavailable, match="belongs to user"):
            outbox.submit(uuid4(), "result", b"sealed")
    assert said == [b""]


def test_a_strange_camera_is_told_nothing(tmp_path: Path) -> None:
    with listening(tmp_path / "s", socket.SOCK_SEQPACKET) as said:
        camera = CaptureClient(tmp_path / "s", server=ANOTHER)
        with pytest.raises(CaptureFault, match="belongs to user") as caught:
            camera.end("session")
    assert (said, caught.value.code) == ([b""], "unavailable")


def test_strange_lights_are_told_nothing(tmp_path: Path) -> None:
    with listening(tmp_path / "s", socket.SOCK_SEQPACKET) as said:
        lights = Lights(tmp_path / "s", server=ANOTHER)
        with pytest.raises(LightsFault, match="belongs to user"):
            lights.status()
    assert said == [b""]


def test_only_a_named_server_may_serve_where_one_is_named(tmp_path: Path) -> None:
    assert servers_of(tmp_path / "run" / "s", "light", 77) == {77}


def test_without_a_name_the_owner_of_the_services_state_may_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    assert servers_of(tmp_path / "run" / "s", "light") == {77, 0}
    (tmp_path / "light").mkdir()
    assert servers_of(tmp_path / "run" / "s", "light") == {77, 0, os.getuid()}
