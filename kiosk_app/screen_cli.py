"""The command `dermakiosk screen`: the kiosk's browser, watched by whether it shows a page."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Sequence

import click
import structlog

from hardware.host.errors import PlainError
from hardware.host.notify import Notifier
from hardware.host.stop import on_stop

log = structlog.get_logger()
# A page asks each 1.5 s; once a minute where the browser takes it for hidden, as behind a screen that is off.
SILENT_S = 90.0
LOOK_S, ASK_S = 5.0, 5.0


class BrowserEnded(PlainError):
    """The browser ended by itself."""


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Where the pages are served.",
)
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def screen(port: int, program: Sequence[str]) -> None:
    """Run PROGRAM, the kiosk's browser, and tell systemd that it is alive while it shows a page.

    The watchdog then starts a browser again that stands on an error page. While the application itself does
    not answer, the browser is not to blame.
    """
    notifier = Notifier()
    with subprocess.Popen(program) as browser:
        on_stop(browser.terminate)
        notifier.ready()
        since, told = time.monotonic(), False
        while browser.poll() is None:
            silent_s = min(time.monotonic() - since, _silent_s(port))
            if silent_s < SILENT_S:
                notifier.alive()
                told = False
            elif not told:
                log.error("no_page_shown", silent_s=round(silent_s))
                told = True
            _wait(browser)
    notifier.close()
    if browser.returncode > 0:
        raise BrowserEnded(f"The browser ended with status {browser.returncode}: its lines above say why.")


def _silent_s(port: int) -> float:
    """For how long no page has asked the application; 0 while that does not answer."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_S)
    try:
        asking.request("GET", "/healthz")
        return float(json.loads(asking.getresponse().read())["silent_s"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return 0.0
    finally:
        asking.close()


def _wait(browser: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        browser.wait(LOOK_S)
