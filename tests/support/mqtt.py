"""An MQTT 5 client for tests that waits for each answer of the broker and returns it."""

from __future__ import annotations

import queue
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.mosquitto import Mosquitto, tls_context

WAIT_S = 60.0
# What paho sends before it waits for answers.
AT_A_TIME = 20


class MqttClient:
    """A connected client; its answers come back as numbers (reason codes) and its messages in order.

    `context` may be a folder with tls.key, tls.crt and ca.crt.
    """

    def __init__(
        self,
        broker: Mosquitto,
        context: ssl.SSLContext | Path,
        *,
        client_id: str = "",
        session_expiry: int = 0,
        clean_start: bool = True,
        will: str | None = None,
    ) -> None:
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self._answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        client = self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            protocol=mqtt.MQTTv5,
            client_id=client_id,
            reconnect_on_failure=False,
        )
        client.tls_set_context(tls_context(context) if isinstance(context, Path) else context)
        client.on_connect = lambda c, u, flags, code, p: self._answers.put(
            ("connect", (code.value, flags.session_present))
        )
        client.on_disconnect = lambda c, u, flags, code, p: self._answers.put(("disconnect", code.value))
        client.on_publish = lambda c, u, mid, code, p: self._answers.put(("publish", code.value))
        client.on_subscribe = lambda c, u, mid, codes, p: self._answers.put(("subscribe", codes[0].value))
        client.on_unsubscribe = lambda c, u, mid, codes, p: self._answers.put(("unsubscribe", mid))
        client.on_message = lambda c, u, message: self.messages.put(message)
        if will:
            client.will_set(will, b"gone", qos=1)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = session_expiry
        client.connect(broker.host, broker.port, clean_start=clean_start, properties=properties)
        client.loop_start()
        code, self.session_present = self._answer("connect")
        assert code == 0, f"the broker refused the connection with {code:#x}"

    @property
    def connected(self) -> bool:
        return bool(self._client.is_connected())

    @property
    def tls_version(self) -> str | None:
        sock = self._client.socket()
        return sock.version() if isinstance(sock, ssl.SSLSocket) else None

    def publish(self, topic: str, payload: bytes = b"x", retain: bool = False) -> int:
        """The reason code of the PUBACK."""
        self._client.publish(topic, payload, qos=1, retain=retain)
        return int(self._answer("publish"))

    def publish_all(self, topic: str, payloads: Sequence[bytes]) -> set[int]:
        """Publish many, some at a time; the reason codes of their PUBACKs."""
        codes = set()
        for start in range(0, len(payloads), AT_A_TIME):
            some = payloads[start : start + AT_A_TIME]
            for payload in some:
                self._client.publish(topic, payload, qos=1)
            codes |= {int(self._answer("publish")) for _ in some}
        return codes

    def subscribe(self, topic: str) -> int:
        """The reason code of the SUBACK."""
        self._client.subscribe(topic, qos=1)
        return int(self._answer("subscribe"))

    def message(self) -> tuple[str, bytes]:
        """Topic and payload of the next message."""
        received = self.messages.get(timeout=WAIT_S)
        return received.topic, bytes(received.payload)

    def hears_nothing(self) -> bool:
        """Whether no message has come that was on its way before now.

        The broker sends what it has for this client before it answers one question more. What could have
        been a message has to be acknowledged to its sender before.
        """
        self._client.unsubscribe("what/nobody/has/subscribed/to")
        self._answer("unsubscribe")
        return self.messages.empty()

    def wait_until_disconnected(self) -> None:
        self._answer("disconnect")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def drop(self) -> None:
        """Lose the connection without a word, as a kiosk does that loses power."""
        sock = self._client.socket()
        assert isinstance(sock, ssl.SSLSocket)
        sock.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def _answer(self, kind: str) -> Any:
        deadline = time.monotonic() + WAIT_S
        while True:
            name, value = self._answers.get(timeout=max(0.01, deadline - time.monotonic()))
            if name == kind:
                return value
            if name == "disconnect":
                raise ConnectionError(f"the broker closed the connection with {value}")


@contextmanager
def connected(broker: Mosquitto, context: ssl.SSLContext | Path, **options: Any) -> Iterator[MqttClient]:
    client = MqttClient(broker, context, **options)
    try:
        yield client
    finally:
        client.close()
