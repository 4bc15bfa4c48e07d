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
# On a board with a close-up camera: the primary button marks no spot.
WAY_PAST_SPOTS = (*WAY[:-2], "spots", "scan", *WAY[-2:])
# Where no measure reads UV, as it is now, nobody is asked about it.
WAY_WITHOUT_UV = ("language", "about", "consent", "position", "scan", "spots", "scan", "result", "done")
