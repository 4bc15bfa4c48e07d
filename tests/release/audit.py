"""`make audit`: whether a package of the locks has a known vulnerability, as the registry tells pip-audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from tests.release import locks

PROGRAM = Path(sys.executable).with_name("pip-audit")
_LIMIT_S = 300.0


class NotAudited(Exception):
    """Nothing is known about the packages; the message says why."""


def audit(lock: Path, program: Path = PROGRAM) -> tuple[int, list[str]]:
    """How many packages `lock` has, and a line for each known vulnerability. Raises NotAudited.

    Where a registry knows no advisories pip-audit passes every package over, which looks like a clean result.
    """
    command = [program, "--disable-pip", "--require-hashes", "--format", "json", "--requirement", lock]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired as error:
        raise NotAudited(f"pip-audit had no answer in {_LIMIT_S:g} s") from error
    except (ValueError, KeyError) as error:
        raise NotAudited(done.stderr.strip().split("\n")[-1] or "pip-audit said nothing") from error
    if passed_over := [package["name"] for package in packages if "skip_reason" in package]:
        raise NotAudited(
            f"of {len(passed_over)} packages the registry says nothing, {passed_over[0]} for one"
        )
    known = [(package, flaw) for package in packages for flaw in package["vulns"]]
    return len(packages), [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {' or '.join(flaw['fix_versions'])}"
        for package, flaw in known
    ]


@click.command()
def main() -> None:
    """Ask about the packages of each lock; exit status 1 if one is vulnerable, or if nobody could say."""
    found = False
    for lock in sorted(locks.FOLDER.glob("*.txt")):
        try:
            count, lines = audit(lock)
        except NotAudited as error:
            raise click.ClickException(
                f"{lock.name} was not audited: {error}. Run make audit where the advisories can be reached."
            ) from error
        click.echo("\n".join([f"{lock.name}: {count} packages, {len(lines)} known vulnerabilities", *lines]))
        found = found or bool(lines)
    raise click.exceptions.Exit(found)


if __name__ == "__main__":
    main()
