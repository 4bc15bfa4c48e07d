"""The schedule: what is sent again, when."""

from __future__ import annotations

import random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from sync.kiosk.schedule import Backoff, SendSchedule

A, B, C = (UUID(int=n) for n in range(3))


def schedule() -> SendSchedule:
    return SendSchedule(Backoff(60.0, 900.0, random.Random(1)))


def test_what_is_new_is_due_now_and_in_order() -> None:
    plan = schedule()
    plan.follow([C, A, B], now=100.0)
    assert plan.due(100.0, limit=10) == [C, A, B]
    assert plan.due(100.0, limit=2) == [C, A]
    assert plan.due(100.0, limit=0) == []


def test_what_was_sent_is_due_again_after_a_minute_without_receipt() -> None:
    plan = schedule()
    plan.follow([A], now=0.0)
    plan.sent(A)
    plan.tried(A, now=0.0)
    assert plan.due(59.9, limit=10) == []
    assert plan.due(60.0, limit=10) == [A]
    assert plan.next_at() == 60.0


def test_a_receipt_ends_it() -> None:
    plan = schedule()
    plan.follow([A, B], now=0.0)
    plan.done(A)
    assert plan.due(1e9, limit=10) == [B]
    plan.sent(A)
    plan.not_taken(A, now=0.0)
    plan.follow([], now=0.0)
    assert plan.next_at() is None


def test_what_the_broker_never_had_is_due_at_once() -> None:
    plan = schedule()
    plan.follow([A], now=0.0)
    plan.sent(A)
    plan.not_taken(A, now=5.0)
    assert plan.due(5.0, limit=10) == [A]


def test_what_the_broker_has_not_answered_is_not_sent_beside_itself() -> None:
    plan = schedule()
    plan.follow([A, B], now=0.0)
    plan.sent(A)
    assert plan.due(1e9, limit=10) == [B]


def test_only_what_the_broker_answered_makes_the_next_wait_longer() -> None:
    plan = schedule()
    plan.follow([A], now=0.0)
    for lost_at in range(50):
        plan.sent(A)
        plan.not_taken(A, now=float(lost_at))
    plan.tried(A, now=100.0)
    assert plan.next_at() == 160.0


def test_what_connections_end_over_is_sent_behind_the_others() -> None:
    plan = schedule()
    plan.follow([A, B], now=0.0)
    for suspected in (A, A, B):
        for each in plan.due(0.0, limit=10):
            plan.sent(each)
            plan.not_taken(each, now=0.0, suspect=each == suspected)
    plan.follow([A, B, C], now=0.0)
    assert plan.due(0.0, limit=10) == [C, B, A]
    plan.tried(A, now=-60.0)
    assert plan.due(0.0, limit=10) == [A, C, B]


def test_taking_up_what_is_new_keeps_the_times_of_what_is_known() -> None:
    plan = schedule()
    plan.follow([A], now=0.0)
    plan.sent(A)
    plan.follow([A, B], now=1.0)
    assert plan.due(1.0, limit=10) == [B]


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_no_delay_is_longer_than_a_quarter_of_an_hour(failures: int, seed: int) -> None:
    assert 0.0 <= Backoff(60.0, 900.0, random.Random(seed)).delay(failures) <= 900.0


def test_delays_spread_over_the_whole_range_and_grow() -> None:
    backoff = Backoff(60.0, 900.0, random.Random(3))
    assert backoff.delay(1) == 60.0
    second = [backoff.delay(2) for _ in range(500)]
    late = [backoff.delay(9) for _ in range(500)]
    assert max(second) <= 120.0 < max(late) <= 900.0
    assert min(late) < 60.0
    assert sum(late) > 3 * sum(second)
