"""The way of a patient through the kiosk's pages, by the primary buttons."""

from __future__ import annotations

WAY = (
    "language",
    "about",
    "consent",
    "light_questions",
    "position",
    "scan",
    "eyes",  # closed for the last picture only
    "scan",
    "result",
    "done",
)
