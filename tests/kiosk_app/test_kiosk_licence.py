"""A kiosk measures patients with networks for research only under a waiver that its clinic signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient

from hardware.board import BOARDS, load_board
from kiosk_app.patient import sentences
from kiosk_app.scanning import licence as of_the_networks
from kiosk_app.scanning.licence import why_not_licensed
from kiosk_app.serve_cli import licence
from kiosk_app.web.languages import LANGUAGES
from models.networks.manifest import load_manifest
from models.networks.signature import PUBLIC_KEY
from sync.wire import keys
from sync.wire.waiver import FILE, OTHERS, ResearchWaiver
from tests.support.kiosk_bench import Bench, Clinic
from tests.support.visitor import Page, Visitor

SIGNED_AT = datetime(2026, 11, 29, 10, 0, tzinfo=timezone.utc)
LAST_DAY = date(2027, 2, 28)


@dataclass
class Signed:
    """An enrolled kiosk, with what its clinic signs for it."""

    clinic: Clinic
    state: Path
    networks: dict[str, str] = field(default_factory=lambda: dict(load_manifest().for_research))

    def waive(
        self,
        *,
        kiosk: UUID | None = None,
        key: object = None,
        at: datetime = SIGNED_AT,
        until: date = LAST_DAY,
        file: str = FILE,
    ) -> None:
        waiver = ResearchWaiver(
            kiosk=kiosk or self.clinic.kiosk,
            networks={name: bytes.fromhex(sha256) for name, sha256 in self.networks.items()},
            by="Dr. Example",
            reason="vote 7/2026",
            at=at,
            until=until,
        )
        signer = self.clinic.manifest if key is None else key
        (self.state / file).write_bytes(waiver.sign(signer))  # type: ignore[arg-type]

    def why_not(self, at: datetime = SIGNED_AT) -> str | None:
        return why_not_licensed(self.state, self.clinic.kiosk, at)


@pytest.fixture
def signed(tmp_path: Path, clinic: Clinic) -> Signed:
    return Signed(clinic, clinic.enrol(tmp_path / "kiosk"))


def test_the_networks_that_ship_need_a_waiver_and_the_sentence_says_which_and_what_to_do(
    signed: Signed,
) -> None:
    said = signed.why_not()
    assert said is not None
    assert all(name in said for name in ("lesion-outline", "lesion-class", "acne", "parsing"))
    assert "face-landmarks" not in said
    assert "dermakiosk provision waive" in said
    signed.waive()
    assert signed.why_not() is None


def test_networks_that_may_be_used_for_anything_need_none(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_manifest()
    free = {name: entry.model_copy(update={"use": "any"}) for name, entry in whole.networks.items()}
    retrained = whole.model_copy(update={"networks": free})
    monkeypatch.setattr(of_the_networks, "load_manifest", lambda: retrained)
    assert signed.why_not() is None


def test_a_waiver_of_another_clinic_or_kiosk_or_of_bytes_that_are_none_is_no_waiver(signed: Signed) -> None:
    signed.waive(key=keys.generate_signing_key())
    assert "no waiver that this kiosk's clinic signed" in str(signed.why_not())
    signed.waive(key=signed.clinic.root)
    assert "no waiver that this kiosk's clinic signed" in str(signed.why_not())
    signed.waive(kiosk=uuid4())
    assert "signed for another kiosk" in str(signed.why_not())
    (signed.state / FILE).write_bytes(b"yes")
    assert "no waiver that this kiosk's clinic signed" in str(signed.why_not())


def test_another_file_of_a_network_needs_another_waiver(signed: Signed) -> None:
    signed.networks["acne"] = "0" * 64
    signed.waive()
    assert "the networks acne have now" in str(signed.why_not())
    del signed.networks["acne"]
    signed.waive()
    assert "the networks acne have now" in str(signed.why_not())


def test_a_waiver_holds_to_the_end_of_its_last_day_and_under_no_clock_from_before_it(signed: Signed) -> None:
    signed.waive()
    end = datetime(2027, 2, 28, 23, 59, 59, tzinfo=timezone.utc)
    assert signed.why_not(end) is None
    assert "ended on 2027-02-28" in str(signed.why_not(end + timedelta(seconds=1)))
    assert "Set the clock" in str(signed.why_not(datetime(1970, 1, 1, tzinfo=timezone.utc)))


def test_one_waiver_that_holds_is_enough_beside_others(signed: Signed) -> None:
    beside = OTHERS.replace("*", "0123456789ab")
    signed.waive(file=beside)
    assert signed.why_not() is None
    signed.networks["acne"] = "0" * 64
    signed.waive()
    assert signed.why_not() is None
    signed.waive(file=beside)
    assert f"{signed.state / FILE} was signed for other files" in str(signed.why_not())
    (signed.state / FILE).unlink()
    assert f"{signed.state / beside} was signed for other files" in str(signed.why_not())


@pytest.mark.parametrize("newest", [FILE, OTHERS.replace("*", "0123456789ab")])
def test_the_newest_waiver_for_the_networks_that_are_here_decides(signed: Signed, newest: str) -> None:
    """Also where an older one is for more: by it a clinic ends what it has let the kiosk do."""
    [older] = {FILE, OTHERS.replace("*", "0123456789ab")} - {newest}
    later = SIGNED_AT + timedelta(hours=1)
    signed.waive(file=newest, at=later, until=SIGNED_AT.date())
    signed.networks["more"] = "0" * 64
    signed.waive(file=older)
    assert signed.why_not(later) is None
    assert f"{signed.state / newest} ended on 2026-11-29" in str(signed.why_not(later + timedelta(days=1)))


def test_staff_are_told_of_the_waiver_for_the_networks_that_are_here(signed: Signed) -> None:
    signed.waive(file=OTHERS.replace("*", "0123456789ab"))
    signed.networks["acne"] = "0" * 64  # the one of an update to come
    signed.waive()
    assert "ended on 2027-02-28" in str(signed.why_not(datetime(2027, 3, 1, tzinfo=timezone.utc)))


@pytest.mark.parametrize(
    ("key", "said"),
    [(None, "cannot be read (No such file or directory)"), ("yes", "holds no key"), ("ab", "no key")],
)
def test_a_manifest_key_that_is_away_or_none_is_not_said_to_be_a_waiver_that_is_missing(
    signed: Signed, key: str | None, said: str
) -> None:
    signed.waive()
    public = signed.state / PUBLIC_KEY
    public.unlink() if key is None else public.write_text(key)
    reason = str(signed.why_not())
    assert reason.startswith(f"{public} ") and said in reason
    assert "AUTHORITY/manifest.pub" in reason and "signed no waiver" not in reason


def test_a_waiver_that_cannot_be_read_is_said_to_be_that(signed: Signed) -> None:
    (signed.state / FILE).mkdir()
    assert "cannot be read" in str(signed.why_not())


def test_a_simulated_board_needs_no_waiver_and_every_real_one_does(signed: Signed) -> None:
    boards = [load_board(path) for path in sorted(BOARDS.glob("*.toml"))]
    open_without = {
        board.name for board in boards if licence(board, signed.state, signed.clinic.kiosk)() is None
    }
    assert open_without == {board.name for board in boards if board.simulated}
    assert len(open_without) < len(boards)


def test_a_board_that_calls_itself_simulated_needs_one_before_a_real_camera(signed: Signed) -> None:
    board = load_board(BOARDS / "simulated.toml")
    camera = board.camera.model_copy(update={"driver": "v4l2"})
    real = board.model_copy(update={"camera": camera})
    assert licence(real, signed.state, signed.clinic.kiosk)()


@pytest.fixture
def unlicensed(bench: Bench) -> Bench:
    bench.unlicensed = "No waiver is known."
    return bench


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_a_waiver_the_kiosk_is_closed_and_says_so_in_each_language(
    unlicensed: Bench, client: FlaskClient, language: str
) -> None:
    page = Page(client.get("/", headers={"Accept-Language": language}))
    assert (page.name, page.body["data-reason"], page.html["lang"]) == ("closed", "research_only", language)
    english = str(sentences.trouble("research_only").happened)
    assert (english in page.text) is (language == "en")
    assert unlicensed.kiosk.records.latest() is None


def test_nobody_begins_on_a_page_that_was_shown_before_the_waiver_ended(
    bench: Bench, visitor: Visitor
) -> None:
    assert visitor.look("/").name == "language"
    bench.unlicensed = "The waiver ended."
    page = visitor.tap("/language", language="de")
    assert (page.name, page.body["data-reason"]) == ("closed", "research_only")
    assert not bench.kiosk.sessions.taken()


def test_a_kiosk_opens_by_itself_once_there_is_a_waiver(unlicensed: Bench, visitor: Visitor) -> None:
    assert visitor.look("/").name == "closed"
    unlicensed.unlicensed = None
    assert visitor.look("/").name == "language"


def test_the_log_tells_staff_why_once_and_again_when_it_is_another_reason(
    unlicensed: Bench, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    for why in ("It ended yesterday.", "It ended yesterday.", "It is another kiosk's."):
        unlicensed.unlicensed = why
        visitor.look("/")
    said = "".join(capsys.readouterr())
    assert (said.count("It ended yesterday."), said.count("It is another kiosk's.")) == (1, 1)
