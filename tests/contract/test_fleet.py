"""What a reader knows of devices, and what it can prove of their events. No broker."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract import account, fleet
from tinysight_contract import topics as t
from tinysight_contract.account import Numbers
from tinysight_contract.fleet import Device, Fleet, Heard
from tinysight_contract.messages import (
    Alert,
    CameraStatus,
    Counts,
    Event,
    Health,
    Info,
    OutboxHealth,
    State,
    Status,
    decode,
    encode,
)

GOLDEN = Path(__file__).parents[1] / "golden"
ME = ("plant-1", "belt-7")
EVENT = decode((GOLDEN / "event.json").read_bytes(), Event)
HEALTH = decode((GOLDEN / "health.json").read_bytes(), Health)
INFO = decode((GOLDEN / "info.json").read_bytes(), Info)
STATUS = decode((GOLDEN / "status.json").read_bytes(), Status)


class Told(Fleet):
    """A fleet that is told things of one device."""

    def say(self, topic: t.Topic, message: Struct | None, *, retained: bool = False) -> Heard:
        return self.hear(str(topic), b"" if message is None else encode(message), retained=retained)

    def saw(self, *seqs: int, boot: str = "b1", replayed: bool = False) -> None:
        for seq in seqs:
            self.say(t.EventTopic(*ME, "cam0"), replace(EVENT, seq=seq, boot_id=boot, replayed=replayed))

    def health(
        self, last_seq: int, *, depth: int = 0, discarded: int = 0, boot: str = "b1", retained: bool = False
    ) -> None:
        outbox = OutboxHealth(depth=depth, discarded={"update": discarded} if discarded else {}, last_seq=last_seq)
        self.say(t.HealthTopic(*ME), replace(HEALTH, boot_id=boot, outbox=outbox), retained=retained)

    def status(self, state: State, *, boot: str = "b1", retained: bool = False) -> None:
        self.say(t.StatusTopic(*ME), replace(STATUS, state=state, boot_id=boot), retained=retained)

    @property
    def device(self) -> Device:
        return self.devices[ME]


def hear(*seqs: int) -> Told:
    told = Told()
    told.saw(*seqs)
    return told


def test_gaps_are_missing_until_they_are_filled_and_repeats_are_counted_once() -> None:
    told = hear(1, 2, 5, 2)
    told.saw(1, 2, boot="b2")
    assert (told.events, told.missing, told.repeated) == (5, 2, 1)
    told.saw(4, 3)
    assert (told.events, told.missing) == (7, 0), "late is not missing"


def test_who_joins_late_misses_nothing_of_before() -> None:
    told = hear(100, 101)
    told.saw(90, replayed=True)
    assert (told.events, told.missing) == (3, 0)


def test_a_replayed_event_is_counted_and_moves_nothing_that_is_live() -> None:
    told = hear(7)
    told.saw(5, 6, replayed=True)
    camera = told.device.cameras["cam0"]
    assert camera.last is not None
    assert camera.last.seq == 7
    assert told.replayed == 2


def test_the_tail_is_missing_only_when_a_later_word_says_that_nothing_waits() -> None:
    told = hear(1, 2, 3)
    told.health(5)
    assert (told.missing, told.awaited) == (0, 2), "health may overtake events"
    told.saw(4)
    assert (told.missing, told.awaited) == (0, 1)
    told.health(5)
    assert (told.missing, told.awaited) == (1, 0)
    told.saw(5)
    assert told.missing == 0


@pytest.mark.parametrize("waiting", [0, 3])
def test_a_device_that_goes_has_told_all_only_if_nothing_waited_with_it(waiting: int) -> None:
    told = hear(1, 2)
    told.health(5, depth=waiting)
    told.status(State.OFFLINE)
    assert (told.missing, told.awaited) == ((0, 3) if waiting else (3, 0))


def test_what_waited_with_an_earlier_boot_is_missing_when_a_later_one_has_nothing_left() -> None:
    told = Told()
    told.status(State.ONLINE)
    told.saw(1, 2)
    told.health(6, depth=4)
    told.status(State.OFFLINE)
    told.status(State.ONLINE, boot="b2")
    told.saw(3, 4, 5, replayed=True)
    assert (told.missing, told.awaited) == (0, 1)
    told.health(0, boot="b2")
    assert (told.missing, told.awaited) == (0, 1)
    told.health(0, boot="b2")
    assert (told.missing, told.awaited) == (1, 0)


def test_a_boot_that_the_reader_has_seen_begin_must_tell_everything_from_one() -> None:
    told = Told()
    told.status(State.OFFLINE, boot="b0", retained=True)
    told.status(State.ONLINE)
    told.saw(3)
    assert told.missing == 2


def test_a_device_that_comes_back_after_a_late_will_of_another_boot_has_not_begun_anew() -> None:
    told = Told()
    told.status(State.OFFLINE, boot="b0", retained=True)
    told.say(t.InfoTopic(*ME), replace(INFO, boot_id="b1"), retained=True)
    assert told.device.online is None, "the status is not of the boot that told its info last"
    told.status(State.ONLINE)
    told.saw(500)
    assert told.missing == 0
    assert told.device.online


def test_what_was_before_the_first_living_health_is_of_the_time_before_the_reader() -> None:
    told = Told()
    told.health(100, retained=True)
    told.health(130)
    told.health(130)
    assert (told.missing, told.awaited) == (0, 0)
    told.health(132)
    assert (told.missing, told.awaited) == (0, 2)
    told.health(132)
    assert told.missing == 2


def test_a_reader_that_was_away_finds_in_the_retained_health_what_it_missed() -> None:
    told = hear(1, 2)
    told.health(9, retained=True)
    assert (told.missing, told.awaited) == (0, 7)
    told.status(State.OFFLINE, retained=True)
    assert (told.missing, told.awaited) == (7, 0)


def test_what_the_device_gave_up_is_not_missing_on_the_way() -> None:
    told = hear(1, 2, 9)
    assert told.missing == 6
    told.health(9, discarded=4)
    assert (told.missing, told.given_up) == (2, 4)
    told.health(9, discarded=40)
    assert (told.missing, told.given_up) == (0, 6), "no more is given up than is absent"


def test_what_was_given_up_before_the_reader_came_excuses_nothing() -> None:
    told = Told()
    told.health(100, discarded=50, retained=True)
    told.saw(101, 104)
    told.health(104, discarded=51)
    assert (told.missing, told.given_up) == (1, 1)


def test_a_late_will_does_not_mark_a_new_session_dead() -> None:
    told = Told()
    told.status(State.ONLINE, boot="b1")
    told.status(State.ONLINE, boot="b2")
    told.status(State.OFFLINE, boot="b1")
    states = [told.device.online]
    told.status(State.OFFLINE, boot="b2")
    assert [*states, told.device.online] == [True, False]
    told.status(State.OFFLINE, boot="b1")
    assert told.device.status is not None
    assert told.device.status.boot_id == "b2"


def test_a_reader_that_was_away_believes_the_retained_end_of_a_boot_that_it_never_saw() -> None:
    told = Told()
    told.status(State.ONLINE, boot="b1")
    told.status(State.OFFLINE, boot="b2", retained=True)
    assert told.device.online is False


STATE: list[tuple[t.Topic, str]] = [
    (t.StatusTopic(*ME), "status"),
    (t.InfoTopic(*ME), "info"),
    (t.HealthTopic(*ME), "health"),
    (t.ModelTopic(*ME), "modelmetrics"),
    (t.DesiredTopic(*ME), "desired"),
    (t.ReportedTopic(*ME), "reported"),
    (t.CameraStatusTopic(*ME, "cam0"), "camerastatus"),
    (t.CountsTopic(*ME, "cam0"), "counts"),
    (t.AlertTopic(*ME, "disk-full"), "alert"),
]


def test_everything_retained_is_kept_and_taken_back_and_with_the_last_the_device_is_gone() -> None:
    told = Told()
    for topic, name in STATE:
        heard = told.hear(str(topic), (GOLDEN / f"{name}.json").read_bytes(), retained=True)
        assert heard.where == topic
        assert heard.message is not None
    told.saw(1, 4)
    device = told.device
    camera, alert = device.cameras["cam0"], device.alerts["disk-full"]
    assert (type(camera.status), type(camera.counts), type(alert)) == (CameraStatus, Counts, Alert)
    assert None not in (device.status, device.info, device.health, device.model, device.desired, device.reported)
    for topic, _ in STATE[6:]:
        told.say(topic, None)
    assert (device.cameras, device.alerts) == ({}, {})
    for topic, _ in STATE[:6]:
        told.say(topic, None)
    assert told.devices == {}
    assert (told.events, told.missing, told._kept_bytes) == (2, 2, 0), "what came stays counted"


@pytest.mark.parametrize(
    ("topic", "payload", "retained"),
    [
        pytest.param("other/topic", b"{}", False, id="no topic of ours"),
        pytest.param("x" * 65535, b"{}", False, id="a long topic"),
        pytest.param(str(t.EventTopic(*ME, "cam0")), b"{", False, id="cut off"),
        pytest.param(str(t.EventTopic(*ME, "cam0")), b"[1]", False, id="another type"),
        pytest.param(str(t.EventTopic(*ME, "cam0")), b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", False, id="nested"),
        pytest.param(str(t.EventTopic(*ME, "cam0")), encode(EVENT), True, id="a retained event"),
        pytest.param(str(t.EventTopic(*ME, "cam1")), encode(EVENT), False, id="of another camera"),
        pytest.param(str(t.EventTopic("plant-2", "belt-7", "cam0")), encode(EVENT), False, id="of another site"),
        pytest.param(str(t.EventTopic(*ME, "cam0")), encode(replace(EVENT, seq=2**53 + 1)), False, id="a huge seq"),
    ],
)
def test_what_breaks_the_contract_is_counted_and_changes_nothing(topic: str, payload: bytes, retained: bool) -> None:
    told = Told()
    assert told.hear(topic, payload, retained=retained).broken
    assert (told.broken, told.devices, told.events) == (1, {}, 0)


def test_pictures_commands_and_what_is_cleared_unheard_say_nothing() -> None:
    told = Told()
    assert told.hear(str(t.SnapshotTopic(*ME, "cam0", "e1")), b"\xff\xd8", retained=False).broken is None
    for kind, name in ((t.CommandTopic, "command"), (t.AckTopic, "ack")):
        assert told.hear(str(kind(*ME, "c1")), (GOLDEN / f"{name}.json").read_bytes(), retained=False).message
    told.say(t.AlertTopic(*ME, "a"), None)
    assert (told.broken, told.devices) == (0, {})


@given(st.lists(st.integers(1, 40)))
def test_numbers_are_a_set_held_as_runs(given_numbers: list[int]) -> None:
    numbers, oracle = Numbers(), set[int]()
    for number in given_numbers:
        assert numbers.add(number) == (number not in oracle)
        oracle.add(number)
    assert numbers.last == max(oracle, default=0)
    assert numbers.runs == len([n for n in oracle if n - 1 not in oracle])
    for first, last in ((1, 40), (10, 20), (20, 10)):
        assert numbers.between(first, last) == len([n for n in oracle if first <= n <= last])


fates = st.lists(st.sampled_from(["came", "twice", "late", "lost", "given up"]), min_size=1, max_size=60)


@given(st.lists(fates, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_in_the_end_what_was_lost_is_missing_and_nothing_else_is(boots: list[list[str]], dice: Random) -> None:
    """The broker delivers in order, but for what waited; each boot ends by saying that nothing waits and going."""
    told = Told()
    told.status(State.OFFLINE, boot="before", retained=True)
    for number, fate in enumerate(boots):
        boot, late, given_up = f"b{number}", list[int](), 0
        told.status(State.ONLINE, boot=boot)
        for seq, what in enumerate(fate, start=1):
            if what in {"came", "twice"}:
                told.saw(*[seq] * (1 + (what == "twice")), boot=boot)
            late += [seq] * (what == "late")
            given_up += what == "given up"
            if seq % 7 == 0:
                told.health(seq, depth=len(late), discarded=given_up, boot=boot)
        dice.shuffle(late)
        told.saw(*late, boot=boot, replayed=True)
        told.health(len(fate), discarded=given_up, boot=boot)
        told.status(State.OFFLINE, boot=boot)
    all_of_them = [what for fate in boots for what in fate]
    assert told.events == len([what for what in all_of_them if what in {"came", "twice", "late"}])
    assert told.repeated == all_of_them.count("twice")
    assert told.replayed == all_of_them.count("late")
    assert (told.missing, told.given_up) == (all_of_them.count("lost"), all_of_them.count("given up"))
    assert told.awaited == 0


@given(st.lists(st.tuples(st.sampled_from(["saw", "health", "on", "off"]), st.integers(0, 3), st.integers(1, 30))))
def test_whatever_comes_no_figure_is_negative_and_none_counts_what_came(words: list[tuple[str, int, int]]) -> None:
    told, came = Told(), set[tuple[int, int]]()
    for what, boot, number in words:
        if what == "saw":
            told.saw(number, boot=f"b{boot}")
            came.add((boot, number))
        elif what == "health":
            told.health(number, depth=number % 3, discarded=number % 5, boot=f"b{boot}", retained=number % 2 == 0)
        else:
            told.status(State.ONLINE if what == "on" else State.OFFLINE, boot=f"b{boot}", retained=number % 2 == 0)
        assert min(told.missing, told.given_up, told.awaited) >= 0
        assert told.events == len(came)
        assert told.missing + told.given_up <= 4 * 30 - len(came)


def test_a_hostile_broker_cannot_make_it_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MAX_OF_EACH", 4)
    monkeypatch.setattr(fleet, "KEPT_BYTES_EACH", 20_000 // 3)
    monkeypatch.setattr(account, "MAX_RUNS", 5)
    told = Told(max_devices=3)
    for number in range(20):
        topic = t.StatusTopic("plant-1", f"d{number}")
        told.say(topic, STATUS)
        told.say(t.AlertTopic("plant-1", "d0", f"a{number}"), decode((GOLDEN / "alert.json").read_bytes(), Alert))
        told.say(
            t.EventTopic("plant-1", "d0", f"c{number}"),
            replace(EVENT, device="d0", camera=f"c{number}", seq=number + 1),
        )
    device = told.devices["plant-1", "d0"]
    assert (len(told.devices), len(device.alerts), len(device.cameras)) == (3, 4, 4)
    assert told.unkept == 17 + 16 + 16
    told.say(t.InfoTopic("plant-1", "d0"), replace(INFO, software={"x": "y" * 30_000}))
    assert device.info is None, "more than all may have"
    for number in range(1, 100):
        told.hear(
            str(t.EventTopic("plant-1", "d1", "c")),
            encode(replace(EVENT, device="d1", camera="c", seq=2 * number, boot_id="b")),
            retained=False,
        )
    numbers = told.devices["plant-1", "d1"].account
    assert numbers.missing == 98, "what is summed up is still counted"
    assert numbers._boots["b"]._numbers.runs == 5
    for number in range(100):
        told.say(t.EventTopic("plant-1", "d1", "c"), replace(EVENT, device="d1", camera="c", boot_id=f"boot{number}"))
    assert len(numbers._boots) == account.MAX_BOOTS
    assert (numbers.events, numbers.missing) == (199, 98)
