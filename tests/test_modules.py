"""Modules: each is short enough to be read at once, and no test leans on another one's."""

from __future__ import annotations

import re

from tests.support.sources import ROOMS, ROOT, modules

LONGEST_LINES = 450
# In a script that a test runs, too.
OF_A_TEST = re.compile(r"\b(from|import)\s+tests(\.\w+)*\.test_\w+|\bfrom\s+tests[\w.]*\s+import\s+test_")


def too_long(text: str) -> bool:
    return len(text.splitlines()) > LONGEST_LINES


def test_no_module_is_so_long_that_it_may_be_about_two_things() -> None:
    found = [path for path in modules(*ROOMS, "tests") if too_long(path.read_text(encoding="utf-8"))]
    assert [str(path.relative_to(ROOT)) for path in found] == []
    assert too_long("line\n" * 451) and not too_long("line\n" * 450)


def test_no_module_imports_from_one_of_tests_but_from_what_they_share() -> None:
    found = [path for path in modules("tests") if OF_A_TEST.search(path.read_text(encoding="utf-8"))]
    assert [str(path.relative_to(ROOT)) for path in found] == []
    tests = "tests"
    assert OF_A_TEST.search(f"from {tests}.sync.test_agent import submit")
    assert OF_A_TEST.search(f"from {tests} import test_help")
    assert not OF_A_TEST.search(f"from {tests}.support.agent import submit")
