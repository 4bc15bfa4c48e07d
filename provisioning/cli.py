"""The `provision` command: how kiosks come to belong to a clinic."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hardware.host.errors import PlainError
from hardware.host.one_line import one_line
from hardware.host.output_file import OutputFile, OutputUnwritable, opened_output, require_apart
from provisioning.authority import LOOPBACK, Authority
from provisioning.broker import BrokerRefused
from provisioning.enrol import enrol as enrol_kiosk
from provisioning.files import PathFailed
from provisioning.hosts import HostRefused, read_host
from provisioning.waiver import waive as sign_waiver

FOLDER = click.Path(file_okay=False, path_type=Path)
PORT = click.IntRange(1, 65_535)


class _Host(click.ParamType):  # type: ignore[type-arg]  # older clicks, which we take, have no parameter
    """A name or an IP address."""

    name = "host"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return read_host(value)
        except HostRefused as error:
            self.fail(str(error), param, ctx)


HOST = _Host()

state_option = click.option(
    "--state", type=FOLDER, envvar="DERMAKIOSK_STATE", required=True, help="The authority's folder."
)
json_option = click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    type=OutputFile(),
    help="Write JSON lines to this file instead of a table; - or nothing means stdout.",
)


class JsonFailed(PlainError):
    """The file of --json took nothing, after everything else was done."""


class _PlainGroup(click.Group):
    """A group whose commands say in one sentence which path they could not use."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None:
                raise
            raise PathFailed(error) from error


@click.group(cls=_PlainGroup)
def provision() -> None:
    """Make a clinic authority, a broker, the clinic's roles; enrol kiosks.

    The order: authority, broker, one role for each ingest worker, opener, then kiosks. A kiosk learns the
    clinic's keys when it is enrolled; 'models sign' then lets it run the networks that came with it. Where
    these are for research only, 'waive' lets a real kiosk measure patients with them until a day.
    """


@provision.command(short_help="Make a clinic authority.")
@state_option
@click.option("--clinic", default="Clinic", show_default=True, help="The clinic's name, in certificates.")
def authority(state: Path, clinic: str) -> None:
    """Make a new clinic authority: its root, issuing and manifest keys."""
    made = Authority.create(state, clinic)
    kept = state / "root.key"
    click.echo(one_line(f"Made the authority of {made.clinic} in {state}. Keep {kept} on another medium."))


@provision.command("renew-issuer", short_help="Renew the authority's issuing certificate.")
@state_option
def renew_issuer(state: Path) -> None:
    """Renew the certificate under which all others are issued: once a year. It needs the root key.

    What was issued before stays good until its own end.
    """
    until = Authority.load(state).renew_issuing().issuing.not_valid_after_utc.date()
    click.echo(f"The authority issues certificates until {until}: renew it again in a year.")


@provision.command(short_help="Write a broker's configuration and certificate.")
@state_option
@click.option("--out", type=FOLDER, required=True, help="The broker's folder.")
@click.option("--port", type=PORT, default=8883, show_default=True, help="The port it listens on.")
@click.option(
    "--listen", type=HOST, default="127.0.0.1", show_default=True, help="The address it listens on."
)
@click.option(
    "--host",
    "hosts",
    type=HOST,
    multiple=True,
    help="A name or address for its certificate; the first is what clients are told (default: loopback).",
)
@click.option(
    "--user",
    help="The account that mosquitto runs as and that owns the folder (default: yours; root names one).",
)
def broker(state: Path, out: Path, port: int, listen: str, hosts: Sequence[str], user: str | None) -> None:
    """Write mosquitto's configuration, access list and certificate; a second time, a new certificate."""
    known = Authority.load(state)
    if user is None and os.geteuid() == 0:
        raise BrokerRefused(
            "A broker that root makes would run as root: add --user mosquitto, Debian's account for it."
        )
    configuration = known.make_broker(out, port, hosts or LOOPBACK, listen, user)
    click.echo(one_line(f"The broker starts with: mosquitto -c {shlex.quote(str(configuration))}"))


