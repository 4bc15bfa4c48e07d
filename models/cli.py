"""The groups `analyse`, `models` of the command: thin, everything is loaded when it is asked for."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from hardware.host.one_line import one_line
from hardware.host.output_file import STANDARD_OUTPUT, OutputFile, require_all_apart
from hardware.picture_colours import Colour, colour_option
from models.networks.runtime import DEFAULT_ENGINE, ENGINES

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
    type=OutputFile(),
    default="-",
    show_default=True,
    help="File for the JSON lines; '-' is standard output.",
)
folder = click.Path(file_okay=False, path_type=Path)
# In a command's context: its --state, or None.
_SIGNED_STATE = "models.state"


def _check_signature(context: click.Context, option: click.Parameter, state: Path | None) -> Path | None:
    from models.networks.signature import check_signature

    check_signature(state)
    context.meta[_SIGNED_STATE] = state
    return state


_STATE: dict[str, Any] = {
    "type": folder,
    "envvar": "DERMAKIOSK_STATE",
    "help": "A kiosk's state (or DERMAKIOSK_STATE): only networks that its clinic signed for are used.",
}
signed_option = click.option("--state", **_STATE, expose_value=False, callback=_check_signature)


@click.group()
def analyse() -> None:
    """Measure pictures of faces and of lesions, and captures.

    Decision support, never a diagnosis.
    """


files_argument = click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…"
)


def _pictures_command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function a command of `analyse` that takes FILE…, --colour, --json, --engine and --state."""

    def decorate(function: Callable[..., None]) -> click.Command:
        function = colour_option(engine_option(signed_option(function)))
        return analyse.command(name)(files_argument(json_option(function)))

    return decorate


def _answer_pictures(
    files: tuple[Path, ...],
    describe: Callable[[Path], dict[str, Any]],
    json_path: str,
    *folders: Path | None,
) -> None:
    # Of a folder, which is no picture, nothing is read.
    pictures = [path for path in files if not path.is_dir()]
    _answer(files, describe, json_path, folders, [path.stem for path in pictures], pictures)


def _answer(
    files: tuple[Path, ...],
    describe: Callable[[Path], dict[str, Any]],
    json_path: str,
    folders: Iterable[Path | None],
    stems: Collection[str],
    read: Collection[Path],
) -> None:
    """`run_batch`, unless one of its outputs would be what is `read`, or another output's file."""
    from models.analysis.batch import BatchError, output_folders, run_batch

    used = [path for path in folders if path]
    if len({path.resolve() for path in used}) < len(used):
        raise BatchError(f"Two kinds of pictures would have the same names in {used[0]}. Name two folders.")
    drawn = [path / f"{stem}.png" for path in used for stem in stems]
    state = click.get_current_context().meta[_SIGNED_STATE]
    read = [*read, state] if state else read
    if json_path != STANDARD_OUTPUT:
        if os.path.realpath(json_path) in map(os.path.realpath, drawn):
            raise BatchError(f"A picture would be written over the lines in {json_path}. Name another file.")
        require_all_apart([json_path], read)
    require_all_apart(drawn, read)
    with output_folders(used):
        run_batch(files, describe, json_path, names_outputs=bool(used))


@_pictures_command("face")
@click.option("--masks", type=folder, help="Folder for the skin masks, <stem>.png: 255 = skin.")
@click.option(
    "--parsing",
    type=folder,
    help="Folder for the parsing, <stem>.png: 0 background, 1 hair, 2 skin, 3 eyes, 4 nose, 5 mouth.",
)
def face_command(
    files: tuple[Path, ...],
    json_path: str,
    masks: Path | None,
    parsing: Path | None,
    engine: str,
    colour: Colour,
) -> None:
    """Find the faces in pictures: landmarks, zones, skin, parsing.

    Writes one JSON line a picture, in the order given. Coordinates are pixels of the upright picture; left
    and right are the patient's own.
    """
    from models.analysis.describe import describe_picture

    def describe(path: Path) -> dict[str, Any]:
        return describe_picture(path, masks, parsing, engine, colour)

    _answer_pictures(files, describe, json_path, masks, parsing)


@_pictures_command("lesion")
@click.option("--masks", type=folder, help="Folder for the lesions' masks, <stem>.png: 255 = lesion.")
@click.option("--overlays", type=folder, help="Folder for what each class rests on, <stem>.png.")
def lesion_command(
    files: tuple[Path, ...],
    json_path: str,
    masks: Path | None,
    overlays: Path | None,
    engine: str,
    colour: Colour,
) -> None:
    """Outline and class the lesion in dermoscopic close-ups.

    Writes one JSON line a picture, in the order given. What is no close-up of skin is refused.
    """
    from models.analysis.describe_skin import describe_lesion

    def describe(path: Path) -> dict[str, Any]:
        return describe_lesion(path, masks, overlays, engine, colour)

    _answer_pictures(files, describe, json_path, masks, overlays)


@_pictures_command("acne")
@click.option("--overlays", type=folder, help="Folder for the pictures with their boxes, <stem>.png.")
def acne_command(
    files: tuple[Path, ...], json_path: str, overlays: Path | None, engine: str, colour: Colour
) -> None:
    """Find acne in pictures of faces: boxes, count, severity.

    Writes one JSON line a picture, in the order given. Coordinates are pixels of the upright picture.
    """
    from models.analysis.describe_skin import describe_acne

    def describe(path: Path) -> dict[str, Any]:
        return describe_acne(path, overlays, engine, colour)

    _answer_pictures(files, describe, json_path, overlays)


