"""Signing in to the clinic's pages."""

from __future__ import annotations

import re

from flask.testing import FlaskClient
from werkzeug.test import TestResponse


def token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]


def sign_in(site: FlaskClient, name: str, password: str, **fields: str) -> TestResponse:
    fields |= {"name": name, "password": password, "csrf_token": token(site.get("/login").text)}
    return site.post("/login", data=fields)
