"""The clinic under a backlog: ingest, opener, and a scan's page meanwhile, on both databases.

Each process works off a first few messages, then it is stopped while the backlog is made, so that what is
measured is it alone, and warm. Beside ingest stand
`mosquitto_sub`, which only receives, and a worker in Node, which receives and stores: `node/worker.js`.
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

MESSAGES = 1500
WARMING = 200
# As many figures as a scan of the face has, in an envelope of its usual size.
MEASURES = {f"measure_{number}": float(number) for number in range(8)}
QUIET_PAGES = 40
LONGEST_SECONDS = 120.0
NODE = Path(__file__).with_name("node")
DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Cost:
    """What working off a backlog of `messages` took."""

    messages: int
    seconds: float
    cpu_seconds: float
    server_cpu_seconds: float = 0.0

    def row(self, stage: str) -> dict:
        return {
            "stage": stage,
            "per_second": round(self.messages / self.seconds),
            "cpu_ms": round(1e3 * self.cpu_seconds / self.messages, 3),
            "server_cpu_ms": round(1e3 * self.server_cpu_seconds / self.messages, 3),
        }


def clinic_rows(folder: Path) -> list[dict]:
    """The rows of every database, each with its ratio to the references."""
    for program, package in (("mosquitto_sub", "mosquitto-clients"), ("node", "nodejs"), ("npm", "npm")):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing, beside which ingest is measured: install {package}.")
    shutil.rmtree(folder, ignore_errors=True)
    with running_postgresql(durable=True) as server:
        received = _receiving(folder / "received").row("mosquitto_sub")
        node = _node(folder / "node", server).row("node worker, postgresql")
        rows = [received, node]
        for kind in DATABASES:
            rows += _clinic(folder / kind, kind, _new_database(server) if kind == "postgresql" else None)
    for row in rows:
        if "cpu_ms" in row:
            row["ratio_to_receiving"] = round(row["cpu_ms"] / received["cpu_ms"], 1)
            row["ratio_to_node"] = round(row["cpu_ms"] / node["cpu_ms"], 2)
    return rows


def print_rows(rows: list[dict]) -> None:
    print(f"A backlog of {MESSAGES} results, {len(MEASURES) * 6} findings each:")
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


def _clinic(folder: Path, kind: str, url: str | None) -> list[dict]:
    with _backlogged(folder) as (broker, kiosk, publish), ExitStack() as running:
        database = Database.at(broker.folder / "clinic", url)
        database.migrate()
        (entry,) = (broker.folder / "authority" / "kiosks").glob("*.json")
        register_kiosk(database, entry)
        hold(database, kiosk.opening)
        password = add_account(database, "bench")
        where = ("--state", str(database.tombstones.path.parent), *(("--db", url) if url else ()))
        opener = running.enter_context(_process(folder / "opener.log", _command("open", *where)))
        ingest = running.enter_context(_process(folder / "ingest.log", _command("ingest", *where)))
        publish(WARMING)
        wait_until(lambda: _opened(database) == WARMING, "the first few are opened")
        with _paused(opener):
            with _paused(ingest):
                publish(MESSAGES)
            rows = [_drained(database, ingest, lambda: _taken_in(database, MESSAGES)).row(f"ingest, {kind}")]
        drained = _drained(database, opener, lambda: _opened(database) == WARMING + MESSAGES)
        rows.append(drained.row(f"opener, {kind}"))

        serve = _command("serve", *where, "--port", "0")
        running.enter_context(_process(folder / "serve.log", serve))
        with database.reading() as session:
            scan = session.scalars(select(Scan.id).limit(1)).one()
        page = _signed_in(_port(folder / "serve.log"), password, f"/scans/{scan}")
        quiet = [page() for _ in range(QUIET_PAGES)]
        with _paused(opener), _paused(ingest):
            publish(MESSAGES)
        busy = [page()]
        while _opened(database) < WARMING + 2 * MESSAGES:
            busy.append(page())
        rows.append(
            {
                "stage": f"page of a scan, {kind}",
                "quiet_ms": _percentiles(quiet),
                "drain_ms": _percentiles(busy),
                "pages": len(busy),
            }
        )
        database.close()
    return rows


def _receiving(folder: Path) -> Cost:
    """The CPU of `mosquitto_sub` for the same backlog."""
    with _backlogged(folder) as (broker, _, publish):
        command = [*_mosquitto_sub(broker, broker.ingest), "-t", _shared(broker), "-c", "-x", "300"]
        command += ["-i", "ingest-1"]
        subprocess.run([*command, "-E"], check=True, timeout=LONGEST_SECONDS, stdout=subprocess.DEVNULL)
        publish(MESSAGES)
        started = time.perf_counter()
        process = subprocess.Popen([*command, "-C", str(MESSAGES)], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, "mosquitto_sub failed"
        return Cost(MESSAGES, time.perf_counter() - started, used.ru_utime + used.ru_stime)


def _node(folder: Path, server: str) -> Cost:
    """The Node worker, installed into the benchmark's folder."""
    shutil.copytree(NODE, folder / "installed")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
    subprocess.run(install, cwd=folder / "installed", check=True, timeout=LONGEST_SECONDS)
    url = make_url(_new_database(server))
    with _backlogged(folder) as (broker, _, publish):
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
        with _process(log, command) as worker:
            publish(WARMING)
            wait_until(lambda: f"stored {WARMING}\n" in log.read_text(), "the first few are stored")
            with _paused(worker):
                publish(MESSAGES)
            stored = f"stored {WARMING + MESSAGES}\n"
            cost = _drained(database, worker, lambda: stored in log.read_text())
        database.close()
        return cost


@contextmanager
def _backlogged(folder: Path) -> Iterator[tuple[Broker, SealingKiosk, Callable[[int], None]]]:
    """A broker with a kiosk, and what publishes a backlog that the broker has acknowledged."""
    with running_broker(folder) as broker:
        broker.enrol(folder / "kiosk")
        kiosk = SealingKiosk.enrolled(folder / "kiosk", broker.opener)
        topic = topics.up(kiosk.id, "result")

        def publish(count: int) -> None:
            scans = [uuid4() for _ in range(count)]
            sealed = [kiosk.seal(kiosk.result(scan, findings=findings(scan, **MEASURES))) for scan in scans]
            tls = folder / "kiosk" / "sync"
            # Subscribed, and away: without an ear the broker says of each receipt that nobody hears it.
            with connected(broker, tls, session_expiry=300, clean_start=False) as client:
                client.subscribe(topics.all_down(kiosk.id))
                for data in sealed:
                    assert client.publish(topic, data) == 0, "the broker had nobody to keep it for"

        yield broker, kiosk, publish


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
        child.wait(LONGEST_SECONDS)


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
    wait_until(done, "the backlog is worked off", LONGEST_SECONDS)
    took = time.perf_counter() - started
    return Cost(MESSAGES, took, _cpu([process]) - before, _cpu(servers) - servers_before)


def _server_processes(database: Database) -> list[psutil.Process]:
    if database.engine.dialect.name == "sqlite":
        return []
    with database.engine.connect() as connection:
        backend = psutil.Process(connection.scalar(text("SELECT pg_backend_pid()")))
    parent = backend.parent()
    assert parent is not None
    return [each for each in parent.children() if each != backend]


def _cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue  # a backend whose client has gone
    return total


def _taken_in(database: Database, count: int) -> bool:
    with database.reading() as session:
        stored = session.scalar(select(func.count()).where(Envelope.state == STORED))
        unsent = session.scalar(select(func.count()).where(ReceiptRow.sent_at.is_(None)))
    return stored == count and unsent == 0


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
