"""The web server of the clinic's pages."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog

from sync.clinic.app import make_app, secret_key
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.notify import Notifier
from sync.clinic.web.hosts import host_name
from sync.web.server import WebServer, make_web_server

THREADS = 4
# For pages that are being made when a stop comes.
LAST_PAGES_S, STOP_LOOK_S = 1.5, 0.5
# Longer than a lock is waited for: whoever waits for a page is told then that the database is away.
STATEMENT_S = 30
# Longer than a page waits for anything: a PostgreSQL that is gone without a word, a lock, a statement.
LONGEST_PAGE_S = 150.0

log = structlog.get_logger()


def serve_pages(
    database: Database,
    state: Path,
    host: str,
    port: int,
    *,
    behind_tls: bool,
    proxy: str = "127.0.0.1",
    stop: threading.Event,
    names: Sequence[str] = (),
) -> None:
    """Serve until `stop` is set. Names and passwords never cross a network in the clear.

    Behind TLS, `proxy` is the one address whose word about who asks (X-Forwarded-For) is believed. `names`
    are what people may call this server by, besides loopback and `host`.
    """
    for name in names:
        # A port or a scheme in it would make a name that no request ever has.
        if name.startswith("[") or host_name(f"[{name}]" if ":" in name else name) != name.lower():
            raise ClinicUsageError(
                f"--allow-host {name} is no host's name: give it without https://, path or port."
            )
    if behind_tls and not _is_address(proxy):
        raise ClinicUsageError(
            f"--trusted-proxy {proxy} is no IP address: give the one that the proxy connects from."
        )
    if not behind_tls and not _is_loopback(host):
        raise ClinicUsageError(
            f"{host} can be reached from outside, and these pages would cross the network in the clear: "
            "listen on 127.0.0.1 behind a TLS proxy, and say --behind-tls."
        )
    database.limit_statements(STATEMENT_S)
    app = make_app(database, secret_key(state), behind_tls=behind_tls, names=(host, *names))
    behind = (
        {"trusted_proxy": proxy, "trusted_proxy_headers": {"x-forwarded-for", "x-forwarded-proto"}}
        if behind_tls
        else {}
    )
    try:
        server = make_web_server(app, host, port, THREADS, in_turn=_is_sign_in, **behind)
    except OSError as error:
        raise ClinicUsageError(f"{host}:{port} cannot be listened on: {error.strerror}.") from error
    notifier = Notifier()
    notifier.ready()
    server.on_turn = lambda: _say_alive(notifier, server)
    thread = threading.Thread(target=server.run, name="pages", daemon=True)
    thread.start()
    log.info("ready", host=host, port=int(server.effective_port))
    while not stop.wait(STOP_LOOK_S):
        pass
    notifier.stopping()
    server.task_dispatcher.shutdown(cancel_pending=True, timeout=LAST_PAGES_S)
    server.close()
    notifier.close()
    log.info("stopped")


def _is_sign_in(method: str, path: str) -> bool:
    """Sign-ins wait for each other: who sends any number of them keeps no member of staff from a page."""
    return (method, path) == ("POST", "/login")


def _say_alive(notifier: Notifier, server: WebServer) -> None:
    """Tell the watchdog that the pages are served, unless one of them hangs."""
    if server.longest_service() < LONGEST_PAGE_S:
        notifier.alive()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
