"""The clinic's way to the broker: MQTT 5 over TLS 1.3 with a role's own certificate."""

from __future__ import annotations

import fcntl
import json
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import paho.mqtt.client as mqtt
import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import BaseModel, ConfigDict, Field

from sync.clinic.store.database import now
from sync.clinic.store.errors import ClinicUsageError
from sync.wire.regular_file import read_regular_file
from sync.wire.tls import TlsRefused, client_context

KEEPALIVE_S = 30
RECONNECT_S = (1, 30)
# The client's own thread turns once a second while it is connected.
TURN_S = 30.0
_ENDED = (
    "no broker lets it in any more: make the role again with 'dermakiosk provision role' and start this "
    "process anew, or set this computer's clock"
)

log = structlog.get_logger()


class Address(BaseModel):
    """Where the broker is, as `broker.json` says it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    # The group of the ingest workers. A secret of theirs: mosquitto lets anybody join a group, and what a
    # stranger in it may not read is lost to the group.
    share: str = Field(min_length=1, pattern=r"^[^/+#]+$", repr=False)

    @classmethod
    def read(cls, role: Path) -> Address:
        """The address in the `broker.json` beside the role's folder."""
        path = role.resolve().parent / "broker.json"
        try:
            return cls.model_validate(json.loads(read_regular_file(path)))
        except OSError as error:
            raise ClinicUsageError(
                f"{path} cannot be read ({error.strerror}): "
                f"'dermakiosk provision role … --out {role}' writes it."
            ) from error
        except ValueError as error:
            raise ClinicUsageError(
                f"{path} does not say the broker's host, port and share: make the role again."
            ) from error


class Client(mqtt.Client):
    """An MQTT client that knows whether its own thread is there, and when that has last turned."""

    _turned_at = 0.0
    _thread_died = False
    # When the role's certificate ends. Brokers end a connection over it without a word of why.
    ends_at: datetime | None = None

    def reconnect(self) -> MQTTErrorCode:
        """Dial. What is in the way is told here: paho's own callbacks do not get it."""
        if self.ends_at is not None and self.ends_at <= now():
            log.error("certificate_ended", at=self.ends_at.isoformat(timespec="seconds"), why=_ENDED)
        try:
            return super().reconnect()
        except OSError as error:
            log.warning("broker_unreachable", reason=f"{type(error).__name__}: {error}")
            raise

    def _thread_main(self) -> None:
        try:
            super()._thread_main()
        finally:
            self._thread_died = True

    def loop_misc(self) -> MQTTErrorCode:
        self._turned_at = time.monotonic()
        return super().loop_misc()

    def carries(self) -> bool:
        """False once the thread has died of anything, or hangs; one that dials carries."""
        if self._thread_died:
            return False
        return not self.is_connected() or time.monotonic() - self._turned_at < TURN_S


@dataclass(frozen=True)
class Role:
    """A folder with tls.key, tls.crt and ca.crt; the certificate's name is the client's id."""

    folder: Path

    @property
    def name(self) -> str:
        """The client id, from the certificate."""
        return self._certificate()[0]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one here with this role: for each connection of another's the broker ends ours.

        Raises ClinicUsageError.
        """
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(handle, self.folder)
            yield
        finally:
            os.close(handle)

    def tls(self) -> ssl.SSLContext:
        """TLS 1.3 that believes the clinic's authority only."""
        try:
            return client_context(self.folder)
        except TlsRefused as error:
            raise ClinicUsageError(
                f"{error} Make the role again: 'dermakiosk provision role … --out {self.folder}'."
            ) from error

    def client(self, *, manual_ack: bool = False) -> Client:
        """An MQTT 5 client of this role that reconnects by itself; not connected yet."""
        name, ends_at = self._certificate()
        client = Client(CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5, manual_ack=manual_ack)
        client.tls_set_context(self.tls())
        client.reconnect_delay_set(*RECONNECT_S)
        client.ends_at = ends_at
        return client

    def _certificate(self) -> tuple[str, datetime]:
        """Whom the certificate names, and when it ends."""
        try:
            certificate = x509.load_pem_x509_certificate(read_regular_file(self.folder / "tls.crt"))
            (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        except (OSError, ValueError) as error:
            raise ClinicUsageError(
                f"{self.folder / 'tls.crt'} is not there or names nobody: make it with "
                f"'dermakiosk provision role … --out {self.folder}'."
            ) from error
        return str(attribute.value), certificate.not_valid_after_utc


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ClinicUsageError(
            f"Another process is at work with the keys in {folder}, and a broker serves one at a time: end "
            "it, or give this one a state folder with a role of its own ('dermakiosk provision role')."
        ) from error
    except OSError:
        return  # a disk that knows no locks


def connect(client: mqtt.Client, address: Address, *, receive_maximum: int, session_expiry_s: int) -> None:
    """Start the client's own thread, which connects now or as soon as the broker is there.

    With a session expiry of 0 the session is new each time; otherwise it is taken up again.
    """
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = receive_maximum
    properties.SessionExpiryInterval = session_expiry_s
    client.connect_async(
        address.host,
        address.port,
        keepalive=KEEPALIVE_S,
        clean_start=session_expiry_s == 0,
        properties=properties,
    )
    client.loop_start()


def leave(client: mqtt.Client, *, ends_session: bool) -> None:
    """Disconnect; the broker keeps the session for as long as was said at the start, or ends it now."""
    properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
    if ends_session:
        properties.SessionExpiryInterval = 0
    client.disconnect(properties=properties)
