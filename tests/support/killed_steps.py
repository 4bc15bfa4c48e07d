"""Work that is killed before one of its steps on the disk."""

from __future__ import annotations

import os
import pathlib
import signal
import traceback
from collections.abc import Callable


def killed_before_step(number: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process that is killed before its nth step on the disk; False if it had fewer."""
    child = os.fork()
    if child == 0:
        taken = 0

        def counted(act: Callable[..., object]) -> Callable[..., object]:
            def step(*arguments: object, **named: object) -> object:
                nonlocal taken
                taken += 1
                if taken == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return act(*arguments, **named)

            return step

        for name in ("fsync", "link", "replace", "unlink", "fchmod"):
            setattr(os, name, counted(getattr(os, name)))
        pathlib.Path.unlink = counted(pathlib.Path.unlink)  # type: ignore[method-assign,assignment]
        try:
            work()
        except BaseException:  # noqa: BLE001  whatever it is, this process is not to go on as a test run
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -signal.SIGKILL), "the work itself failed"
    return ended == -signal.SIGKILL
