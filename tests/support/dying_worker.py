"""A worker that is killed at random, and the gateway that it speaks to, which counts what it is asked for.

    python -m tests.support.dying_worker STATE URL GATEWAY SEED DIES [many]

does jobs of the kind "send" until it is killed: with the chance DIES it kills itself with -9 right after the
gateway took a message, before any row says so. What it has leased says whose it is (`is_of`), so that nobody
has to wait for the lease to end.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path
from uuid import UUID

from hardware.host.stop import on_stop
from sync.clinic.store.database import Database
from sync.clinic.work import jobs
from sync.clinic.work.jobs import Leased
from sync.clinic.work.machines import MachinesWorker
from sync.clinic.work.worker import Worker

KIND = "send"
PID_BITS = 64
LEASE = timedelta(minutes=1)


def is_of(lease: UUID, pid: int) -> bool:
    """Whether it is a lease of the worker that is, or was, this process."""
    return lease.int >> PID_BITS == pid


class Gateway:
    """What stands for a gateway: each call is a line, with the key that travelled with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._open()) as db:
            db.execute("CREATE TABLE IF NOT EXISTS calls (key TEXT NOT NULL, text TEXT NOT NULL)")

    def send(self, key: str, text: str) -> None:
        with closing(self._open()) as db:
            db.execute("INSERT INTO calls VALUES (?, ?)", (key, text))

    def calls(self) -> list[tuple[str, str]]:
        with closing(self._open()) as db:
            return db.execute("SELECT key, text FROM calls").fetchall()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=60, isolation_level=None)
        db.execute("PRAGMA synchronous = OFF")  # nobody cuts the power here
        return db


def main(state: str, url: str, gateway_path: str, seed: str, dies: str, many: str = "") -> None:
    gateway, chance = Gateway(Path(gateway_path)), random.Random(int(seed))

    def send(_: Database, job: Leased) -> None:
        gateway.send(job.key, job.detail["text"])
        if chance.random() < float(dies):
            os.kill(os.getpid(), signal.SIGKILL)

    numbers = count()
    jobs.uuid4 = lambda: UUID(int=os.getpid() << PID_BITS | next(numbers))
    database = Database.at(Path(state), url or None)
    stop = threading.Event()
    on_stop(stop.set)
    if many:
        MachinesWorker(database, {KIND: send}, lease=LEASE, sweep_s=1.0).run(stop)
    else:
        Worker(database, {KIND: send}, lease=LEASE, poll_s=0.1).run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
