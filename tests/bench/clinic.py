"""The clinic under a backlog: ingest, opener, and a scan's page meanwhile, on both databases.

Each process is stopped while its backlog is made, and works it off alone. The first of its backlogs warms it:
interpreters, just-in-time compilers, caches; of the others the median counts. They take turns, so that
whatever else the machine does meets all of them. Beside ingest stand `mosquitto_sub`, which only receives,
and a worker in Node, which receives and stores: `node/worker.js`.
"""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psutil
from sqlalchemy import create_engine, func, make_url, select, text

from sync.clinic.people.accounts import add_account
from sync.clinic.receiving.ingest import BATCH, RECEIVE_MAXIMUM
from sync.clinic.receiving.registry import register_kiosk
from sync.clinic.store.database import Database
from sync.clinic.store.tables import OPENED, STORED, Envelope, ReceiptRow, Scan
from sync.wire import topics
from tests.support.clinic import SealingKiosk, findings, hold, running_postgresql
from tests.support.mosquitto import Broker, running_broker
from tests.support.mqtt import connected
from tests.support.waiting import wait_until

# As many as the broker keeps for a worker that is away, with a margin.
MESSAGES = 1500
ROUNDS = 5
# As many figures as a scan of the face has, in an envelope of its usual size.
MEASURES = {f"measure_{number}": float(number) for number in range(8)}
QUIET_PAGES = 40
LONGEST_S = 120.0
NODE = Path(__file__).with_name("node")
DATABASES = ("sqlite", "postgresql")
NODE_STAGE = "node worker, postgresql"


@dataclass(frozen=True)
class Cost:
    """What working off one backlog took."""

    seconds: float
    cpu_s: float
    server_cpu_s: float = 0.0


# Makes one backlog and has it worked off: what each of its stages took.
Round = Callable[[], dict[str, Cost]]


class _Clinic(NamedTuple):
    play: Round
    pages: Callable[[], dict]


def clinic_rows(folder: Path) -> list[dict]:
    """The rows of every database, each with its ratio to the references."""
    for program, package in (("mosquitto_sub", "mosquitto-clients"), ("node", "nodejs"), ("npm", "npm")):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing, beside which ingest is measured: install {package}.")
    shutil.rmtree(folder, ignore_errors=True)
    with running_postgresql(durable=True) as server, ExitStack() as running:
        references = [
            running.enter_context(_receiving(folder / "received")),
            running.enter_context(_node(folder / "node", server)),
        ]
        clinics = [
            running.enter_context(_clinic(folder / kind, kind, server if kind == "postgresql" else None))
            for kind in DATABASES
        ]
        rounds = [*references, *(clinic.play for clinic in clinics)]
        for play in rounds:
            play()
        costs = [{stage: cost for play in rounds for stage, cost in play().items()} for _ in range(ROUNDS)]
        pages = [clinic.pages() for clinic in clinics]
    rows = [_row(stage, [each[stage] for each in costs]) for stage in costs[0]]
    of_stage = {row["stage"]: row["cpu_ms"] for row in rows}
    for row in rows:
        row["ratio_to_receiving"] = round(row["cpu_ms"] / of_stage["mosquitto_sub"], 1)
        row["ratio_to_node"] = round(row["cpu_ms"] / of_stage[NODE_STAGE], 2)
    return rows + pages


def _row(stage: str, costs: list[Cost]) -> dict:
    """The medians of a message."""

    def milliseconds(field: str) -> float:
        return round(1e3 * statistics.median(getattr(cost, field) for cost in costs) / MESSAGES, 3)

    return {
        "stage": stage,
        "per_second": round(MESSAGES / statistics.median(cost.seconds for cost in costs)),
        "cpu_ms": milliseconds("cpu_s"),
        "server_cpu_ms": milliseconds("server_cpu_s"),
    }


def print_rows(rows: list[dict]) -> None:
    print(f"Backlogs of {MESSAGES} results, {len(MEASURES) * 6} findings each; the median of {ROUNDS}:")
    columns = "{:26} {:>8} {:>13} {:>14} {:>16} {:>14}"
    print(columns.format("clinic", "1/s", "CPU ms each", "server CPU ms", "x mosquitto_sub", "x node worker"))
    for row in rows:
        if "cpu_ms" in row:
            print(columns.format(*row.values()))
    for row in rows:
        if "quiet_ms" in row:
            print(
                f"{row['stage']}: p50 {row['quiet_ms'][0]} and p95 {row['quiet_ms'][1]} ms quiet, "
                f"{row['drain_ms'][0]} and {row['drain_ms'][1]} ms during drain ({row['pages']} pages)"
            )


