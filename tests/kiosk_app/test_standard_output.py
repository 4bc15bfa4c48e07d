"""What a command does whose standard output takes nothing: it says so in one line, whichever it is."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.board import BOARDS
from kiosk_app.cli import main
from kiosk_app.demo.supervisor import dermakiosk
from sync.clinic.people.accounts import Accounts
from sync.clinic.store.database import Database
from sync.clinic.store.tables import Account
from tests.support.waiting import wait_until

BOARD = BOARDS / "simulated.toml"


def in_a_shell(arguments: list[object], behind: str, folder: Path) -> tuple[int, str]:
    """The exit status and stderr of a command of which a shell has the standard output."""
    command = f"{shlex.join(dermakiosk(*arguments))} {behind}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
    )
    return done.returncode, done.stderr


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    Database.at(tmp_path / "clinic").migrate()
    return tmp_path / "clinic"


COMMANDS: list[list[object]] = [
    ["board", "check", BOARD],
    ["models", "list", "--json"],
    ["clinic", "status", "--json", "-", "--state", "clinic"],
    ["clinic", "status", "--state", "clinic"],
    ["clinic", "quarantine", "list", "--state", "clinic"],
    ["clinic", "--help"],
]


@pytest.mark.parametrize(
    ("behind", "code", "why"),
    [
        (">/dev/full", 1, "No space left on device"),
        ("| true", 1, "Broken pipe"),
        (">&-", 2, "which is closed"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(map(str, words[:3])))
def test_standard_output_that_takes_nothing_is_said_in_one_line(
    clinic: Path, command: list[object], behind: str, code: int, why: str
) -> None:
    status, said = in_a_shell(command, behind, clinic.parent)
    assert (status, said.count("\n")) == (code, 1), said
    assert "tandard output" in said
    assert why in said


@pytest.mark.parametrize("behind", [">/dev/full", "| true", ">&-"])
def test_no_account_is_made_whose_password_nobody_could_read(clinic: Path, behind: str) -> None:
    command: list[object] = ["clinic", "add-account", "ann", "--state", clinic]
    status, said = in_a_shell(command, behind, clinic)
    assert status != 0, said
    assert said.count("\n") == 1
    assert behind == ">&-" or "No account 'ann' was made: Standard output cannot be written" in said
    done = subprocess.run(dermakiosk(*command), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    password = done.stdout.splitlines()[1].removeprefix("password=")
    accounts = Accounts(Database.existing(clinic))
    assert accounts.who(accounts.sign_in("ann", password, "127.0.0.1")) == "ann"


@pytest.mark.parametrize(
    "arguments", [["clinic", "status", "--state", "x"], ["board", "check", "--json", "x"]]
)
def test_a_folder_that_is_gone_is_named_as_the_cause(
    tmp_path: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "argv", ["dermakiosk", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert (
        "The folder that this command runs in is gone: change to one that is there" in capsys.readouterr().err
    )


@pytest.mark.parametrize("stopped_by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_account_goes_again_whose_password_was_not_taken_before_the_command_is_stopped(
    clinic: Path, stopped_by: signal.Signals
) -> None:
    database = Database.existing(clinic)

    def is_there() -> bool:
        with database.reading() as session:
            return session.get(Account, "ann") is not None

    taken, full = os.pipe()
    os.set_blocking(full, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(full, b" ")
    os.set_blocking(full, True)
    command = subprocess.Popen(dermakiosk("clinic", "add-account", "ann", "--state", clinic), stdout=full)
    os.close(full)
    wait_until(is_there, "the account in the database")
    command.send_signal(stopped_by)
    assert command.wait(60) == 130
    assert not is_there()
    with os.fdopen(taken, "rb") as rest:
        assert rest.read().strip() == b""
    database.close()
