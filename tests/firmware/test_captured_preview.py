"""The preview: every frame of the camera for who asks at once, none from before its light was on."""

from __future__ import annotations

import json
import threading

import pytest

from firmware.capture.client import CaptureClient, CaptureFault
from firmware.capture.daemon import CaptureDaemon
from hardware.board import load_board
from hardware.simulated.camera import SimulatedCamera
from hardware.simulated.patient import Patient
from models.networks.runtime import NetworkNotFinite, NetworkTooSlow
from tests.support.kiosk_daemons import Daemon, consent, small_board
from tests.support.own_log import own_log
from tests.support.stand_in_face import find_stand_in, landmarks, portrait


def test_a_preview_may_have_begun_before_it_was_asked_for_but_not_before_its_light(tmp_path, monkeypatch):
    asked, begun = [], []
    expose = SimulatedCamera.expose

    def noting(camera, mode, exposure_us, gain, after_ns):
        exposure = expose(camera, mode, exposure_us, gain, after_ns)
        asked.append(after_ns)
        begun.append(exposure.timestamp_ns)
        return exposure

    monkeypatch.setattr(SimulatedCamera, "expose", noting)
    profile = small_board(tmp_path)
    board = load_board(profile)
    patient = Patient(board, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
    lightd = Daemon("lightd", profile, tmp_path / "k")
    daemon = CaptureDaemon(board, tmp_path / "k", find_stand_in, lambda: patient)
    thread = threading.Thread(target=daemon.serve)
    thread.start()
    try:
        client = CaptureClient(tmp_path / "k" / "run" / "capture.sock", timeout=20)
        for _ in range(3):
            client.preview("s1", consent())
        client.end("s1")
        client.preview("s2", consent())
        client.end("s2")
    finally:
        daemon.stop()
        thread.join(10)
        lightd.end()
    assert asked[1:3] == [begun[0] + 1, begun[1] + 1]
    # The next session's light has gone on since: what was taken in the dark between is not for it.
    assert asked[3] > begun[2] + 1
    assert begun[3] >= asked[3]


@pytest.mark.parametrize("kind", [NetworkNotFinite, NetworkTooSlow])
@pytest.mark.parametrize("what", ["preview", "capture"])
def test_a_network_that_says_nothing_usable_is_told_of_with_its_own_sentence(tmp_path, capsys, kind, what):
    sentence = "The network 'face-landmarks' answered with what is no number. Run 'dermakiosk models verify'."

    def find(picture, engine):
        raise kind(sentence)

    profile = small_board(tmp_path)
    board = load_board(profile)
    patient = Patient(board, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
    lightd = Daemon("lightd", profile, tmp_path / "k")
    with own_log():
        daemon = CaptureDaemon(board, tmp_path / "k", find, lambda: patient)
        thread = threading.Thread(target=daemon.serve)
        thread.start()
        try:
            client = CaptureClient(tmp_path / "k" / "run" / "capture.sock", timeout=20)
            with pytest.raises(CaptureFault) as fault:
                if what == "preview":
                    client.preview("s1", consent())
                else:
                    client.capture("s1", consent(), {"white"}, None)
            assert (fault.value.code, str(fault.value)) == ("unavailable", sentence)
            assert client.status()["last_fault"] == "unavailable"
        finally:
            daemon.stop()
            thread.join(10)
            lightd.end()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [event["why"] for event in events if event["level"] == "error"] == [sentence]
