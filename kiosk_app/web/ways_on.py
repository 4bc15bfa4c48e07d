"""Ways on: what a page's script sends is answered with where to go: a failure leaves the page there."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

from flask import Blueprint, current_app, redirect, request, url_for
from werkzeug.wrappers import Response

HEADER = "X-Way-On"  # a request with it is of static/reach.js
MOST = 8  # pages kept, the newest; one browser at a time has a patient before it

blueprint = Blueprint("ways_on", __name__)


class WaysOn:
    """Pages that an answer came to, which no address of its own shows: each until MOST others have come."""

    def __init__(self) -> None:
        self._pages: OrderedDict[str, Response] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, page: Response) -> str:
        """Keep what a page says; the name by which `page` gives it back."""
        name = secrets.token_urlsafe()
        with self._lock:
            self._pages[name] = Response(page.get_data(), page.status_code, mimetype=page.mimetype)
            while len(self._pages) > MOST:
                self._pages.popitem(last=False)
        return name

    def page(self, name: str) -> Response | None:
        with self._lock:
            return self._pages.get(name)


def _ways_on() -> WaysOn:
    ways_on: WaysOn = current_app.extensions["ways_on"]
    return ways_on


def tell_the_way(response: Response) -> Response:
    """After each request: to what a script sent, the address of the page that a browser would be shown."""
    if HEADER not in request.headers or request.method != "POST":
        return response
    address = response.headers.pop("Location", None)
    if address is None:
        address = url_for("ways_on.show", name=_ways_on().keep(response))
    response.status_code = 200
    response.mimetype = "application/json"
    response.set_data(current_app.json.dumps({"next": address}))
    return response


@blueprint.get("/answer/<name>")
def show(name: str) -> Response:
    """The page that an answer came to, while it is known."""
    page = _ways_on().page(name)
    if page is None:
        return redirect(url_for("pages.start"), 303)
    return Response(page.get_data(), page.status_code, mimetype=page.mimetype)
