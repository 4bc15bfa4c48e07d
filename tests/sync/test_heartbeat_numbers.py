"""The numbers of heartbeats: they only grow, whatever the clock says, and a wrong one is set right."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from sync.kiosk import outbox as module
from sync.kiosk.outbox import Outbox
from tests.support.wire import Party

PARTY = Party()


CLOCK = datetime(2026, 3, 2, 14, 5, tzinfo=timezone.utc)


def restarted(path: Path, clock: list[datetime]) -> Outbox:
    return Outbox(path, now=lambda: clock[0])


def test_the_numbers_of_heartbeats_only_grow_whatever_the_clock_says_and_none_is_of_the_future(
    tmp_path: Path,
) -> None:
    clock, later, before = [CLOCK], CLOCK, 0
    for wrong in (CLOCK, CLOCK.replace(year=2199), CLOCK.replace(year=1970), CLOCK):
        clock[0], later = wrong, later + timedelta(seconds=2)
        outbox = restarted(tmp_path / "outbox.sqlite", clock)
        for _ in range(module.NUMBERS + 1):
            number = outbox.next_heartbeat_number()
            assert before < number
            before = number
        outbox.close()
    assert before <= (later + timedelta(seconds=2)).timestamp() * 1000


def test_an_outbox_that_is_made_anew_numbers_heartbeats_above_the_old_ones_even_after_a_crash_loop(
    tmp_path: Path,
) -> None:
    clock = [CLOCK]
    for _ in range(50):
        old = restarted(tmp_path / "old.sqlite", clock)
        last = old.next_heartbeat_number()
        old.close()
        clock[0] += timedelta(seconds=5)
    new = restarted(tmp_path / "new.sqlite", clock)
    assert new.next_heartbeat_number() > last
    new.close()


def number_after_a_receipt(outbox: Outbox, at: datetime) -> int:
    """That of the next heartbeat, once a message has gone and come to the clinic at its time `at`."""
    message, envelope = PARTY.envelope()
    outbox.put(message, "result", envelope)
    outbox.take_to_send(message)
    receipt = PARTY.receipt(message, envelope, at=at)
    assert outbox.accept_receipt(receipt) == "accepted"
    number = outbox.next_heartbeat_number()
    # Said again, as a broker can at any time, it tells nothing.
    assert outbox.accept_receipt(receipt) == "accepted"
    assert outbox.next_heartbeat_number() == number + 1
    return number


AHEAD, BEHIND, OLD = CLOCK.replace(year=2040), CLOCK.replace(year=1970), CLOCK - timedelta(days=30)


@pytest.mark.parametrize(
    ("made", "ours", "clinics"),
    [
        (AHEAD, CLOCK, CLOCK),
        (AHEAD, CLOCK, BEHIND),
        (AHEAD, BEHIND, CLOCK),
        (OLD, CLOCK, CLOCK),
        (BEHIND, CLOCK, CLOCK),
        (BEHIND, CLOCK, AHEAD),
        (BEHIND, AHEAD, CLOCK),
    ],
)
def test_numbers_that_a_wrong_clock_gave_are_set_right_where_our_clock_and_the_clinics_say_so(
    tmp_path: Path, made: datetime, ours: datetime, clinics: datetime
) -> None:
    clock = [made]
    outbox = restarted(tmp_path / "outbox.sqlite", clock)
    outbox.next_heartbeat_number()
    clock[0] = ours
    assert number_after_a_receipt(outbox, clinics) == CLOCK.timestamp() * 1000
    outbox.close()


@pytest.mark.parametrize(
    ("made", "ours", "clinics"),
    [
        # One clock is wrong as that one was which gave the numbers.
        (AHEAD, AHEAD, CLOCK),
        (AHEAD, CLOCK, AHEAD),
        (OLD, BEHIND, CLOCK),
        (OLD, CLOCK, BEHIND),
        # The clinic takes them.
        (CLOCK - timedelta(hours=5), CLOCK, CLOCK),
        (CLOCK + timedelta(hours=23), CLOCK, CLOCK),
    ],
)
def test_numbers_are_left_as_they_are_where_they_are_right_or_nobody_can_tell(
    tmp_path: Path, made: datetime, ours: datetime, clinics: datetime
) -> None:
    clock = [made]
    outbox = restarted(tmp_path / "outbox.sqlite", clock)
    first = outbox.next_heartbeat_number()
    clock[0] = ours
    assert number_after_a_receipt(outbox, clinics) == first + 1
    outbox.close()
