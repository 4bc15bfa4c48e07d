"""Spots that a patient marks, and what became of them."""

from __future__ import annotations

from sync.wire.messages import Result
from tests.support.kiosk_bench import Bench
from tests.support.visitor import Visitor, the_scan
from tests.support.waiting import wait_until


def vaulted(bench: Bench) -> list[str]:
    items = bench.kiosk.vault.items(the_scan(bench).id)
    return [name for name in items if name.startswith("frame.closeup")]


def sent(bench: Bench) -> Result:
    wait_until(lambda: bench.outbox.submitted, "a message handed to the outbox")
    [(_, envelope)] = bench.outbox.submitted.values()
    message = bench.clinic.open(envelope)
    assert isinstance(message, Result)
    return message


def mark(visitor: Visitor, **place: str) -> None:
    visitor.walk_to("spots")
    visitor.tap("/spots", answer="", **place)


def go_on_without(visitor: Visitor, answer: str) -> None:
    """Press what leads on without a picture, on the page that says why there is none."""
    [other] = [f for f in visitor.page.forms if f["fields"].get("answer") == answer]
    visitor.clock.now += visitor.reads_s
    visitor.page = type(visitor.page)(
        visitor.client.post(other["action"], data=other["fields"], follow_redirects=True)
    )


def start_over(visitor: Visitor) -> None:
    """Leave in the middle of the marking, and have the scan kept."""
    assert visitor.tap("/start-over").name == "leave"
    visitor.tap()
