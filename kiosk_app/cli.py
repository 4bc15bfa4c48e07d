"""The `dermakiosk` command: a table of groups, each loaded from its own room when it is asked for."""

from __future__ import annotations

import gc
import importlib
import io
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from hardware.host.one_line import one_line
from kiosk_app import log
from kiosk_app.standard_output import written_out

# command -> (module, attribute, one line for --help); nothing is imported before it is needed.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("kiosk_app.demo.cli", "demo", "The whole system on simulated hardware."),
    "scan": ("kiosk_app.scan_cli", "scan", "One capture with analysis, no network."),
    "serve": ("kiosk_app.serve_cli", "serve", "The kiosk's pages, on loopback."),
    "screen": ("kiosk_app.screen_cli", "screen", "The kiosk's browser, watched."),
    "shred": ("kiosk_app.serve_cli", "shred", "Destroy everything kept of one scan."),
    "scans": ("kiosk_app.serve_cli", "scans", "List the scans that this kiosk keeps."),
    "phantom": ("kiosk_app.phantom_cli", "phantom", "A simulated face capture with known truth."),
    "analyse": ("models.cli", "analyse", "Measure pictures of faces and of lesions, and captures."),
    "models": ("models.cli", "models", "List, verify, fetch, sign and time the networks."),
    "board": ("hardware.cli", "board", "Check a board profile, draw its wiring."),
    "lightd": ("firmware.lights.cli", "lightd", "The light daemon."),
    "lights": ("firmware.staff_cli", "lights", "State of the lights; clear a fault, name a lamp as new."),
    "captured": ("firmware.capture.cli", "captured", "The capture daemon."),
    "calibrate": ("firmware.staff_cli", "calibrate", "Measure this kiosk's camera and lamps."),
    "greycard": ("firmware.staff_cli", "greycard", "The daily check that the calibration is still true."),
    "selftest": ("firmware.staff_cli", "selftest", "Every light, interlock and store, checked."),
    "sync": ("sync.kiosk.cli", "sync", "What is to go to the clinic, and the agent that sends it."),
    "clinic": ("sync.clinic.cli", "clinic", "The clinic's ingest, opener and pages."),
    "provision": (
        "provisioning.cli",
        "provision",
        "The clinic's authority, the enrolment of kiosks, a broker.",
    ),
}


