"""Each stage of one scan beside the work that it cannot avoid."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import cv2
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hardware.capture import Capture
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.vault import Vault
from models.networks.runtime import network
from sync.wire.keys import generate_opening_key
from tests.support.mosquitto import running_broker
from tests.support.mqtt import connected

FACE_NETWORKS = ("face-detection-short", "face-landmarks", "iris")
ENGINE = "ai-edge-litert"
IMPORTS = "import cv2, numpy, ai_edge_litert.interpreter"


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """The shortest of a few rounds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def run_scan(folder: Path) -> dict:
    """One headless scan through the whole system; what it said."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [Path(sys.executable).with_name("dermakiosk"), "demo", "--once", "--out", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def stored_capture(folder: Path, scan: UUID) -> Capture:
    app = folder / "kiosk" / "app"
    records = Records(app / "records.sqlite", Keyring(app / "vault.key"))
    return Vault(app / "vault").get_capture(scan, records.dek(scan))


def exposing(capture: Capture) -> float:
    """The shutter time of all frames and one multiplication of each, as any calibration needs."""
    shutter = sum(frame.exposure_us for frame in capture.frames) / 1e6
    return shutter + seconds(lambda: [frame.pixels * np.float32(1.01) for frame in capture.frames])


def encrypting(capture: Capture, folder: Path) -> float:
    """AES-256-GCM of the same bytes, one write, one fsync."""
    blocks, cipher = [frame.pixels.tobytes() for frame in capture.frames], AESGCM(bytes(32))
    target = folder / "reference.bin"

    def work() -> None:
        with target.open("wb") as file:
            for block in blocks:
                file.write(cipher.encrypt(bytes(12), block, None))
            file.flush()
            subprocess.run(["sync", str(target)], check=True, timeout=60)

    return seconds(work)


def inferring(capture: Capture) -> float:
    """A Python that imports the libraries, the face networks once each, and two frames at quarter scale."""
    start = seconds(lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=60))
    total = start
    for name in FACE_NETWORKS:
        loaded = network(name, ENGINE)
        picture = np.zeros(loaded.input_shape, np.float32)
        total += seconds(lambda loaded=loaded, picture=picture: loaded.run(picture))
    for light in ("white", "cross"):
        frame = capture.frame(light)
        assert frame is not None
        total += seconds(
            lambda pixels=frame.pixels: cv2.resize(
                pixels, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA
            )
        )
    return total


def sealing(size: int) -> float:
    """One HPKE encryption with X-Wing and one Ed25519 signature of as many bytes."""
    recipient, signer, text = generate_opening_key().public, Ed25519PrivateKey.generate(), bytes(size)
    return seconds(lambda: signer.sign(recipient.seal(text, b"")), rounds=20)


def committing(size: int, folder: Path) -> float:
    """One SQLite commit of as many bytes with synchronous=FULL."""
    database = sqlite3.connect(folder / "reference.sqlite", isolation_level=None)
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS box (data BLOB)")
    took = seconds(lambda: database.execute("INSERT INTO box VALUES (?)", (bytes(size),)), rounds=10)
    database.close()
    return took


def publishing(size: int, folder: Path) -> float:
    """One QoS 1 publication of as many bytes, over TLS 1.3 to a broker of its own, to its acknowledgement."""
    with running_broker(folder / "reference-broker") as broker:
        state = folder / "reference-kiosk"
        kiosk = broker.enrol(state)
        with connected(broker, state / "sync") as client:
            topic = f"clinic/v1/{kiosk}/up/result"
            return seconds(lambda: client.publish(topic, bytes(size)), rounds=10)


def memory_of_imports() -> float:
    """Peak MB of a Python that only imports the libraries."""
    # Not getrusage: a child inherits its parent's peak there.
    print_status = f"{IMPORTS}; print(open('/proc/self/status').read())"
    done = subprocess.run(
        [sys.executable, "-c", print_status], capture_output=True, text=True, check=True, timeout=60
    )
    return next(int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("VmHWM")) / 1024


def stage_rows(folder: Path) -> list[dict]:
    """One row a stage of a scan through the whole system on simulated hardware, which is left in `folder`."""
    summary = run_scan(folder)
    scratch = folder / "reference"
    scratch.mkdir()
    capture = stored_capture(folder, UUID(summary["scan"]))
    took, peaks, size = summary["seconds"], summary["peak_rss_mb_by_part"], summary["sealed_bytes"]
    commit = committing(size, scratch)
    # stage: the part whose memory it is, what it is compared with, how long that takes
    references = {
        "capture": ("captured", "shutter time + one multiplication a frame", exposing(capture)),
        "vault": ("app", "AES-256-GCM + write + fsync", encrypting(capture, scratch)),
        "analysis": ("analysis", "imports + inference + resize to 1/4", inferring(capture)),
        "seal": ("app", "HPKE X-Wing + Ed25519", sealing(size)),
        "submit": ("sync", "one SQLite commit, FULL", commit),
        "deliver": ("ingest", "QoS 1 publication over TLS + commit", publishing(size, scratch) + commit),
        "open": ("opener", "HPKE X-Wing + commit", sealing(size) + commit),
    }
    floor_mb = memory_of_imports()
    return [
        {
            "stage": stage,
            "seconds": round(took[stage], 4),
            "reference": what,
            "reference_seconds": round(reference, 4),
            "ratio": round(took[stage] / reference, 2),
            "part": part,
            "peak_mb": peaks[part],
            "peak_ratio": round(peaks[part] / floor_mb, 2),
        }
        for stage, (part, what, reference) in references.items()
    ]


def print_stages(rows: list[dict]) -> None:
    columns = "{:9} {:>8}  {:41} {:>8} {:>6}  {:9} {:>5} {:>6}"
    print(columns.format("stage", "seconds", "beside", "seconds", "ratio", "part", "MB", "ratio"))
    for row in rows:
        print(columns.format(*row.values()))
    print("Memory is beside a Python that only imports NumPy, OpenCV and the engine.")
