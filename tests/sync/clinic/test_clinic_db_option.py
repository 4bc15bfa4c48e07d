"""What is wrong with --db is told in one sentence, which quotes no piece of it: there is a password in it."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from kiosk_app.cli import main
from tests.support.clinic_commands import made
from tests.support.own_log import own_log

SECRET = "hush4711"
HERE = "127.0.0.1:1/clinic"
# By what is wrong, with the words of the sentence that tells it.
WRONG = {
    f"postgresql://ann:{SECRET}@x@{HERE}": "more than one @",
    f"postgresql://ann:x@{SECRET}/y@{HERE}": "more than one @",
    f"postgresql://ann:x@y/{SECRET}@{HERE}": "more than one @",
    f"postgresql://ann:x/{SECRET}@{HERE}": "nothing listens there",
    f"postgresql://ann:x#{SECRET}?y@{HERE}": "nothing listens there",
    f"postgresql://ann:{SECRET}/{HERE}": "not a database URL",
    f"postgresql://ann:x@127.0.0.1:{SECRET}/clinic": "not a database URL",
    f"postgresql://ann:x@127.0.0.1:{SECRET}:1/clinic": "not a database URL",
    f"ann:{SECRET}@{HERE}": "not a database URL",
    f"{SECRET}": "not a database URL",
    f"postgresql://ann:x@{SECRET}.invalid/clinic": "nobody knows its host",
    f"postgresql://ann:x@{SECRET}..b/clinic": "no host",
    f"postgresql://ann:x@{SECRET * 10}/clinic": "no host",
    f"postgresql://ann:x\udc80{SECRET}@{HERE}": "no text",
    f"postgresql://ann:x@127.0.0.1:99{SECRET[-4:]}/clinic": "does not take the port",
    f"postgresql://ann:x@{HERE}?sslmode={SECRET}": "an option that --db gives",
    f"postgresql://ann@{HERE}?password=x&sslmode={SECRET}": "an option that --db gives",
    f"postgresql://ann@{HERE}?password={SECRET}&password=x": "nothing listens there",
    f"postgresql://ann:x@{HERE}?{SECRET}=x": "has an option",
    f"postgresql://ann:x@{HERE}?prepare_threshold={SECRET}": "has an option",
    f"postgresql://ann:x@{HERE}?cursor_factory={SECRET}": "has an option",
    f"postgresql+{SECRET}://ann:x@{HERE}": "another database or driver",
    f"{SECRET}://ann:x@{HERE}": "another database or driver",
    f"postgresql+asyncpg://ann:{SECRET}@{HERE}": "another database or driver",
    f"postgres://ann:{SECRET}@{HERE}": "another database or driver",
    f"sqlite+{SECRET}:////tmp/clinic.sqlite": "another database or driver",
    f"sqlite+pysqlcipher://:{SECRET}@/tmp/clinic.sqlite": "another database or driver",
    f"sqlite://ann:{SECRET}@host/clinic.sqlite": "no file for SQLite",
    "sqlite://": "no file for SQLite",
    f"sqlite:///{{state}}/clinic.sqlite?timeout={SECRET}": "has an option",
    f"sqlite:///{{state}}/clinic.sqlite?factory={SECRET}": "has an option",
    f"sqlite:///{{state}}/clinic.sqlite?plugin={SECRET}": "has an option",
    f"sqlite:///ann:{SECRET}@host/clinic": "no file for SQLite",
    f"postgresql://ann:x@{HERE}?plugin={SECRET}": "has an option",
    f"postgresql://ann:x@127.0.0.1/clinic?port={SECRET}": "an option",
}
NAMES_FORMS = ("not a database URL", "another database or driver", "no file for SQLite", "more than one @")


def said(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[object, str]:
    """The exit status of a command, and all that it says."""
    with own_log(), pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["dermakiosk", *command])
        main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made(tmp_path / "clinic")
    return tmp_path / "clinic"


@pytest.mark.parametrize("command", ["status", "migrate"])
@pytest.mark.parametrize("url", WRONG)
def test_what_is_wrong_with_a_database_url_is_told_without_a_piece_of_it(
    state: Path, url: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("clinic", command, "--state", str(state), "--db", url.format(state=state))
    code, words = said(capsys, *where)
    assert code in (1, 2), words
    assert re.fullmatch(r"Error: [^\n]*\.\n", words) and "not foreseen" not in words, words
    assert WRONG[url] in words
    assert SECRET not in words and SECRET[-4:] not in words
    if WRONG[url] in NAMES_FORMS:
        assert "sqlite:////path/clinic.sqlite or postgresql://user:password@host/name" in words
        assert code == 2
    # Whoever asks for more gets the places in the code, and no more of the URL.
    code, more = said(capsys, "--debug", *where)
    assert "Traceback" in more and SECRET not in more and SECRET[-4:] not in more, more


@pytest.mark.parametrize("password", ["a", "e", "hush", "127.0.0.1", "database"])
def test_the_sentence_is_the_same_whatever_the_password(
    state: Path, password: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Letters masked because they are the password's would tell what it is."""
    command = ("clinic", "status", "--state", str(state), "--db")
    assert said(capsys, *command, f"postgresql://ann:{password}@{HERE}") == said(
        capsys, *command, f"postgresql://ann@{HERE}"
    )


def test_postgresql_tells_apart_who_and_what_it_does_not_know(
    state: Path, postgresql_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = make_url(postgresql_url)
    for url, words in (
        (known.set(database=SECRET), "none of that name"),
        (known.set(username=SECRET), "does not let this user in"),
        (known.update_query_dict({"options": f"-c{SECRET}"}), "an option that --db gives"),
        (known.update_query_dict({"port": "99"}), "nothing listens there"),
    ):
        shown = url.render_as_string(hide_password=False)
        code, sentence = said(capsys, "clinic", "status", "--state", str(state), "--db", shown)
        assert (code, words in sentence, SECRET in sentence) == (1, True, False), sentence


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made_by:
        made_by.bind(str(path))


NO_FILE: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": a_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("what", NO_FILE)
@pytest.mark.parametrize("by_url", [False, True])
def test_a_database_that_is_no_file_is_told_for_what_it_is(
    tmp_path: Path, what: str, by_url: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, command in made(tmp_path / "clinic").items():
        path = tmp_path / "clinic" / "clinic.sqlite"
        if by_url:
            path = tmp_path / "other"
            command = (*command, "--db", f"sqlite:///{path}")
        else:
            path.unlink(missing_ok=True)
        if not path.exists():
            NO_FILE[what](path)
        code, words = said(capsys, "clinic", *command)
        assert code == 2, f"{name}: {words}"
        assert re.fullmatch(
            f"Error: {path} is a [^\n]*{what[2:]}[^\n]* is a file: [^\n]*--db[^\n]*\\.\n", words
        ), words
        if not by_url:
            path.rmdir() if what == "a folder" else path.unlink()


def test_a_text_that_is_no_database_is_told_for_one_and_left_as_it_is(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("Monday: call the plumber.\n" * 100)
    before = text.read_bytes()
    for command in ("status", "migrate"):
        code, words = said(capsys, "clinic", command, "--state", str(state), "--db", f"sqlite:///{text}")
        assert code == 1
        assert "no database of SQLite" in words and "have --db name the right file" in words
    assert text.read_bytes() == before
