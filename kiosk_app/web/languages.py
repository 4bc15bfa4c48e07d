"""The languages of the kiosk's pages, each with its own name for itself."""

from __future__ import annotations

from pathlib import Path

from flask import g, request

from hardware.host.errors import PlainError

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
    """The language that the patient chose, else that of the browser."""
    session = g.get("session")
    if session is not None:
        return known(session.language)
    return known(g.get("language") or request.accept_languages.best_match(LANGUAGES))


class WordsMissing(PlainError):
    """A language that patients may choose has no words here."""

    exit_status = 2


def require_words(folder: Path) -> None:
    """Raises WordsMissing where one of LANGUAGES has no compiled catalogue in `folder`.

    Its patients would read consent, and what protects their eyes, in another language.
    """
    for code in LANGUAGES:
        if code != DEFAULT and not (folder / code / "LC_MESSAGES" / "messages.mo").is_file():
            raise WordsMissing(
                f"The kiosk has no words in {LANGUAGES[code][0]}: run 'make setup' in a checkout, or"
                f" 'pybabel compile -d {folder}', or install a wheel that was built after it."
            )
