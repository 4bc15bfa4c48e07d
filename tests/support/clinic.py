"""Parts of a clinic for tests: a PostgreSQL of its own, a kiosk that seals what it is told."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, MetaData, Table, insert, select

from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.opening_keys import UNHEARD
from sync.clinic.receiving.registry import register_kiosk
from sync.clinic.store.database import Database, now
from sync.clinic.store.rows import put
from sync.clinic.store.tables import HELD, Base, HeldKey
from sync.wire import cose, envelope, keys
from sync.wire.findings import Finding, Findings, Geometry, Mark, Zone
from sync.wire.messages import Consent, Message, Result, result_kind
from sync.wire.status import Status
from tests.support.long_tests import for_long_tests

POSTGRESQL = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
MOMENT = datetime(2026, 3, 2, 14, 5, tzinfo=timezone.utc)
ZONES: tuple[Zone, ...] = ("face", "forehead", "left_cheek", "right_cheek", "nose", "chin")


@for_long_tests("a database server")
@contextmanager
def running_postgresql(*, durable: bool = False) -> Iterator[str]:
    """A PostgreSQL that listens on a socket only; yields the URL of its server, without a database name.

    What it commits is on the disk only where it is `durable`.
    """
    assert POSTGRESQL is not None, "no PostgreSQL is installed"
    folder = Path(tempfile.mkdtemp(prefix="dkpg-"))
    demoted: list[str] = []
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        demoted = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def run(program: str, *arguments: str) -> None:
        command = [*demoted, str(POSTGRESQL / program), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync={'on' if durable else 'off'}"
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://postgres@/{{name}}?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def findings(scan: UUID, **values: float) -> Findings:
    """Findings of every zone; `values` are the measures with their value on the whole face."""
    units = {"ita": "deg", "spot_area": "mm2"}
    measured = values or {"ita": 33.0, "erythema_index": 21.0, "spot_area": 12.0}
    return Findings(
        scan=scan,
        measured_at=MOMENT,
        models={"face_landmarks": "ab" * 32},
        calibration="nominal-simulated",
        software="dermakiosk 0.1.0",
        quality=("uncalibrated_scale",),
        findings=tuple(
            Finding(
                measure=measure,
                zone=zone,
                value=value + index,
                unit=units.get(measure, "1"),
                low=value + index - 0.5,
                high=value + index + 0.5,
                model="ab" * 32,
            )
            for measure, value in measured.items()
            for index, zone in enumerate(ZONES)
        ),
        geometry=Geometry(marks=(Mark(kind="spot", zone="left_cheek", x=0.5, y=0.5, radius=0.02),)),
    )


class SealingKiosk:
    """A kiosk's keys and its count of messages; it seals, and leaves sending to others."""

    def __init__(self, opening: keys.OpeningKey, identity: UUID | None = None, epoch: int = 1) -> None:
        self.id = identity or uuid4()
        self.signing = keys.generate_signing_key()
        self.status = keys.generate_signing_key()
        self.opening = opening
        self.epoch = epoch
        self.sequence = 0

    @classmethod
    def enrolled(cls, kiosk: Path, opener: Path) -> SealingKiosk:
        """The kiosk whose state is the folder `kiosk`, sealing to the newest key of the folder `opener`."""
        identity = json.loads((kiosk / "identity.json").read_text())
        opening = keys.load_opening_keys((opener / "opening.key").read_bytes())[-1]
        made = cls(opening, UUID(identity["kiosk"]), identity["epoch"])
        made.signing = keys.load_signing_key((kiosk / "app" / "result.key").read_bytes())
        made.status = keys.load_signing_key((kiosk / "sync" / "status.key").read_bytes())
        return made

    def registry_entry(self, name: str = "Kiosk 1") -> dict[str, Any]:
        """What the clinic authority would write of this kiosk."""
        listed = [
            {"purpose": purpose, "suite": "Ed25519", "public": keys.public_bytes(key).hex()}
            for purpose, key in (("result", self.signing), ("status", self.status))
        ]
        return {"kiosk": str(self.id), "name": name, "epoch": self.epoch, "keys": listed}

    def result(self, scan: UUID | None = None, **changes: Any) -> Result:
        """A result as the kiosk's application makes it."""
        scan = scan or uuid4()
        fields: dict[str, Any] = {
            "scan": scan,
            "patient_reference": "ref-1",
            "captured_at": MOMENT,
            "board": "simulated",
            "simulated": True,
            "consent": Consent(text_version="2026-01", language="en", at=MOMENT),
            "findings": findings(scan),
        }
        fields |= changes
        return result_kind(fields["findings"])(**fields)

    def seal(self, message: Message | None = None, **changes: Any) -> bytes:
        """The envelope of `message` (or of some result) with the next sequence number."""
        message = message or self.result()
        self.sequence += 1
        header: dict[str, Any] = {"kiosk": self.id, "epoch": self.epoch, "sequence": self.sequence} | changes
        recipient = self.opening.public
        made = envelope.Header.of(message, signer=self.signing, recipient=recipient, **header)
        return envelope.seal(message, made, self.signing, recipient)

    def seal_text(self, text: bytes, kind: str = "result", version: int = 1, **changes: Any) -> bytes:
        """An envelope of whatever `text` is, well sealed and signed, as other software could make it."""
        self.sequence += 1
        recipient = self.opening.public
        fields: dict[str, Any] = {
            "kiosk": self.id,
            "type": kind,
            "schema_version": version,
            "message_id": uuid4(),
            "epoch": self.epoch,
            "sequence": self.sequence,
            "signer": keys.signing_kid(self.signing),
            "recipient": recipient.kid,
            "created_at": MOMENT,
        }
        info = envelope.Header(**fields | changes).encode()
        return cose.sign(info, recipient.seal(text, info), self.signing)


