"""The unit files: understood by systemd, hardened, and in step with the commands that they start."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from kiosk_app import screen_cli
from kiosk_app.cli import COMMANDS
from kiosk_app.kept import keyring, records_file
from kiosk_app.scanning import engine_check
from sync.kiosk import outbox_file

UNITS = Path(__file__).parents[2] / "provisioning" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
OURS = "/opt/dermakiosk/.venv/bin/dermakiosk"
# Exposure in tenths of systemd's own score; below 50 it says OK. A screen with a browser cannot be as tight.
BOUND = {"app": 15, "browser": 25, "capture": 10, "lightd": 10, "sync": 17}
# What a daemon may wait for, one after the other, before it says that it is ready: the application opens its
# keys and its records, asks the engine, then goes on with what was left.
WAITS_S = {
    "app": 2 * (keyring.LOCKED_S + records_file.LOCKED_S) + engine_check.DEADLINE_S,
    "sync": outbox_file.LOCKED_S,
}
# What each may reach: IPAddressDeny and IPAddressAllow, and the families of its sockets.
NETWORK = {
    "app": (["any"], ["localhost"], "AF_UNIX AF_INET"),
    "browser": (["any"], ["localhost"], "AF_UNIX AF_INET AF_NETLINK"),
    "capture": (["any"], [], "AF_UNIX AF_NETLINK"),
    "lightd": (["any"], [], "AF_UNIX"),
    "sync": ([], [], "AF_UNIX AF_INET AF_INET6"),
}
START_S = 90  # systemd's own patience, where a unit says nothing


def name(path: Path) -> str:
    return path.stem.removeprefix("dermakiosk-")


def owner(path: Path) -> str:
    """What its user and its state folder are called."""
    return {"lightd": "light"}.get(name(path), name(path))


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def settings(path: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE)


def test_there_is_one_unit_for_each_of_the_five_services() -> None:
    assert [name(path) for path in SERVICES] == list(BOUND)


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_systemd_finds_each_unit_no_more_exposed_than_its_bound(path) -> None:
    result = run("systemd-analyze", "security", "--offline=true", f"--threshold={BOUND[name(path)]}", path)
    assert result.returncode == 0, result.stdout[-400:] + result.stderr
    assert re.search(r"Overall exposure level .* (OK|SAFE|PERFECT)", result.stdout)


def test_a_unit_without_hardening_would_fail_that_test(tmp_path: Path) -> None:
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\nUser=nobody\n")
    assert run("systemd-analyze", "security", "--offline=true", "--threshold=49", bare).returncode != 0


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    copies = []
    for path in [*SERVICES, UNITS / "dermakiosk.target"]:
        copy = tmp_path / path.name
        text = path.read_text().replace(OURS, "/bin/true")
        copy.write_text(text)
        copies.append(copy)
    result = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *copies)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_each_command_has_the_options_that_its_unit_gives(path) -> None:
    words = shlex.split(settings(path, "ExecStart")[0].partition(" -- ")[0])
    assert words.pop(0) == OURS
    module, attribute, _ = COMMANDS[words.pop(0)]
    command = getattr(importlib.import_module(module), attribute)
    while words and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    given = {word for word in words if word.startswith("--")}
    assert given <= options
    assert settings(path, "User") == settings(path, "Group") == [f"dk-{owner(path)}"]


def test_each_client_is_told_whose_process_its_server_is() -> None:
    for client, option, server in (
        ("capture", "--light-user", "lightd"),
        ("app", "--capture-user", "capture"),
        ("app", "--outbox-user", "sync"),
    ):
        words = shlex.split(settings(UNITS / f"dermakiosk-{client}.service", "ExecStart")[0])
        named = words[words.index(option) + 1]
        assert [named] == settings(UNITS / f"dermakiosk-{server}.service", "User")


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_no_service_can_see_anothers_secrets(path) -> None:
    hidden = " ".join(settings(path, "InaccessiblePaths")).split()
    if name(path) == "browser":
        assert "-/var/lib/dermakiosk" in hidden
    else:
        others = {"app", "sync", "light"} - {owner(path)}
        assert {f"-/var/lib/dermakiosk/{folder}" for folder in others} == set(hidden)


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_only_the_sync_agent_has_a_way_out(path) -> None:
    denied, allowed, families = NETWORK[name(path)]
    assert settings(path, "IPAddressDeny") == denied
    assert settings(path, "IPAddressAllow") == allowed
    assert settings(path, "RestrictAddressFamilies") == [families]
    assert settings(path, "PrivateNetwork") == (["yes"] if "AF_INET" not in families else [])


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_keys_and_pictures_reach_neither_a_core_file_nor_a_swap(path) -> None:
    assert settings(path, "LimitCORE") == ["0"]
    assert settings(path, "MemorySwapMax") == ["0"]


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_every_daemon_is_watched_and_started_again(path) -> None:
    assert settings(path, "Type") == ["notify"]
    assert settings(path, "NotifyAccess") == ["main"]
    assert settings(path, "Restart") == ["always"]
    assert re.fullmatch(r"\d+s", settings(path, "WatchdogSec")[0])


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_systemd_waits_for_a_start_longer_than_all_that_the_start_waits_for(path) -> None:
    [minutes] = settings(path, "TimeoutStartSec") or [f"{START_S / 60}min"]
    assert float(minutes.removesuffix("min")) * 60 > WAITS_S.get(name(path), 0) * 1.25


def test_the_browser_is_watched_for_longer_than_its_watcher_looks() -> None:
    browser, app = (UNITS / f"dermakiosk-{unit}.service" for unit in ("browser", "app"))
    watchdog_s = int(settings(browser, "WatchdogSec")[0].removesuffix("s"))
    assert watchdog_s / 2 > screen_cli.LOOK_S + screen_cli.ASK_S
    watched, serving = (shlex.split(settings(unit, "ExecStart")[0]) for unit in (browser, app))
    assert watched[watched.index("--port") + 1] == serving[serving.index("--port") + 1]


def test_the_browser_finds_its_secret_in_a_file_and_not_on_a_command_line() -> None:
    app, browser = UNITS / "dermakiosk-app.service", UNITS / "dermakiosk-browser.service"
    words = shlex.split(settings(app, "ExecStart")[0])
    folder = words[words.index("--screen") + 1]
    assert shlex.split(settings(browser, "ExecStart")[0])[-1] == f"file://{folder}/start.html"
    assert folder in settings(app, "ReadWritePaths")[0].split()
    assert "dk-screen" in settings(browser, "SupplementaryGroups")[0].split()
    assert "dermakiosk-app.service" in settings(browser, "After")[0].split()


def test_the_light_daemon_is_watched_and_may_go_first() -> None:
    lightd = UNITS / "dermakiosk-lightd.service"
    assert settings(lightd, "Type") == ["notify"]
    assert settings(lightd, "WatchdogSec") == ["2s"]
    assert settings(lightd, "LimitRTPRIO") == ["20"]
    assert settings(lightd, "RestrictRealtime") == []


def as_root_of(folder: Path) -> list[str]:
    """What a command is begun with to make users and folders below `folder`.

    Only root gives folders away. For anybody else all users are one, who is root in a namespace: folders and
    modes come out as they do on a kiosk, and whose they are is told by what the tools then know of users.
    """
    if os.geteuid() == 0:
        return []
    named = re.findall(r"^[ug] (\S+)", (UNITS / "dermakiosk.sysusers.conf").read_text(), re.MULTILINE)
    (folder / "etc/passwd").write_text("".join(f"{name}:x:0:0::/:/bin/false\n" for name in ("root", *named)))
    (folder / "etc/group").write_text("".join(f"{name}:x:0:\n" for name in ("root", *named)))
    return ["unshare", "--user", "--map-root-user"]


def test_users_and_folders_come_out_as_the_units_need_them(tmp_path: Path) -> None:
    for folder in ("etc", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "run", "var/lib", "dev"):
        (tmp_path / folder).mkdir(parents=True)
    for kind in ("sysusers", "tmpfiles"):
        text = (UNITS / f"dermakiosk.{kind}.conf").read_text()
        (tmp_path / f"usr/lib/{kind}.d/dermakiosk.conf").write_text(text)
    secret = tmp_path / "var/lib/dermakiosk/app/vault.key"
    secret.parent.mkdir(parents=True)
    secret.write_text("secret")
    secret.chmod(0o600)
    begun = as_root_of(tmp_path)
    outside = {0: os.geteuid()} if begun else {}
    for tool in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        result = run(*begun, *tool, f"--root={tmp_path}")
        assert (result.returncode, "Failed" in result.stderr) == (0, False), result.stderr
    lines = (tmp_path / "etc/passwd").read_text().splitlines()
    users = {line.split(":")[0]: int(line.split(":")[2]) for line in lines}
    users = {user: outside.get(uid, uid) for user, uid in users.items()}
    groups = {
        line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/group").read_text().splitlines()
    }
    gids = {group: os.getegid() if begun else int(fields[2]) for group, fields in groups.items()}
    assert {settings(path, "User")[0] for path in SERVICES} <= set(users)
    wanted = {
        group for path in SERVICES for line in settings(path, "SupplementaryGroups") for group in line.split()
    }
    assert wanted <= set(groups)
    assert set(groups["dk-run"][3].split(",")) == {"dk-light", "dk-capture", "dk-sync"}
    state = tmp_path / "var/lib/dermakiosk"
    owners = {"light": "dk-light", "calibration": "dk-capture", "app": "dk-app", "sync": "dk-sync"}
    for folder, user in owners.items():
        found = (state / folder).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, users[user])
    assert (stat.S_IMODE(secret.stat().st_mode), secret.stat().st_uid) == (0o600, users["dk-app"])
    screen = (tmp_path / "run/dermakiosk-screen").stat()
    assert stat.S_IMODE(screen.st_mode) == 0o2750
    assert (screen.st_uid, screen.st_gid) == (users["dk-app"], gids["dk-screen"])
    assert groups["dk-screen"][3] == "dk-browser"
    sockets = (tmp_path / "run/dermakiosk").stat()
    assert stat.S_IMODE(sockets.st_mode) == 0o1771
    assert sockets.st_gid == gids["dk-run"]
    assert os.readlink(state / "run") == "/run/dermakiosk"
