"""Whose the broker is: the user who makes it, whatever the environment says, account or not."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kiosk_app.demo.supervisor import dermakiosk
from provisioning import broker
from provisioning.authority import Authority
from provisioning.broker import BrokerRefused
from provisioning.cli import provision
from tests.support.mosquitto import Mosquitto, free_port, running_broker
from tests.support.mqtt import connected
from tests.support.other_accounts import SOMEBODY, let_files_be_given_away, run_without_account


def test_a_broker_starts_for_root_who_came_by_su(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    with running_broker(tmp_path / "the 1st system, 100 % ours") as broker:
        folder = tmp_path / "kiosk"
        kiosk = broker.enrol(folder)
        with connected(broker, broker.ingest) as ingest, connected(broker, folder / "sync") as client:
            ingest.subscribe("clinic/v1/+/up/result")
            assert client.publish(f"clinic/v1/{kiosk}/up/result", b"sealed") == 0


def test_root_makes_no_broker_without_saying_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ["--state", str(tmp_path / "authority")]
    Authority.create(tmp_path / "authority", "Clinic")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = CliRunner().invoke(provision, ["broker", *state, "--out", str(tmp_path / "broker")])
    assert isinstance(made.exception, BrokerRefused)
    assert "--user mosquitto" in str(made.exception)
    assert not (tmp_path / "broker").exists()


@pytest.fixture
def account() -> pwd.struct_passwd:
    """Anybody's own; where root runs the tests, Debian's account for mosquitto."""
    return pwd.getpwnam("mosquitto") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def test_a_broker_runs_as_the_account_that_it_was_made_for(account: pwd.struct_passwd) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        authority = Authority.create(folder / "authority", "Clinic")
        for _ in range(2):  # the second time with a store of its own
            configuration = authority.make_broker(folder / "broker", port, user=account.pw_name)
            with Mosquitto(configuration, port) as broker:  # which stores at its end
                status = Path(f"/proc/{broker.pid}/status").read_text()
                assert f"Uid:\t{account.pw_uid}\t{account.pw_uid}" in status
            made = set((folder / "broker").rglob("*")) - {broker.log}
            assert folder / "broker" / "data" / "mosquitto.db" in made
            assert {path.stat().st_uid for path in made} == {account.pw_uid}


def test_a_broker_starts_in_a_folder_whose_name_the_locale_cannot_write(account: pwd.struct_passwd) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        Authority.create(folder / "authority", "Clinic")
        out, command = folder / "Praxis Müller", ("provision", "broker", "--state", folder / "authority")
        made = subprocess.run(
            dermakiosk(*command, "--out", out, "--port", port, "--user", account.pw_name),
            env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        with Mosquitto(out / "mosquitto.conf", port):
            assert f"cafile {out}/ca.crt".encode() in (out / "mosquitto.conf").read_bytes()


@pytest.mark.parametrize("name", ["two\nlines", "a\ttab", "no letter \udcff"])
def test_a_broker_is_not_made_where_mosquitto_could_not_be_told_of(tmp_path: Path, name: str) -> None:
    authority = Authority.create(tmp_path / "authority", "Clinic")
    with pytest.raises(BrokerRefused, match="choose a folder without"):
        authority.make_broker(tmp_path / name / "broker", free_port())
    assert not (tmp_path / name).exists()


def test_a_broker_is_not_made_for_whom_it_could_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.create(tmp_path / "authority", "Clinic")
    out, port = tmp_path / "closed" / "broker", free_port()
    with pytest.raises(BrokerRefused, match="There is no account 'nobody-here'"):
        authority.make_broker(out, port, user="nobody-here")
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    with pytest.raises(BrokerRefused, match="Only root"):
        authority.make_broker(out, port, user="mosquitto")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for made in (False, True):
        if made:
            out.parent.mkdir(mode=0o700)
        with pytest.raises(BrokerRefused, match="'mosquitto' may not enter it"):
            authority.make_broker(out, port, user="mosquitto")
    assert not out.exists()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What root gives away, by name, where it makes brokers for the account `m`."""
    names: list[str] = []
    account = pwd.struct_passwd(("m", "x", SOMEBODY, SOMEBODY, "", "/", ""))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(broker, "_account", lambda _user: account)
    monkeypatch.setattr(
        os, "fchown", lambda handle, *_ids: names.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
    )
    return names


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that any account may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_nothing_is_given_away_with_a_broker_that_is_not_its_own(place: Path, given: list[str]) -> None:
    authority = Authority.create(place / "authority", "Clinic")
    out = place / "broker"
    authority.make_broker(out, free_port(), user="m")
    (out / "foreign").touch()
    given.clear()
    authority.make_broker(out, free_port(), user="m")
    assert {path.name for path in out.iterdir()} - {_asked_for(name) for name in given} == {"foreign"}
    (place / "home").mkdir()
    (place / "home" / "foreign").touch()
    with pytest.raises(BrokerRefused, match="holds something else than a broker"):
        authority.make_broker(place / "home", free_port(), user="m")


