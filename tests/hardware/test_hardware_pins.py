"""The pin page: what mock pins publish is what a reader in another process sees as light."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import DigitalOutputDevice, PWMOutputDevice

from hardware.simulated.pin_factory import PageFactory
from hardware.simulated.pins import PinPage, PinPageError, PinReader, cut_power

MS = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pins.page"


@pytest.fixture
def page(path: Path) -> Iterator[PinPage]:
    page = PinPage(path, ["white", "uv365"])
    yield page
    page.close()


@pytest.fixture
def reader(page: PinPage, path: Path) -> Iterator[PinReader]:
    reader = PinReader(path, {"uv365": 2.0})
    yield reader
    reader.close()


def test_gpiozero_devices_on_mock_pins_show_on_the_page(page: PinPage, reader: PinReader) -> None:
    factory = PageFactory(page, {18: "white", 23: "uv365"})
    white = PWMOutputDevice(18, frequency=2000, pin_factory=factory)
    uv = DigitalOutputDevice(23, pin_factory=factory)
    white.value = 0.25
    uv.on()
    uv.off()
    assert [(item.light, item.level) for item in reader.history()] == [
        ("white", 0.25),
        ("uv365", 1.0),
        ("uv365", 0.0),
    ]
    white.close()
    uv.close()
    assert reader.history()[-1].level == 0.0


def test_an_exposure_sees_the_mean_of_what_was_lit(page: PinPage, reader: PinReader) -> None:
    page.write("white", 0.5)
    page.write("white", 0.0)
    on, off = (item.at_ns for item in reader.history())
    length = off - on
    assert reader.levels(on, off)["white"] == pytest.approx(0.5)
    assert reader.levels(on - length, off)["white"] == pytest.approx(0.25)
    assert reader.levels(off, off + MS)["white"] == 0.0


def test_the_one_shot_cuts_uv_off_after_two_seconds(page: PinPage, reader: PinReader) -> None:
    page.write("uv365", 1.0)
    page.write("white", 1.0)
    on = reader.history()[0].at_ns
    assert reader.levels(on, on + 4_000 * MS)["uv365"] == pytest.approx(0.5)
    assert reader.levels(on + 2_000 * MS, on + 3_000 * MS)["uv365"] == 0.0
    assert reader.levels(on + 2_000 * MS, on + 3_000 * MS)["white"] == 1.0


def test_a_writer_that_was_killed_leaves_darkness(path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from hardware.simulated.pins import PinPage;"
        "page = PinPage(Path(sys.argv[1]), ['uv365']); page.write('uv365', 1.0);"
        "print('lit', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"lit\n"
    reader = PinReader(path)
    now = time.monotonic_ns()
    assert reader.levels(now, now + MS)["uv365"] == 1.0
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(60)
    writer.stdout.close()
    now = time.monotonic_ns()
    assert reader.levels(now, now + MS)["uv365"] == 0.0
    assert reader.history()[-1].level == 0.0
    reader.close()


def test_a_reader_follows_to_a_new_page(page: PinPage, reader: PinReader, path: Path) -> None:
    page.write("white", 1.0)
    assert reader.history()
    page.close()
    again = PinPage(path, ["white", "uv365"])
    assert reader.history() == []
    again.write("uv365", 1.0)
    assert [item.light for item in reader.history()] == ["uv365"]
    again.close()


def test_a_channel_keeps_its_level_after_its_entry_left_the_ring(page: PinPage, reader: PinReader) -> None:
    page.write("white", 0.5)
    for n in range(5_000):
        page.write("uv365", float(n % 2))
    now = time.monotonic_ns()
    assert reader.levels(now, now + MS)["white"] == 0.5
    assert len(reader.history()) <= 4_096


def test_dead_lamps_stay_dark_and_stuck_ones_stay_lit(page: PinPage, path: Path) -> None:
    reader = PinReader(path, dead=["white"], stuck=["uv365"])
    for light in ("white", "uv365"):
        page.write(light, 1.0)
        page.write(light, 0.0)
    now = time.monotonic_ns()
    assert reader.levels(now, now + MS) == {"white": 0.0, "uv365": 1.0}
    reader.close()


def test_without_a_page_there_is_no_light_and_no_history(tmp_path: Path) -> None:
    reader = PinReader(tmp_path / "none")
    assert reader.levels(0, 1) == {}
    with pytest.raises(PinPageError, match="start the light daemon"):
        reader.history()


def test_what_is_no_pin_page_is_refused(path: Path) -> None:
    path.write_bytes(b"x" * 200_000)
    with pytest.raises(PinPageError, match="not a pin page"):
        PinReader(path).history()


def test_when_the_power_fails_all_is_dark_from_that_instant_even_a_stuck_lamp(
    page: PinPage, path: Path
) -> None:
    page.write("white", 1.0)
    page.write("uv365", 1.0)
    failed_ns = cut_power(path)
    page.write("white", 0.5)
    reader = PinReader(path, stuck=["uv365"])
    on_ns = reader.history()[0].at_ns
    assert [(item.light, item.level) for item in reader.history()] == [
        ("white", 1.0),
        ("uv365", 1.0),
        ("white", 0.0),
        ("uv365", 0.0),
    ]
    assert {item.at_ns for item in reader.history()[2:]} == {failed_ns}
    assert reader.levels(failed_ns, failed_ns + MS) == {"white": 0.0, "uv365": 0.0}
    assert reader.levels(on_ns, failed_ns)["white"] == pytest.approx(1.0)
    assert reader.shone("uv365")[0][1] == failed_ns
    reader.close()


def test_power_can_only_fail_where_a_light_daemon_has_run(tmp_path: Path) -> None:
    with pytest.raises(PinPageError, match="start the light daemon"):
        cut_power(tmp_path / "none")


def test_a_pins_rises_are_counted_from_darkness(page: PinPage, reader: PinReader) -> None:
    assert reader.rise_ns("white", 1) is None
    for level in (0.3, 0.6, 0.0, 1.0):
        page.write("white", level)
    rises = [item.at_ns for item in reader.history() if item.level in (0.3, 1.0)]
    assert [reader.rise_ns("white", nth) for nth in (1, 2)] == rises
    assert reader.rise_ns("white", 3) is None
    assert reader.rise_ns("uv365", 1) is None
