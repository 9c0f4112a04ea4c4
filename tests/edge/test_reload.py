"""Which content runs: the file when it may, the last good one when not. Decided without a file or a clock."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError
from tinysight_edge.config.reload import STARTS, Bad, Content, Mark, Now, begin, changes, judge, mark_of, offer
from tinysight_edge.config.types import (
    AgentConfig,
    BrokerConfig,
    CameraConfig,
    HealthConfig,
    LineConfig,
    ModelConfig,
    RuleConfig,
    SnapshotsConfig,
)

TRIAL_S = 30.0


def config(**cameras: str) -> AgentConfig:
    return AgentConfig(
        site="s",
        device="d",
        state=Path("state"),
        broker=BrokerConfig(url="mqtt://h"),
        model=ModelConfig(bundle=Path("b")),
        cameras={id_: CameraConfig(source=source) for id_, source in cameras.items()},
    )


@lru_cache
def content(name: str, **cameras: str) -> Content:
    return Content(name, name.encode(), config(**(cameras or {"gate": "0"})))


def bad(name: str) -> Bad:
    return Bad(name, ConfigError(f"{name} is wrong.", mend="Mend it."))


A, B = content("A", gate="0", belt="1"), content("B", gate="0", belt="2", door="3")
GOOD = Now(running=A, good=A)


def after(now: Now, *steps: Callable[[Now], Now]) -> Now:
    for step in steps:
        now = step(now)
    return now


@pytest.mark.parametrize(
    ("offered", "good", "mark", "runs", "on_trial", "refused"),
    [
        pytest.param(A, A, Mark(), "A", False, None, id="the file is the good one"),
        pytest.param(A, A, Mark(trial="A", starts=2), "A", False, None, id="killed between good and mark"),
        pytest.param(B, A, Mark(), "B", True, None, id="a new file is on trial"),
        pytest.param(B, A, Mark(trial="B", starts=1), "B", True, None, id="its first crash is forgiven"),
        pytest.param(B, A, Mark(trial="B", starts=2), "A", False, "ended 2 times", id="its second is not"),
        pytest.param(B, A, Mark(trial="C", starts=2), "B", True, None, id="crashes of another do not count"),
        pytest.param(B, A, Mark(refused="B", why="no pictures"), "A", False, "no pictures", id="taken back before"),
        pytest.param(B, A, Mark(refused="C"), "B", True, None, id="another was taken back"),
        pytest.param(bad("X"), A, Mark(), "A", False, "X is wrong", id="a wrong file"),
        pytest.param(B, None, Mark(trial="B", starts=9), "B", True, None, id="nothing to go back to"),
    ],
)
def test_what_runs_at_a_start(
    offered: Any, good: Content | None, mark: Mark, runs: str, on_trial: bool, refused: str | None
) -> None:
    now = begin(offered, good, mark, 0.0)
    assert (now.running.digest, now.trial is not None) == (runs, on_trial)
    assert now.refused is None if refused is None else refused in str(now.refused and now.refused.error)


def test_a_wrong_file_and_no_good_one_is_an_error() -> None:
    with pytest.raises(ConfigError, match="X is wrong"):
        begin(bad("X"), None, Mark(), 0.0)


def test_starts_are_counted_before_the_content_runs() -> None:
    for starts in range(STARTS):
        assert mark_of(begin(B, A, Mark(trial="B", starts=starts), 0.0)) == Mark(trial="B", starts=starts + 1)


def test_a_right_change_runs_on_trial_and_is_good_after_it() -> None:
    now = offer(GOOD, B, {"gate", "belt"}, 100.0)
    assert (now.running.digest, now.good) == ("B", A)
    assert judge(now, set(), 100.0 + TRIAL_S - 0.1) == now, "not before its time"
    now = judge(now, {"gate", "belt", "door"}, 100.0 + TRIAL_S)
    assert (now.running.digest, now.good, now.trial, now.refused) == ("B", now.running, None, None)


@pytest.mark.parametrize(
    ("before", "at_the_end", "named"),
    [
        pytest.param({"gate", "belt"}, {"belt", "door"}, "gate", id="one that delivered before"),
        pytest.param({"gate", "belt"}, {"gate", "belt"}, "door", id="a new one"),
        pytest.param({"gate"}, {"gate", "door"}, "belt", id="one with another source, though silent before"),
        pytest.param({"gate", "belt"}, set(), "belt, door, gate", id="all"),
    ],
)
def test_a_camera_without_pictures_takes_the_change_back(before: set[str], at_the_end: set[str], named: str) -> None:
    now = judge(offer(GOOD, B, before, 0.0), at_the_end, TRIAL_S)
    assert (now.running, now.good, now.trial) == (A, A, None)
    assert now.refused is not None
    assert now.refused.tried
    assert f"no pictures came from {named}." in str(now.refused.error)
    assert mark_of(now).refused == "B"


def test_a_camera_that_was_silent_before_and_keeps_its_source_is_not_blamed() -> None:
    masked = replace(A.config, cameras={**A.config.cameras, "belt": CameraConfig(source="1", rotate=90)})
    now = judge(offer(GOOD, Content("M", b"", masked), {"gate"}, 0.0), {"gate"}, TRIAL_S)
    assert now.running.digest == "M"


def test_what_was_taken_back_is_tried_again_only_after_another_content() -> None:
    back = judge(offer(GOOD, B, {"gate"}, 0.0), set(), TRIAL_S)
    assert offer(back, B, {"gate"}, 99.0) is back
    assert offer(back, A, {"gate"}, 99.0).refused is None
    again = after(back, lambda now: offer(now, bad("X"), set(), 99.0), lambda now: offer(now, B, set(), 99.0))
    assert again.running.digest == "B"


def test_a_wrong_change_is_refused_and_nothing_else_changes() -> None:
    now = offer(GOOD, bad("X"), set(), 0.0)
    assert replace_refused(now) == GOOD
    assert offer(now, bad("X"), set(), 1.0) is now, "told once"
    on_trial = offer(GOOD, B, set(), 0.0)
    assert offer(on_trial, bad("X"), set(), 1.0).trial == on_trial.trial, "its trial goes on"


def replace_refused(now: Now) -> Now:
    return Now(running=now.running, good=now.good, trial=now.trial)


def test_a_change_during_a_trial_remembers_what_delivered_before_the_first() -> None:
    now = offer(offer(GOOD, B, {"gate"}, 0.0), content("C", gate="0"), set(), 5.0)
    assert now.trial is not None
    assert (now.trial.ends_s, now.trial.blamed) == (5.0 + TRIAL_S, frozenset({"gate"}))
    assert judge(now, set(), 99.0).running == A


def test_going_back_by_hand_ends_the_trial() -> None:
    now = offer(offer(GOOD, B, set(), 0.0), A, set(), 5.0)
    assert now == GOOD


def test_without_a_good_one_what_runs_stays_and_becomes_it() -> None:
    now = judge(begin(A, None, Mark(), 0.0), set(), TRIAL_S)
    assert (now.running, now.good, now.trial) == (A, A, None)


def test_other_comments_need_no_trial() -> None:
    now = offer(GOOD, Content("A2", b"# A", A.config), set(), 0.0)
    assert (now.running.digest, now.good, now.trial) == ("A2", now.running, None)


RESTARTS: list[tuple[str, dict[str, Any]]] = [
    ("site", {"site": "t"}), ("device", {"device": "e"}), ("state", {"state": Path("x")}),
    ("broker", {"broker": BrokerConfig(url="mqtt://other")}), ("model", {"model": ModelConfig(bundle=Path("c"))}),
    ("health.prometheus_port", {"health": HealthConfig(prometheus_port=9000)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "part"), RESTARTS, ids=[name for name, _ in RESTARTS])
def test_what_needs_a_restart_keeps_its_old_value_and_is_named(name: str, part: dict[str, Any]) -> None:
    wanted = Content("R", b"", replace(B.config, **part))
    now = offer(GOOD, wanted, {"gate"}, 0.0)
    assert now.running.restart == (name,)
    assert now.running.config == B.config
    now = judge(now, set(B.config.cameras), TRIAL_S)
    assert now.good == now.running, "this process goes back to it"
    alone = offer(GOOD, Content("R", b"", replace(A.config, **part)), {"gate"}, 0.0)
    assert (alone.running.config, alone.trial, alone.running.restart) == (A.config, None, (name,))


def test_a_content_started_with_another_broker_goes_back_but_for_the_broker() -> None:
    other = Content("R", b"", replace(B.config, broker=BrokerConfig(url="mqtt://other")))
    now = judge(begin(other, A, Mark(), 0.0), set(), TRIAL_S)
    assert now.running.restart == ("broker",)
    assert now.running.config == replace(A.config, broker=other.config.broker)


def test_a_change_says_what_is_to_be_done_with_each_camera() -> None:
    new = content("N", gate="0", belt="9", roof="4")
    cameras = {**new.config.cameras}
    cameras["gate"] = CameraConfig(source="0", lines={"l": LineConfig(start=(0.0, 0.0), end=(1.0, 1.0))})
    told = replace(new.config, cameras=cameras, rules={"r": RuleConfig()}, snapshots=SnapshotsConfig())
    change = changes(B.config, Content("N", b"", told, ("broker",)), why="w")
    assert (change.added, change.removed, change.reopened, change.remeant) == (
        ("roof",),
        ("door",),
        ("belt",),
        ("gate",),
    )
    assert (change.sections, change.restart, change.why) == (("rules", "snapshots"), ("broker",), "w")


CONTENTS = [content("A"), content("B", gate="1"), content("C", gate="0", belt="1"), content("D", belt="2"),
            Content("E", b"E", replace(config(gate="0"), broker=BrokerConfig(url="mqtt://other")))]  # fmt: skip
FILES = st.sampled_from([*CONTENTS, bad("X"), bad("Y")])


class Life(RuleBasedStateMachine):
    """An agent that is edited, loses cameras, is killed and started again, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.cameras: set[str] = set()
        self.disk: tuple[Content | None, Mark] = None, Mark()
        self.tried: dict[str, int] = {}

    def become(self, now: Now) -> None:
        self.now = now
        good = now.good if now.good is not None and not now.good.restart else self.disk[0]
        self.disk = good, mark_of(now)

    @initialize(first=st.sampled_from(CONTENTS))
    def starts(self, first: Content) -> None:
        self.file: Content | Bad = first
        self.become(begin(first, *self.disk, self.now_s))

    @rule(file=FILES)
    def is_edited(self, file: Content | Bad) -> None:
        self.file = file
        before = self.now
        self.become(offer(before, file, self.cameras, self.now_s))
        if isinstance(file, Bad):
            assert self.now.running == before.running

    @rule(cameras=st.sets(st.sampled_from(["gate", "belt"])), passes_s=st.sampled_from([1.0, 10.0, 40.0]))
    def goes_on(self, cameras: set[str], passes_s: float) -> None:
        self.cameras, self.now_s = cameras, self.now_s + passes_s
        before = self.now
        self.become(judge(before, cameras, self.now_s))
        if before.trial is not None and self.now_s >= before.trial.ends_s:
            assert self.now.trial is None
            silent = before.trial.blamed - cameras
            if silent and before.good is not None:
                assert self.now.running.digest == before.good.digest
            else:
                assert self.now.running == before.running
        self.become(offer(self.now, self.file, cameras, self.now_s))

    @rule()
    def is_killed(self) -> None:
        try:
            self.now_s, self.cameras = 0.0, set()
            self.become(begin(self.file, *self.disk, self.now_s))
        except ConfigError:
            assert isinstance(self.file, Bad)
            assert self.disk[0] is None
            self.file = CONTENTS[0]
            self.become(begin(self.file, *self.disk, self.now_s))

    @precondition(lambda self: self.disk[0] is not None and self.file.digest != self.disk[0].digest)
    @rule()
    def is_killed_again_and_again(self) -> None:
        for _ in range(STARTS + 1):
            self.is_killed()
        assert self.now.trial is None, "what ends the agent does not run for ever"
        assert self.disk[0] is not None
        assert self.now.running.digest == self.disk[0].digest

    @invariant()
    def something_right_runs(self) -> None:
        if not hasattr(self, "now"):
            return
        assert isinstance(self.now.running, Content)
        assert self.now.running.raw in {each.raw for each in CONTENTS}
        if self.now.trial is None and self.now.good is not None:
            assert self.now.running.digest == self.now.good.digest, "it ends on trial or on what is good"
        if self.now.refused is not None:
            assert self.now.refused.digest != self.now.running.digest

    @invariant()
    def what_is_on_trial_is_marked(self) -> None:
        if hasattr(self, "now") and self.now.trial is not None:
            assert (self.disk[1].trial, self.disk[1].starts) == (self.now.running.digest, self.now.trial.starts)


TestLife = Life.TestCase
