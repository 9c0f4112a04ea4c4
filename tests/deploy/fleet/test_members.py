"""Which devices a group is."""

import os
from pathlib import Path

import pytest

from tinysight_contract.errors import ConfigError
from tinysight_deploy.fleet.control.members import Roll
from tinysight_deploy.fleet.types import Key

HEARD: set[Key] = {("plant-1", "gate"), ("plant-1", "belt"), ("plant-2", "gate")}
TEXT = """
[devices.gate]
address = "ssh://pi@gate.example"
site = "plant-1"
device = "gate"
groups = ["yard"]
[devices.new]
address = "ssh://pi@new.example"
site = "plant-3"
device = "new"
groups = ["yard", "lab"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "devices.toml").write_text(TEXT)
    return tmp_path / "devices.toml"


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        pytest.param("all", HEARD, id="all that were heard"),
        pytest.param("site:plant-1", {("plant-1", "gate"), ("plant-1", "belt")}, id="a site"),
        pytest.param("yard", {("plant-1", "gate"), ("plant-3", "new")}, id="a group, also of whom nothing was heard"),
        pytest.param("site:plant-9", set(), id="a site of which nothing was heard"),
    ],
)
def test_a_group_is_found(path: Path, group: str, expected: set[Key]) -> None:
    assert Roll(path).members(group, HEARD) == expected


@pytest.mark.parametrize(
    ("group", "said"), [("ward", "Known: all, site:NAME, lab, yard"), ("site:", "no site"), ("site:a/b", "no site")]
)
def test_a_group_that_cannot_be_is_answered(path: Path, group: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Roll(path).members(group, HEARD)


def test_without_an_inventory_there_are_no_groups_of_it() -> None:
    assert Roll(None).members("all", HEARD) == HEARD
    with pytest.raises(ConfigError, match="no group 'yard'"):
        Roll(None).members("yard", HEARD)


def test_the_inventory_is_read_again_when_it_has_changed(path: Path) -> None:
    roll = Roll(path)
    assert len(roll.members("yard", HEARD)) == 2
    path.write_text(TEXT.replace('groups = ["yard"]', 'groups = ["door"]'))
    os.utime(path, ns=(1, 1))
    assert roll.members("yard", HEARD) == {("plant-3", "new")}


def test_an_inventory_that_is_gone_or_wrong_is_said(path: Path) -> None:
    roll = Roll(path)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        roll.members("yard", HEARD)
    path.write_text("[devices")
    with pytest.raises(ConfigError, match="is no TOML"):
        roll.members("yard", HEARD)
