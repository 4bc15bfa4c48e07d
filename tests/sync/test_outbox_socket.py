"""The outbox's socket: what the kiosk application is promised, who may speak, what may be given."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.host.patience import waiting_at_most
from hardware.host.sockets import PathTooLong
from sync.kiosk import server
from sync.kiosk.agent import Agent
from sync.kiosk.client import OutboxClient, OutboxRefused, OutboxUnavailable
from sync.kiosk.identity import EnrolmentUnusable
from sync.kiosk.outbox import Outbox
from sync.kiosk.server import serving
from sync.wire.messages import ReminderDue, Withdraw
from tests.support.agent import party_of
from tests.support.mosquitto import Broker
from tests.support.wire import NOON, Party, a_result


class Side:
    """An outbox behind its socket, with an agent that is asked but does not run."""

    def __init__(self, state: Path, party: Party, capacity: int = 1_000_000) -> None:
        self.party = party
        self.outbox = Outbox(state / "sync" / "outbox.sqlite", capacity)
        self.agent = Agent(state, self.outbox)
        self.path = state / "run" / "outbox.sock"
        self.client = OutboxClient(self.path)

    @contextmanager
    def serving(self, user: int | None = None) -> Iterator[OutboxClient]:
        users = frozenset({os.geteuid() if user is None else user})
        with serving(self.path, self.outbox, self.agent, users):
            yield self.client


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Party]:
    broker = Broker(tmp_path_factory.mktemp("system"))
    state = tmp_path_factory.mktemp("kiosk")
    return state, party_of(broker, broker.enrol(state), state)


@pytest.fixture
def side(enrolled: tuple[Path, Party]) -> Iterator[Side]:
    state, party = enrolled
    opened = Side(state, party)
    yield opened
    opened.outbox.close()
    for file in (state / "sync").glob("outbox.sqlite*"):
        file.unlink()


def test_an_envelope_is_on_the_disk_when_submit_returns(side: Side) -> None:
    message, envelope = side.party.envelope()
    with side.serving() as client:
        client.submit(message, "result", envelope)
        reader = Outbox(side.path.parent.parent / "sync" / "outbox.sqlite")
        assert reader.unreceipted() == [message]
        reader.close()
        client.submit(message, "result", envelope)
        assert client.state(message) == "waiting"
        assert client.state(uuid4()) == "unknown"
        assert client.discard(message) == "waiting"
        assert client.state(message) == "discarded"


def test_an_envelope_from_an_outbox_that_is_lost_may_have_left(side: Side) -> None:
    message, envelope = side.party.envelope()
    with side.serving() as client:
        client.submit(message, "result", envelope, may_have_left=True)
        assert client.state(message) == "sent"
        assert side.outbox.unreceipted() == [message]
        assert client.discard(message) == "sent"


def test_what_an_agent_finds_waits_until_somebody_vouches_for_it(
    enrolled: tuple[Path, Party], side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PAGE", 2)
    envelopes = [side.party.envelope() for _ in range(3)]
    found = {message for message, _ in envelopes}
    with side.serving() as client:
        for message, envelope in envelopes:
            client.submit(message, "result", envelope)
        assert (client.unvouched(), client.status()["unvouched"]) == ([], 0)
    side.outbox.close()
    again = Side(enrolled[0], side.party)
    with again.serving() as client:
        assert (client.status()["waiting"], client.status()["unvouched"]) == (3, 3)
        since, envelope = side.party.envelope()
        client.submit(since, "result", envelope)
        vouched: list[UUID] = []
        while page := client.unvouched():
            assert len(page) <= 2
            client.vouch(page)
            vouched += page
        assert set(vouched) == found and since not in vouched
        assert client.status()["unvouched"] == 0
        client.vouch([uuid4()])
        assert [client.discard(message) for message in found] == ["sent"] * 3
    again.outbox.close()


def test_a_number_that_another_message_has_is_refused_with_the_highest(side: Side) -> None:
    first, envelope = side.party.envelope(sequence=5)
    later, later_envelope = side.party.envelope(sequence=9)
    second, other = side.party.envelope(sequence=5)
    with side.serving() as client:
        client.submit(first, "result", envelope)
        client.submit(later, "result", later_envelope)
        with pytest.raises(OutboxRefused) as caught:
            client.submit(second, "result", other)
        assert (caught.value.code, caught.value.highest) == ("used", 9)
        client.submit(first, "result", envelope)


@pytest.mark.parametrize("ids", [None, [1], [b"short"], [bytes(16)] * (server.PAGE + 1)])
def test_what_is_vouched_for_has_to_be_message_ids(side: Side, ids: object) -> None:
    with side.serving() as client, pytest.raises(OutboxRefused) as caught:
        client._ask({"do": "vouch", "ids": ids}, lambda _: None)
    assert caught.value.code == "bad_request"


def test_what_is_said_of_a_scan_later_is_taken_too(side: Side) -> None:
    with side.serving() as client:
        withdraw = side.party.envelope(Withdraw(scan=uuid4(), at=NOON, reason="patient"))
        client.submit(withdraw[0], "withdraw", withdraw[1])
        reminder = ReminderDue(reminder=uuid4(), patient_reference="p", rule="yearly", due_on=NOON.date())
        message, envelope = side.party.envelope(reminder)
        client.submit(message, "reminder", envelope)
        assert client.status()["waiting"] == 2


def test_nothing_that_is_not_this_kiosks_envelope_is_taken(side: Side) -> None:
    message, envelope = side.party.envelope()
    stranger_id, stranger = Party().envelope()
    clear = a_result().model_dump_json().encode()
    with side.serving() as client:
        for given_id, kind, given_bytes in (
            (message, "result", clear),
            (message, "result", b""),
            (message, "result", envelope[:-1]),
            (uuid4(), "result", envelope),
            (stranger_id, "result", stranger),
            (message, "reminder", envelope),
            (message, "status", envelope),
        ):
            with pytest.raises(OutboxRefused) as caught:
                client.submit(given_id, kind, given_bytes)
            assert caught.value.code == "bad_request"
    assert side.outbox.unreceipted() == []


def test_a_full_outbox_says_so_and_accepts_no_more_scans(enrolled: tuple[Path, Party], side: Side) -> None:
    side.outbox.capacity = 12_000
    with side.serving() as client:
        for _ in range(2):
            message, envelope = side.party.envelope()
            client.submit(message, "result", envelope)
        status = client.status()
        assert (status["warn"], status["accepting"]) == (True, True)
        side.outbox.capacity = 11_000
        assert not client.status()["accepting"]
        message, envelope = side.party.envelope()
        with pytest.raises(OutboxRefused) as caught:
            client.submit(message, "result", envelope)
        assert caught.value.code == "full"


def test_a_process_of_another_user_is_not_answered(side: Side) -> None:
    with side.serving(user=os.geteuid() + 1) as client:
        with pytest.raises(OutboxUnavailable):
            client.status()
        assert side.path.stat().st_mode & 0o777 == 0o666
    with side.serving() as client:
        client.status()
        assert side.path.stat().st_mode & 0o777 == 0o600


def test_without_an_agent_the_client_says_what_to_do(side: Side) -> None:
    with pytest.raises(OutboxUnavailable, match="sync run"):
        side.client.status()
    with side.serving() as client:
        client.status()
    with pytest.raises(OutboxUnavailable):
        side.client.submit(uuid4(), "result", b"")


def test_a_socket_left_by_a_dead_agent_is_replaced(side: Side) -> None:
    side.path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(side.path))
    with side.serving() as client:
        client.status()


def test_an_agent_that_hangs_does_not_hang_the_application(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(OutboxUnavailable, match=r"deadline|timed out"):
            OutboxClient(tmp_path / "s", timeout=0.2).state(uuid4())


@contextmanager
def answering(path: Path, frame: bytes) -> Iterator[OutboxClient]:
    """A process of our own that says `frame` to whoever asks."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(frame)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield OutboxClient(path)
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