@analyse.command("capture")
@click.argument("capture", type=folder, metavar="DIR")
@json_option
@click.option("--overlays", type=folder, help="Folder for the pictures that explain the findings.")
@colour_option
@engine_option
@signed_option
def capture_command(
    capture: Path, json_path: str, overlays: Path | None, engine: str, colour: Colour
) -> None:
    """Measure a folder with capture.json and one picture a light.

    With --colour auto capture.json says which frames are linear light; the others say it themselves.
    """
    from models.analysis.describe import measure_folder
    from models.analysis.overlay import OVERLAYS

    def describe(path: Path) -> dict[str, Any]:
        return measure_folder(path, overlays, engine, colour)

    read = [capture]
    with contextlib.suppress(OSError):  # a folder that cannot be looked at is the answer's to tell
        read += [each for each in capture.iterdir() if each.is_file()]
    _answer((capture,), describe, json_path, [overlays], OVERLAYS, read)


@click.group()
def models() -> None:
    """List, verify, fetch, sign and time the networks."""


def _emit(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    widths = [max(len(str(row[key])) for row in [*rows, {key: key}]) for key in rows[0]]
    for row in [{key: key for key in rows[0]}, *rows]:
        cells = (str(value).ljust(width) for value, width in zip(row.values(), widths, strict=True))
        click.echo("  ".join(cells).rstrip())


as_json_option = click.option("--json", "as_json", is_flag=True, help="JSON lines instead of a table.")


@models.command("list")
@as_json_option
def list_command(as_json: bool) -> None:
    """The networks, what each does, whose it is, whether it is here."""
    from models.networks.fetch import missing_networks
    from models.networks.manifest import load_manifest

    missing = missing_networks()
    rows = []
    for name, entry in load_manifest().networks.items():
        row: dict[str, Any] = {"network": name, "here": "no" if name in missing else "yes"}
        if as_json:
            row |= entry.model_dump(exclude_none=True)
        else:
            row |= {"kB": entry.size // 1000, "input": "x".join(map(str, entry.input.shape[1:]))}
            row |= {
                "numbers": entry.input.type,
                "licence": entry.licence,
                "use": entry.use,
                "by": entry.author,
            }
            row |= {"does": entry.does}
        rows.append(row)
    _emit(rows, as_json)


@models.command("verify")
@click.option("--state", **_STATE)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(list(ENGINES)),
    help="Let each network answer its known picture in this engine too; may be given several times.",
)
@as_json_option
def verify_command(state: Path | None, engines: tuple[str, ...], as_json: bool) -> None:
    """Compare the networks' files with their signed manifest.

    Every file with the manifest, and the manifest with the clinic's signature, which is that of the kiosk in
    --state; without one, the manifest is said to be unsigned. With --engine, a row more for each network says
    what computed its answers here. Exit status 1 if a file is absent or altered, the signature is missing or
    wrong, or an answer is not the reference kernels'.
    """
    from models.networks.known_answers import require_known_answers
    from models.networks.manifest import ModelsError, load_manifest, verified_bytes, verified_constants
    from models.networks.runtime import engine_here
    from models.networks.signature import check_signature

    checks: list[tuple[str, Callable[[], object]]] = [("manifest", lambda: check_signature(state))]
    checks += [(name, partial(verified_bytes, name)) for name in load_manifest().networks]
    checks += [
        (entry.constants.path.name, partial(verified_constants, name))
        for name, entry in load_manifest().networks.items()
        if entry.constants is not None
    ]
    checks += [
        (f"{name} in {engine_here(engine)}", partial(require_known_answers, name, engine))
        for engine in engines
        for name in load_manifest().networks
    ]
    rows: list[dict[str, Any]] = []
    for name, check in checks:
        try:
            answer = check()
        except ModelsError as error:
            rows.append({"name": name, "state": "failed", "reason": str(error)})
        else:
            rows.append({"name": name, "state": answer if name == "manifest" else "verified", "reason": ""})
    _emit(rows, as_json)
    failed = [row for row in rows if row["state"] == "failed"]
    if failed:
        names = ", ".join(row["name"] for row in failed)
        raise ModelsError(f"Not verified: {names}. {failed[0]['reason']}")


@models.command("fetch")
def fetch_command() -> None:
    """Fetch the third-party networks that are not here yet.

    Each is checked by its hash.
    """
    from models.networks.fetch import fetch_networks

    fetched = fetch_networks()
    click.echo(f"Fetched: {', '.join(fetched)}." if fetched else "Every network is here already.")


@models.command("sign")
@click.option(
    "--key",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The clinic's manifest key: manifest.key in the authority's folder.",
)
@click.option(
    "--state", required=True, type=folder, envvar="DERMAKIOSK_STATE", help="The enrolled kiosk's state."
)
def sign_command(key: Path, state: Path) -> None:
    """Sign the manifest of the networks for one kiosk.

    With the clinic's manifest key, after every update of the networks: the kiosk runs no other.
    """
    from models.networks.manifest import load_manifest
    from models.networks.signature import sign_manifest

    path = sign_manifest(key, state)
    click.echo(one_line(f"Signed the manifest of {len(load_manifest().networks)} networks: {path}."))


@models.command("bench")
@click.option(
    "--runs", type=click.IntRange(1, 1000), default=50, show_default=True, help="Runs of each network."
)
@click.option(
    "--onnx", type=folder, help="Folder with <network>.onnx, the same graphs, to time in onnxruntime too."
)
@click.option("--network", "names", multiple=True, help="Only this one; may be given several times.")
@as_json_option
def bench_command(runs: int, onnx: Path | None, names: tuple[str, ...], as_json: bool) -> None:
    """Time every network in every engine that is installed here.

    On one thread and on two.
    `make bench` writes the files for --onnx; they are not shipped.
    """
    from models.networks.bench import time_networks

    _emit(time_networks(names, runs, onnx), as_json)
