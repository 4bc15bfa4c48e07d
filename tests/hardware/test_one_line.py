"""Whatever a file or an argument is called, what is said of it is one line that steers no terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.host.one_line import one_line


@given(st.text(st.characters(codec=None), max_size=2_000))
def test_what_is_said_is_one_line_without_a_letter_that_steers_a_terminal(said: str) -> None:
    shown = one_line(said)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("bad\nline.png", r"bad\nline.png"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("gnp.\u202eexe", r"gnp.\u202eexe"),
        ("half \udcff of a name", r"half \udcff of a name"),
        ("Überblick, 45.5 ± 0.3° · المسح", "Überblick, 45.5 ± 0.3° · المسح"),
    ],
)
def test_a_letter_that_is_not_shown_is_spelled_out_and_every_other_stays(said: str, shown: str) -> None:
    assert one_line(said) == shown


def test_a_name_of_any_length_leaves_the_sentence_around_it_to_be_read() -> None:
    said = one_line(f"{'a' * 100_000} does not exist: name a picture.")
    assert len(said) < 400
    assert said.endswith(" does not exist: name a picture.")
