"""`python -m tests.faults`: light-safety fault injection; the last line is `N faults, M violations`."""

from __future__ import annotations

import time

import click

from tests.support.lightfaults import Outcome, run_faults
from tests.support.lightmutants import MUTANTS

_CHUNK = 50_000


@click.command()
@click.option("--count", "-n", default=10_000, show_default=True, help="How many faults to inject.")
@click.option("--seed", default=1, show_default=True, help="Seed of the random clients and faults.")
@click.option("--mutants", is_flag=True, help="Take each rule out in turn; each has to be caught.")
def main(count: int, seed: int, mutants: bool) -> None:
    """Random clients and faults against the light core; the judge reads the pins' tape."""
    begun = time.monotonic()
    total = Outcome()
    if mutants:
        click.echo(f"{'rule taken out':<50} {'faults until caught':>19}  by")
        for mutant in MUTANTS:
            outcome = run_faults(count, seed, until=mutant.violation, **mutant.world())
            named = [name for name in outcome.violations if mutant.violation in name]
            caught = f"{outcome.count:>19,}  {named[0]}" if named else f"{'-':>19}  NOT CAUGHT"
            click.echo(f"{mutant.rule:<50} {caught}")
            total.violations["not caught"] += not named
        click.echo(f"{len(MUTANTS)} rules taken out, {total.violations.total()} not caught")
        raise click.exceptions.Exit(1 if total.violations.total() else 0)
    while total.count < count:
        total.add(run_faults(min(_CHUNK, count - total.count), seed))
        seed += 1
    for name, times in sorted(total.faults.items()):
        click.echo(f"{times:>9,}  {name.replace('_', ' ')}")
    for name, times in total.violations.most_common():
        click.echo(f"{times:>9,}  VIOLATION: {name}")
    seconds = time.monotonic() - begun
    click.echo(f"{total.pulses:,} UV pulses, {total.uv_s:,.0f} s of UV, in {seconds:.0f} s")
    click.echo(f"{total.count} faults, {total.violations.total()} violations")
    raise click.exceptions.Exit(1 if total.violations.total() else 0)


if __name__ == "__main__":
    main()
