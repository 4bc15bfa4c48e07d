"""A board that is not simulated takes no patient with the networks that ship, until its clinic has signed."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from hardware.board import BOARDS
from kiosk_app.demo.supervisor import dermakiosk, free_port
from provisioning.authority import Authority
from provisioning.enrol import enrol

LAPTOP = BOARDS / "laptop.toml"
COMMAND_S, PAGE_S = 60.0, 10.0


def run(*arguments: object) -> str:
    command = dermakiosk(*arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def enrolled(folder: Path) -> tuple[Path, Path]:
    """The folders of an authority, and of a kiosk on a laptop's board whose networks it has signed."""
    authority, kiosk = Authority.create(folder / "authority", "Clinic"), folder / "kiosk"
    authority.make_broker(folder / "broker", free_port())
    authority.make_role("ingest-1", folder / "clinic" / "ingest")
    authority.make_opener(folder / "clinic" / "opener")
    enrol(authority, kiosk, board=LAPTOP)
    run("models", "sign", "--key", authority.folder / "manifest.key", "--state", kiosk)
    return authority.folder, kiosk


@contextmanager
def pages(kiosk: Path, log: Path) -> Iterator[str]:
    """The address of the kiosk's pages while they are served."""
    command = dermakiosk("serve", "--board", LAPTOP, "--state", kiosk, "--port", 0)
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("kiosk=file://"), log.read_text()
            start = Path(line.strip().removeprefix("kiosk=file://")).read_text()
            address = re.search(r'url=([^"]+)"', start)
            assert address is not None
            yield address[1]
        finally:
            process.kill()


def first_page(address: str, language: str) -> str:
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    asked = urllib.request.Request(address, headers={"Accept-Language": language})
    with browser.open(asked, timeout=PAGE_S) as answer:
        page: str = answer.read().decode()
    return page


def test_a_real_board_opens_for_patients_with_the_clinics_waiver_and_not_before(tmp_path: Path) -> None:
    authority, kiosk = enrolled(tmp_path)
    with pages(kiosk, tmp_path / "serve.log") as address:
        closed = first_page(address, "de")
        assert 'data-page="closed"' in closed and 'data-reason="research_only"' in closed
        assert "nur für die Forschung" in closed
        until = datetime.now(timezone.utc).date() + timedelta(days=30)
        words = ("--by", "Dr. Müller", "--reason", "vote 7/2026", "--until", until)
        run("provision", "waive", "--state", authority, "--kiosk", kiosk, *words)
        assert 'data-page="language"' in first_page(address, "de")
        (kiosk / "research-waiver.cose").unlink()
        assert 'data-reason="research_only"' in first_page(address, "ar")
    said = (tmp_path / "serve.log").read_text()
    assert said.count('"event": "closed"') == 2
    assert "dermakiosk provision waive" in said
