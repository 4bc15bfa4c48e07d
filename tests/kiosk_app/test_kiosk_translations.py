"""Translations: every sentence of the kiosk is there in each language, and none that it no longer says."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir, extract_from_file
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po

from kiosk_app.patient.journey import CONSENT_TEXT
from kiosk_app.web.languages import DEFAULT, LANGUAGES, WordsMissing, require_words

ROOM = Path(__file__).parents[2] / "kiosk_app"
MARKERS = {"_": None, "gettext": None, "lazy_gettext": None, "ngettext": (1, 2)}
FILES = [("**.py", "python"), ("patient/templates/**.html", "jinja2.ext.babel_extract")]

# The text that a patient has agreed to, by its name in the records, and the SHA-256 of its words.
CONSENT = ("2026-11-30", "4a6cb3a3bca9146e83fe5d9fb9d3746131223c4e761fa1e68e2114a555aa274b")


def key(sentence: str | tuple[str, ...] | list[str]) -> str:
    return sentence if isinstance(sentence, str) else sentence[0]


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {DEFAULT}))
def test_what_the_kiosk_says_and_what_is_translated_are_the_same(language: str) -> None:
    said = {key(found[2]) for found in extract_from_dir(ROOM, FILES, {}, MARKERS)}
    with (ROOM / "patient" / "translations" / language / "LC_MESSAGES" / "messages.po").open("rb") as file:
        known = [message for message in read_po(file) if message.id]
    assert {key(message.id) for message in known} == said
    assert [message.id for message in known if message.fuzzy or not message.string] == []


def test_other_words_of_the_consent_are_another_text() -> None:
    """Or nobody could tell what somebody agreed to. Raise CONSENT_TEXT, then write both down in CONSENT."""
    page = ROOM / "patient" / "templates" / "consent.html"
    words = [key(found[1]) for found in extract_from_file("jinja2.ext.babel_extract", page, MARKERS)]
    texts = [words]
    for translation in sorted(ROOM.glob("patient/translations/*/LC_MESSAGES/messages.po")):
        with translation.open("rb") as file:
            known = read_po(file)
        texts.append([str(known[sentence].string) for sentence in words])
    assert len(words) == 8
    assert (CONSENT_TEXT, hashlib.sha256(json.dumps(texts).encode()).hexdigest()) == CONSENT


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {DEFAULT}))
def test_what_the_pages_read_is_what_the_translators_wrote(language: str) -> None:
    folder = ROOM / "patient" / "translations" / language / "LC_MESSAGES"
    with (folder / "messages.po").open("rb") as written, (folder / "messages.mo").open("rb") as compiled:
        sentences = [
            {key(message.id): [*message.string] for message in read(file) if message.id}
            for read, file in ((read_po, written), (read_mo, compiled))
        ]
    assert sentences[0] == sentences[1], (
        f"messages.mo of '{language}' is older than messages.po: "
        "run '.venv/bin/pybabel compile -d kiosk_app/patient/translations', or make setup."
    )


def test_a_kiosk_without_the_words_of_a_language_is_not_served(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOM / "patient" / "translations", tmp_path / "translations")
    require_words(folder)
    (folder / "ar" / "LC_MESSAGES" / "messages.mo").unlink()
    with pytest.raises(WordsMissing, match=r"no words in العربية: run 'make setup'") as refused:
        require_words(folder)
    assert refused.value.exit_status == 2
