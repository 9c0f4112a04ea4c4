"""The address of a fleet's server and the token for it, as people write them; errors show neither login nor token."""

from pathlib import Path

import pytest

from tinysight_contract.errors import ConfigError
from tinysight_edge.fleet_server import fleet_address, people_token, read_token


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://fleet.example.com/", "https://fleet.example.com"),
        ("https://fleet.example.com:8440/fleet/", "https://fleet.example.com:8440/fleet"),
        ("http://127.0.0.2:8440", "http://127.0.0.2:8440"),
        ("http://[::1]:8440", "http://[::1]:8440"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_an_address_that_may_be_sent_a_token(url: str, address: str) -> None:
    assert fleet_address(url) == address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("fleet.example.com", "no address"),
        ("https://", "no address"),
        ("https://[", "no address"),
        ("https://[::1", "no address"),
        ("https://a:99999", "no address"),
        ("https://a:0", "no address"),
        ("https://a/?x=1", "no address"),
        ("https://a\r\nX: y", "no address"),
        ("https://user:hunter2@a", "a login"),
        ("http://fleet.example.com", "plain text"),
        ("http://localhost.example.com", "plain text"),
    ],
)
def test_what_is_no_address_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as told:
        fleet_address(url)
    assert "hunter2" not in str(told.value)


def test_a_token_is_the_first_line_of_its_file_and_no_error_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("ts_abcdefgh\r\nmore\n")
    assert read_token(file) == "ts_abcdefgh"
    for text in ("", "two hunter2words\n", "\nhunter2hunter2", "hunter2" * 800, "hunter2\N{SNOWMAN}hunter2"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="no token") as told:
            read_token(file)
        assert "hunter2" not in str(told.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_a_persons_token_is_found_where_it_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="--token-file"):
        people_token(None)
    (tmp_path / "tinysight").mkdir()
    (tmp_path / "tinysight" / "fleet.token").write_text("ts_of_the_settings\n")
    (tmp_path / "other").write_text("ts_of_another_file\n")
    assert [people_token(None), people_token(tmp_path / "other")] == ["ts_of_the_settings", "ts_of_another_file"]
