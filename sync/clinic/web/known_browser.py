"""A browser that staff have signed in from: its signed cookie says which accounts, with an id of its own."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from flask import current_app, request
from itsdangerous import BadData, URLSafeSerializer
from werkzeug.wrappers import Response

LASTS_S = 180 * 24 * 3600
MOST_NAMES = 20


@dataclass(frozen=True)
class KnownBrowser:
    """The newest of `names` last. The cookie signs nobody in; it only counts wrong passwords by itself."""

    id: str
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls) -> KnownBrowser:
        """The browser of this request; a new one where it brings no cookie of ours."""
        try:
            known, names = _serializer().loads(request.cookies.get(_cookie(), ""))
            return cls(str(known), tuple(map(str, names)))
        except (BadData, ValueError, TypeError):
            return cls(secrets.token_urlsafe(16))

    def knows(self, name: str) -> KnownBrowser:
        """The same browser, after `name` has signed in."""
        others = tuple(known for known in self.names if known != name)
        return replace(self, names=(*others, name)[-MOST_NAMES:])

    def write(self, answer: Response) -> None:
        """Give the cookie along with `answer`."""
        answer.set_cookie(
            _cookie(),
            str(_serializer().dumps([self.id, list(self.names)])),
            max_age=LASTS_S,
            secure=current_app.config["SESSION_COOKIE_SECURE"],
            httponly=True,
            samesite="Strict",
        )


def _serializer() -> URLSafeSerializer:
    return URLSafeSerializer(current_app.config["SECRET_KEY"], salt="known-browser")


def _cookie() -> str:
    return f"{current_app.config['SESSION_COOKIE_NAME']}-browser"
