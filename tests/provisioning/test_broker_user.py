"""Whose the broker is: the user who makes it, whatever the environment says, account or not."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from provisioning import broker
from provisioning.authority import Authority
from provisioning.broker import BrokerRefused
from provisioning.cli import provision
from tests.support.mosquitto import Mosquitto, free_port, running_broker
from tests.support.mqtt import connected

SOMEBODY = 54_321  # a user id without an account


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


def test_a_broker_runs_as_the_account_that_it_was_made_for() -> None:
    """Anybody's own; where root runs the tests, Debian's account for mosquitto."""
    account = pwd.getpwnam("mosquitto") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        authority = Authority.create(folder / "authority", "Clinic")
        for _ in range(2):  # the second time with a store of its own
            configuration = authority.make_broker(folder / "broker", port, user=account.pw_name)
            with Mosquitto(configuration, port) as broker:
                broker.save()
                status = Path(f"/proc/{broker.pid}/status").read_text()
                assert f"Uid:\t{account.pw_uid}\t{account.pw_uid}" in status
            made = set((folder / "broker").rglob("*")) - {broker.log}
            assert folder / "broker" / "data" / "mosquitto.db" in made
            assert {path.stat().st_uid for path in made} == {account.pw_uid}


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


def test_nothing_is_given_away_with_a_broker_that_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Path] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(broker, "_account", lambda _user: pwd.struct_passwd(("m", "x", 99, 99, "", "/", "")))
    monkeypatch.setattr(broker, "_check_giving", lambda *_given: None)
    monkeypatch.setattr(os, "chown", lambda path, *_ids, **_follow: given.append(path))
    authority = Authority.create(tmp_path / "authority", "Clinic")
    out = tmp_path / "broker"
    authority.make_broker(out, free_port(), user="m")
    (out / "foreign").touch()
    given.clear()
    authority.make_broker(out, free_port(), user="m")
    assert {path.name for path in out.iterdir()} - {path.name for path in given} == {"foreign"}
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "foreign").touch()
    with pytest.raises(BrokerRefused, match="holds something else than a broker"):
        authority.make_broker(tmp_path / "home", free_port(), user="m")


def test_a_broker_starts_for_a_user_without_an_account(tmp_path: Path) -> None:
    command = ["unshare", "--user", f"--map-user={SOMEBODY}", f"--map-group={SOMEBODY}"]
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.support.mosquitto import running_broker\n"
        "with running_broker(Path(sys.argv[1])):\n"
        "    print(os.geteuid())\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "LOGNAME", "USER")
    }
    done = subprocess.run(
        [*command, sys.executable, "-c", code, str(tmp_path / "system")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(SOMEBODY)]