@pytest.mark.parametrize(
    "frame",
    [
        framed(b"\xa1\x66status\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01"),  # a number without bound
        framed(b"\xa1\x66status\xc5\x82\x40\x01"),  # of a number, bytes
        framed(b"\xa1\x66status\xd8\x23\x00"),  # of a pattern, a number
        *(
            framed(cbor2.dumps(answer))
            for answer in (
                {},
                {"state": 5, "status": {"fill": "full", "accepting": True}, "ids": None},
                {"state": 5, "status": {"fill": 0.5, "accepting": "no"}, "ids": None},
                {"state": 5, "status": {"fill": 0.5}, "ids": None},
                {"state": ["sent"], "status": {}, "ids": [b"short"]},
                {"state": None, "status": "well", "ids": ["sixteen letters!"]},
                {"state": b"sent", "status": {"fill": 10**400, "accepting": True}, "ids": [16]},
                {"refused": "used", "highest": "most"},
            )
        ),
    ],
)
def test_what_answers_otherwise_than_an_outbox_is_told_as_no_outbox(tmp_path: Path, frame: bytes) -> None:
    questions: list[Callable[[OutboxClient], object]] = [
        lambda client: client.submit(uuid4(), "result", b"sealed"),
        lambda client: client.state(uuid4()),
        lambda client: client.discard(uuid4()),
        lambda client: client.unvouched(),
        lambda client: client.sent_unvouched(),
        lambda client: client.status(),
    ]
    with answering(tmp_path / "s", frame) as client:
        for ask in questions:
            with pytest.raises(OutboxUnavailable, match="sync run"):
                ask(client)


