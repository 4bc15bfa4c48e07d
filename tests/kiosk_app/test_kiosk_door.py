"""The door: without the secret that was made at boot nobody sees a page, a preview or a result."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser

from kiosk_app.patient.app import create_app
from kiosk_app.web.door import Door
from tests.support.browser import visit, wait_for_answers
from tests.support.kiosk_bench import Bench
from tests.support.serving import running_server
from tests.support.visitor import Page, PatientClock, Visitor


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path / "screen")


@pytest.fixture
def closed(bench: Bench, door: Door, clock: PatientClock) -> FlaskClient:
    app = create_app(bench.kiosk, clock)
    door.guard(app)
    return app.test_client()


def within(door: Door) -> str:
    """The address of the door, without the host."""
    return door.address(8080).removeprefix("http://127.0.0.1:8080")


ADDRESSES = ("/", "/consent", "/preview", "/close_up/preview", "/result", "/result/zones.png", "/here")


@pytest.mark.parametrize("address", [*ADDRESSES, "/scan/progress", "/enter/", "/enter/wrong/preview"])
def test_whoever_has_no_secret_sees_nothing(closed: FlaskClient, bench: Bench, address: str) -> None:
    answer = closed.get(address)
    assert (answer.status_code, Page(answer).name) == (403, "stranger")
    assert closed.post(address).status_code == 403
    closed.set_cookie("dk_door", "wrong")
    assert closed.get(address).status_code == 403
    assert bench.camera.previewed == []


@pytest.mark.parametrize("address", [*ADDRESSES, "/healthz", "/static/kiosk.css", "/enter/wrong/", "SECRET"])
def test_a_name_that_is_not_the_kiosks_is_refused_in_a_word(
    closed: FlaskClient, door: Door, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = within(door) if address == "SECRET" else address
    answer = closed.get(address, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers.getlist("Set-Cookie")) == (400, [])
    assert "failed" not in capsys.readouterr().out


def test_whoever_comes_in_through_the_door_walks_the_whole_way(
    closed: FlaskClient, door: Door, clock: PatientClock
) -> None:
    answer = closed.get(within(door), follow_redirects=True)
    assert (answer.status_code, Page(answer).name) == (200, "language")
    assert answer.request.path == "/"
    visitor = Visitor(closed, clock)
    visitor.walk_to("position")
    assert closed.get("/preview").mimetype == "image/jpeg"


def test_a_page_named_behind_the_door_is_reached(closed: FlaskClient, door: Door) -> None:
    assert Page(closed.get(within(door) + "help", follow_redirects=True)).name == "help"
    assert closed.get(within(door) + "healthz", follow_redirects=True).get_json()["ok"]


def test_the_door_leads_nowhere_else(closed: FlaskClient, door: Door) -> None:
    answer = closed.get(within(door) + "/evil.example/")
    assert answer.headers["Location"].startswith("/evil.example")


def test_the_secret_lasts_as_long_as_its_folder_and_no_short_one_is_believed(tmp_path: Path) -> None:
    first = Door(tmp_path).address(1)
    assert Door(tmp_path).address(1) == first
    for short in ("", "abc"):
        (tmp_path / "key").write_text(short)
        assert Door(tmp_path).address(1) != first
        assert len((tmp_path / "key").read_text().strip()) >= 40
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_in_a_folder_of_a_group_the_browser_of_that_group_may_read_the_secret(tmp_path: Path) -> None:
    tmp_path.chmod(0o2750)
    start = Door(tmp_path).write_start(1)
    assert {path.stat().st_mode & 0o777 for path in (start, tmp_path / "key")} == {0o640}


def test_a_failure_behind_the_door_logs_no_secret(
    closed: FlaskClient,
    door: Door,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def bug() -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(bench.kiosk, "closed_because", bug)
    assert closed.get(within(door), follow_redirects=True).status_code == 500
    assert (door.folder / "key").read_text().strip() not in capsys.readouterr().out


def test_the_kiosks_browser_gets_in_by_its_start_page_and_another_waits_its_turn(
    browser: Browser, bench: Bench, door: Door
) -> None:
    app = create_app(bench.kiosk)
    door.guard(app)
    with running_server(app) as server:
        port = int(server.effective_port)
        start = door.write_start(port).as_uri()
        with visit(browser, start, (1080, 1920)) as (page, _):
            page.wait_for_selector("body[data-page=language]")
            assert page.url == f"http://127.0.0.1:{port}/"
            wait_for_answers(page)
            page.click("form[data-primary] button")
            page.wait_for_selector("body[data-page=about]")
            with visit(browser, door.address(port), (1080, 1920)) as (other, _):
                other.wait_for_selector("body[data-page=another_patient]")
                page.reload()
                page.wait_for_selector("body[data-page=about]")
                page.context.close()
                other.wait_for_selector("body[data-page=language]")
        with visit(browser, f"http://127.0.0.1:{port}/", (1080, 1920)) as (stranger, _):
            stranger.wait_for_selector("body[data-page=stranger]")
