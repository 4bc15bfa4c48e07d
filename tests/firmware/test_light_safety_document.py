"""The page of light safety has every rule of the code, with its number, its codes and what tests it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from firmware.lights.doses import UV_ONLY
from firmware.lights.latch import FAULT_WORDS
from hardware.profile import Limits
from tests.support.documents import document, in_code
from tests.support.lightmutants import MUTANTS

PAGE = document("firmware/docs/light-safety.md")
LIGHTS = Path(__file__).parents[2] / "firmware" / "lights"
RULES = [row for head in ("rule", "fault") for table in PAGE.tables(head) for row in table]


def bound(facts: dict[str, Any]) -> float:
    """What a limit can never be looser than."""
    return float(facts["maximum"])


def test_every_limit_has_its_value_and_can_be_no_looser() -> None:
    schema = Limits.model_json_schema()["properties"]
    [table] = [table for table in PAGE.tables("rule") if "limit" in table[0]]
    written = {row["limit"].strip("`"): float(row["value"]) for row in table}
    assert written == {name: float(getattr(Limits(), name)) for name in Limits.model_fields}
    assert written == {name: bound(facts) for name, facts in schema.items()}


def test_every_rule_that_is_taken_out_is_on_the_page_once() -> None:
    written = [rule.strip() for row in RULES for rule in row["taken out in turn"].split(";")]
    assert sorted(rule for rule in written if rule != "–") == sorted(mutant.rule for mutant in MUTANTS)


def test_every_fault_is_on_the_page_with_what_it_locks() -> None:
    written = {row["fault"].strip("`"): row["locks"] for row in PAGE.table("fault")}
    del written["any of them"]
    assert written == {fault: "UV" if fault in UV_ONLY else "all" for fault in FAULT_WORDS}


def test_every_code_with_which_the_lights_say_no_is_on_the_page() -> None:
    said = set()
    for path in LIGHTS.glob("*.py"):
        source = path.read_text()
        said |= set(re.findall(r'(?:LightRefused|DoseRefused)\(\s*"(\w+)"', source))
    said |= set(re.findall(r'return "(\w+)"', (LIGHTS / "interlocks.py").read_text()))
    said |= {"uv_fault"}  # chosen beside `fault`, where UV alone is locked
    assert said <= {span for span in in_code(PAGE.text)}


def test_every_rule_names_a_test() -> None:
    assert [row for row in RULES if "::" not in row["test"]] == []
