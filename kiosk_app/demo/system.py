"""The parts of a whole system on one machine: what is made before they start, and how each is started."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from hardware.host.durable import sync_folder, write_whole
from hardware.host.errors import PlainError
from hardware.host.own_file import open_own
from hardware.host.sockets import check_folder
from hardware.simulated.patient_options import SimulatedPatient
from hardware.simulated.pins import PinPageError, cut_power
from kiosk_app.demo.supervisor import (
    Part,
    PartFailed,
    Supervisor,
    accepts,
    dermakiosk,
    free_port,
    greets,
    logged_ready,
    run_step,
    run_steps,
)
from kiosk_app.kept.keyring import Keyring, KeyringError
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsError
from kiosk_app.kept.states import GONE
from kiosk_app.web.door import Door

log = structlog.get_logger()

BOARD = Path(__file__).parents[2] / "hardware" / "boards" / "simulated.toml"
ACCOUNT = "demo"
# What provisioning makes; until WHOLE is written, none of it is.
OURS = ("authority", "broker", "clinic", "kiosk")
LOCK, WHOLE = "lock", "system.json"
# Written before anything else into a folder that was empty: only where it is anything is removed.
MARK = ".demo"
# So many of the newest stay from one start to the next: a demo that is taken up again fills no disk.
KEPT_SCANS, KEPT_FILES = 20, 1000
# Twice as long as a process of the clinic waits for another that writes to the same SQLite.
CLINIC_WATCHDOG_S = 30.0


@dataclass(frozen=True)
class System:
    """Folders, ports and board of one whole system; everything it writes lies under `root`."""

    root: Path
    kiosk_port: int
    clinic_port: int
    broker_port: int
    board: Path = BOARD

    @property
    def kiosk(self) -> Path:
        return self.root / "kiosk"

    @property
    def clinic(self) -> Path:
        return self.root / "clinic"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def kiosk_url(self) -> str:
        """The address that lets a browser in; it holds the secret that the kiosk and its browser share."""
        return Door(self.screen).address(self.kiosk_port)

    @property
    def screen(self) -> Path:
        return self.kiosk / "run" / "screen"

    @property
    def clinic_url(self) -> str:
        return f"http://127.0.0.1:{self.clinic_port}/"


class FolderRefused(PlainError):
    """The folder for the demo cannot be used; the message says why and what to do."""

    exit_status = 2


def _say_nothing(_: str) -> None: ...


@contextlib.contextmanager
def open_system(
    root: Path,
    kiosk_port: int = 0,
    clinic_port: int = 0,
    board: Path = BOARD,
    say: Callable[[str], None] = _say_nothing,
    lets_old_go: bool = False,
) -> Iterator[tuple[System, str | None]]:
    """The system under `root`, provisioned if it is new; with the password of the clinic's account.

    While the context is open the folder is ours alone. A port of 0 means that of the start before, as long as
    it is free; the broker keeps the port that its certificates and the kiosk know. What an interrupted first
    start left is made anew; any other folder that is not empty is refused. `say` gets each step that takes a
    while. With `lets_old_go` only the newest scans of earlier starts stay. The password is None where a
    version that did not keep it made the account.
    """
    root = root.resolve()
    check_folder(root / "kiosk" / "run", "--out or --state")
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _require_a_demos(root)
        lock = open_own(root / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise FolderRefused(
            f"{root} cannot be written ({error.strerror}): name another folder, or make this one yours."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise FolderRefused(f"Another demo runs in {root}: stop it, or name another folder.") from error
    try:
        known = _require_a_demos(root)
        broker_port = known.get("broker_port") or free_port()
        kiosk_port = kiosk_port or free_port(known.get("kiosk_port"), {broker_port, clinic_port})
        clinic_port = clinic_port or free_port(known.get("clinic_port"), {broker_port, kiosk_port})
        system = System(root, kiosk_port, clinic_port, broker_port, board.resolve())
        if known:
            say("Bringing the folder of the last start up to date…")
            run_step("clinic", "migrate", "--state", system.clinic)
            if lets_old_go:
                let_old_go(system)
            password = known.get("password")
        else:
            say("Making keys and certificates, a broker, the clinic's database and an enrolled kiosk (once)…")
            (root / MARK).touch()
            sync_folder(root)
            for name in OURS:
                shutil.rmtree(root / name, ignore_errors=True)
            password = _provision(system)
        ports = {name: getattr(system, name) for name in ("kiosk_port", "clinic_port", "broker_port")}
        write_whole(root / WHOLE, json.dumps(ports | {"password": password}))
        # A start is a boot, and has a secret of its own.
        shutil.rmtree(system.screen, ignore_errors=True)
        # At every start: the manifest is another one after an update.
        key = root / "authority" / "manifest.key"
        run_step("models", "sign", "--key", key, "--state", system.kiosk)
        yield system, password
    finally:
        os.close(lock)


def _require_a_demos(root: Path) -> dict[str, Any]:
    """What the demo in `root` keeps once it is whole; raises FolderRefused unless it is one's, or empty."""
    names = {path.name for path in root.iterdir()} - {LOCK}
    if WHOLE in names:
        with contextlib.suppress(ValueError):
            known = json.loads((root / WHOLE).read_text(encoding="utf-8"))
            if isinstance(known, dict) and "broker_port" in known:
                return known
    elif MARK in names or not names:
        return {}
    raise FolderRefused(f"{root} is not empty and no demo made it: name an empty folder, or a new one.")


