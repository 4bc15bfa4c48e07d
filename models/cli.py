"""The groups `analyse`, `models` of the command: thin, everything is loaded when it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from models.runtime import DEFAULT_ENGINE, ENGINES

engine_option = click.option(
    "--engine",
    type=click.Choice(list(ENGINES)),
    default=DEFAULT_ENGINE,
    show_default=True,
    help="The engine that runs the networks.",
)
json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    show_default=True,
    help="File for the JSON lines; '-' is standard output.",
)
folder = click.Path(file_okay=False, path_type=Path)


@click.group()
def analyse() -> None:
    """Measure pictures: faces, captures. Decision support, never a diagnosis."""


@analyse.command("face")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@json_option
@click.option("--masks", type=folder, help="Folder for the skin masks, <stem>.png: 255 = skin.")
@engine_option
def face_command(files: tuple[Path, ...], json_path: str, masks: Path | None, engine: str) -> None:
    """Find the faces in pictures, with landmarks, zones and skin.

    Writes one JSON line a picture, in the order given. Coordinates are pixels of the upright picture; left
    and right are the patient's own.
    """
    from models.analysis.describe import describe_picture
    from models.batch import make_folder, run_batch

    if masks:
        make_folder(masks)
    run_batch(files, lambda path: describe_picture(path, masks, engine), json_path)


@analyse.command("capture")
@click.argument("capture", type=folder, metavar="DIR")
@json_option
@click.option("--overlays", type=folder, help="Folder for the pictures that explain the findings.")
@engine_option
def capture_command(capture: Path, json_path: str, overlays: Path | None, engine: str) -> None:
    """Measure a stored capture folder: capture.json with one picture a light."""
    from models.analysis.describe import measure_folder
    from models.batch import make_folder, run_batch

    if overlays:
        make_folder(overlays)
    run_batch((capture,), lambda path: measure_folder(path, overlays, engine), json_path)


@click.group()
def models() -> None:
    """List, verify, fetch and time the networks."""


def _emit(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    widths = [max(len(str(row[key])) for row in [*rows, {key: key}]) for key in rows[0]]
    for row in [{key: key for key in rows[0]}, *rows]:
        cells = (str(value).ljust(width) for value, width in zip(row.values(), widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of a table.")
def list_command(as_json: bool) -> None:
    """The networks, what each does, whose it is, whether it is here."""
    from models.fetch import missing_networks
    from models.manifest import load_manifest

    missing = missing_networks()
    rows = [
        {
            "network": name,
            "here": "no" if name in missing else "yes",
            "licence": entry.licence,
            "sha256": entry.sha256 if as_json else entry.sha256[:16],
            "by": entry.author,
            "does": entry.does,
        }
        for name, entry in load_manifest().networks.items()
    ]
    _emit(rows, as_json)


@models.command("verify")
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of a table.")
def verify_command(as_json: bool) -> None:
    """Compare every file's SHA-256 with the manifest; exit status 1 if one is absent or altered."""
    from models.manifest import ModelsError, load_manifest, verified_bytes

    rows = []
    for name in load_manifest().networks:
        try:
            verified_bytes(name)
        except ModelsError as error:
            rows.append({"network": name, "state": "failed", "reason": str(error)})
        else:
            rows.append({"network": name, "state": "verified", "reason": ""})
    _emit(rows, as_json)
    failed = [row["network"] for row in rows if row["state"] == "failed"]
    if failed:
        raise ModelsError(f"Not verified: {', '.join(failed)}. Run 'dermakiosk models fetch'.")


@models.command("fetch")
def fetch_command() -> None:
    """Fetch the third-party networks that are absent, and check each by hash."""
    from models.fetch import fetch_networks

    fetched = fetch_networks()
    click.echo(f"Fetched: {', '.join(fetched)}." if fetched else "Every network is here already.")


@models.command("bench")
@click.option(
    "--runs", type=click.IntRange(1, 1000), default=50, show_default=True, help="Runs of each network."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of a table.")
def bench_command(runs: int, as_json: bool) -> None:
    """Time every network in every engine that is installed here, one thread."""
    from models.bench import time_networks

    _emit(time_networks(runs), as_json)
