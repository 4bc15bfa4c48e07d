"""The `sync` commands: the agent, what waits in its outbox."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import structlog

from hardware.host.errors import PlainError
from hardware.host.existing_path import ExistingPath
from hardware.host.finite import FiniteRange
from hardware.host.own_file import open_own
from hardware.host.peers import USER
from hardware.host.secrecy import keep_memory_to_ourselves
from hardware.host.sqlite import LaterVersion, cause, connect
from hardware.host.stop import on_stop
from sync.kiosk.agent import Agent, Pace
from sync.kiosk.client import OutboxClient, OutboxUnavailable
from sync.kiosk.identity import AgentIdentity, KeySet
from sync.kiosk.outbox import DEFAULT_CAPACITY, Outbox
from sync.kiosk.outbox_file import LOCKED_S, read_counts
from sync.kiosk.report import AGENT_ONLY, report
from sync.kiosk.schedule import FIRST_S, LONGEST_S
from sync.kiosk.server import serving

log = structlog.get_logger()

MEGABYTE = 1024 * 1024

# What the table says of a number that could be taken for another.
MEANINGS = {
    "waiting": "not sent yet",
    "sent": "still without the clinic's receipt; those with one have left this outbox",
    "unvouched": "found when the agent began; sent once 'dermakiosk serve' has looked them through, or after"
    " an hour without",
    "reseal": "to be sealed anew, for another key of the clinic",
    "quarantined": "set aside by the clinic, with a copy here",
    "bytes": "of all that has no receipt yet",
}

state_option = click.option(
    "--state",
    type=ExistingPath(file_okay=False),
    envvar="DERMAKIOSK_STATE",
    required=True,
    help="The kiosk's state (or DERMAKIOSK_STATE).",
)


class AgentRuns(PlainError):
    """Another agent works on this state."""

    exit_status = 2


class NoOutbox(PlainError):
    """There is no outbox to tell about."""

    exit_status = 2


@click.group()
def sync() -> None:
    """The kiosk's outbox and the agent that carries it to the clinic.

    The outbox holds sealed envelopes only, and lets one go on the clinic's signed receipt.
    """


@sync.command()
@state_option
@click.option(
    "--app-user",
    type=USER,
    help="The user (name or id) that the kiosk application runs as (default: the agent's own).",
)
@click.option(
    "--resend-first",
    type=FiniteRange(min=0.05, max=LONGEST_S),
    default=FIRST_S,
    show_default=True,
    metavar="SECONDS",
    help="Send again when no receipt has come for so long; doubles each time, up to 15 minutes.",
)
@click.option(
    "--capacity-mb",
    type=click.IntRange(min=1),
    default=DEFAULT_CAPACITY // MEGABYTE,
    show_default=True,
    help="How much the outbox holds. Nothing is dropped to make room.",
)
def run(state: Path, app_user: int | None, resend_first: float, capacity_mb: int) -> None:
    """Run the agent until it gets SIGTERM or Ctrl-C."""
    keep_memory_to_ourselves()
    stop = threading.Event()
    with _only_agent(state / "sync" / "lock"):
        outbox = Outbox(state / "sync" / "outbox.sqlite", capacity_mb * MEGABYTE)
        with contextlib.closing(outbox):
            agent = Agent(state, outbox, Pace(resend_first=resend_first))

            def end() -> None:
                stop.set()
                agent.wake()

            on_stop(end)
            users = frozenset({os.geteuid() if app_user is None else app_user})
            with serving(state / "run" / "outbox.sock", outbox, agent, users):
                log.info("ready", kiosk=str(agent.kiosk))
                agent.run(stop)
    log.info("stopped")


@sync.command()
@state_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def status(state: Path, as_json: bool) -> None:
    """What is still held here, the last receipt, the connection, the keys.

    A message is held until the clinic's signed receipt for it has come: once all of them have one, 'waiting'
    and 'sent' are 0. What only a running agent knows, such as the connection, is null in the JSON while none
    runs.
    """
    try:
        facts = OutboxClient(state / "run" / "outbox.sock").status()
    except OutboxUnavailable:
        facts = _facts_from_disk(state)
    if as_json:
        click.echo(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        unknown = name in AGENT_ONLY and not facts["running"]
        words = "unknown, no agent runs" if unknown else _in_words(value)
        meaning = f"  ({MEANINGS[name]})" if name in MEANINGS else ""
        click.echo(f"{name.replace('_', ' '):<{width}}  {words}{meaning}")


def _facts_from_disk(state: Path) -> dict[str, Any]:
    """What can be said while no agent runs."""
    path = state / "sync" / "outbox.sqlite"
    identity, keys = AgentIdentity.load(state), KeySet(state)
    try:
        with contextlib.closing(connect(path, LOCKED_S, read_only=True)) as db:
            counts = read_counts(db, DEFAULT_CAPACITY)
    except LaterVersion as error:
        raise NoOutbox(f"The outbox {path} cannot be read, and no agent answers: {error}.") from error
    except sqlite3.Error as error:
        there = f"The outbox {path} cannot be read ({cause(error, path)})"
        what = there if _may_be_there(path) else f"There is no outbox in {path.parent}"
        raise NoOutbox(f"{what}, and no agent answers: start 'dermakiosk sync run'.") from error
    return report(identity, keys.current, counts, None)


def _may_be_there(path: Path) -> bool:
    """Also where the folder does not let us look."""
    try:
        path.stat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return "none" if value is None else str(value)


@contextlib.contextmanager
def _only_agent(path: Path) -> Iterator[None]:
    """Hold the lock that makes this the only agent on its state; the kernel lets go when the process dies."""
    try:
        descriptor = open_own(path, os.O_CREAT | os.O_RDWR)
    except FileNotFoundError as error:
        raise NoOutbox(
            f"{path.parent} cannot be used ({error.strerror}): enrol this kiosk, or correct --state."
        ) from error
    except OSError as error:
        raise NoOutbox(
            f"{path} cannot be used ({error.strerror}): it has to be a file that this user may write."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AgentRuns(f"Another agent runs on {path.parent}: stop it first.") from error
        yield
    finally:
        os.close(descriptor)
