"""A clinic signs that one kiosk may measure patients with networks that are for research only."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest

from kiosk_app.scanning.licence import why_not_licensed
from models.networks.manifest import load_manifest
from provisioning.authority import Authority
from provisioning.authority_files import AuthorityRefused
from provisioning.enrol import enrol
from provisioning.waiver import LONGEST, waive
from sync.wire.waiver import FILE, ResearchWaiver
from tests.support.mosquitto import BOARD, free_port

COMMAND = Path(sys.executable).with_name("dermakiosk")
NETWORKS = {"acne": "ab" * 32}


def today() -> date:
    return datetime.now(timezone.utc).date()


def clinic(folder: Path) -> Authority:
    """A clinic that can enrol kiosks."""
    authority = Authority.create(folder / "authority", "Clinic")
    authority.make_broker(folder / "broker", free_port())
    authority.make_role("ingest-1", folder / "clinic" / "ingest")
    authority.make_opener(folder / "clinic" / "opener")
    return authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return clinic(tmp_path)


@pytest.fixture
def kiosk(authority: Authority, tmp_path: Path) -> Path:
    enrol(authority, tmp_path / "kiosk", board=BOARD)
    return tmp_path / "kiosk"


def the_id(authority: Authority) -> UUID:
    [entry] = authority.kiosks()
    return UUID(entry["kiosk"])


def test_the_command_signs_for_the_networks_that_ship_and_the_kiosk_believes_it(
    authority: Authority, kiosk: Path
) -> None:
    assert why_not_licensed(kiosk, the_id(authority)) is not None
    words = ["--state", authority.folder, "--kiosk", kiosk, "--by", "Dr. Müller", "--reason", "vote 7/2026"]
    until = today() + timedelta(days=30)
    done = subprocess.run(
        [COMMAND, "provision", "waive", *map(str, words), "--until", str(until)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in load_manifest().for_research)
    assert why_not_licensed(kiosk, the_id(authority)) is None
    waiver = ResearchWaiver.verify((kiosk / FILE).read_bytes(), authority.manifest_key.public_key())
    assert (waiver.kiosk, waiver.by, waiver.until) == (the_id(authority), "Dr. Müller", until)
    assert {name: sha256.hex() for name, sha256 in waiver.networks.items()} == load_manifest().for_research


def test_a_waiver_for_the_networks_of_an_update_leaves_those_of_today_theirs(
    authority: Authority, kiosk: Path
) -> None:
    research = load_manifest().for_research
    update = research | {"acne": "cd" * 32}
    for networks in (research, update):
        waive(authority, kiosk, networks, by="A", reason="B", until=today())
        assert why_not_licensed(kiosk, the_id(authority)) is None
    waiver = ResearchWaiver.verify((kiosk / FILE).read_bytes(), authority.manifest_key.public_key())
    assert waiver.networks["acne"].hex() == update["acne"]


def test_a_waiver_for_an_update_with_fewer_networks_for_research_leaves_the_kiosk_of_today_open(
    authority: Authority, kiosk: Path
) -> None:
    research = load_manifest().for_research
    fewer = dict(list(research.items())[1:])
    for networks in (research, fewer):
        waive(authority, kiosk, networks, by="A", reason="B", until=today())
        assert why_not_licensed(kiosk, the_id(authority)) is None


def test_waivers_for_the_same_files_under_other_names_are_kept_beside_each_other(
    authority: Authority, kiosk: Path
) -> None:
    research = load_manifest().for_research
    renamed = {f"{name}-2": sha256 for name, sha256 in research.items()}
    for networks in (research, renamed, {"acne": "cd" * 32}):
        waive(authority, kiosk, networks, by="A", reason="B", until=today())
        assert why_not_licensed(kiosk, the_id(authority)) is None


def test_a_waiver_takes_the_place_of_the_one_for_the_same_networks_wherever_that_is(
    authority: Authority, kiosk: Path
) -> None:
    research, other = load_manifest().for_research, {"acne": "cd" * 32}
    for networks, until in ((research, today() + LONGEST), (other, today()), (research, today())):
        waive(authority, kiosk, networks, by="A", reason="B", until=until)
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    assert f"ended on {today()}" in str(why_not_licensed(kiosk, the_id(authority), tomorrow))
    kept = [path for path in kiosk.glob("research-waiver*") if path.name != FILE]
    assert len(kept) == 1  # the one for the other networks


@pytest.mark.parametrize("between", [False, True])
def test_a_waiver_ends_a_longer_one_for_the_same_networks_and_more(
    authority: Authority, kiosk: Path, between: bool
) -> None:
    research, other = load_manifest().for_research, {"acne": "cd" * 32}
    signed = [(research | {"more": "ef" * 32}, today() + LONGEST), (research, today())]
    if between:
        signed.insert(1, (other, today()))
    for networks, until in signed:
        waive(authority, kiosk, networks, by="A", reason="B", until=until)
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    assert f"ended on {today()}" in str(why_not_licensed(kiosk, the_id(authority), tomorrow))


def test_a_waiver_ends_within_a_year(authority: Authority, kiosk: Path) -> None:
    for until in (today() - timedelta(days=1), today() + LONGEST + timedelta(days=1)):
        with pytest.raises(AuthorityRefused, match="choose another day"):
            waive(authority, kiosk, NETWORKS, by="A", reason="B", until=until)
    assert not (kiosk / FILE).exists()
    for until in (today(), today() + LONGEST):
        waive(authority, kiosk, NETWORKS, by="A", reason="B", until=until)


@pytest.mark.parametrize(
    ("by", "reason"), [(" ", "vote"), ("Dr. A", ""), ("Dr. A", "x" * 129), ("A\nB", "vote")]
)
def test_somebody_answers_for_it_and_says_why(
    authority: Authority, kiosk: Path, by: str, reason: str
) -> None:
    with pytest.raises(AuthorityRefused, match="a line of 1 to 128 characters"):
        waive(authority, kiosk, NETWORKS, by=by, reason=reason, until=today())


def test_where_nothing_is_for_research_nothing_is_signed(authority: Authority, kiosk: Path) -> None:
    with pytest.raises(AuthorityRefused, match="no waiver is needed"):
        waive(authority, kiosk, {}, by="A", reason="B", until=today())


def test_only_the_clinic_of_an_enrolled_kiosk_signs_for_it(
    authority: Authority, kiosk: Path, tmp_path: Path
) -> None:
    with pytest.raises(AuthorityRefused, match="is not an enrolled kiosk's"):
        waive(authority, tmp_path / "nowhere", NETWORKS, by="A", reason="B", until=today())
    other = clinic(tmp_path / "other")
    with pytest.raises(AuthorityRefused, match="belongs to another clinic"):
        waive(other, kiosk, NETWORKS, by="A", reason="B", until=today())
    (kiosk / "identity.json").write_text('{"kiosk": 1}')
    with pytest.raises(AuthorityRefused, match="is damaged"):
        waive(authority, kiosk, NETWORKS, by="A", reason="B", until=today())


def test_without_the_manifest_key_nothing_is_signed(authority: Authority, kiosk: Path) -> None:
    (authority.folder / "manifest.key").unlink()
    with pytest.raises(AuthorityRefused, match="bring the medium that holds the manifest key"):
        waive(authority, kiosk, NETWORKS, by="A", reason="B", until=today())
