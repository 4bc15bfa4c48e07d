"""`python -m tests.soak`: the long runs, as a table; exit status 1 when one of them failed."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from sync.clinic.store.database import Database
from tests.support.clinic import running_postgresql
from tests.support.killed_workers import do_of_many_machines
from tests.support.killrounds import KILLS, a_kiosk
from tests.support.kiosk_daemons import Kiosk
from tests.support.lightfaults import Outcome, run_faults
from tests.support.lightrounds import Rounds

_CHUNK = 50_000
_DARK_WITHIN_S = 0.25
_JOBS_WITHIN_S = 1800.0


@click.command()
@click.option("--faults", default=1_000_000, show_default=True, help="Faults on an injected clock.")
@click.option("--rounds", default=100, show_default=True, help="Rounds of the real light daemon.")
@click.option("--kills", default=20, show_default=True, help="Kills of each process in a pulse.")
@click.option(
    "--jobs",
    type=click.IntRange(min=100),
    default=2000,
    show_default=True,
    help="Jobs of three machines that are killed.",
)
@click.option("--seed", default=1, show_default=True)
def main(faults: int, rounds: int, kills: int, jobs: int, seed: int) -> None:
    """The long runs: a million faults of the lights, rounds in real time, kills in a pulse and of workers."""
    click.echo(f"{'run':<44}{'result':<52}{'goal':<22}{'s':>6}")
    with tempfile.TemporaryDirectory(prefix="dk-") as name:
        folder = Path(name)
        good = [
            _row(f"{faults:,} faults, injected clock", "0 violations", lambda: _faults(faults, seed)),
            _row(
                f"{rounds} rounds of the real light daemon",
                "0 violations",
                lambda: _rounds(folder, rounds, seed),
            ),
        ]
        with a_kiosk(folder / "kills") as kiosk:
            for process, kill in KILLS.items():
                good.append(
                    _row(
                        f"kill -9 of the {process} in a UV pulse",
                        f"low in {_DARK_WITHIN_S * 1000:.0f} ms, {kills} of {kills}",
                        functools.partial(_kills, kill, kiosk, kills),
                    )
                )
        jobs_of_machines = functools.partial(_jobs, folder, jobs)
        good.append(_row(f"{jobs:,} jobs, 3 machines killed at random", "each done once", jobs_of_machines))
    raise click.exceptions.Exit(0 if all(good) else 1)


def _row(what: str, goal: str, run: Callable[[], tuple[str, bool]]) -> bool:
    begun = time.monotonic()
    result, good = run()
    mark = "" if good else "  MISSED"
    click.echo(f"{what:<44}{result:<52}{goal:<22}{time.monotonic() - begun:>6.0f}{mark}")
    return good


def _faults(count: int, seed: int) -> tuple[str, bool]:
    total, bad_seeds = Outcome(), []
    while total.count < count:
        outcome = run_faults(min(_CHUNK, count - total.count), seed)
        if outcome.violations:
            bad_seeds.append(seed)
        total.add(outcome)
        seed += 1
    violations = total.violations.total()
    said = f"{violations} violations in {total.pulses:,} pulses"
    if violations:
        said += f": {', '.join(sorted(total.violations))}; with the seeds {bad_seeds}"
    return said, violations == 0


def _rounds(folder: Path, count: int, seed: int) -> tuple[str, bool]:
    rounds = Rounds(folder / "rounds", seed)
    for number in range(count):
        rounds.play(number)
    violations = rounds.close()
    said = (
        f"{len(violations)} violations in {len(rounds.tape.grants)} pulses, {len(rounds.troubles)} troubles"
    )
    return "; ".join([said, *sorted(set(violations))]), not violations


def _kills(kill: Callable[[Kiosk], float], kiosk: Kiosk, count: int) -> tuple[str, bool]:
    seconds = [kill(kiosk) for _ in range(count)]
    low = sum(one < _DARK_WITHIN_S for one in seconds)
    return f"{low} of {count}, the slowest {max(seconds, default=0.0) * 1000:.0f} ms", low == count


def _jobs(folder: Path, count: int) -> tuple[str, bool]:
    with running_postgresql() as server:
        database = Database.at(folder / "clinic", server.format(name="postgres"))
        database.migrate()
        try:
            deaths = do_of_many_machines(database, folder / "gateway.sqlite", count, 3, _JOBS_WITHIN_S)
        except AssertionError as error:
            return f"{error}".partition("\n")[0][:52], False
        finally:
            database.close()
    return f"{count:,} done, {deaths} deaths", True


if __name__ == "__main__":
    main()
