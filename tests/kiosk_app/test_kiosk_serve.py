"""`dermakiosk serve`: where it says that it is, and what it refuses."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from hardware.board import BOARDS
from kiosk_app import serve_cli
from models.networks.manifest import ModelsError
from tests.support.kiosk_bench import Bench, Clinic
from tests.support.kiosk_commands import BOARD, run, serving
from tests.support.wrong_engine import SAID, have_the_engine_compute_wrongly


@pytest.fixture
def state(tmp_path: Path, clinic: Clinic) -> Path:
    return clinic.enrol(tmp_path / "kiosk")


def test_serve_says_where_it_is_and_ends_at_sigterm(state: Path) -> None:
    with serving(state) as (process, address):
        with urllib.request.urlopen(f"{address}healthz", timeout=60) as answer:
            assert json.load(answer)["ok"] is True
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(address, timeout=60) as answer:
            assert b"SIMULATED" in answer.read()
        secret = (state / "run" / "screen" / "key").read_text().strip()
        assert secret in address
        assert (state / "run" / "screen" / "key").stat().st_mode & 0o777 == 0o600
        assert secret not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        said = process.stderr.read()
        assert secret not in said
        events = [json.loads(line)["event"] for line in said.splitlines()]
    assert events[0] == "recovered"
    assert {"ready", "stopped"} <= set(events)


def test_serve_refuses_a_folder_that_is_no_enrolled_kiosk(tmp_path: Path) -> None:
    done = run("serve", "--board", BOARD, "--state", tmp_path, "--port", 0)
    assert done.returncode == 2
    assert "provision enrol" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serve_refuses_a_simulated_camera_on_a_board_that_does_not_say_so(
    state: Path, tmp_path: Path
) -> None:
    board = tmp_path / "board.toml"
    board.write_text(BOARD.read_text().replace("simulated = true", "simulated = false", 1))
    done = run("serve", "--board", board, "--state", state, "--port", 0)
    assert done.returncode == 2
    assert "not a usable board profile" in done.stderr
    assert "simulated" in done.stderr


def test_serve_refuses_a_key_store_that_it_cannot_keep_its_key_in(state: Path) -> None:
    result = run("serve", "--board", BOARDS / "raspberrypi5.toml", "--state", state, "--port", "0")
    assert result.returncode == 2
    assert "key_store = 'tpm2'" in result.stderr


def test_serve_refuses_networks_that_the_clinic_did_not_sign(state: Path) -> None:
    signature = state / "models.sig"
    signature.write_text("0" * 128)
    done = run("serve", "--board", BOARD, "--state", state, "--port", 0)
    assert done.returncode == 1
    assert "not the one that this kiosk's clinic signed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    signature.unlink()
    assert "dermakiosk models sign" in run("serve", "--board", BOARD, "--state", state, "--port", 0).stderr


def test_serve_refuses_an_engine_that_answers_the_known_picture_otherwise(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_the_engine_compute_wrongly(monkeypatch)
    monkeypatch.setattr(serve_cli, "keep_memory_to_ourselves", lambda: None)
    monkeypatch.setattr(serve_cli, "make_web_server", lambda *a, **k: pytest.fail("it serves all the same"))
    arguments = ["--board", str(BOARD), "--state", str(state), "--port", "0"]
    result = CliRunner().invoke(serve_cli.serve, arguments, obj={"debug": True})
    assert isinstance(result.exception, ModelsError)
    assert str(result.exception) == SAID


def test_a_port_that_is_taken_is_said_plainly(state: Path, tmp_path: Path, clinic: Clinic) -> None:
    another = clinic.enrol(tmp_path / "another")
    with serving(state) as (_process, address):
        port = urlsplit(address).port
        done = run("serve", "--board", BOARD, "--state", another, "--port", str(port))
    assert done.returncode == 1
    assert "--port" in done.stderr


def test_a_restart_after_kill_9_abandons_what_had_no_pictures(bench: Bench) -> None:
    with serving(bench.state) as (process, _address):
        scan = bench.kiosk.records.create({"text_version": "1", "language": "en", "at": "2026-01-01"}, None)
        (bench.kiosk.vault.folder / f".{scan}.partial").mkdir()
        process.kill()
        process.wait(60)
    with serving(bench.state):
        assert bench.kiosk.records.scan(scan).state == "abandoned"
        assert list(bench.kiosk.vault.folder.iterdir()) == []


def test_the_pages_are_served_though_nothing_can_be_sealed_for_the_clinic(bench: Bench) -> None:
    (bench.state / "clinic-keys.cose").write_bytes(b"x")
    with serving(bench.state) as (process, _address):
        assert process.poll() is None


@pytest.mark.parametrize("port", [99999, -1])
def test_a_port_that_is_none_is_refused(state: Path, port: int) -> None:
    done = run("serve", "--board", BOARD, "--state", state, "--port", port)
    assert done.returncode == 2
    assert "65535" in done.stderr


def test_serve_refuses_to_go_on_without_the_key_of_its_records(bench: Bench) -> None:
    (bench.state / "app" / "vault.key").unlink()
    done = run("serve", "--board", BOARD, "--state", bench.state, "--port", 0)
    assert done.returncode == 1
    assert "vault.key is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serve_says_which_folder_it_cannot_use(state: Path) -> None:
    (state / "app" / "vault").write_text("in the way")
    done = run("serve", "--board", BOARD, "--state", state, "--port", 0)
    assert done.returncode == 2
    assert f"{state / 'app'} cannot be used (File exists)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serve_refuses_a_folder_whose_path_has_no_room_for_sockets(clinic: Clinic, tmp_path: Path) -> None:
    state = clinic.enrol(tmp_path / ("k" * 100))
    done = run("serve", "--board", BOARD, "--state", state, "--port", 0)
    assert done.returncode == 2
    assert "too long for the sockets" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (state / "app" / "vault.key").exists()
