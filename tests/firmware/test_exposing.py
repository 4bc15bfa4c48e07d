"""Exposing: one place in which lights go on for pictures, and go off again on every way out."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from firmware.cameras.camera import CameraFrozen
from firmware.cameras.exposing import DARK, Exposing, Setting
from firmware.capture.sequence import Sequence
from firmware.lights.client import LightsFault
from tests.support.kiosk_daemons import ROOT
from tests.support.sequences import impatient, lit_lamps, uv_rises

PLACE = "firmware/cameras/exposing.py"


def modules_with(is_it) -> set[str]:
    """The modules of the firmware in which a piece of the source is what `is_it` looks for."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / "firmware").rglob("*.py")
        if any(is_it(node) for node in ast.walk(ast.parse(path.read_text())))
    }


def asks_a_camera(node: ast.AST) -> bool:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return is_call and node.func.attr in ("expose", "prepare") and "camera" in ast.unparse(node.func.value)


def lets_a_light_settle(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "settle_ms"


@pytest.mark.parametrize("is_it", [asks_a_camera, lets_a_light_settle])
def test_pictures_are_taken_in_one_place(is_it) -> None:
    assert modules_with(is_it) == {PLACE}


@pytest.fixture
def exposing(stage: Callable[..., Sequence]) -> Callable[..., Exposing]:
    """`exposing(…)`: on a stage whose simulation is as given."""

    def build(watch=None, **simulation) -> Exposing:
        sequence = stage(**simulation)
        hangs = simulation.get("camera_fault") == "hangs"
        board = impatient(sequence.board) if hangs else sequence.board
        return Exposing(board, sequence.camera, sequence.lights, watch or sequence.lights.beat)

    return build


def settings(exposing: Exposing) -> dict[str, Setting]:
    """One of each kind."""
    stills = {light: Setting.still(exposing.board, light) for light in (DARK, "white", "uv365")}
    return {**stills, "look": Setting.look(exposing.board)}


KINDS = [DARK, "white", "uv365", "look"]


class Noting:
    """What stands in front of `real`, and notes in `seen` the calls that matter here, as they begin."""

    def __init__(self, real, seen: list[str]) -> None:
        self._real, self._seen = real, seen

    def __getattr__(self, name) -> Any:
        if name in ("prepare", "expose", "on", "pulse", "off"):
            self._seen.append(name)
        return getattr(self._real, name)


@pytest.mark.parametrize(
    ("kind", "order"),
    [
        (DARK, ["off", "prepare", "expose", "off"]),
        ("white", ["prepare", "on", "expose", "off"]),
        ("uv365", ["prepare", "pulse", "expose", "off"]),
        ("look", ["prepare", "on", "expose", "off"]),
    ],
)
def test_a_light_goes_on_when_the_camera_is_ready_and_off_when_the_picture_is_taken(
    exposing: Callable[..., Exposing], kind, order
) -> None:
    real, seen = exposing(), []
    noted = Exposing(real.board, Noting(real.camera, seen), Noting(real.lights, seen), real.lights.beat)
    (taken,) = noted.expose(settings(real)[kind])
    assert seen == order
    assert not taken.too_early
    assert real.disturbed(taken) is None


def test_several_pictures_are_taken_under_one_light_one_after_the_other(
    exposing: Callable[..., Exposing], tmp_path: Path
) -> None:
    here = exposing()
    taken = here.expose(Setting.still(here.board, "white"), 3)
    begun = [one.exposure.timestamp_ns for one in taken]
    assert begun == sorted(set(begun))
    assert all(here.counts(one.exposure).mean() > 500 for one in taken)
    assert lit_lamps(tmp_path) == set()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "raised"), [("raises", OSError), ("hangs", CameraFrozen)])
def test_a_camera_that_fails_leaves_the_dark(
    exposing: Callable[..., Exposing], tmp_path: Path, kind, fault, raised
) -> None:
    here = exposing(camera_fault=fault, camera_fault_at=0)
    with pytest.raises(raised):
        here.expose(settings(here)[kind])
    assert lit_lamps(tmp_path) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_watcher_that_gives_up_leaves_the_dark(
    exposing: Callable[..., Exposing], tmp_path: Path, kind
) -> None:
    class Enough(Exception):
        """Nobody waits for this picture any more."""

    def give_up() -> NoReturn:
        raise Enough

    here = exposing(watch=give_up, camera_fault="hangs", camera_fault_at=0)
    with pytest.raises(Enough):
        here.expose(settings(here)[kind])
    assert lit_lamps(tmp_path) == set()


def test_a_light_that_is_refused_leaves_the_dark_and_no_picture(
    exposing: Callable[..., Exposing], tmp_path: Path
) -> None:
    here = exposing(shroud_closed=(True, False))
    with pytest.raises(LightsFault) as refused:
        here.expose(Setting.still(here.board, "uv365"))
    assert refused.value.code == "shroud_open"
    assert (lit_lamps(tmp_path), uv_rises(tmp_path)) == (set(), 0)


def test_a_look_is_exposed_as_much_longer_as_its_light_is_dimmer(exposing: Callable[..., Exposing]) -> None:
    here = exposing()
    still, look = settings(here)["white"], settings(here)["look"]
    preview_s = 1 / here.board.camera.preview.fps
    assert look.level < 1
    assert look.exposure_us == pytest.approx(min(still.exposure_us / look.level, 0.95e6 * preview_s), abs=1)
