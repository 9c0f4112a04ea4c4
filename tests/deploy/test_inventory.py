"""The inventory: a file of the user's that commands also write."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.errors import ConfigError
from tinysight_deploy.devices.goals import goals_of
from tinysight_deploy.devices.inventory import Device, Inventory, inventory_path, select

HOST_KEY = "SHA256:" + "a" * 43


@pytest.fixture
def book(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path / "settings" / "devices.toml")


def device(name: str, **others: object) -> Device:
    return Device(address=f"ssh://pi@{name}.local", site="home", device=name, **others)  # type: ignore[arg-type]  # of its fields


def test_a_device_is_read_as_it_was_put(book: Inventory) -> None:
    gate = device(
        "gate",
        groups=["yard", "doors"],
        tags={"camera": "imx708"},
        host_key=HOST_KEY,
        added_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        facts={"machine": "aarch64", "memory_mib": 3795, "glibc": 2.36, "camera": True},
    )
    assert book.devices() == {}
    book.put("gate", gate)
    book.put("door", device("door"))
    assert book.devices() == {"gate": gate, "door": device("door")}
    book.put("gate", device("gate"))
    assert book.devices()["gate"] == device("gate")


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)


@hypothesis.settings(max_examples=30)
@given(tags=st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}", fullmatch=True), texts, max_size=3))
def test_whatever_a_tag_says_survives(tags: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    book = Inventory(tmp_path_factory.mktemp("book") / "devices.toml")
    book.put("gate", device("gate", tags=tags))
    assert book.devices()["gate"].tags == tags


def test_comments_order_and_what_did_not_change_stay(book: Inventory) -> None:
    text = """# my devices
[devices.gate]  # by the road
site = "home"      # mine
address = "ssh://pi@gate.local"
device = "gate"

# the shed
[devices.shed]
address = "ssh://pi@shed.local"
site = "home"
device = "shed"
"""
    book.path.parent.mkdir()
    book.path.write_text(text)
    book.put("gate", device("gate", groups=["yard"]))
    changed = book.path.read_text()
    assert [line for line in text.splitlines() if line not in changed.splitlines()] == []
    assert book.devices()["gate"].groups == ["yard"]
    assert book.remove("shed") == device("shed")
    assert 'site = "home"      # mine' in book.path.read_text()
    with pytest.raises(ConfigError, match="no device 'shed'"):
        book.remove("shed")


HEAD = '[devices.gate]\naddress = "ssh://pi@gate"\nsite = "home"\ndevice = "gate"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("devices = [", "is no TOML", id="no toml"),
        pytest.param("x = 1\n", "devices.toml:1: x:", id="unknown at the top"),
        pytest.param(HEAD + "colour = 1\n", "devices.toml:5: devices.gate.colour:", id="unknown"),
        pytest.param(HEAD.replace('"home"', "3"), "devices.toml:3: devices.gate.site:", id="wrong type"),
        pytest.param(HEAD.replace("ssh://", "http://"), "devices.toml:2: devices.gate.address:", id="no address"),
        pytest.param(HEAD + '\ngroups = ["a", "B C"]\n', "devices.toml:6: devices.gate.groups.1:", id="in a list"),
        pytest.param(HEAD + "tags = { x = 2 }\n", "devices.toml:5: devices.gate.tags", id="in a table"),
        pytest.param(HEAD.replace("gate]", "Gate]"), "devices.toml:1: devices.Gate:", id="name"),
        pytest.param(HEAD + 'host_key = "MD5:x"\n', "devices.toml:5: devices.gate.host_key:", id="host key"),
        pytest.param(HEAD + "added_at = 2026-01-31\n", "devices.toml:5: devices.gate.added_at:", id="a day"),
        pytest.param("x = " + "[" * 5000, "is no TOML", id="deep"),
        pytest.param("# " + "x" * (8 << 20), "has more than", id="large"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_nothing_is_written(book: Inventory, text: str, said: str) -> None:
    book.path.parent.mkdir()
    book.path.write_text(text)
    for do in (book.devices, lambda: book.put("new", device("new")), lambda: book.remove("gate")):
        with pytest.raises(ConfigError) as caught:
            do()
        assert said in str(caught.value)
    assert book.path.read_text() == text


def test_bytes_that_are_no_text_and_names_that_are_none(book: Inventory) -> None:
    with pytest.raises(ConfigError, match="no name"):
        book.put("../x", device("x"))
    book.path.parent.mkdir(exist_ok=True)
    book.path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        book.devices()


def test_many_who_write_at_once_lose_nothing(book: Inventory) -> None:
    threads = [threading.Thread(target=book.put, args=(f"d{n}", device(f"d{n}"))) for n in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(book.devices()) == {f"d{n}" for n in range(12)}


FLEET = {
    "gate": device("gate", groups=["yard"], tags={"board": "pi5"}),
    "door": device("door", groups=["yard", "in"], tags={"board": "pi4"}),
    "shed": device("shed", tags={"board": "pi5"}),
}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["gate"], ["gate"]),
        (["device:gate"], ["gate"]),
        (["all"], ["gate", "door", "shed"]),
        (["@yard"], ["gate", "door"]),
        (["tag:board=pi5"], ["gate", "shed"]),
        (["shed", "@yard", "all"], ["shed", "gate", "door"]),
    ],
)
def test_which_devices_are_meant(wanted: list[str], names: list[str]) -> None:
    assert select(FLEET, wanted) == names


@pytest.mark.parametrize("wanted", ["roof", "device:roof", "@roof", "tag:board=pi3", "tag:board", "tag:x=y"])
def test_what_means_no_device_is_an_error_that_names_those_there_are(wanted: str) -> None:
    with pytest.raises(ConfigError, match="gate, door, shed"):
        select(FLEET, [wanted])
    with pytest.raises(ConfigError, match="device add"):
        select({}, [wanted])


def test_goals_are_named_once_each_by_the_inventorys_name(book: Inventory, tmp_path: Path) -> None:
    book.put("gate", device("gate", host_key=HOST_KEY, groups=["yard"]))
    goals = goals_of(
        [
            f"dir:{tmp_path}",
            "ssh://pi@gate.local",
            "gate",
            "@yard",
            "ssh://pi@new",
            f"dir:{tmp_path}/../{tmp_path.name}",
        ],
        book,
    )
    assert [goal.name for goal in goals] == [str(tmp_path), "gate", "ssh://pi@new"]
    assert goals[1].fingerprint == HOST_KEY


@pytest.mark.parametrize("wanted", ["moon:x", "dir:", "", "pi@gate", "ssh:/x", "../x"])
def test_what_is_no_target_is_refused(book: Inventory, wanted: str) -> None:
    with pytest.raises(ConfigError, match="There is no target"):
        goals_of([wanted], book)


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"TINYSIGHT_INVENTORY": "/x/d.toml", "XDG_CONFIG_HOME": "/c"}, Path("/x/d.toml")),
        ({"XDG_CONFIG_HOME": "/c"}, Path("/c/tinysight/devices.toml")),
        ({}, Path("~/.config/tinysight/devices.toml").expanduser()),
    ],
)
def test_where_the_inventory_is(environ: dict[str, str], path: Path) -> None:
    assert inventory_path(None, environ) == path
    assert inventory_path(Path("mine.toml"), environ) == Path("mine.toml")
