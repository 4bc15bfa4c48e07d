"""The tests' own waiting: what a round that was played anew failed of is not lost."""

from __future__ import annotations

import pytest

from tests.support.waiting import in_one_of_three_rounds


def test_where_each_round_fails_it_is_said_what_each_one_failed_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reasons = iter([TypeError("a bug"), OSError("no socket"), AssertionError("too late")])

    def play() -> None:
        raise next(reasons)

    with pytest.raises(AssertionError, match="too late"):
        in_one_of_three_rounds(play)
    said = capsys.readouterr().out
    assert "TypeError: a bug" in said and "OSError: no socket" in said


def test_one_round_of_three_is_enough() -> None:
    reasons = iter([OSError("a stall"), OSError("a stall")])

    def play() -> int:
        for reason in reasons:
            raise reason
        return 7

    assert in_one_of_three_rounds(play) == 7
