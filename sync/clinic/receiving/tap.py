"""The tap: an auditor's client that writes down every payload that crosses the broker."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import structlog

from sync.clinic.receiving.broker import Address, Role, connect
from sync.clinic.store.durable import require_writable
from sync.clinic.store.notify import Notifier

EVERYTHING = "clinic/#"
TICK_S = 0.25

log = structlog.get_logger()


class Tap:
    """One file for each payload, `<n>-<topic with dots>.cose`, in the order in which they came."""

    def __init__(self, role: Path, address: Address, out: Path) -> None:
        self._out = out
        self._address = address
        self._arrivals: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
        self._client = Role(role).client()
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: log.info("ready")
        self._client.on_message = lambda _, __, message: self._arrivals.put(message)

    def run(self, stop: threading.Event) -> None:
        """Write until `stop` is set; numbers go on where an earlier tap of this folder ended."""
        require_writable(self._out, "--out")
        numbers = (path.name.split("-")[0] for path in self._out.glob("*.cose"))
        number = max((int(text) for text in numbers if text.isdigit()), default=0)
        connect(self._client, self._address, receive_maximum=100, session_expiry_s=0)
        notifier = Notifier()
        notifier.ready()
        try:
            while not stop.is_set():
                if self._client.carries():
                    notifier.alive()
                try:
                    message = self._arrivals.get(timeout=TICK_S)
                except queue.Empty:
                    continue
                number += 1
                name = f"{number:04d}-{message.topic.replace('/', '.')}.cose"
                (self._out / name).write_bytes(message.payload)
            notifier.stopping()
        finally:
            self._client.disconnect()
            self._client.loop_stop()
            notifier.close()
            log.info("stopped", payloads=number)

    def _on_connect(self, client: mqtt.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            log.error("broker_refused", reason=str(reason))
            return
        log.info("connected")
        client.subscribe(EVERYTHING, qos=1)
