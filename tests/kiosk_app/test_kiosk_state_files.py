"""What stands in the place of a small file of the state folder never keeps the kiosk waiting."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from structlog.testing import capture_logs

from firmware.cameras.calibration import Calibration, Calibrations, write_calibration
from firmware.cameras.grey_card_check import why_not_to_scan
from firmware.lights import lamp_hours
from hardware.board import BOARDS, load_board
from hardware.host.errors import PlainError
from hardware.host.folders import make_folder
from kiosk_app.kept.vault import Vault, new_key
from kiosk_app.scanning import engine_check, licence
from kiosk_app.scanning.sealer import SealerError
from kiosk_app.serve_cli import open_kiosk
from kiosk_app.web.door import Door
from models.networks.signature import PUBLIC_KEY
from sync.kiosk.identity import AgentIdentity, EnrolmentUnusable, KeySet, load_status_key
from sync.wire.waiver import FILE
from tests.support.kiosk_bench import Bench

BOARD = load_board(BOARDS / "simulated.toml")
SOON_S = 20.0


def a_pipe(path: Path) -> None:
    """That nobody writes to: who opens it for reading waits for ever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def comes_to_its_end(work: Callable[[], object]) -> object:
    """What `work` gave or raised."""
    came: list[object] = []

    def do() -> None:
        try:
            came.append(work())
        except (PlainError, EnrolmentUnusable, OSError) as error:
            came.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(SOON_S)
    assert not thread.is_alive(), "it waits for a pipe"
    return came[0]


def serve(state: Path) -> None:
    with open_kiosk(BOARD, state, {"white"}):
        pass


@pytest.mark.parametrize(
    "name",
    [
        "identity.json",
        "clinic-root.pub",
        "clinic-manifest.pub",
        "models.sig",
        "app/vault.key",
        "app/result.key",
    ],
)
def test_serve_refuses_a_pipe_in_the_place_of_its_files(bench: Bench, name: str) -> None:
    a_pipe(bench.state / name)
    assert isinstance(said := comes_to_its_end(lambda: serve(bench.state)), PlainError)
    assert Path(name).name in str(said) or "keys are damaged" in str(said)


DEEP = "[" * 100_000  # deeper than Python reads


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("identity.json", DEEP),
        ("identity.json", '{"kiosk": 1, "clinic": "C", "epoch": 1}'),
        ("identity.json", '{"kiosk": [], "clinic": "C", "epoch": 1}'),
        (
            "identity.json",
            '{"kiosk": "6e0cdd67-ad56-4cd6-9cd4-70e3df8a4d10", "clinic": "C", "epoch": 1e999}',
        ),
        ("app/vault.key", DEEP),
    ],
)
def test_serve_says_of_a_file_with_other_json_that_it_is_damaged(
    bench: Bench, name: str, content: str
) -> None:
    (bench.state / name).write_text(content)
    with pytest.raises(PlainError, match=f"{Path(name).name} is damaged"):
        serve(bench.state)


def test_lamp_hours_and_grey_cards_with_other_json_are_none(tmp_path: Path) -> None:
    hours, card, huge = tmp_path / "hours.json", tmp_path / "calibration" / "grey-card.json", "1" + "0" * 400
    card.parent.mkdir()
    board = BOARD.model_copy(update={"grey_card_every_h": 24.0})
    a_card = f'{{"calibration": "", "at": "2026-11-30", "level_off": {{"white": {huge}}}}}'
    for of_lamps, of_card in ((DEEP, DEEP), (f'{{"white": {huge}}}', a_card)):
        hours.write_text(of_lamps)
        card.write_text(of_card)
        assert lamp_hours._read(hours) == ({}, {})
        assert "was not checked" in str(why_not_to_scan(tmp_path, board, calibration()))


def test_the_clinics_keys_are_read_from_no_pipe(bench: Bench) -> None:
    a_pipe(bench.state / "clinic-keys.cose")
    assert isinstance(comes_to_its_end(bench.kiosk.courier._sealer._clinic_keys), SealerError)