def _provision(system: System) -> str:
    """A clinic authority, a broker, the clinic's roles, one enrolled kiosk, one account; its password."""
    authority = system.root / "authority"
    ours, kiosk, clinic = ("--state", authority), ("--kiosk", system.kiosk), ("--state", system.clinic)
    # Who runs a demonstration runs all of it, root too; its folder may be where nobody else can go.
    owner = ("--user", "root") if os.geteuid() == 0 else ()
    broker = ("--broker-host", "127.0.0.1", "--broker-port", system.broker_port)
    run_steps(
        ("provision", "authority", *ours),
        ("provision", "broker", *ours, "--out", system.broker, "--port", system.broker_port, *owner),
        ("provision", "role", "ingest-1", *ours, "--out", system.clinic / "ingest"),
        ("provision", "role", "auditor", *ours, "--out", system.clinic / "auditor"),
        ("provision", "opener", *ours, "--out", system.clinic / "opener"),
        ("provision", "enrol", *ours, *kiosk, "--board", system.board, *broker),
    )
    kiosks = sorted((authority / "kiosks").glob("*.json"))
    *_, account = run_steps(
        ("clinic", "migrate", *clinic),
        *(("clinic", "register-kiosk", kiosk, *clinic) for kiosk in kiosks),
        ("clinic", "add-account", ACCOUNT, *clinic),
    )
    return account.rpartition("=")[2].strip()


def let_old_go(system: System) -> None:
    """Destroy all but the newest scans, at the clinic too, and all but the newest files of what crossed.

    What cannot be destroyed now is the next time.
    """
    app = system.kiosk / "app"
    if (app / "records.sqlite").exists():
        try:
            states = Records(app / "records.sqlite", Keyring(app / "vault.key")).states()
            old = [scan for scan, state in states.items() if state not in GONE][:-KEPT_SCANS]
            if old:
                run_steps(*(("shred", scan, "--state", system.kiosk) for scan in old))
        except (PartFailed, RecordsError, KeyringError) as error:
            log.warning("old_scans_kept", why=str(error))
    for name in ("wire", "opened"):
        for _, file in sorted(_files_since(system.root / name))[:-KEPT_FILES]:
            file.unlink(missing_ok=True)


def _files_since(folder: Path) -> Iterator[tuple[int, Path]]:
    """Since when (ns) each whole file in `folder` is there; others may name and delete files meanwhile."""
    for file in folder.rglob("[!.]*"):
        with contextlib.suppress(FileNotFoundError):
            facts = file.stat()
            if stat.S_ISREG(facts.st_mode):
                yield facts.st_mtime_ns, file


def parts(system: System, simulated: SimulatedPatient, *, lasting: bool = False) -> list[Part]:
    """Every process of the system, in the order in which they start.

    One that is `lasting` has the clinic's worker too, which keeps the house at night.
    """
    kiosk, clinic = ("--state", system.kiosk), ("--state", system.clinic)
    board = ("--board", system.board)
    mosquitto = ["/usr/sbin/mosquitto", "-c", str(system.broker / "mosquitto.conf")]
    port = ("--port", system.kiosk_port)

    def of_clinic(name: str, command: str, *options: object) -> Part:
        argv = dermakiosk("clinic", command, *clinic, *options)
        return Part(name, argv, logged_ready, CLINIC_WATCHDOG_S)

    return [
        Part(
            "broker",
            mosquitto,
            accepts(system.broker_port),
            CLINIC_WATCHDOG_S,
            greets(system.broker_port, system.broker / "ca.crt"),
        ),
        of_clinic("tap", "tap", "--out", system.root / "wire"),
        of_clinic("ingest", "ingest"),
        of_clinic("opener", "open", "--export", system.root / "opened"),
        of_clinic("clinic", "serve", "--port", system.clinic_port),
        Part("lightd", dermakiosk("lightd", *board, *kiosk), logged_ready, watchdog_s=10.0),
        Part("captured", dermakiosk("captured", *board, *kiosk, *simulated.arguments), logged_ready),
        Part("sync", dermakiosk("sync", "run", *kiosk), logged_ready),
        Part("app", dermakiosk("serve", *board, *kiosk, *port), logged_ready),
        *([of_clinic("worker", "work")] if lasting else []),
    ]


def start_all(supervisor: Supervisor, all_parts: Sequence[Part]) -> None:
    """Start the `parts` of a system: the broker, then everything else side by side."""
    broker, *others = all_parts
    supervisor.start(broker)
    supervisor.start(*others)


def fail_power(system: System, supervisor: Supervisor) -> None:
    """Cut the supply of a running system: every pin is low and every process gone, from one instant on."""
    with contextlib.suppress(PinPageError):
        cut_power(system.kiosk / "run" / "pins.page")
    supervisor.kill_all()
