"""A kiosk that ends in the middle of an answer: the patient says so, wherever it was cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kiosk_app.demo.patient import DemoPatient, JourneyBroken

BODY = b'<body data-page="done"><p data-sentence>Thank you.</p></body>'
HEAD = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that reads one request, sends these bytes and ends."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(60)


def test_a_whole_answer_is_a_page() -> None:
    with answering(HEAD % (b"200 OK", len(BODY)) + BODY) as address:
        assert DemoPatient(address).walk() == ["done"]


@pytest.mark.parametrize("status", [b"200 OK", b"503 Service Unavailable"])
@pytest.mark.parametrize("after", ["nothing", "a word", "the head", "half the body"])
def test_an_answer_cut_short_is_a_journey_that_broke(status: bytes, after: str) -> None:
    whole = HEAD % (status, len(BODY)) + BODY
    cut = {"nothing": 0, "a word": 4, "the head": len(whole) - len(BODY), "half the body": len(whole) - 20}
    with (
        answering(whole[: cut[after]]) as address,
        pytest.raises(JourneyBroken, match="does not answer"),
    ):
        DemoPatient(address).walk()
