"""The wiring: what is drawn is what the board profile says, and what is committed is what is drawn."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from hardware.board import BOARDS, load_board
from hardware.cli import board as board_command
from hardware.header import HEADERS
from hardware.wiring import NothingToWire, draw_wiring

DOCS = Path(__file__).parents[2] / "hardware" / "docs"
WIRED = [path for path in sorted(BOARDS.glob("*.toml")) if load_board(path).header]
SVG = "{http://www.w3.org/2000/svg}"


def words(drawing: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


@pytest.mark.parametrize("path", WIRED, ids=lambda path: path.stem)
def test_the_committed_drawing_is_what_the_command_draws(tmp_path: Path, path) -> None:
    out = tmp_path / "wiring.svg"
    result = CliRunner().invoke(board_command, ["wiring", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == (DOCS / f"wiring-{path.stem}.svg").read_bytes()


@pytest.mark.parametrize("path", WIRED, ids=lambda path: path.stem)
def test_every_pin_of_the_profile_is_drawn_and_no_other(path) -> None:
    board = load_board(path)
    drawing = draw_wiring(board)
    root = ElementTree.fromstring(drawing)
    numbers = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "number used"]
    header = HEADERS[str(board.header)]
    lines = {str(header.at[pin]) for pin in board.pins.values()}
    buses = {"3", "5"} | ({"19", "21", "23", "26"} if board.key_store == "tpm2" else set())
    assert set(numbers) == lines | buses
    assert {header.names[pin] for pin in board.pins.values()} <= set(words(drawing))
    assert set(board.lights) <= set(words(drawing))


def test_a_changed_pin_changes_the_drawing() -> None:
    board = load_board(BOARDS / "raspberrypi5.toml")
    cross = board.lights["cross"].model_copy(update={"pin": 25})
    other = board.model_copy(update={"lights": {**board.lights, "cross": cross}})
    assert "GPIO 25" in words(draw_wiring(other))
    assert "GPIO 27" not in words(draw_wiring(other))


def test_a_word_with_markup_in_it_stays_a_word() -> None:
    board = load_board(BOARDS / "raspberrypi5.toml")
    other = board.model_copy(update={"title": "<script>&"})
    assert "Wiring: <script>&" in words(draw_wiring(other))


def runs(drawing: str) -> list[tuple[float, float, float]]:
    """(turning place, height from, height to) of each wire on its way from the header to a module."""
    path = r'class="halo" d="M[\d.]+ ([\d.]+) H([\d.]+) q([\d.]+) 0 [\d.]+ ([\d.-]+) V([\d.]+)'
    found = [tuple(map(float, wire)) for wire in re.findall(path, drawing)]
    return [(turn + bend, out, end + down) for out, turn, bend, down, end in found]


@pytest.mark.parametrize("path", WIRED, ids=lambda path: path.stem)
def test_no_wire_crosses_or_touches_another(path) -> None:
    board = load_board(path)
    wires = runs(draw_wiring(board))
    assert len(wires) >= len(board.pins)
    for x, out, end in wires:
        for other_x, other_out, other_end in wires:
            low, high = sorted((other_out, other_end))
            if (x, out) == (other_x, other_out):
                continue
            assert not (other_x < x and low <= out <= high)
            assert not (other_x > x and low <= end <= high)
            assert other_x != x or max(out, end) < low or high < min(out, end)


def test_a_board_without_a_header_has_nothing_to_wire() -> None:
    with pytest.raises(NothingToWire, match="laptop"):
        draw_wiring(load_board(BOARDS / "laptop.toml"))
