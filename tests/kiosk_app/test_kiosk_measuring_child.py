"""The child process that measures pictures: what it is given, and how it is ended."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from hardware.capture import Capture, Frame
from kiosk_app.demo.supervisor import Stopped
from kiosk_app.scanning import analyst
from kiosk_app.scanning.analyst import AnalysisFailed, Analyst
from models.analysis.words import Words
from tests.support.kiosk_bench import picture


def test_the_child_that_measures_is_told_whose_networks_it_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "child", f'echo "$@" > {tmp_path}/seen', monkeypatch)
    with pytest.raises(AnalysisFailed):
        Analyst("ai-edge-litert", tmp_path / "kiosk").measure(a_capture(picture(64, 48)), uuid4())
    assert f"--state {tmp_path}/kiosk" in (tmp_path / "seen").read_text()


def a_capture(pixels: np.ndarray) -> Capture:
    frame = Frame("white", pixels.astype(np.uint16) * 257, 8000, 1.0, timestamp_ns=0)
    return Capture("test", (frame,), simulated=True)


def stand_in(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(path))


def test_the_child_that_measures_is_given_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMAKIOSK_STATE", "/somewhere/secret")
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    script = f"env > {tmp_path}/seen; ls -l /proc/self/fd > {tmp_path}/files"
    stand_in(tmp_path / "child", script, monkeypatch)
    with (tmp_path / "vault.key").open("w"), pytest.raises(AnalysisFailed, match="not understood"):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())
    assert "secret" not in (tmp_path / "seen").read_text()
    assert "vault.key" not in (tmp_path / "files").read_text()
    assert (tmp_path / "files").read_text().count("memfd:") == 3


def test_nothing_of_a_scan_can_be_read_of_the_child_in_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line and an environment are for every user of the computer to read."""
    shown = "/proc/self/cmdline /proc/self/environ"
    stand_in(
        tmp_path / "child",
        f"cat {shown} > {tmp_path}/seen; ls -l /proc/self/fd >> {tmp_path}/seen",
        monkeypatch,
    )
    scan, words = uuid4(), Words(areas_title="Wo wir gemessen haben")
    with pytest.raises(AnalysisFailed):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), scan, words)
    with pytest.raises(AnalysisFailed):
        Analyst("ai-edge-litert").refuses(a_capture(picture(64, 48)), scan)
    seen = (tmp_path / "seen").read_bytes()
    assert b"memfd:request" in seen
    assert str(scan).encode() not in seen and b"gemessen" not in seen


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "child", f"echo $$ > {tmp_path}/pid; exec sleep 60", monkeypatch)
    began = time.monotonic()
    with pytest.raises(AnalysisFailed, match="not done within 1 s"):
        Analyst("ai-edge-litert", deadline_s=1.0).measure(a_capture(picture(64, 48)), uuid4())
    assert time.monotonic() - began < 55
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_child_that_does_nothing_is_ended_long_before_one_that_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst, "STILL_S", 1.0)
    stand_in(tmp_path / "child", f"echo $$ > {tmp_path}/pid; kill -STOP $$", monkeypatch)
    with pytest.raises(AnalysisFailed, match="did nothing for 1 s"):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    stand_in(tmp_path / "child", "while :; do :; done", monkeypatch)
    with pytest.raises(AnalysisFailed, match="not done within 2 s"):
        Analyst("ai-edge-litert", deadline_s=2.0).measure(a_capture(picture(64, 48)), uuid4())


def test_a_patient_does_not_wait_for_pictures_of_others_until_a_close_up_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(analyst, "CHECK_TURN_S", 0.2)
    measuring = Analyst("ai-edge-litert")
    with measuring._turn, pytest.raises(AnalysisFailed, match="other pictures for more than 0.2 s"):
        measuring.refuses(a_capture(picture(64, 48)), uuid4())


def test_a_check_of_a_close_up_has_less_time_than_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "child", "exec sleep 60", monkeypatch)
    monkeypatch.setattr(analyst, "CHECK_S", 0.5)
    with pytest.raises(AnalysisFailed, match="not done within 0.5 s"):
        Analyst("ai-edge-litert").refuses(a_capture(picture(64, 48)), uuid4())


def test_a_command_told_to_stop_does_not_wait_for_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_stop(*_args: object) -> int:
        monkeypatch.undo()
        raise Stopped(signal.SIGTERM)

    stand_in(tmp_path / "child", "exec sleep 60", monkeypatch)
    monkeypatch.setattr(subprocess.Popen, "wait", told_to_stop)
    began = time.monotonic()
    with pytest.raises(Stopped):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())
    assert time.monotonic() - began < 55


def test_a_child_that_dies_is_a_failure_that_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "child", "kill -9 $$", monkeypatch)
    with pytest.raises(AnalysisFailed, match="status -9"):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())


@pytest.mark.parametrize(("owner", "name"), [(os, "memfd_create"), (analyst.subprocess, "Popen")])
def test_without_memory_for_the_child_the_analysis_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    def exhausted(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(owner, name, exhausted)
    with pytest.raises(AnalysisFailed, match="Cannot allocate memory"):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())


def test_a_picture_without_a_face_is_refused_with_a_reason() -> None:
    flat = np.full((480, 360, 3), 180, np.uint8)
    outcome = Analyst("ai-edge-litert").measure(a_capture(flat), uuid4())
    assert (outcome.findings, outcome.refused) == (None, "no_face")
    assert outcome.sentence
    assert outcome.peak_rss_mb > 0
