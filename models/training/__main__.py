"""`python -m models.training TASK --data DIR --out DIR`: train one network."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import tomllib
import torch

from models.training.loop import fit
from models.training.schedule import schedule

SETTINGS = tomllib.loads((Path(__file__).parent / "tasks.toml").read_text(encoding="utf-8"))


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def changed(settings: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """The settings with each "KEY=VALUE" of `changes`. Raises click.UsageError for a key that they lack."""
    settings = dict(settings)
    for change in changes:
        name, _, value = change.partition("=")
        if name not in settings:
            known = ", ".join(sorted(settings))
            raise click.UsageError(f"'{name}' is no setting of this task. Use one of {known}.")
        settings[name] = _value(value)
    return settings


@click.command()
@click.argument("task", type=click.Choice(sorted(SETTINGS)))
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The unpacked archives.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Another value than tasks.toml's.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--resume", is_flag=True, help="Go on where the last run in OUT stopped.")
def main(task: str, data: Path, out: Path, changes: tuple[str, ...], device: str, resume: bool) -> None:
    """Train TASK's network on the pictures in DATA; weights, curve and settings go to OUT."""
    settings = changed(SETTINGS[task], changes)
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    torch.manual_seed(settings["seed"])
    module = importlib.import_module(f"models.training.{settings['module']}")
    where = torch.device(device)
    figures = fit(module.Task(data, settings, where), schedule(settings), out, where, resume=resume)
    (out / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
