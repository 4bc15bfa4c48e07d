"""The parts of a whole system on one machine: what is made before they start, and how each is started."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hardware.simulated.patient_options import SimulatedPatient
from hardware.simulated.pins import PinPageError, cut_power
from kiosk_app.door import Door
from kiosk_app.socket_paths import check_socket_paths

from .supervisor import Part, Supervisor, accepts, dermakiosk, free_port, logged_ready, run_step, run_steps

BOARD = Path(__file__).parents[2] / "hardware" / "boards" / "simulated.toml"
ACCOUNT = "demo"
# What provisioning makes; until `system.json` is written, none of it is whole.
OURS = ("authority", "broker", "clinic", "kiosk")


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


class FolderRefused(Exception):
    """The folder for the demo cannot be used; the message says why and what to do."""

    exit_status = 2


@contextlib.contextmanager
def open_system(
    root: Path, kiosk_port: int = 0, clinic_port: int = 0, board: Path = BOARD
) -> Iterator[tuple[System, str | None]]:
    """The system under `root`, provisioned if it is new; with the new clinic account's password, once.

    While the context is open the folder is ours alone. A port of 0 means any free one; the broker keeps the
    port that its certificates and the kiosk know. What an interrupted first start left is made anew.
    """
    root = root.resolve()
    check_socket_paths(root / "kiosk", "--out or --state")
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        marker = root / "system.json"
        known = json.loads(marker.read_text()) if marker.exists() else None
        system = System(
            root=root,
            kiosk_port=kiosk_port or free_port(),
            clinic_port=clinic_port or free_port(),
            broker_port=known["broker_port"] if known else free_port(),
            board=board.resolve(),
        )
        password = None
        if known is None:
            for name in OURS:
                shutil.rmtree(root / name, ignore_errors=True)
            password = _provision(system)
            marker.write_text(json.dumps({"broker_port": system.broker_port}))
        else:
            run_step("clinic", "migrate", "--state", system.clinic)
        # A start is a boot, and has a secret of its own.
        shutil.rmtree(system.screen, ignore_errors=True)
        # At every start: the manifest is another one after an update.
        key = root / "authority" / "manifest.key"
        run_step("models", "sign", "--key", key, "--state", system.kiosk)
        yield system, password
    finally:
        os.close(lock)


def _provision(system: System) -> str:
    """A clinic authority, a broker, the clinic's roles, one enrolled kiosk, one account; its password."""
    authority = system.root / "authority"
    ours, kiosk, clinic = ("--state", authority), ("--kiosk", system.kiosk), ("--state", system.clinic)
    broker = ("--broker-host", "127.0.0.1", "--broker-port", system.broker_port)
    run_steps(
        ("provision", "authority", *ours),
        ("provision", "broker", *ours, "--out", system.broker, "--port", system.broker_port),
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


def parts(system: System, simulated: SimulatedPatient) -> list[Part]:
    """Every process of the system, in the order in which they start."""
    kiosk, clinic = ("--state", system.kiosk), ("--state", system.clinic)
    board = ("--board", system.board)
    mosquitto = ["/usr/sbin/mosquitto", "-c", str(system.broker / "mosquitto.conf")]
    port = ("--port", system.kiosk_port)
    return [
        Part("broker", mosquitto, accepts(system.broker_port)),
        Part("tap", dermakiosk("clinic", "tap", *clinic, "--out", system.root / "wire"), logged_ready),
        Part("ingest", dermakiosk("clinic", "ingest", *clinic), logged_ready),
        Part(
            "opener",
            dermakiosk("clinic", "open", *clinic, "--export", system.root / "opened"),
            logged_ready,
        ),
        Part("clinic", dermakiosk("clinic", "serve", *clinic, "--port", system.clinic_port), logged_ready),
        Part("lightd", dermakiosk("lightd", *board, *kiosk), logged_ready, watchdog_s=10.0),
        Part("captured", dermakiosk("captured", *board, *kiosk, *simulated.arguments), logged_ready),
        Part("sync", dermakiosk("sync", "run", *kiosk), logged_ready),
        Part("app", dermakiosk("serve", *board, *kiosk, *port), logged_ready),
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
