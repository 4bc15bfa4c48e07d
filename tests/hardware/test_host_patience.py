"""How long whoever is at work waits for others: for each of them, and for all together."""

from __future__ import annotations

import threading

import pytest

from hardware.host.patience import patience, time_left, waiting_at_most


def test_who_said_nothing_waits_as_long_as_the_deadline_of_what_is_waited_for() -> None:
    assert (patience(60.0), time_left(60.0)) == (60.0, 60.0)


def test_what_another_one_holds_is_waited_for_no_longer_than_was_said_and_an_answer_until_the_end() -> None:
    with waiting_at_most(5.0, 25.0):
        assert (patience(60.0), patience(2.0)) == (5.0, 2.0)
        assert 20.0 < time_left(60.0) <= 25.0
    assert patience(60.0) == 60.0


def test_after_the_time_of_all_waits_nothing_is_waited_for() -> None:
    with waiting_at_most(5.0, 0.0):
        assert (patience(60.0), time_left(60.0)) == (0.0, 0.0)


@pytest.mark.parametrize(("outer_s", "inner_s"), [(1.0, 5.0), (5.0, 1.0)])
def test_of_two_who_say_it_the_shorter_one_counts(outer_s: float, inner_s: float) -> None:
    with waiting_at_most(outer_s, 2.0), waiting_at_most(inner_s, 30.0):
        assert patience(60.0) == 1.0
        assert time_left(60.0) <= 2.0


def test_a_thread_that_is_begun_meanwhile_waits_as_long_as_it_likes() -> None:
    found: list[float] = []
    with waiting_at_most(5.0, 25.0):
        thread = threading.Thread(target=lambda: found.append(patience(60.0)))
        thread.start()
        thread.join(20)
    assert found == [60.0]