def test_a_waiver_is_read_from_no_pipe(bench: Bench) -> None:
    for name in (PUBLIC_KEY, FILE):
        a_pipe(bench.state / name)
        why = comes_to_its_end(lambda: licence.why_not_licensed(bench.state, uuid4()))
        assert f"{name} cannot be read (it is a named pipe" in str(why)
        (bench.state / name).unlink()
        (bench.state / name).write_text(bench.clinic.manifest.public_key().public_bytes_raw().hex())


def test_the_doors_secret_is_read_from_no_pipe(tmp_path: Path) -> None:
    a_pipe(tmp_path / "screen" / "key")
    assert "a named pipe" in str(comes_to_its_end(lambda: Door(tmp_path / "screen")))


def test_the_note_of_the_engine_is_read_from_no_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_pipe(tmp_path / engine_check.CHECKED)
    right = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_named: right)
    assert comes_to_its_end(lambda: engine_check.require_right_engine(BOARD.engine, tmp_path)) is None
    assert (tmp_path / engine_check.CHECKED).is_file()


def test_an_engine_that_answers_right_may_measure_also_where_that_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk without room: the pages have to say so, and staff to be able to delete scans."""

    def full(path: Path, *_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    right = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_named: right)
    monkeypatch.setattr(engine_check, "write_whole", full)
    with capture_logs() as said:
        engine_check.require_right_engine(BOARD.engine, tmp_path)
    assert [event["event"] for event in said] == ["engine_check_not_noted"]


def test_an_item_of_the_vault_is_read_from_no_pipe(tmp_path: Path) -> None:
    vault, scan, dek = Vault(make_folder(tmp_path / "vault")), uuid4(), new_key()
    vault.put_all(scan, dek, {"capture": b"x"})
    a_pipe(vault.folder / str(scan) / "capture.cob")
    assert "cannot be read (it is a named pipe" in str(
        comes_to_its_end(lambda: vault.get(scan, dek, "capture"))
    )


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("identity.json", AgentIdentity.load),
        ("sync/status.key", load_status_key),
        ("clinic-root.pub", KeySet),
        ("clinic-keys.cose", KeySet),
    ],
)
def test_the_agent_reads_its_files_from_no_pipe(
    bench: Bench, name: str, read: Callable[[Path], object]
) -> None:
    a_pipe(bench.state / name)
    assert "a named pipe" in str(comes_to_its_end(lambda: read(bench.state)))


def test_the_hours_of_the_lamps_are_read_from_no_pipe(tmp_path: Path) -> None:
    a_pipe(tmp_path / "lamp-hours.json")
    assert comes_to_its_end(lambda: lamp_hours._read(tmp_path / "lamp-hours.json")) == ({}, {})


def calibration() -> Calibration:
    return Calibration(
        BOARD.name,
        datetime.now(timezone.utc),
        (BOARD.camera.still.width, BOARD.camera.still.height),
        black=np.zeros((2, 2, 3), np.float32),
        gains={},
        matrix=np.eye(3),
        mm_per_px=0.1,
        lamps_mm={},
        scores={},
    )


@pytest.mark.parametrize("name", ["calibration.json", "maps.npz"])
def test_a_calibration_is_read_from_no_pipe(tmp_path: Path, name: str) -> None:
    folder = write_calibration(tmp_path, calibration())
    a_pipe(folder / name)
    assert comes_to_its_end(Calibrations(tmp_path, BOARD).newest) is None


def test_the_check_of_the_grey_card_is_read_from_no_pipe(tmp_path: Path) -> None:
    a_pipe(tmp_path / "calibration" / "grey-card.json")
    board = BOARD.model_copy(update={"grey_card_every_h": 24.0})
    why = comes_to_its_end(lambda: why_not_to_scan(tmp_path, board, calibration()))
    assert "The grey card was not checked" in str(why)
