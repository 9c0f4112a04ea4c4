"""``tinysight device``, as a user calls it, against a real sshd."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tinysight_deploy.devices.cli import device_app
from tinysight_deploy.devices.inventory import Device, Inventory

HOSTILE = r"""#!/bin/sh
case "$1 $2" in
"store show") printf '{"state": {"active": null}, "runs": true}\n';;
"doctor --config")
  printf '[{"check":"disk\\u001b[2J","verdict":"fail","what":"full\\u0007","mend":"Free it."}]\n'
  exit 1;;
esac
"""


@pytest.fixture
def book(device: Callable[..., str], home: Path) -> Inventory:
    """Two devices that can be reached, and one that cannot."""
    book = Inventory(home / "devices.toml")
    for name in ("gate", "door"):
        book.put(name, Device(address=device(name, HOSTILE), site="home", device=name, groups=["yard"]))
    book.put("shed", Device(address="ssh://pi@127.0.0.1:1", site="home", device="shed", facts={"machine": "armv7l"}))
    return book


@pytest.fixture
def run(book: Inventory, sshd: Any) -> Callable[..., Result]:
    """Call `tinysight device` in this process."""

    def call(command: str, *arguments: str, login: bool = True) -> Result:
        key = ["--identity", str(sshd.identity)] if login else []
        return CliRunner().invoke(device_app, [command, "--inventory", str(book.path), *key, *arguments])

    return call


def test_devices_are_listed_for_people_and_programs(run: Callable[..., Result]) -> None:
    shown = run("list", login=False)
    assert shown.exit_code == 0
    assert all(word in shown.stdout for word in ("gate", "door", "shed", "yard", "armv7l"))
    assert set(json.loads(run("list", "@yard", "--json", login=False).output)) == {"gate", "door"}


def test_a_device_is_shown_and_asked(run: Callable[..., Result], book: Inventory) -> None:
    told = json.loads(run("show", "gate", "--json").stdout)
    assert told["address"] == book.devices()["gate"].address
    told = json.loads(run("show", "gate", "--ask", "--json").stdout)
    assert told["held"] == {"active": None, "candidate": None, "runs": True, "whole": True}
    assert "yard" in run("show", "gate").output


def test_a_command_runs_on_many_and_one_that_is_gone_disturbs_none(run: Callable[..., Result]) -> None:
    done = run("exec", "all", "--json", "--", "sh", "-c", r"printf 'a b\033[2J\n'; echo no >&2; exit 0")
    assert done.exit_code == 1
    told = {each["device"]: each for each in json.loads(done.stdout)}
    assert told["gate"]["out"] == ["a b\N{REPLACEMENT CHARACTER}[2J"]
    assert (told["gate"]["err"], told["door"]["status"]) == (["no"], 0)
    assert told["shed"]["status"] is None
    assert "cannot be reached" in told["shed"]["reason"]
    done = run("exec", "@yard", "--", "echo", "--json", "hello")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ["gate: --json hello", "door: --json hello"]
    assert run("exec", "gate", "--", "sh", "-c", "exit 3").exit_code == 1
    assert "no command" in str(run("exec", "gate").exception)


def test_the_doctor_there_is_shown_without_what_would_move_the_terminal(run: Callable[..., Result]) -> None:
    shown = run("doctor", "gate")
    assert shown.exit_code == 1
    assert "Free it." in shown.output
    assert "\033[2J" not in shown.output
    assert json.loads(run("doctor", "gate", "--json").stdout)[0]["verdict"] == "fail"


def test_logs_come_from_the_file_where_there_is_no_systemd(run: Callable[..., Result], book: Inventory) -> None:
    target = book.devices()["gate"].target
    log = Path(target.log)
    log.parent.mkdir(parents=True)
    log.write_bytes(b"".join(b"line %d \033[2J\n" % number for number in range(10)))
    shown = run("logs", "gate", "-n", "2")
    assert shown.stdout.splitlines() == ["line 8 \N{REPLACEMENT CHARACTER}[2J", "line 9 \N{REPLACEMENT CHARACTER}[2J"]


def test_logs_come_from_the_journal_where_there_is_one(run: Callable[..., Result], sshd: Any) -> None:
    fake = sshd.fakes / "journalctl"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    try:
        assert "--unit tinysight-agent" in run("logs", "door", "-n", "7").output
    finally:
        fake.unlink()


def test_logs_can_be_followed(book: Inventory, sshd: Any) -> None:
    log = Path(book.devices()["gate"].target.log)
    log.parent.mkdir(parents=True)
    log.write_text("first\n")
    command = [sys.executable, "-m", "tinysight_deploy", "device", "logs", "gate", "-f", "--inventory", str(book.path)]
    with subprocess.Popen([*command, "--identity", str(sshd.identity)], stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        assert follow.stdout.readline() == "first\n"
        with log.open("a") as out:
            out.write("second\n")
        assert follow.stdout.readline() == "second\n"
        follow.kill()


def test_a_device_that_is_removed_is_met_anew(run: Callable[..., Result], book: Inventory) -> None:
    assert run("exec", "gate", "--", "true").exit_code == 0
    assert book.known_hosts.read_text().count("ssh-ed25519") == 1
    assert run("remove", "gate", login=False).exit_code == 0
    assert "127.0.0.1" in book.known_hosts.read_text()  # the door is on the same host
    assert run("remove", "door", login=False).exit_code == 0
    assert "127.0.0.1" not in book.known_hosts.read_text()
    assert set(book.devices()) == {"shed"}


def test_a_key_is_forgotten_in_both_places(run: Callable[..., Result], book: Inventory) -> None:
    wrong = "SHA256:" + "a" * 43
    gate = book.devices()["gate"]
    book.put("gate", Device(address=gate.address, site="home", device="gate", host_key=wrong))
    assert "forget-key" in run("exec", "gate", "--", "true").output
    assert run("forget-key", "gate", login=False).exit_code == 0
    assert book.devices()["gate"].host_key == ""
    assert run("exec", "gate", "--", "true").exit_code == 0
    assert "Nothing needs" in str(run("forget-key", "shed", login=False).exception)


def test_without_tinysight_there_it_says_how_to_install_it(run: Callable[..., Result], book: Inventory) -> None:
    Path(book.devices()["gate"].target.program).unlink()
    assert "tinysight device add ssh://" in str(run("doctor", "gate").exception)
    assert "tinysight device add ssh://" in str(run("show", "gate", "--ask").exception)
