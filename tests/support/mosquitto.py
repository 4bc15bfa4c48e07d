"""A real broker for tests: authority, roles, kiosks, and mosquitto on a free loopback port."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import hardware
from kiosk_app.demo.supervisor import free_port
from provisioning.authority import Authority
from provisioning.enrol import enrol
from tests.support.long_tests import for_long_tests

if TYPE_CHECKING:
    from typing_extensions import Self

BOARD = Path(hardware.__file__).parent / "boards" / "simulated.toml"
START_S = 60.0
STOP_S = 60.0


class Mosquitto:
    """A mosquitto process on a loopback port; `with` starts and stops it."""

    host = "127.0.0.1"

    def __init__(self, configuration: Path, port: int) -> None:
        self.configuration = configuration
        self.port = port
        self.log = configuration.with_name("log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    @for_long_tests("a broker")
    def start(self) -> None:
        """Start mosquitto, and return when it answers: before, a signal ends it as it ends any program."""
        assert self._process is None, "the broker is running already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/mosquitto", "-c", str(self.configuration)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"mosquitto did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop mosquitto cleanly: it writes its store. Nothing happens if it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill mosquitto with -9: it writes nothing."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop cleanly, then start on the same port with the same store."""
        self.stop()
        self.start()

    def save(self) -> None:
        """Tell mosquitto to write its store now."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGUSR1)

    def _answers(self) -> bool:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection((self.host, self.port), timeout=START_S) as plain:
                context.wrap_socket(plain).close()
        except OSError:
            return False
        return True

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
            raise


class Broker(Mosquitto):
    """A mosquitto with its authority, all below one folder laid out like a system's state.

    `folder/authority`, `folder/broker`, and `folder/clinic` with `broker.json`, `ingest/`, `auditor/` and
    `opener/`; kiosks are where `enrol` puts them. `address` is what `broker.json` holds: host, port, and the
    workers' share group.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create(folder / "authority", "Test clinic")
        port = free_port()
        super().__init__(self.authority.make_broker(folder / "broker", port), port)
        self.address = self.authority.broker
        self.ingest = self.role("ingest-1", folder / "clinic" / "ingest")
        self.auditor = self.role("auditor", folder / "clinic" / "auditor")
        self.opener = folder / "clinic" / "opener"
        self.authority.make_opener(self.opener)

    def role(self, name: str, out: Path) -> Path:
        """The folder `out` with tls.key, tls.crt and ca.crt (a worker: receipt.key) of the role `name`."""
        self.authority.make_role(name, out)
        return out

    def enrol(self, kiosk: Path, board: Path = BOARD) -> UUID:
        """Enrol a kiosk whose state is the folder `kiosk` (its TLS files are in `kiosk/sync`).

        What the clinic registers of it is `authority/kiosks/<id>.json`.
        """
        return UUID(enrol(self.authority, kiosk, board=board)["kiosk"])


def tls_context(folder: Path) -> ssl.SSLContext:
    """A client context of TLS 1.3 from a folder with tls.key, tls.crt and ca.crt (a role's, `KIOSK/sync`)."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


@for_long_tests("a broker")
@contextmanager
def running_broker(folder: Path) -> Iterator[Broker]:
    """A running broker in `folder`; it is gone when the block ends, its files stay."""
    with Broker(folder) as broker:
        yield broker
