"""Whole systems on a simulated board with a fault in it: what the patient is told, and that visits go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kiosk_app.demo.patient import DemoPatient, ScanRefused
from kiosk_app.kept.states import ScanState
from tests.support.system import EVERY_LIGHT, RunningSystem, running_system, small_system_board
from tests.support.visits import Visit, everything_arrived_once, records_of
from tests.support.waiting import wait_until


class Reader(DemoPatient):
    """A patient who remembers every page."""

    def _open(self, path: str, fields: dict[str, str] | None = None) -> str:
        html = super()._open(path, fields)
        self.read = [*getattr(self, "read", []), html]
        return html


@contextmanager
def a_kiosk(folder: Path, simulation: str) -> Iterator[RunningSystem]:
    """A running system whose board has these lines in [simulation]; its pictures are under every light."""
    board = small_system_board(folder, simulation)
    with running_system(folder / "s", board=board, replace={"app": EVERY_LIGHT}) as running:
        yield running


def newest_missing(running: RunningSystem) -> dict[str, str]:
    newest = records_of(running).latest()
    assert newest is not None
    missing: dict[str, str] = newest.figures["missing"]
    return missing


def test_a_shroud_opened_in_the_uv_pulse_is_told_and_the_scan_arrives(tmp_path: Path) -> None:
    fault = 'patient_opens_shroud_at = { light = "uv365", after_s = 0.05 }\npatient_opens_shroud_s = 1.5'
    with a_kiosk(tmp_path, fault) as running:
        reader = Reader(running.system.kiosk_url)
        assert reader.walk()[-2:] == ["result", "done"]
        assert any("so the UV light went off" in html for html in reader.read)
        assert newest_missing(running) == {"uv365": "shroud_open"}
        assert Visit(running).end() is None
        assert newest_missing(running) == {}
        everything_arrived_once(running)
        assert len(running.clinic_scans()) == 2


def test_a_shroud_opened_among_the_pictures_ends_the_try_with_a_sentence_and_the_next_one_works(
    tmp_path: Path,
) -> None:
    fault = 'patient_opens_shroud_at = { light = "parallel" }\npatient_opens_shroud_s = 8.0'
    with a_kiosk(tmp_path, fault) as running:
        with pytest.raises(ScanRefused, match="The hood was open"):
            DemoPatient(running.system.kiosk_url).walk()
        assert [row.state for row in records_of(running).scans()] == [ScanState.ABANDONED]
        wait_until(lambda: Visit(running).end() is None, "a visit with the shroud closed")
        everything_arrived_once(running)


def test_a_patient_who_moves_while_closing_the_eyes_loses_the_uv_picture_only(tmp_path: Path) -> None:
    # Eight exposures with the eyes open come first; no preview is looked at.
    with a_kiosk(tmp_path, "patient_moves_at = 8\npatient_moves_mm = 20.0") as running:
        assert Visit(running).end() is None
        assert newest_missing(running) == {"uv365": "moved"}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("patient_leaves_at = 2", "stopped"),
        ("patient_moves_at = 2\npatient_moves_mm = 20.0", "fit together"),
    ],
)
def test_a_patient_who_does_not_stay_is_told(tmp_path: Path, fault: str, said: str) -> None:
    with a_kiosk(tmp_path, fault) as running, pytest.raises(ScanRefused, match=said):
        DemoPatient(running.system.kiosk_url).walk()
