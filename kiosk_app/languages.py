"""The languages of the kiosk's pages, each with its own name for itself."""

from __future__ import annotations

from flask import g, request

# code -> (name in the language itself, direction of writing, a greeting for the first page)
LANGUAGES: dict[str, tuple[str, str, str]] = {
    "en": ("English", "ltr", "Welcome"),
    "de": ("Deutsch", "ltr", "Willkommen"),
    "es": ("Español", "ltr", "Le damos la bienvenida"),
    "ar": ("العربية", "rtl", "أهلًا بكم"),
}
DEFAULT = "en"


def known(code: str | None) -> str:
    """`code` where the kiosk speaks it, else the default."""
    return code if code in LANGUAGES else DEFAULT


def current_language() -> str:
    """The language of the session, else of the browser."""
    session = g.get("session")
    if session is not None:
        return known(session.language)
    return known(request.accept_languages.best_match(LANGUAGES))
