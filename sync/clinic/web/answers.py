"""What staff may send at any moment: no page of the clinic decides anything yet, a new one says so first."""

from __future__ import annotations

from flask import Flask

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
# An address that takes forms, and why the second tap of two on it harms nobody.
HARMLESS = {
    "/login": "It decides nothing: it asks who is there.",
    "/logout": "Nothing is unfinished on these pages, and one can sign in again.",
}


class UnguardedAnswer(RuntimeError):
    """An address changes something, and the second tap of two could do it unread."""


def refuse_unguarded(app: Flask) -> None:
    """Raise UnguardedAnswer for an address that takes forms and is not known to be harmless.

    A page that decides has to count its answers from when it could be read, as the kiosk's pages do.
    """
    for rule in app.url_map.iter_rules():
        if set(rule.methods or ()) - SAFE_METHODS and rule.rule not in HARMLESS:
            raise UnguardedAnswer(
                f"{rule.rule} takes an answer at once: let it wait until its page could be read,"
                " or write into HARMLESS why it need not."
            )
