"""All of a scan's way but for its camera, with real parts: application, agent, broker, ingest, opener."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select

from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning.delivery import Delivery
from kiosk_app.scanning.shred import shred
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.registry import register_kiosk
from sync.clinic.store.database import Database
from sync.clinic.store.tables import Envelope, Poison
from sync.clinic.summary import missing_sequences
from sync.kiosk.client import OutboxClient
from tests.support import ingesting
from tests.support.agent import AgentProcess
from tests.support.clinic import SealingKiosk, hold
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_bench import Clinic as Keys
from tests.support.mosquitto import Broker
from tests.support.waiting import wait_until


class Way:
    """A kiosk and its clinic. Its application has a turn where a test calls `round`."""

    def __init__(self, folder: Path) -> None:
        self.broker = Broker(folder)
        self.state, self._elsewhere = folder / "kiosk", folder / "elsewhere"
        self.broker.enrol(self.state)
        self.database = Database.at(folder / "clinic")
        self.database.migrate()
        (entry,) = (folder / "authority" / "kiosks").glob("*.json")
        register_kiosk(self.database, entry)
        kiosk = SealingKiosk.enrolled(self.state, self.broker.opener)
        hold(self.database, kiosk.opening)
        self.opener = Opener(self.database, [kiosk.opening])
        self.clinic = ingesting.Clinic(
            self.broker, folder / "clinic", self.database, kiosk, self.state / "sync"
        )
        self.agent = AgentProcess(self.state, "--resend-first", "0.5", vouches=False)
        self.bench = Bench(self.state, Keys())
        self.bench.outbox = OutboxClient(self.state / "run" / "outbox.sock")  # type: ignore[assignment]
        self.bench.again()

    def close(self) -> None:
        self.agent.close()
        self.broker.stop()
        self.database.close()

    @property
    def outbox_file(self) -> Path:
        return self.state / "sync" / "outbox.sqlite"

    def round(self) -> None:
        """One round of the application's house-keeping."""
        self.bench.kiosk.work.go_on()
        self.bench.kiosk.courier.run_once()

    def delete(self, scan: UUID) -> Delivery:
        kiosk = self.bench.kiosk
        return shred(
            scan, kiosk.records, kiosk.vault, kiosk.courier.run_once, kiosk.outbox, by="patient"
        ).clinic

    def message(self, scan: UUID, kind: str) -> UUID:
        message = self.bench.kiosk.records.messages.of(scan, kind)
        assert message is not None
        return message.id

    def has_left(self, scan: UUID) -> None:
        """Wait until the agent has sent the scan's result, with or without a receipt."""
        message = self.message(scan, "result")
        wait_until(lambda: self.agent.client.state(message) != "waiting", "a message that has left")

    def is_settled(self) -> bool:
        """Whether, after one more round, the clinic's receipt for everything is here."""
        self.round()
        open_messages = (MessageState.WAITING, MessageState.SUBMITTED, MessageState.DISCARDING)
        records = self.bench.kiosk.records
        return not records.messages.in_states(*open_messages) and not records.scans(ScanState.ANALYSED)

    def reaches_the_clinic(self) -> None:
        """Whatever is on its way arrives, and is receipted and opened."""
        with self.clinic.worker():
            wait_until(self.is_settled, "a receipt for everything")
        self.open_all()

    def open_all(self) -> None:
        while self.opener.open_next():
            pass

    def count(self, table: type) -> int:
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def nobody_has_to_look(self) -> bool:
        """No envelope is set aside at the clinic, and none is missed there."""
        with self.database.reading() as session:
            states = set(session.scalars(select(Envelope.state)))
            missing = missing_sequences(session)
        return "quarantined" not in states and not missing and not self.count(Poison)