@contextmanager
def _clinic(folder: Path, kind: str, server: str | None) -> Iterator[_Clinic]:
    """Ingest and opener, and a scan's page beside both."""
    url = None if server is None else _new_database(server)
    with _backlogged(folder) as (broker, kiosk, publish), ExitStack() as running:
        database = Database.at(broker.folder / "clinic", url)
        running.callback(database.close)
        database.migrate()
        (entry,) = (broker.folder / "authority" / "kiosks").glob("*.json")
        register_kiosk(database, entry)
        hold(database, kiosk.opening)
        password = add_account(database, "bench")
        where = ("--state", str(database.tombstones.path.parent), *(("--db", url) if url else ()))
        opener = running.enter_context(_process(folder / "opener.log", _command("open", *where)))
        ingest = running.enter_context(_process(folder / "ingest.log", _command("ingest", *where)))

        def play() -> dict[str, Cost]:
            before, sealed = _opened(database), _sealed(kiosk)
            with _paused(opener):
                with _paused(ingest):
                    publish(sealed)
                taken_in = _drained(database, ingest, lambda: _taken_in(database))
            opened = _drained(database, opener, lambda: _opened(database) == before + MESSAGES)
            return {f"ingest, {kind}": taken_in, f"opener, {kind}": opened}

        def pages() -> dict:
            serve = _command("serve", *where, "--port", "0")
            running.enter_context(_process(folder / "serve.log", serve))
            with database.reading() as session:
                scan = session.scalars(select(Scan.id).limit(1)).one()
            page = _signed_in(_port(folder / "serve.log"), password, f"/scans/{scan}")
            quiet = [page() for _ in range(QUIET_PAGES)]
            before, sealed = _opened(database), _sealed(kiosk)
            with _paused(opener), _paused(ingest):
                publish(sealed)
            busy = [page()]
            while _opened(database) < before + MESSAGES:
                busy.append(page())
            return {
                "stage": f"page of a scan, {kind}",
                "quiet_ms": _percentiles(quiet),
                "drain_ms": _percentiles(busy),
                "pages": len(busy),
            }

        yield _Clinic(play, pages)


