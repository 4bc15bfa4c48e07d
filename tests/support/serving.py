"""A web application of this project behind the server that serves it, for as long as a test looks at it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sync.web.server import WebServer, make_web_server


@contextmanager
def running_server(app: Any, threads: int = 8, port: int = 0, **settings: Any) -> Iterator[WebServer]:
    """`app` at `port`, or at a free one; neither a thread nor a connection is left of it afterwards."""
    server = make_web_server(app, "127.0.0.1", port, threads, **settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.task_dispatcher.shutdown()
        for channel in list(server.active_channels.values()):
            channel.will_close = True
        server.close()
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def served(app: Any, threads: int = 8) -> Iterator[str]:
    """The address at which `app` is served, without a slash at its end."""
    with running_server(app, threads) as server:
        yield f"http://127.0.0.1:{server.effective_port}"
