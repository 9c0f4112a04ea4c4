"""Addresses of brokers, as people write them."""

import pytest

from tinysight_contract.errors import ConfigError
from tinysight_contract.mqtt import Address


@pytest.mark.parametrize(
    ("url", "want"),
    [
        ("mqtt://h", Address("mqtt", "h", 1883, "/mqtt", None, None, 5)),
        ("mqtt://h:99?version=3", Address("mqtt", "h", 99, "/mqtt", None, None, 3)),
        ("mqtts://u:p%40w@h", Address("mqtts", "h", 8883, "/mqtt", "u", "p@w", 5)),
        ("ws://h:9001/x", Address("ws", "h", 9001, "/x", None, None, 5)),
        ("mqtt://[::1]:1", Address("mqtt", "::1", 1, "/mqtt", None, None, 5)),
    ],
)
def test_an_address_is_read(url: str, want: Address) -> None:
    assert Address.parse(url) == want


@pytest.mark.parametrize(
    "url",
    ["", "h", "h:1883", "http://h", "mqtt://", "mqtt://h:port", "mqtt://h:70000", "mqtt://h?version=4", "mqtt://h?x=1"],
)
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError, match="mqtt://host:1883"):
        Address.parse(url)


def test_credentials_are_never_shown() -> None:
    assert str(Address.parse("mqtts://user:secret@h")) == "mqtts://h:8883"
    with pytest.raises(ConfigError) as refused:
        Address.parse("mqtt://user:secret@h?nonsense=1")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["mqtt://user:secret@h:99999", "mqtt://user:sec#ret@h", "mqtt://user:secret@[h", "mqtt://u:secret@h:0"]
)
def test_an_address_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Address.parse(url)
    assert "sec" not in str(refused.value)


def test_a_password_without_a_name_is_kept() -> None:
    address = Address.parse("mqtt://:pw@h")
    assert (address.user, address.password) == ("", "pw")


@pytest.mark.parametrize("url", ["mqtts://h?ca=", "mqtts://h?cert=&key=", "mqtts://h?ca=a.pem&cert=&key=k"])
def test_an_empty_name_of_a_file_is_no_reason_to_trust_somebody_else(url: str) -> None:
    with pytest.raises(ConfigError, match="names no file"):
        Address.parse(url)