def test_an_agent_is_not_asked_where_no_time_is_left_for_its_answer(side: Side) -> None:
    refused = pytest.raises(OutboxUnavailable, match="no time is left")
    with side.serving() as client, waiting_at_most(1.0, 0.0), refused:
        client.status()


FRAMES = st.one_of(
    st.binary(max_size=50),
    st.dictionaries(
        st.sampled_from(["do", "id", "kind", "envelope", "x"]),
        st.sampled_from(["submit", "state", "discard", "status", "unvouched", "vouch"])
        | st.binary(max_size=20)
        | st.none(),
    ).map(lambda content: struct.pack("!I", len(cbor2.dumps(content))) + cbor2.dumps(content)),
    st.just(b"\xff\xff\xff\xff"),
    st.just(struct.pack("!I", 3) + b"\x83\x01\x02"),
)


def test_whatever_is_said_on_the_socket_the_agent_goes_on(side: Side) -> None:
    @settings(max_examples=100, deadline=None)
    @given(said=FRAMES)
    def say(said: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60.0)
            connection.connect(str(side.path))
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            # It answers, or it hangs up; it never waits for more.
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    continue

    with side.serving() as client:
        say()
        assert client.status()["running"]


def test_the_application_gets_in_beside_any_number_of_connections_that_ask_nothing(side: Side) -> None:
    with side.serving() as client, contextlib.ExitStack() as closing:
        before = threading.active_count()
        for _ in range(100):
            idle = closing.enter_context(socket.socket(socket.AF_UNIX))
            idle.settimeout(20)
            idle.connect(str(side.path))
            assert client.status()["running"]
            assert threading.active_count() < before + 40


def test_many_callers_at_once_are_all_served(side: Side) -> None:
    given_ids: list[UUID] = []
    envelopes = [side.party.envelope() for _ in range(40)]

    def submit(part: list[tuple[UUID, bytes]]) -> None:
        for message, envelope in part:
            side.client.submit(message, "result", envelope)
            given_ids.append(message)

    with side.serving():
        threads = [threading.Thread(target=submit, args=(envelopes[n::8],)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(given_ids) == 40
    assert set(side.outbox.unreceipted()) == {message for message, _ in envelopes}


def test_a_path_that_no_socket_can_have_is_refused(side: Side, tmp_path: Path) -> None:
    side.path = tmp_path / ("x" * 120) / "outbox.sock"
    with pytest.raises(PathTooLong, match="shorter"), side.serving():
        pass
    with pytest.raises(OutboxUnavailable):
        OutboxClient(side.path).status()


@pytest.mark.parametrize(
    "file", ["identity.json", "clinic-keys.cose", "clinic-root.pub", "sync/status.key", "sync/tls.crt"]
)
@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_kiosk_that_is_not_enrolled_says_which_file(
    tmp_path: Path, enrolled: tuple[Path, Party], side: Side, file, content
) -> None:
    state, _ = enrolled
    kept = (state / file).read_bytes()
    try:
        (state / file).unlink()
        if content is not None:
            (state / file).write_bytes(content)
        with pytest.raises(EnrolmentUnusable, match="[Ee]nrol"):
            Agent(state, side.outbox)
    finally:
        (state / file).write_bytes(kept)
