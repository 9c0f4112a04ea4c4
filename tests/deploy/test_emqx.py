"""EMQX is told the same as Mosquitto. It is not run here."""

import json
import re
from pathlib import Path

from tinysight_deploy.brokers.config import Person, Setup, acl
from tinysight_deploy.brokers.emqx import emqx_conf, emqx_rules
from tinysight_deploy.brokers.folder import Wishes, configure

SETUP = Setup(
    site="plant-1",
    hosts=("broker.example",),
    installed_at="/etc/emqx/tinysight",
    devices={"belt-7": "belt-7-0123456789abcdef", "gate": "gate-fedcba9876543210"},
    bridges={"plant-2": "plant-2-00112233445566"},
    people={"dashboard": Person("reader", "x"), "ops": Person("operator", "x")},
)


def of_acl(text: str) -> dict[str, set[tuple[str, str]]]:
    """User → what is allowed, as Mosquitto's file says it."""
    users: dict[str, set[tuple[str, str]]] = {}
    user = ""
    for line in text.splitlines():
        if line.startswith("user "):
            user = line.removeprefix("user ")
            users[user] = set()
        elif found := re.fullmatch(r"topic (read|write) (\S+)", line):
            users[user].add(({"read": "subscribe", "write": "publish"}[found[1]], found[2]))
    return users


def test_both_brokers_allow_the_same() -> None:
    rules = {
        each["username"]: {(rule["action"], rule["topic"]) for rule in each["rules"]}
        for each in json.loads(emqx_rules(SETUP))
    }
    assert rules == of_acl(acl(SETUP))
    assert all(rule["permission"] == "allow" for each in json.loads(emqx_rules(SETUP)) for rule in each["rules"])


def test_what_no_rule_names_is_forbidden_and_nothing_comes_in_without_tls() -> None:
    text = emqx_conf(SETUP)
    assert text.count("{") == text.count("}")
    for line in (
        "no_match = deny",
        "fail_if_no_peer_cert = true",
        "peer_cert_as_clientid = cn",
        "listeners.tcp.default.enable = false",
        "listeners.ws.default.enable = false",
    ):
        assert line in text


def test_it_is_written_when_asked_for_and_remembered(tmp_path: Path) -> None:
    configure(tmp_path / "a", Wishes(site="plant-1", devices=["belt-7"]))
    assert not (tmp_path / "a/broker/emqx.conf").exists()
    configure(tmp_path / "a", Wishes(changes={"emqx": True}))
    configure(tmp_path / "a", Wishes(devices=["gate"]))
    rules = json.loads((tmp_path / "a/broker/rules.json").read_bytes())
    assert sorted(re.sub(r"_[0-9a-f]+$", "", each["username"]) for each in rules) == ["belt-7", "gate"]
    assert (tmp_path / "a/broker/rules.json").stat().st_mode & 0o077 == 0
