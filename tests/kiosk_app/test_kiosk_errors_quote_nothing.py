"""What the kiosk's processes hand each other is quoted by no error, wherever in it something is wrong."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from firmware.stamps import ConsentStamp, UvAllowance
from hardware.capture import Capture, Frame, Spot
from models.analysis.result import Result, read_result, write_result
from tests.support.clinic import findings

SECRET = "ref-4711-secret"
WRONG: list[Any] = [SECRET, [SECRET], {SECRET: SECRET}, {"x": SECRET}]


def spoiled(data: Any) -> Iterator[Any]:
    """`data` (as of JSON) with something that is wrong, and names a patient, at one place after another."""
    yield from WRONG
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        for wrong in spoiled(data[key]):
            changed = copy.deepcopy(data)
            changed[key] = wrong
            yield changed


def framed(data: bytes, magic: int) -> tuple[Any, Callable[[Any], bytes]]:
    """The JSON at the head of `data`, and how another is put there."""
    start = magic + 4
    end = start + int.from_bytes(data[magic:start], "big")

    def again(header: Any) -> bytes:
        text = json.dumps(header).encode()
        return data[:magic] + len(text).to_bytes(4, "big") + text + data[end:]

    return json.loads(data[start:end]), again


def a_capture() -> Capture:
    frame = Frame("white", np.zeros((4, 4, 3), np.uint16), 8000, 1.0, 1)
    taken = [
        (
            Spot(zone="chin", x=0.1, y=0.2, mm_per_px=0.05),
            Frame("x", np.zeros((4, 4, 3), np.uint8), 1, 1.0, 2),
        )
    ]
    return Capture("test", (frame,), "nominal-test").with_close_ups(taken)


def captures() -> Iterator[tuple[Callable[[Any], object], Any]]:
    header, again = framed(a_capture().to_bytes(), 7)
    yield lambda said: Capture.from_bytes(again(said)), header


def results() -> Iterator[tuple[Callable[[Any], object], Any]]:
    whole = write_result(Result(findings(uuid4()), {"spots": b"png"}, seconds={"total": 1.0}))
    header, again = framed(whole, 7)
    yield lambda said: read_result(again(said)), header


def stamps() -> Iterator[tuple[Callable[[Any], object], Any]]:
    yield UvAllowance.from_dict, UvAllowance("someone", True, time.time()).to_dict()
    yield ConsentStamp.from_dict, ConsentStamp("1", "en", datetime.now(timezone.utc)).to_dict()


@pytest.mark.parametrize("handed_over", [captures, results, stamps])
def test_no_error_quotes_what_it_could_not_digest(
    handed_over: Callable[[], Iterator[tuple[Callable[[Any], object], Any]]],
) -> None:
    failed = 0
    for read, right in handed_over():
        read(right)
        for wrong in spoiled(right):
            try:
                read(wrong)
            except Exception as error:  # noqa: BLE001  whatever it is, and from wherever
                failed += 1
                assert hasattr(error, "exit_status"), f"{error!r} is no error of ours"
                assert SECRET not in str(error)
    assert failed > 10
