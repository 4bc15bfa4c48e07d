from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from argon2 import PasswordHasher
from flask.testing import FlaskClient
from sqlalchemy import create_engine, make_url, text

from sync.clinic.app import make_app
from sync.clinic.people import accounts
from sync.clinic.people.accounts import add_account
from sync.clinic.receiving import opener as opener_module
from sync.clinic.receiving.registry import register_kiosk
from sync.clinic.store.database import Database
from sync.wire.keys import OpeningKey, generate_opening_key
from tests.support.clinic import (
    POSTGRESQL,
    SealingKiosk,
    hold,
    registered,
    running_postgresql,
)
from tests.support.ingesting import Clinic
from tests.support.mosquitto import running_broker
from tests.support.signing_in import sign_in
from tests.support.templates import compiled_once


@pytest.fixture(scope="session", autouse=True)
def templates_compiled_once() -> Iterator[None]:
    with compiled_once():
        yield


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A daemon that a test runs in its own process leaves it what it heard signals by."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    assert POSTGRESQL is not None, "PostgreSQL is missing: run 'make test', which installs it"
    with running_postgresql() as url, pytest.MonkeyPatch.context() as patch:
        # Nobody cuts the power here.
        patch.setattr("sync.clinic.store.database.LOSING", {})
        yield url


def new_postgresql(server: str, template: str = "template1") -> str:
    """The URL of a new database of that `server`, a copy of its database `template`."""
    name = f"clinic_{uuid4().hex}"
    url = make_url(server.format(name="postgres")).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    engine.dispose()
    return server.format(name=name)


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of an empty database."""
    return new_postgresql(postgresql_server)


@pytest.fixture(scope="session")
def made_postgresql(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a migrated database on PostgreSQL that nobody has used."""
    database = Database.at(tmp_path_factory.mktemp("made"), new_postgresql(postgresql_server))
    database.migrate()
    database.close()  # only what nobody is connected to is copied
    return str(database.engine.url.database)


@pytest.fixture
def migrated_url(postgresql_server: str, made_postgresql: str) -> str:
    """The URL of a migrated database on PostgreSQL."""
    return new_postgresql(postgresql_server, made_postgresql)


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing that costs nothing; one test looks at what it really costs."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "_hasher", cheap)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a migrated SQLite that nobody has used."""
    database = Database.at(tmp_path_factory.mktemp("made"))
    database.migrate()
    database.close()
    path = Path(str(database.engine.url.database))
    with closing(sqlite3.connect(path)) as file:  # whatever else still has it open: the file alone is copied
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    database = Database.at(tmp_path / "clinic", url)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated database; each test that takes it runs on SQLite and on PostgreSQL."""
    migrated: Database = request.getfixturevalue(request.param)
    return migrated


@pytest.fixture
def sqlite(tmp_path: Path, made: Path) -> Iterator[Database]:
    """A migrated database in `tmp_path/clinic`."""
    database = Database.at(tmp_path / "clinic")
    shutil.copy(made, tmp_path / "clinic")
    yield database
    database.close()


@pytest.fixture
def postgresql(tmp_path: Path, migrated_url: str) -> Iterator[Database]:
    """A migrated database on PostgreSQL."""
    database = Database.at(tmp_path / "clinic", migrated_url)
    yield database
    database.close()


@pytest.fixture
def opening_key() -> OpeningKey:
    return generate_opening_key()


@pytest.fixture
def kiosk(database: Database, opening_key: OpeningKey, tmp_path: Path) -> SealingKiosk:
    """A registered kiosk."""
    return registered(database, SealingKiosk(opening_key), tmp_path)


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    with running_broker(tmp_path) as broker:
        broker.enrol(tmp_path / "kiosk")
        state = tmp_path / "clinic"
        database = Database.at(state)
        database.migrate()
        (entry,) = (tmp_path / "authority" / "kiosks").glob("*.json")
        register_kiosk(database, entry)
        kiosk = SealingKiosk.enrolled(tmp_path / "kiosk", state / "opener")
        hold(database, kiosk.opening)
        yield Clinic(broker, state, database, kiosk, tmp_path / "kiosk" / "sync")
        database.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be done to exports is tried again at once."""
    monkeypatch.setattr(opener_module, "EXPORTS_WAIT_S", 0.0)


@pytest.fixture
def password(sqlite: Database) -> str:
    """Of the account `ann`."""
    return add_account(sqlite, "ann")


@pytest.fixture
def site(sqlite: Database, password: str) -> FlaskClient:
    return make_app(sqlite, b"k" * 32).test_client()


@pytest.fixture
def staff(site: FlaskClient, password: str) -> FlaskClient:
    """The pages before `ann`, who has signed in."""
    assert sign_in(site, "ann", password).status_code == 302
    return site
