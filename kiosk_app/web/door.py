"""The door: only the kiosk's own browser sees the pages, by a secret made at boot."""

from __future__ import annotations

import hashlib
import hmac
import html
import secrets
import stat
from pathlib import Path

from flask import Flask, Response, redirect, request
from werkzeug.exceptions import SecurityError

from hardware.host.durable import write_whole
from hardware.host.folders import make_folder
from hardware.host.own_file import PRIVATE
from hardware.host.regular_file import read_regular_text

OPEN = ("/healthz", "/static/")
_ENTER = "/enter/"
_START = """<!doctype html>
<meta charset="utf-8">
<title>dermakiosk</title>
<meta http-equiv="refresh" content="0; url={address}">
"""


class Stranger(Exception):
    """Somebody asks who did not come in through the door."""


class Door:
    """The secret that the kiosk's browser and its application share; `folder` is where the browser finds it.

    It is made when there is none: `folder` is in memory, so that is once a boot. It never stands in a command
    line, which every user of the machine may read, nor in a log: the browser opens `start.html` of `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder)
        # On an installed kiosk the folder gives its files to the group that the browser's user is in.
        self._mode = 0o640 if folder.stat().st_mode & stat.S_ISGID else PRIVATE
        key = folder / "key"
        known = read_regular_text(key).strip() if key.exists() else ""
        if len(known) < 32:
            known = secrets.token_urlsafe(32)
            write_whole(key, known + "\n", self._mode)
        self._secret = known
        # By a name of its own: another kiosk of this machine (cookies know no ports) keeps its cookie.
        self._cookie = f"dk_door_{hashlib.sha256(known.encode()).hexdigest()[:8]}"

    def address(self, port: int) -> str:
        """The address by which a browser comes in. It holds the secret."""
        return f"http://127.0.0.1:{port}{_ENTER}{self._secret}/"

    def write_start(self, port: int) -> Path:
        """Write the page that the kiosk's browser opens first; it leads to the pages on `port`."""
        start = self.folder / "start.html"
        write_whole(start, _START.format(address=html.escape(self.address(port))), self._mode)
        return start

    def guard(self, app: Flask) -> None:
        """From now on `app` answers those only who came in through the door; else it handles a Stranger."""
        app.before_request_funcs.setdefault(None, []).insert(0, self._check)

    def _check(self) -> Response | None:
        # Under a name that is not ours no address can be made, so no page either, not even the stranger's.
        if isinstance(request.routing_exception, SecurityError):
            raise request.routing_exception
        if request.path.startswith(_ENTER):
            given, _, path = request.path.removeprefix(_ENTER).partition("/")
            if hmac.compare_digest(given.encode(), self._secret.encode()):
                answer = redirect("/" + path.lstrip("/"), 307)
                # Lax: the start page is a file, and what a file leads to counts as coming from elsewhere.
                answer.set_cookie(self._cookie, self._secret, httponly=True, samesite="Lax")
                return answer  # type: ignore[return-value]
        if request.path.startswith(OPEN):
            return None
        if hmac.compare_digest(request.cookies.get(self._cookie, "").encode(), self._secret.encode()):
            return None
        raise Stranger
