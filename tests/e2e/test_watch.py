"""What the reader makes of the messages, without a broker."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError
from tinysight_contract.messages import Event, decode, encode
from tinysight_contract.mqtt import Address
from tinysight_deploy.watch import Fleet, Numbers, _picture

GOLDEN = Path(__file__).parents[1] / "golden"
EVENT = decode((GOLDEN / "event.json").read_bytes(), Event)
TOPIC = str(t.EventTopic("plant-1", "belt-7", "cam0"))


def hear(fleet: Fleet, *seqs: int, boot: str = "b1") -> None:
    for seq in seqs:
        fleet.hear(TOPIC, encode(replace(EVENT, seq=seq, boot_id=boot)))


def test_gaps_are_missing_and_repeats_are_counted_once() -> None:
    fleet = Fleet()
    hear(fleet, 1, 2, 5, 2)
    hear(fleet, 1, 2, boot="b2")
    assert (fleet.events, fleet.missing, fleet.repeated) == (5, 2, 1)
    hear(fleet, 4, 3)
    assert fleet.missing == 0, "late is not missing"


def test_who_joins_late_misses_nothing_of_before() -> None:
    fleet = Fleet()
    hear(fleet, 100, 101)
    assert fleet.missing == 0


@pytest.mark.parametrize(("topic", "payload"), [("other/topic", b"{}"), (TOPIC, b"{"), (TOPIC, b"[1]")])
def test_what_breaks_the_contract_is_counted_and_not_fatal(topic: str, payload: bytes) -> None:
    fleet = Fleet()
    with pytest.raises(ContractError):
        fleet.hear(topic, payload)
    assert fleet.broken == 1


def test_pictures_and_cleared_topics_say_nothing() -> None:
    fleet = Fleet()
    assert fleet.hear(str(t.SnapshotTopic("s", "d", "c", "e")), b"\xff\xd8") is None
    assert fleet.hear(str(t.AlertTopic("s", "d", "a")), b"") is None
    assert fleet.broken == 0


def test_the_table_shows_the_device_its_camera_and_its_events_whatever_they_are_called() -> None:
    from rich.console import Console

    fleet = Fleet()
    for name, topic in {
        "status": t.StatusTopic("plant-1", "belt-7"),
        "info": t.InfoTopic("plant-1", "belt-7"),
        "health": t.HealthTopic("plant-1", "belt-7"),
        "camerastatus": t.CameraStatusTopic("plant-1", "belt-7", "cam0"),
        "counts": t.CountsTopic("plant-1", "belt-7", "cam0"),
    }.items():
        fleet.hear(str(topic), (GOLDEN / f"{name}.json").read_bytes())
    fleet.hear(TOPIC, encode(replace(EVENT, label="[bold]7[/nonsense]")))
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(_picture(fleet, Address.parse("mqtt://h")))
    shown = console.export_text()
    for text in ("plant-1/belt-7", "online", "belt 1.2.0 int8", "litert 2.3.0", "7:2", "[bold]7[/nonsense]", "0.94"):
        assert text in shown


@given(st.lists(st.integers(1, 40)))
def test_numbers_are_a_set_with_gaps(given_numbers: list[int]) -> None:
    numbers, oracle = Numbers(), set()
    for number in given_numbers:
        assert numbers.add(number) == (number not in oracle)
        oracle.add(number)
    assert numbers.gaps == (max(oracle) - min(oracle) + 1 - len(oracle) if oracle else 0)


@pytest.mark.parametrize("year", [1, 9999])
def test_a_time_at_the_end_of_the_calendar_and_letters_that_move_the_terminal_do_no_harm(year: int) -> None:
    from rich.console import Console

    fleet = Fleet()
    at = datetime(year, 1 if year == 1 else 12, 1 if year == 1 else 31, 12, tzinfo=UTC)
    fleet.hear(TOPIC, encode(replace(EVENT, label="\x1b[2J", started_at=at, seen_at=at)))
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(_picture(fleet, Address.parse("mqtt://h")))
    assert "\x1b[2J" not in console.export_text()


def test_json_nested_without_end_is_counted() -> None:
    fleet = Fleet()
    with pytest.raises(ContractError):
        fleet.hear(TOPIC, b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}")
    assert fleet.broken == 1
