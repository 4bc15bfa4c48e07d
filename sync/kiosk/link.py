"""The link: one MQTT 5 connection to the clinic's broker, from dialling to its end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sync.wire import topics
from sync.wire.bounds import MAX_PACKET_BYTES

SESSION_EXPIRY_S = 7 * 24 * 3600
RECEIVE_MAXIMUM = 20
WINDOW = 100
KEEPALIVE_S = 30
DIAL_S = 10.0
WILL_DELAY_S = 60


@dataclass(frozen=True)
class Received:
    """One message from the broker; it is sent again after a reconnection unless it is acknowledged."""

    topic: str
    payload: bytes
    acknowledge: Callable[[], object]


class Events(Protocol):
    """What happens on a link. All of it is called from the thread that `post` leads to."""

    def connected(self, link: BrokerLink) -> None: ...
    def lost(self, link: BrokerLink, reason: str) -> None: ...
    def published(self, link: BrokerLink, number: int, reason_code: int) -> None: ...
    def received(self, link: BrokerLink, message: Received) -> None: ...


class _Client(mqtt.Client):
    """An MQTT client that tells when its own thread has ended, of whatever."""

    on_thread_end: Callable[[], None]

    def _thread_main(self) -> None:
        try:
            super()._thread_main()
        finally:
            self.on_thread_end()


class BrokerLink:
    """A connection that is made once, never again: after `lost` it is of no more use.

    The network has its own threads; they hand each event to `post`, which must lead it to the owner's thread.
    """

    def __init__(
        self,
        kiosk: UUID,
        address: tuple[str, int],
        context: ssl.SSLContext,
        last_will: bytes,
        events: Events,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._address = address
        self._events = events
        self._post = post
        self._filter = topics.all_down(kiosk)
        self._over = threading.Event()
        self._ended = threading.Event()
        self._last: Any = None
        client: Any = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=str(kiosk),
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._client = client
        client.tls_set_context(context)
        client.max_inflight_messages_set(WINDOW)
        client.connect_timeout = DIAL_S
        will = _properties(
            PacketTypes.WILLMESSAGE, WillDelayInterval=WILL_DELAY_S, ContentType=topics.CONTENT_TYPE
        )
        client.will_set(topics.up(kiosk, "status"), last_will, qos=1, retain=True, properties=will)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_thread_end = self._on_thread_end
        threading.Thread(target=self._dial, name="mqtt-dial", daemon=True).start()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Hand a message over at QoS 1; the number that `published` names, or None if the link is down."""
        properties = _properties(PacketTypes.PUBLISH, ContentType=topics.CONTENT_TYPE)
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        self._last = info
        return int(info.mid) if info.rc == mqtt.MQTT_ERR_SUCCESS else None

    def close(self, seconds: float) -> None:
        """Have the last message taken, say goodbye, so that the broker drops the last will.

        Waits no longer than `seconds` for each; no event comes after.
        """
        self._over.set()
        if self._last is not None:
            # It was never queued, or the connection is gone: there is nothing to wait for.
            with contextlib.suppress(RuntimeError, ValueError):
                self._last.wait_for_publish(seconds)
        if self._client.disconnect() == mqtt.MQTT_ERR_SUCCESS:
            self._ended.wait(seconds)

    def drop(self) -> None:
        """End a connection that was lost or does not answer; no event comes after."""
        self._over.set()
        # The client and this object hold each other by these; its sockets close when nothing holds it.
        for callback in ("on_connect", "on_disconnect", "on_subscribe", "on_publish", "on_message"):
            setattr(self._client, callback, None)
        self._client.on_thread_end = _nothing
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _dial(self) -> None:
        properties = _properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=SESSION_EXPIRY_S,
            ReceiveMaximum=RECEIVE_MAXIMUM,
            MaximumPacketSize=MAX_PACKET_BYTES,
        )
        host, port = self._address
        try:
            self._client.connect(host, port, keepalive=KEEPALIVE_S, clean_start=False, properties=properties)
        except OSError as error:
            self._tell(partial(self._events.lost, self, f"{type(error).__name__}: {error}"))
            return
        if self._over.is_set():
            self._client.disconnect()
        else:
            self._client.loop_start()

    def _on_connect(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self._tell(partial(self._events.lost, self, str(code)))
        else:
            client.subscribe(self._filter, qos=1)

    def _on_subscribe(self, client: Any, data: Any, number: int, codes: list[Any], properties: Any) -> None:
        if any(code.is_failure for code in codes):
            self._tell(partial(self._events.lost, self, f"the subscription was refused: {codes[0]}"))
        else:
            self._tell(partial(self._events.connected, self))

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self._ended.set()
        self._tell(partial(self._events.lost, self, str(code)))

    def _on_thread_end(self) -> None:
        # Of a connection that was lost or ended it has been said before.
        self._ended.set()
        self._tell(partial(self._events.lost, self, "the connection's own thread has ended"))

    def _on_publish(self, client: Any, data: Any, number: int, code: Any, properties: Any) -> None:
        self._tell(partial(self._events.published, self, number, int(code.value)))

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        acknowledge = partial(client.ack, message.mid, message.qos)
        received = Received(message.topic, bytes(message.payload), acknowledge)
        self._tell(partial(self._events.received, self, received))

    def _tell(self, event: Callable[[], None]) -> None:
        if not self._over.is_set():
            self._post(event)


def _nothing() -> None:
    pass


def _properties(packet: int, **values: object) -> Properties:
    """MQTT 5 properties of one kind of packet."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