@provision.command(short_help="Give one of the clinic's clients its keys.")
@click.argument("name")
@state_option
@click.option("--out", type=FOLDER, required=True, help="The role's folder, inside the clinic's state.")
def role(name: str, state: Path, out: Path) -> None:
    """Give the role NAME (ingest-1, ingest-2, … or auditor) its keys and its certificate.

    An ingest worker also gets the key that signs its receipts. broker.json goes beside OUT.
    """
    Authority.load(state).make_role(name, out)
    click.echo(one_line(f"{out} is now the folder of {name}."))


@provision.command(short_help="Make the key that opens results.")
@state_option
@click.option("--out", type=FOLDER, required=True, help="The opener's folder, inside the clinic's state.")
def opener(state: Path, out: Path) -> None:
    """Make the key that opens results; only its public half goes to the kiosks."""
    path = Authority.load(state).make_opener(out)
    kept = "whoever has it can read results, and without it nobody can. Keep a copy safe."
    click.echo(one_line(f"Made {path}: {kept}"))


@provision.command(short_help="Make a kiosk's keys and certify them.")
@state_option
@click.option("--kiosk", type=FOLDER, required=True, help="The kiosk's state.")
@click.option(
    "--board",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The kiosk's board profile.",
)
@click.option("--name", default="kiosk", show_default=True, help="What people call it, or where it stands.")
@click.option(
    "--broker-host", type=HOST, help="Where the kiosk finds the broker (default: what the authority knows)."
)
@click.option("--broker-port", type=PORT, help="The broker's port (default: what the authority knows).")
@json_option
def enrol(
    state: Path,
    kiosk: Path,
    board: Path,
    name: str,
    broker_host: str | None,
    broker_port: int | None,
    json_file: str | None,
) -> None:
    """Let a kiosk make its keys, certify them, and tell it the clinic's keys.

    It runs no network until 'dermakiosk models sign' has signed their manifest for it.
    """
    require_apart(json_file, state, kiosk, board)
    entry = enrol_kiosk(
        Authority.load(state), kiosk, board=board, name=name, host=broker_host, port=broker_port
    )
    _show([entry], json_file)


@provision.command(short_help="Let a kiosk use networks for research.")
@state_option
@click.option("--kiosk", type=FOLDER, required=True, help="The kiosk's state.")
@click.option("--by", required=True, metavar="NAME", help="Who answers for it at the clinic.")
@click.option("--reason", required=True, metavar="WHY", help="Such as the vote of an ethics committee.")
@click.option(
    "--until", type=click.DateTime(["%Y-%m-%d"]), required=True, metavar="DAY", help="Its last day (UTC)."
)
@click.pass_context
def waive(context: click.Context, state: Path, kiosk: Path, by: str, reason: str, until: datetime) -> None:
    """Sign that one kiosk may measure patients with the networks that are for research only.

    It holds for the files of today, until a day at most a year away.
    """
    networks: dict[str, str] = context.obj["networks_for_research"]()
    path = sign_waiver(Authority.load(state), kiosk, networks, by=by, reason=reason, until=until.date())
    shown = ", ".join(networks)
    click.echo(one_line(f"Signed {path} for {shown}, until {until.date()}: tell the patients so."))


@provision.command(name="list")
@state_option
@json_option
def list_kiosks(state: Path, json_file: str | None) -> None:
    """List the enrolled kiosks."""
    require_apart(json_file, state)
    _show(Authority.load(state).kiosks(), json_file)


def _show(entries: Iterable[dict[str, Any]], json_file: str | None) -> None:
    if json_file is not None:
        _write(json_file, "".join(f"{json.dumps(entry)}\n" for entry in entries))
        return
    click.echo(f"{'kiosk':<36}  {'name':<20}  {'board':<16}  {'enrolled':<10}  certificate until")
    for entry in entries:
        row = f"{entry['kiosk']}  {entry['name']:<20}  {entry['board']:<16}  {entry['enrolled_at'][:10]}"
        click.echo(one_line(f"{row}  {entry['certificate_until'][:10]}"))


def _write(json_file: str, text: str) -> None:
    try:
        with opened_output(json_file) as file:
            file.write(text)
    except OutputUnwritable as error:
        raise JsonFailed(
            f"Everything is done, but {error} 'dermakiosk provision list --json' says it once more."
        ) from error