@contextmanager
def _receiving(folder: Path) -> Iterator[Round]:
    """The CPU of `mosquitto_sub` for the same backlog; it is a new process each time."""
    with _backlogged(folder) as (broker, kiosk, publish):
        sealed = _sealed(kiosk)  # once: who decides nothing can have the same again
        command = [*_mosquitto_sub(broker, broker.ingest), "-t", _shared(broker), "-c", "-x", "300"]
        command += ["-i", "ingest-1"]
        subprocess.run([*command, "-E"], check=True, timeout=LONGEST_S, stdout=subprocess.DEVNULL)

        def play() -> dict[str, Cost]:
            publish(sealed)
            started = time.perf_counter()
            process = subprocess.Popen([*command, "-C", str(MESSAGES)], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            assert status == 0, "mosquitto_sub failed"
            return {"mosquitto_sub": Cost(time.perf_counter() - started, used.ru_utime + used.ru_stime)}

        yield play


@contextmanager
def _node(folder: Path, server: str) -> Iterator[Round]:
    """The Node worker, installed into the benchmark's folder."""
    shutil.copytree(NODE, folder / "installed")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
    subprocess.run(install, cwd=folder / "installed", check=True, timeout=LONGEST_S)
    url = make_url(_new_database(server))
    with _backlogged(folder) as (broker, kiosk, publish), ExitStack() as running:
        sealed = _sealed(kiosk)
        settings = {
            "host": broker.host,
            "port": broker.port,
            "client": "ingest-1",
            "topic": _shared(broker),
            "ca": str(broker.ingest / "ca.crt"),
            "certificate": str(broker.ingest / "tls.crt"),
            "key": str(broker.ingest / "tls.key"),
            "receiveMaximum": RECEIVE_MAXIMUM,
            "batch": BATCH,
            "database": {"host": url.query["host"], "database": url.database, "user": url.username},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        command = ["node", str(folder / "installed" / "worker.js"), str(folder / "settings.json")]
        log = folder / "node.log"
        database = Database.at(folder / "clinic", _new_database(server))  # only to see the server's processes
        running.callback(database.close)
        worker = running.enter_context(_process(log, command))
        stored = 0

        def play() -> dict[str, Cost]:
            nonlocal stored
            stored += MESSAGES
            with _paused(worker):
                publish(sealed)
            return {NODE_STAGE: _drained(database, worker, lambda: f"stored {stored}\n" in log.read_text())}

        yield play


@contextmanager
def _backlogged(folder: Path) -> Iterator[tuple[Broker, SealingKiosk, Callable[[list[bytes]], None]]]:
    """A broker with a kiosk, and what publishes a backlog until the broker has acknowledged it."""
    with running_broker(folder) as broker:
        broker.enrol(folder / "kiosk")
        kiosk = SealingKiosk.enrolled(folder / "kiosk", broker.opener)
        topic = topics.up(kiosk.id, "result")

        def publish(sealed: list[bytes]) -> None:
            tls = folder / "kiosk" / "sync"
            # Subscribed, and away: without an ear the broker says of each receipt that nobody hears it.
            with connected(broker, tls, session_expiry=300, clean_start=False) as client:
                client.subscribe(topics.all_down(kiosk.id))
                codes = client.publish_all(topic, sealed)
                assert codes == {0}, "the broker had nobody to keep it for"

        yield broker, kiosk, publish


def _sealed(kiosk: SealingKiosk) -> list[bytes]:
    """A backlog of results of a scan each."""
    scans = [uuid4() for _ in range(MESSAGES)]
    of_one = findings(uuid4(), **MEASURES)
    return [
        kiosk.seal(kiosk.result(scan, findings=of_one.model_copy(update={"scan": scan}))) for scan in scans
    ]


@contextmanager
def _process(log: Path, command: list[str]) -> Iterator[psutil.Process]:
    """A process that has said that it is ready, until the block ends."""
    with log.open("wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        wait_until(lambda: "ready" in log.read_text() or child.poll() is not None, f"{log.stem} is ready")
        assert child.poll() is None, log.read_text()
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(LONGEST_S)


@contextmanager
def _paused(process: psutil.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _drained(database: Database, process: psutil.Process, done: Callable[[], bool]) -> Cost:
    """What `process`, which has just been let go, takes until `done`."""
    servers = _server_processes(database)
    started, before, servers_before = time.perf_counter(), _cpu([process]), _cpu(servers)
    wait_until(done, "the backlog is worked off", LONGEST_S)
    took = time.perf_counter() - started
    return Cost(took, _cpu([process]) - before, _cpu(servers) - servers_before)


def _server_processes(database: Database) -> list[psutil.Process]:
    if database.engine.dialect.name == "sqlite":
        return []
    with database.engine.connect() as connection:
        backend = psutil.Process(connection.scalar(text("SELECT pg_backend_pid()")))
    parent = backend.parent()
    assert parent is not None
    return [each for each in parent.children() if each != backend]


def _cpu(processes: list[psutil.Process]) -> float:
    """Seconds of CPU, to the nanosecond: /proc/PID/stat counts steps of 10 ms, of which a drain has few."""
    total = 0.0
    for process in processes:
        try:
            # As clock_getcpuclockid(3) makes it: the clock of a process with all its threads.
            total += time.clock_gettime(~process.pid << 3 | 2)
        except OSError:
            continue  # a backend whose client has gone
    return total


def _taken_in(database: Database) -> bool:
    """Whether no more than the backlog waits for the opener, all of it, and no receipt to be sent."""
    with database.reading() as session:
        stored = session.scalar(select(func.count()).where(Envelope.state == STORED))
        unsent = session.scalar(select(func.count()).where(ReceiptRow.sent_at.is_(None)))
    return stored == MESSAGES and unsent == 0


def _opened(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).where(Envelope.state == OPENED)) or 0


def _signed_in(port: int, password: str, path: str) -> Callable[[], float]:
    """How long `path` takes to be answered, in ms, asked by somebody who has signed in."""
    site = f"http://127.0.0.1:{port}"
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    form = browser.open(f"{site}/login", timeout=30).read().decode()
    found = re.search(r'name="csrf_token" value="([^"]+)"', form)
    assert found is not None
    fields = {"name": "bench", "password": password, "csrf_token": found[1]}
    browser.open(f"{site}/login", urllib.parse.urlencode(fields).encode(), timeout=30).read()

    def page() -> float:
        started = time.perf_counter()
        with browser.open(site + path, timeout=60) as answer:
            assert answer.url == site + path, "nobody is signed in"
            answer.read()
        return 1e3 * (time.perf_counter() - started)

    return page


def _percentiles(times: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(times, n=20, method="inclusive")
    return round(cuts[9], 1), round(cuts[18], 1)


def _port(log: Path) -> int:
    ready = [json.loads(line) for line in log.read_text().splitlines() if '"ready"' in line]
    return int(ready[-1]["port"])


def _mosquitto_sub(broker: Broker, tls: Path) -> list[str]:
    files = ("--cafile", "ca.crt"), ("--cert", "tls.crt"), ("--key", "tls.key")
    options = [word for option, name in files for word in (option, str(tls / name))]
    return ["mosquitto_sub", "-h", broker.host, "-p", str(broker.port), "-V", "5", "-q", "1", *options]


def _shared(broker: Broker) -> str:
    return topics.shared_up(broker.address["share"], "result")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from kiosk_app.cli import main; main()", "clinic", *arguments]


def _new_database(server: str) -> str:
    name = f"bench_{uuid4().hex}"
    url = make_url(server.format(name="postgres")).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.format(name=name)
