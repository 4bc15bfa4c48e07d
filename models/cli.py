"""The groups `analyse`, `models` of the command."""

from __future__ import annotations

import json

import click

from models.runtime import DEFAULT_ENGINE, ENGINES

engine_option = click.option(
    "--engine",
    type=click.Choice(list(ENGINES)),
    default=DEFAULT_ENGINE,
    show_default=True,
    help="The engine that runs the networks.",
)


@click.group()
def analyse() -> None:
    """Measure pictures: faces, captures. Decision support, never a diagnosis."""


@click.group()
def models() -> None:
    """List, verify, fetch and time the networks."""


@models.command("fetch")
def fetch_command() -> None:
    """Fetch the third-party networks and check each by hash."""
    from models.fetch import fetch_networks

    fetched = fetch_networks()
    click.echo(f"Fetched: {', '.join(fetched)}." if fetched else "Every network is here already.")


@analyse.command("face")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--json", "json_path", default="-", help="Where to write JSON lines; '-' is standard output.")
@engine_option
def face_command(files: tuple[str, ...], json_path: str, engine: str) -> None:
    """Find faces with their landmarks, zones and skin."""
    from pathlib import Path

    from models.analysis.face import find_faces
    from models.picture import read_picture

    for name in files:
        faces = find_faces(read_picture(Path(name)), engine)
        click.echo(json.dumps({"picture": name, "faces": [{"box": f.box, "score": f.score} for f in faces]}))
