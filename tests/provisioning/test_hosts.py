"""The broker's address as people type it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from provisioning.cli import provision
from provisioning.hosts import HostRefused, read_host


@pytest.mark.parametrize(
    ("typed", "host"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" broker.example ", "broker.example"),
        ("broker.example.", "broker.example"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        (" [::1] ", "::1"),
        ("praxis-müller.example", "xn--praxis-mller-klb.example"),
    ],
)
def test_an_address_is_read_without_what_people_put_around_it(typed: str, host: str) -> None:
    assert read_host(typed) == host


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("mqtts://broker.example", "is a URL"),
        ("broker.example/", "is a URL"),
        ("broker.example:8883", "port"),
        ("[::1]:8883", "port"),
        ("fe80::1%eth0", "network card"),
        ("broker example", "neither"),
        ("192.0.2", "neither"),
        ("", "neither"),
        ("broker\nuser root", "neither"),
        ("-broker", "neither"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_type(typed: str, said: str) -> None:
    with pytest.raises(HostRefused, match=said):
        read_host(typed)


@pytest.mark.parametrize(
    "arguments",
    [
        ("broker", "--out", "b", "--host", "mqtts://b:1"),
        ("broker", "--out", "b", "--listen", "b:1"),
        ("enrol", "--kiosk", "k", "--board", "board.toml", "--broker-host", "b:1"),
    ],
)
def test_every_option_that_takes_an_address_refuses_before_anything_is_made(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = CliRunner().invoke(provision, [*arguments, "--state", str(tmp_path / "authority")])
    assert done.exit_code == 2
    assert "alone" in done.output
    assert list(tmp_path.iterdir()) == []
