"""Files of other accounts: root gives them away; for anybody else the kernel's answers are made to say so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

SOMEBODY = 54_321  # a user id without an account
# Of os.stat_result, what a sequence of it begins with.
_UID, _GID, _FIRST = 4, 5, 10


def run_without_account(command: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as a user without an account, as containers do: the system knows no name and no home."""
    named = ("HOME", "LOGNAME", "USER")
    return subprocess.run(
        ["unshare", "--user", f"--map-user={SOMEBODY}", f"--map-group={SOMEBODY}", *command],
        env={name: value for name, value in os.environ.items() if name not in named},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def let_files_be_given_away(patch: pytest.MonkeyPatch) -> None:
    """Have chown, lchown and fchown work in this process, and stat, lstat and fstat say whose a file is."""
    if os.getuid() == 0:
        return
    given = dict[tuple[int, int], tuple[int, int]]()

    def told(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def instead(*where: Any, **how: Any) -> os.stat_result:
            facts = look(*where, **how)
            owner = given.get((facts.st_dev, facts.st_ino), (facts.st_uid, facts.st_gid))
            return os.stat_result((*facts[:_UID], *owner, *facts[_GID + 1 : _FIRST]), _named(facts))

        return instead

    def giving(look: Callable[..., os.stat_result]) -> Callable[..., None]:
        def instead(which: Any, uid: int, gid: int, **how: Any) -> None:
            facts = look(which, **how)
            given[facts.st_dev, facts.st_ino] = uid, gid

        return instead

    stat, lstat, fstat = os.stat, os.lstat, os.fstat
    for name, look in (("stat", stat), ("lstat", lstat), ("fstat", fstat)):
        patch.setattr(os, name, told(look))
    for name, look in (("chown", stat), ("lchown", lstat), ("fchown", fstat)):
        patch.setattr(os, name, giving(look))


def _named(facts: os.stat_result) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in dir(facts) if name.startswith("st_")}
