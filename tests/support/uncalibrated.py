"""A simulated board that no calibration was made for."""

from __future__ import annotations

from pathlib import Path

from hardware.board import BOARDS


def small(folder, name="board.toml", **replaced) -> Path:
    text = (BOARDS / "simulated-uncalibrated.toml").read_text()
    text = text.replace("width = 1536, height = 2048", "width = 384, height = 512")
    text = text.replace("width = 480, height = 640", "width = 192, height = 256")
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return folder / name