def registered(database: Database, kiosk: SealingKiosk, folder: Path) -> SealingKiosk:
    """The kiosk, once the clinic knows it and holds its key; `folder` gets the authority's file."""
    path = folder / f"{kiosk.id}.json"
    path.write_text(json.dumps(kiosk.registry_entry()))
    register_kiosk(database, path)
    hold(database, kiosk.opening)
    return kiosk


def hold(database: Database, key: keys.OpeningKey) -> None:
    """Let an opener have said that it holds `key`."""
    moment = now()
    with database.writing() as session:
        put(session, HeldKey(kid=key.kid, state=HELD, since=moment, seen=moment))


def miss(database: Database, *held: keys.OpeningKey) -> Opener:
    """Let only an opener with these keys run for so long that all others are missing; that opener."""
    opener = Opener(database, held)
    opener.begin()
    for _ in range(UNHEARD):
        opener.say_keys()
    return opener


# What a column said that there is no more, by the row as it is.
_SAID_THEN = {("opening_keys", "held"): lambda row: row["state"] == HELD}


def of_an_earlier_version(newer: Database, older: Database, revision: str) -> None:
    """Make the empty `older` a database of the schema `revision`, with what it can have of `newer`'s rows."""
    older.migrate(revision)
    then = MetaData()
    then.reflect(older.engine)
    with newer.reading() as session, older.writing() as old:
        for known in then.sorted_tables:
            table = Base.metadata.tables.get(known.name)
            if table is None:
                continue
            kept = [
                column
                for column in table.columns
                if column.name in known.columns and column is not table.autoincrement_column
            ]
            gone = {name: said for (of, name), said in _SAID_THEN.items() if of == known.name}
            gone = {name: said for name, said in gone.items() if name in known.columns}
            rows = [
                {column.name: row[column.name] for column in kept}
                | {name: said(row) for name, said in gone.items()}
                for row in session.execute(select(table)).mappings()
            ]
            columns = [Column(column.name, column.type) for column in kept]
            columns += [Column(name, known.columns[name].type) for name in gone]
            if rows:
                old.execute(insert(Table(known.name, MetaData(), *columns)), rows)


def heartbeat(kiosk: SealingKiosk, **changes: object) -> Status:
    """What the kiosk says of itself."""
    fields = {
        "kiosk": kiosk.id,
        "epoch": kiosk.epoch,
        "counter": 1,
        "at": MOMENT,
        "started_at": MOMENT,
        "online": True,
        "software": "dermakiosk 0.1.0",
        "clinic_keys": 1,
        "waiting": 2,
        "sent": 0,
        "quarantined": 0,
        "reseal": 0,
        "fill": 0.0,
    }
    return Status.model_validate(fields | changes)
