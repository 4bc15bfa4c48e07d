"""The languages of the kiosk's pages, each with its own name for itself."""

from __future__ import annotations

# code -> (name in the language itself, direction of writing)
LANGUAGES: dict[str, tuple[str, str]] = {
    "en": ("English", "ltr"),
    "de": ("Deutsch", "ltr"),
    "es": ("Español", "ltr"),
    "ar": ("العربية", "rtl"),
}
DEFAULT = "en"


def known(code: str | None) -> str:
    """`code` where the kiosk speaks it, else the default."""
    return code if code in LANGUAGES else DEFAULT
