"""The look that both ends' pages share: one folder of files, which each application gives out itself."""

from __future__ import annotations

from flask import Blueprint

LOOK = Blueprint("look", __name__, static_folder="shared", static_url_path="/static/shared")
# The endpoints whose answers a browser may keep: files that hold nothing of anybody.
FILES = ("static", f"{LOOK.name}.static")
