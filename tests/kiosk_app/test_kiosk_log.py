"""Whatever fails, wherever, and whoever reports it: the log says what and where, never in whose words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from hardware.host.errors import PlainError
from tests.support.kiosk_bench import Bench
from tests.support.own_log import own_log
from tests.support.visitor import Visitor

SECRET = "ref-4711-secret"
LIBRARIES = [
    "waitress",
    "werkzeug",
    "flask.app",
    "paho.mqtt.client",
    "PIL.Image",
    "sqlalchemy.pool",
    "asyncio",
]
REACH = textwrap.dedent(
    """
    import gc, logging, sys, threading, warnings
    import structlog
    from kiosk_app import log
    log.configure(debug=False)
    SECRET = bytes.fromhex(sys.argv[1]).decode()
    """
)


def logged(code: str) -> list[dict[str, Any]]:
    """The events of a process of its own that does `code`; SECRET is in none, nor in any other line."""
    done = subprocess.run(
        # The secret is an argument: else the line of code that holds it would be shown with a traceback.
        [sys.executable, "-c", REACH + textwrap.dedent(code), SECRET.encode().hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stderr + done.stdout
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize("unwritable", ["full", "unread"])
def test_whoever_logs_goes_on_where_the_log_takes_nothing(unwritable: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with open("/dev/full" if unwritable == "full" else writes, "wb") as nowhere:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"{REACH}for _ in range(99): structlog.get_logger().info('x' * 999)\nprint(1)",
                "",
            ],
            stdout=subprocess.PIPE,
            stderr=nowhere,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONPATH": "."},
        )
    assert done.stdout == b"1\n"


def test_a_fault_is_its_class_and_its_place_and_so_is_what_it_came_of() -> None:
    [event] = logged(
        """
        try:
            try:
                {}[SECRET]
            except KeyError as cause:
                raise ValueError(f"{SECRET} has 33.0") from cause
        except ValueError as error:
            structlog.get_logger().error("failed", exc_info=error)
        """
    )
    assert [link.split(" at ")[0] for link in event["fault"]] == ["ValueError", "KeyError"]


@pytest.mark.parametrize("said", ["exc_info=True", "exc_info=sys.exc_info()", "exc_info=error", "why=error"])
def test_a_fault_has_no_words_however_it_is_handed_over(said: str) -> None:
    [event] = logged(
        f"""
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            structlog.get_logger().error("failed", {said})
        """
    )
    assert any(value[0].startswith("ValueError at ") for value in event.values() if isinstance(value, list))


def test_a_thread_that_ends_in_a_fault_says_where() -> None:
    [event] = logged(
        """
        def work():
            raise ValueError(SECRET)
        thread = threading.Thread(target=work, name="scan")
        thread.start()
        thread.join(60)
        """
    )
    assert (event["event"], event["thread"]) == ("thread_ended", "scan")
    assert event["fault"][0].startswith("ValueError at ") and " work" in event["fault"][0]


def test_a_fault_that_nobody_can_catch_says_where() -> None:
    [event] = logged(
        """
        class Thing:
            def __del__(self):
                raise ValueError(SECRET)
        Thing()
        gc.collect()
        """
    )
    assert event["event"] == "unraisable" and event["fault"][0].startswith("ValueError at ")


def test_a_warning_is_its_kind_and_its_place() -> None:
    [event] = logged(
        """
        warnings.simplefilter("always")
        warnings.warn(f"{SECRET} is deprecated", UserWarning)
        """
    )
    assert (event["event"], event["kind"]) == ("warned", "UserWarning") and event["place"]


def test_a_traceback_for_whoever_asks_for_more_has_every_place_and_nobodys_words() -> None:
    [told] = logged(
        """
        import json
        def digest(said):
            try:
                int(said)
            except ValueError as error:
                raise LookupError(f"cannot digest {said}") from error
        try:
            digest(SECRET)
        except LookupError as error:
            print(json.dumps({"told": log.traceback(error)}), file=sys.stderr)
        """
    )
    first, second = told["told"].split("That led to this:")
    assert first.endswith("builtins.ValueError\n\n") and second.endswith("builtins.LookupError\n")
    assert first.count("in digest") == 1 and second.count("in digest") == 1


@pytest.mark.parametrize(
    "record",
    [
        'error("it failed: %s", SECRET)',
        'error("it failed: %s", ValueError(SECRET))',
        'error("%(who)s failed", {"who": SECRET})',
        'error(f"it failed: {SECRET}")',
        'error("it failed: %s" % SECRET)',
        "error(ValueError(SECRET))",
        "warning(SECRET, stack_info=True)",
        'exception(f"{SECRET} failed")',
        'exception("%s failed", SECRET)',
        'critical("%d failed", SECRET)',
    ],
)
def test_a_library_is_told_by_its_place_and_what_it_fills_in_is_left_out(record: str) -> None:
    events = logged(
        f"""
        def report():
            try:
                raise ValueError(SECRET)
            except ValueError:
                for library in {LIBRARIES}:
                    logging.getLogger(library).{record}
        report()
        """
    )
    assert [event["logger"] for event in events] == LIBRARIES
    assert all(event["event"] == "library" and event["place"].endswith(" report") for event in events)


def test_a_text_whose_arguments_are_left_out_is_still_told() -> None:
    [event] = logged('logging.getLogger("waitress.queue").warning("Task queue depth is %d", 5)')
    assert event["text"] == "Task queue depth is %d"


def test_a_page_that_raises_in_the_web_server_says_where() -> None:
    events = logged(
        """
        import http.client
        from sync.web.server import make_web_server

        def page(environ, start):
            raise ValueError(SECRET)

        server = make_web_server(page, "127.0.0.1", 0, 1)
        threading.Thread(target=server.run, daemon=True).start()
        asking = http.client.HTTPConnection("127.0.0.1", int(server.effective_port), timeout=60)
        asking.request("GET", f"/{SECRET}")
        assert asking.getresponse().status == 500
        """
    )
    # It may also say that the page came before its thread was there.
    [event] = [event for event in events if event["logger"] == "waitress"]
    assert event["fault"][0].startswith("ValueError at ")


def test_a_connection_that_fails_in_the_web_servers_own_loop_says_where() -> None:
    events = logged(
        """
        from waitress.wasyncore import dispatcher
        try:
            raise ValueError(SECRET)
        except ValueError:
            dispatcher(map={}).handle_error()
        """
    )
    assert {event["logger"] for event in events} == {"waitress"}


def test_a_database_that_refuses_a_row_says_where() -> None:
    [event] = logged(
        """
        from sqlalchemy import create_engine, event, text
        engine = create_engine("sqlite://")

        @event.listens_for(engine, "reset")
        def broken(*_):
            raise ValueError(SECRET)

        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        """
    )
    assert event["logger"].startswith("sqlalchemy.pool")
    assert event["fault"][0].startswith("ValueError at ")


def test_a_callback_that_raises_in_the_broker_client_says_where() -> None:
    [event] = logged(
        """
        import paho.mqtt.client as mqtt
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.enable_logger()
        client.suppress_exceptions = True

        def on_message(*_):
            raise ValueError(SECRET)

        client.on_message = on_message
        client._handle_on_message(mqtt.MQTTMessage(topic=b"a"))
        """
    )
    assert event["logger"] == "paho.mqtt.client"
    assert event["text"] == "Caught exception in on_message: %s"


def test_a_page_of_ours_that_fails_is_logged_by_its_number_and_its_place(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError(SECRET)

    with own_log():
        visitor.walk_to("result")
        monkeypatch.setattr(bench.kiosk.records, "findings", bug)
        page = visitor.look("/result")
    assert (page.status, SECRET in page.text) == (500, False)
    said = capsys.readouterr().err
    assert SECRET not in said
    [event] = [json.loads(line) for line in said.splitlines() if '"page_failed"' in line]
    assert event["ticket"] in page.text
    assert event["fault"][0].startswith("RuntimeError at tests/kiosk_app/test_kiosk_log.py:")


def test_a_page_that_fails_by_an_error_of_ours_is_logged_with_its_sentence(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise PlainError("The lid is open: close it.")

    with own_log():
        visitor.walk_to("result")
        monkeypatch.setattr(bench.kiosk.records, "findings", fails)
        failed = visitor.look("/result")
    assert failed.status == 500 and "The lid" not in failed.text
    said = capsys.readouterr().err.splitlines()
    [event] = [json.loads(line) for line in said if '"page_failed"' in line]
    assert event["why"] == "The lid is open: close it."
    assert event["fault"][0].startswith("PlainError at tests/kiosk_app/test_kiosk_log.py:")


def test_a_page_of_what_cannot_be_read_logs_the_sentence_of_its_cause(
    visitor: Visitor, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    key = bench.kiosk.records.keyring.path
    with own_log():
        visitor.walk_to("result")
        key.write_text("{}")
        unread = visitor.look("/result")
    assert unread.status == 503 and str(key) not in unread.text
    said = capsys.readouterr().err.splitlines()
    [event] = [json.loads(line) for line in said if '"unread"' in line]
    assert event["why"].startswith(f"The vault's key file {key} is damaged: ") and "Restore" in event["why"]


def test_a_kiosk_that_rests_at_the_consent_logs_the_sentence_of_its_cause(
    visitor: Visitor, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    key = bench.kiosk.records.keyring.path
    with own_log():
        visitor.walk_to("consent")
        key.write_text("{}")
        rests = visitor.tap()
    assert rests.status == 503 and str(key) not in rests.text
    said = capsys.readouterr().err.splitlines()
    [event] = [json.loads(line) for line in said if '"storage_lost"' in line]
    assert event["why"].startswith(f"The vault's key file {key} is damaged: ") and "Restore" in event["why"]


def test_a_command_loads_nothing_that_draws_tracebacks() -> None:
    asked = "import sys, kiosk_app.cli; print([n for n in ('rich', 'pygments') if sys.modules.get(n)])"
    assert subprocess.check_output([sys.executable, "-c", asked], text=True) == "[]\n"
