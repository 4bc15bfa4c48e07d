"""Programs: what an installation has of Debian, which no lock names a version of."""

from __future__ import annotations

import re

from tests.release.locks import CHECKOUT

SETUP = CHECKOUT / "provisioning" / "setup.sh"
# What runs all of it: Debian's Python, where set-up finds no other, and the SQLite that it is built with.
RUNS_ALL = frozenset({"python3", "libsqlite3-0"})


def debian_packages(what: str) -> set[str]:
    """The Debian packages that setup.sh names for `what`."""
    text, package = SETUP.read_text(), r'"([\w.-]+) /'
    lists = {name: [one] for name, one in re.findall(rf"^(\w+)={package}", text, re.MULTILINE)}
    for name, several in re.findall(r"^(\w+)=\((.*?)^\)", text, re.MULTILINE | re.DOTALL):
        lists[name] = re.findall(package, several)
    [taken] = re.findall(rf"^  (?:\w+ \| )?{what}(?: \| \w+)?\)(.*?);;$", text, re.MULTILINE | re.DOTALL)
    named = (one for name in re.findall(r"\$\{?(\w+)", taken) for one in lists.get(name, ()))
    return {*named, *re.findall(package, taken)}