def _asked_for(name: str) -> str:
    """A file is given away before it has its name: ".acl.x7f_" is to be "acl"."""
    return name[1:].rpartition(".")[0] if name.startswith(".") else name


def test_of_what_a_broker_has_stored_its_own_files_are_given_and_nothing_that_was_linked_there(
    place: Path, given: list[str]
) -> None:
    authority = Authority.create(place / "authority", "Clinic")
    data = place / "broker" / "data"
    authority.make_broker(data.parent, free_port(), user="m")
    (place / "secret").touch()
    (data / "mosquitto.db").touch()
    (data / "link").symlink_to(place / "secret")
    (data / "other name").hardlink_to(place / "secret")
    (data / "folder").mkdir()
    os.mkfifo(data / "pipe")
    given.clear()
    authority.make_broker(data.parent, free_port(), user="m")
    assert {"mosquitto.db", "data", "broker"} <= set(given)
    assert not set(given) & {"secret", "link", "other name", "folder", "pipe"}


@pytest.mark.parametrize("to", ["folder", "nothing"])
def test_a_link_in_the_place_of_the_brokers_store_is_not_followed(
    place: Path, given: list[str], to: str
) -> None:
    authority = Authority.create(place / "authority", "Clinic")
    data = place / "broker" / "data"
    authority.make_broker(data.parent, free_port(), user="m")
    (place / "folder").mkdir()
    (place / "folder" / "secret").touch()
    data.rename(data.with_name("x"))
    data.symlink_to(place / to)
    given.clear()
    with pytest.raises(BrokerRefused, match="is a link or a file"):
        authority.make_broker(data.parent, free_port(), user="m")
    assert given == []


def test_a_link_in_the_place_of_the_brokers_configuration_is_not_read(place: Path, given: list[str]) -> None:
    authority = Authority.create(place / "authority", "Clinic")
    authority.make_broker(place / "broker", free_port(), user="m")
    (place / "home").mkdir()
    (place / "home" / "mosquitto.conf").symlink_to(place / "broker" / "mosquitto.conf")
    given.clear()
    with pytest.raises(BrokerRefused, match="holds something else than a broker"):
        authority.make_broker(place / "home", free_port(), user="m")
    assert given == []


@pytest.mark.parametrize(
    ("mode", "made", "safe"),
    [
        (0o755, False, True),
        (0o777, True, False),
        (0o1777, False, False),  # whoever comes first makes what has this name
        (0o1777, True, True),
    ],
)
def test_a_broker_is_not_given_to_an_account_that_could_put_another_folder_in_its_place(
    place: Path, given: list[str], mode: int, made: bool, safe: bool
) -> None:
    authority = Authority.create(place / "authority", "Clinic")
    out = place / "parent" / "broker"
    out.parent.mkdir()
    if made:
        out.mkdir()
    out.parent.chmod(mode)
    if safe:
        authority.make_broker(out, free_port(), user="m")
        assert given
        return
    with pytest.raises(BrokerRefused, match=f"'m' may write to {out.parent}, and so"):
        authority.make_broker(out, free_port(), user="m")
    assert given == []


def test_a_broker_is_not_given_by_a_link_that_the_account_could_have_made(
    place: Path, given: list[str]
) -> None:
    authority = Authority.create(place / "authority", "Clinic")
    link = place / "parent" / "broker"
    link.parent.mkdir()
    link.parent.chmod(0o777)
    (place / "empty").mkdir()
    link.symlink_to(place / "empty")
    with pytest.raises(BrokerRefused, match=f"'m' may write to {link.parent}, and so"):
        authority.make_broker(link, free_port(), user="m")
    assert given == [] == list((place / "empty").iterdir())


def test_a_broker_is_not_given_to_the_account_whose_folder_it_would_be_in(
    place: Path, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_files_be_given_away(monkeypatch)
    authority = Authority.create(place / "authority", "Clinic")
    os.chown(place, SOMEBODY, SOMEBODY)
    with pytest.raises(BrokerRefused, match=f"'m' may write to {place}, and so"):
        authority.make_broker(place / "broker", free_port(), user="m")
    assert given == []


def test_a_broker_may_have_a_disk_of_its_own(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "Clinic")
    (tmp_path / "broker" / "lost+found").mkdir(parents=True)
    assert authority.make_broker(tmp_path / "broker", free_port()).is_file()


def test_a_broker_starts_for_a_user_without_an_account(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.support.mosquitto import running_broker\n"
        "with running_broker(Path(sys.argv[1])):\n"
        "    print(os.geteuid())\n"
    )
    done = run_without_account([sys.executable, "-c", code, str(tmp_path / "system")])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(SOMEBODY)]
