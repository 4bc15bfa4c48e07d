"""The order of the tests: the long files first, so that all processes end together; one browser for each."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from structlog.processors import add_log_level

from tests.support import in_memory, long_tests, waiting
from tests.support.own_log import given_back

if TYPE_CHECKING:
    from playwright.sync_api import Browser


# Beside those of the whole system and of the browser, and those that name what starts a server, see
# `long_tests`: what starts daemons or commands, works in many files, or measures whole pictures.
LONG = frozenset(
    """
    agent_keys calibration_colour calibration_kept calibration_kiosk captured_phases captured_preview
    captured_process clinic_alarms clinic_batches clinic_batches_at_once clinic_cli clinic_database
    clinic_db_option clinic_effort clinic_erasure clinic_export_folder clinic_exports
    clinic_exports_withdrawn clinic_extremes clinic_failures clinic_heartbeats clinic_ingest clinic_intake
    clinic_missing_keys clinic_opener clinic_poison clinic_quarantine clinic_quarantine_discards
    clinic_schedules clinic_sealed_again clinic_spots clinic_throttle clinic_tombstone_lines
    clinic_tombstones clinic_unseen_withdrawals clinic_watchdog clinic_withdrawals clinic_work close_up
    demo_system firmware_cli first_opening formats frame_checks_real_face garbage interlock_check
    kiosk_close_ups kiosk_consent kiosk_courier kiosk_deletions kiosk_deletions_full_disk
    kiosk_deletions_told kiosk_delivery kiosk_door kiosk_house kiosk_journey kiosk_kept_envelopes
    kiosk_leaving kiosk_lights kiosk_measuring_child kiosk_overlay_words kiosk_phases kiosk_scan_command
    kiosk_scans_command kiosk_screen kiosk_secrets kiosk_serve kiosk_sessions kiosk_spots kiosk_storage
    kiosk_storage_lost kiosk_trouble kiosk_unnoted kiosk_vault kiosk_work kiosk_work_errors
    kiosk_work_leaving lightd_faults lightd_lamp lightd_ledger lightd_machine lightd_process lightd_senses
    lightd_staff lightd_systemd lights_command lost_outbox models_abstaining models_acne models_acne_scan
    models_capture models_capture_folder models_command models_known_answers models_lesion models_lights
    models_manifest models_marked_spots models_overlay_words models_parsing models_reader models_sheets
    models_upright older_outbox older_records older_records_deleted phantom picture_colours picture_file
    product_file provision_enrol provision_waiver sequence_faults setup simulated_kiosk standard_output
    wheel workbench
    """.split()  # noqa: SIM905
)


PLAYED_ANEW = "played_anew"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Everything here talks to this computer only, so no proxy of the environment may come between."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    log_plainly()
    if not hasattr(config, "workerinput"):  # the workers are started with what is said here
        write_in_memory(config)


def write_in_memory(config: pytest.Config) -> None:
    """Have the tests write where no disk is waited for, if there is room; `--basetemp` keeps it elsewhere.

    Whatever is kept for good here waits for the disk after each step, several milliseconds a time.
    """
    in_memory.remove_what_killed_runs_left()
    if config.option.basetemp or not in_memory.has_room():
        return
    folder = in_memory.OwnFolder()
    config.add_cleanup(folder.remove)
    os.environ["TMPDIR"] = str(folder.path)
    tempfile.tempdir = None  # it was asked for before
    config.option.basetemp = str(folder.path / "t")


def log_plainly() -> None:
    """What nobody has configured draws each fault with all that its functions hold: a second of work."""
    structlog.reset_defaults()
    drawn = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, add_log_level, drawn])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported for the tests stays: looking for garbage in it took a third of the collecting."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()  # nor does any later look at garbage look there
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (
            is_long(item.path)
            or "postgresql" in item.nodeid
            or long_tests.is_long(item)
            or "browser" in item.fixturenames
        ):
            item.add_marker(pytest.mark.long)
    items.sort(
        key=lambda item: (
            "system" not in item.path.parts,
            not item.path.stem.endswith("_browser"),
            item.get_closest_marker("long") is None,
        )
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Have it known which test runs that is to be short, also to what sets up a whole module or all tests."""
    long_tests.short_test = None if item.get_closest_marker("long") else item.nodeid
    try:
        return (yield)
    finally:
        long_tests.short_test = None


def is_long(path: Path) -> bool:
    """Whether `make check` leaves a file of tests out; of the others, what needs a database server."""
    return "system" in path.parts or path.stem.endswith("_browser") or path.stem.removeprefix("test_") in LONG


@pytest.fixture(autouse=True)
def _log_of_the_tests() -> Iterator[None]:
    """A command that a test, or what it is set up by, runs here logs to a stream that is closed after it."""
    log_plainly()
    with given_back():
        yield


@pytest.fixture(autouse=True)
def _rounds_played_anew(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test was excused from is said of it, in whichever process it ran."""
    yield
    request.node.user_properties += [(PLAYED_ANEW, said) for said in waiting.played_anew]
    waiting.played_anew.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests played a round anew, since this machine had held them up in it."""
    told = [
        f"{report.nodeid}: {said}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, said in report.user_properties
        if name == PLAYED_ANEW
    ]
    if told:
        terminalreporter.section(f"{len(told)} rounds of a test were played anew")
        terminalreporter.write_line("\n".join(told))


@pytest.fixture(autouse=True)
def _place_before_the_kernel() -> Iterator[None]:
    """What a daemon that runs here asks the kernel for would starve all that runs beside the later tests."""
    policy = os.sched_getscheduler(0)
    yield
    if os.sched_getscheduler(0) != policy:
        os.sched_setscheduler(0, policy, os.sched_param(0))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The one Chromium of a test process; each visit is a context of its own."""
    from tests.support.browser import chromium  # most tests need none

    with chromium() as started:
        yield started