class LazyGroup(click.Group):
    """A click group whose commands are named in a table and imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        if module not in sys.modules:
            _load(module)
        command: click.Command = getattr(sys.modules[module], attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


def _load(module: str) -> None:
    """Import it with all that it needs, which stays: garbage is looked for neither meanwhile nor in it later.

    That was up to a fifth of what a command's start took.
    """
    looks = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(module)
    finally:
        # Once: before a later command there may be garbage of an earlier one's, which would stay too.
        if gc.get_freeze_count() == 0:
            gc.freeze()
        if looks:
            gc.enable()


# The command that is given another program's arguments, behind a --.
_RUNS_A_PROGRAM = "screen"
# What a shell makes of a variable that is not set: an empty argument, or an option with nothing behind its =.
_EMPTY = re.compile(r"(?:(--[\w-]+)=)?")


def _face_finder(state: Path) -> Callable[..., Any]:
    """The callable that finds a face and its landmarks; lower rooms are handed it, they never import it.

    Raises ModelsError if `state` is a kiosk's whose clinic did not sign the networks.
    """
    importlib.import_module("models.networks.signature").check_signature(state)
    return importlib.import_module("models.analysis.face").find_face  # type: ignore[no-any-return]


def _engine_checker(engine: str) -> tuple[bool, str]:
    """Whether every network answers the known picture as it must in `engine` here, and what was found."""
    failure = importlib.import_module("models.networks.manifest").ModelsError
    try:
        importlib.import_module("models.networks.known_answers").require_all(engine)
        here = importlib.import_module("models.networks.runtime").engine_here(engine)
        return True, f"right answers, {here}"
    except failure as error:
        return False, str(error)


def _networks_for_research() -> dict[str, str]:
    """The networks that learned from pictures which permit research only, each with its SHA-256."""
    manifest = importlib.import_module("models.networks.manifest")
    return manifest.load_manifest().for_research  # type: ignore[no-any-return]


def _anatomy() -> Any:
    """The face of 468 landmarks with its zones, which phantoms are made by; handed down likewise."""
    return importlib.import_module("sync.wire.findings.canonical_face")


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show tracebacks and debug events.")
@click.version_option(package_name="dermakiosk", prog_name="dermakiosk")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """A skin-scan kiosk: cameras and lights, measurements, sealed results for the clinic.

    Decision support, never a diagnosis.
    """
    ctx.obj = {
        "debug": debug,
        "face_finder": _face_finder,
        "anatomy": _anatomy,
        "engine_checker": _engine_checker,
        "networks_for_research": _networks_for_research,
    }
    log.configure(debug)


def main() -> None:
    """Run the command; an error is one plain line on stderr, and the exit status says whose fault it was."""
    debug = "--debug" in sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal without our letters is no reason to fail
    try:
        _require_full_arguments(sys.argv[1:])
        with written_out():
            status = cli.main(standalone_mode=False) or 0
        sys.exit(status)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # what a group has to offer: a page of ours, no sentence
        sys.exit(2)
    except click.UsageError as error:
        where = f" ('{error.ctx.command_path} --help' explains.)" if error.ctx else ""
        _say(f"{error.format_message()}{where}")
        sys.exit(2)
    except click.FileError as error:
        _say(f"{error.format_message()}. Name another file, or become a user who may open it.")
        sys.exit(2)
    except click.ClickException as error:
        _say(error.format_message())
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  the outermost boundary
        # Whatever was not foreseen ends here, in one line.
        if debug:
            click.echo(log.traceback(error), err=True)
        _say(_sentence(error))
        sys.exit(error.exit_status if isinstance(error, log.OURS) else 1)


def _require_full_arguments(arguments: list[str]) -> None:
    """Raises click.UsageError for an empty one: as a folder it would be the one that the command runs in."""
    command = next((each for each in arguments if not each.startswith("-")), None)
    is_to_run = command == _RUNS_A_PROGRAM and "--" in arguments
    ours = arguments[: arguments.index("--")] if is_to_run else arguments
    for before, argument in zip(["", *ours], ours, strict=False):
        if empty := _EMPTY.fullmatch(argument):
            option = empty[1] or (before if before.startswith("-") else None)
            what = f"'{option}' has an empty value" if option else "An argument of this command is empty"
            raise click.UsageError(f"{what}: is a variable not set? Write the value out, or leave it out.")


def _say(sentence: str) -> None:
    click.echo(one_line(f"Error: {sentence}{_folder_gone()}"), err=True)


def _folder_gone() -> str:
    """What to add to an error where no relative path can be right."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return " The folder that this command runs in is gone: change to one that is there ('cd')."
    return ""


def _sentence(error: Exception) -> str:
    """An error's own words, if it was made to be read; else where it happened: stderr is a daemon's log."""
    if isinstance(error, log.OURS):
        return log.own_words(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        named = f": {error.filename}" if error.filename else ""
        what = error.strerror[:1].upper() + error.strerror[1:]
        return f"{what}{named} ('dermakiosk --debug …' tells more.)"
    if isinstance(error, ModuleNotFoundError) and error.name and not find_spec(error.name.split(".")[0]):
        return (
            f"The Python package '{error.name}' is not installed here: it comes with dermakiosk[kiosk] for a"
            " kiosk, dermakiosk[clinic] for a clinic, dermakiosk[demo] for both."
        )
    return (
        f"Something that was not foreseen: {log.fault(error)[0]}. "
        "Report it with this line; 'dermakiosk --debug …' tells more."
    )
