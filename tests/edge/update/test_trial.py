"""What a new model is blamed for under the real cameras, and what it is not."""

from collections.abc import Mapping

import numpy as np
import pytest

from tinysight_contract.updates import Code
from tinysight_edge.decode import Detections
from tinysight_edge.update.trial import SILENT_S, Agreement, Before, Outcome, Pulse, Rules, Trial

RULES = Rules(over_s=10.0)
BOTH = Before(cameras=frozenset({"gate", "yard"}), p95_ms=30.0)


def play(
    *,
    before: Before = BOTH,
    gate_ms: float | None = 31.0,
    yard_from_s: float = 0.0,
    came: Mapping[str, float] | None = None,
    seconds: int = 60,
    failure_at: int | None = None,
    away: range = range(0),
) -> tuple[Outcome | None, int]:
    """A trial under two cameras of 5 pictures a second: how it ends and after how many seconds.

    ``came`` says how many pictures a second come of each, ``yard_from_s`` from when on the yard's are seen, ``away``
    in which seconds nothing comes at all.
    """
    rates = {"gate": 5.0, "yard": 5.0, **(came or {})}
    pulse, trial, arrived = Pulse(0.0), Trial(RULES, before, 0.0), dict.fromkeys(rates, 0.0)
    for second in range(1, seconds + 1):
        for id_, rate in rates.items() if second not in away else ():
            arrived[id_] += rate
            if rate and gate_ms is not None and (id_ == "gate" or second > yard_from_s):
                for _ in range(5):
                    pulse.note(id_, gate_ms, float(second))
        failure = "It fails." if failure_at is not None and second >= failure_at else None
        counted = {id_: int(count) for id_, count in arrived.items()}
        if (outcome := trial.judge(pulse, counted, float(second), failure=failure)) is not None:
            return outcome, second
    return None, seconds


def test_it_stands_when_every_camera_is_seen_and_a_run_takes_no_longer() -> None:
    outcome, after = play()
    assert outcome is not None
    assert (outcome.code, after) == (None, 10)
    assert (outcome.gates["frames"].value, outcome.gates["frames"].limit) == (2.0, 2.0)
    speed = outcome.gates["trial_p95_ms"]
    assert (speed.value, speed.limit, speed.ok, speed.before) == (31.0, 60.0, True, 30.0)


@pytest.mark.parametrize(
    ("was_ms", "now_ms", "code"),
    [
        pytest.param(30.0, 59.0, None, id="twice"),
        pytest.param(30.0, 61.0, Code.SLOW, id="more"),
        pytest.param(1.0, 19.0, None, id="fast enough whatever was before"),
        pytest.param(1.0, 21.0, Code.SLOW, id="too slow for a camera"),
        pytest.param(None, 500.0, None, id="nothing is known of before"),
    ],
)
def test_what_is_too_slow(was_ms: float | None, now_ms: float, code: Code | None) -> None:
    outcome, _ = play(before=Before(cameras=BOTH.cameras, p95_ms=was_ms), gate_ms=now_ms)
    assert outcome is not None
    assert outcome.code is code
    if code is not None:
        assert f"{now_ms:.1f} ms" in outcome.reason


def test_pictures_that_come_and_are_not_seen_are_its_fault() -> None:
    slow = Trial(Rules(over_s=100.0), BOTH, 0.0)
    pulse = Pulse(0.0)
    for second in range(1, 100):
        pulse.note("gate", 5.0, float(second))
        outcome = slow.judge(pulse, {"gate": second, "yard": second}, float(second))
        if outcome is not None:
            break
    assert outcome is not None
    assert outcome.code is Code.NO_FRAMES
    assert "yard" in outcome.reason
    assert "gate" not in outcome.reason
    assert second == pytest.approx(SILENT_S, abs=3)
    assert (outcome.gates["frames"].value, outcome.gates["frames"].limit) == (1.0, 2.0)


def test_a_camera_that_sends_nothing_is_not_missed() -> None:
    outcome, after = play(came={"yard": 0.0})
    assert outcome is not None
    assert (outcome.code, after) == (None, 10)
    assert outcome.gates["frames"].ok


def test_a_camera_that_was_not_seen_before_is_not_waited_for() -> None:
    outcome, _ = play(before=Before(cameras=frozenset({"gate"}), p95_ms=30.0), yard_from_s=100.0)
    assert outcome is not None
    assert outcome.code is None


def test_time_without_any_picture_proves_nothing() -> None:
    assert play(came={"gate": 0.0, "yard": 0.0}, gate_ms=None, seconds=600)[0] is None
    outcome, after = play(away=range(3, 100), seconds=130)
    assert outcome is not None
    assert outcome.code is None
    assert 90 < after < 120, "what was before the gap counts, and the gap does not"


def test_what_fails_on_a_picture_ends_at_once() -> None:
    outcome, after = play(failure_at=4)
    assert outcome is not None
    assert (outcome.code, after) == (Code.BROKE, 4)
    assert outcome.reason.startswith("It fails.")


def test_frames_in_which_nothing_moves_are_seen() -> None:
    pulse = Pulse(0.0)
    for _ in range(100):
        pulse.note("gate", None, 1.0)
    assert pulse.cameras(2.0) == {"gate"}
    assert pulse.cameras(100.0) == frozenset()
    assert pulse.p95_ms is None, "no run, no figure"


def test_a_model_that_is_run_rarely_is_waited_for_and_that_its_speed_is_unknown_is_said() -> None:
    def rare(run_every_s: int) -> tuple[Outcome, int]:
        pulse, trial = Pulse(0.0), Trial(RULES, BOTH, 0.0)
        for second in range(1, 1000):
            pulse.note("gate", 90.0 if second % run_every_s == 0 else None, float(second))
            if (outcome := trial.judge(pulse, {}, float(second))) is not None:
                return outcome, second
        raise AssertionError("it never ends")

    outcome, after = rare(5)
    assert (outcome.code, after) == (Code.SLOW, 125)
    outcome, after = rare(60)
    assert (outcome.code, after) == (None, 310)
    assert "speed here was not judged" in outcome.reason


def test_the_very_first_runs_say_nothing() -> None:
    pulse = Pulse(0.0)
    for run_ms in [500.0] * 5 + [10.0] * 20:
        pulse.note("gate", run_ms, 1.0)
    assert pulse.p95_ms == 10.0


def boxes(*rows: tuple[float, int], at: float = 0.0) -> Detections:
    """Of 20x20 each, at x = 100, 200 …, moved by ``at``: score and class."""
    corners = [[100.0 * n + at, 0.0, 100.0 * n + at + 20, 20.0] for n in range(len(rows))]
    return Detections(
        np.array(corners, np.float32).reshape(-1, 4),
        np.array([score for score, _ in rows], np.float32),
        np.array([label for _, label in rows], np.int32),
    )


LABELS = (["cat", "dog"], ["dog", "cat"])


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        pytest.param(boxes((0.9, 0), (0.8, 1)), boxes((0.7, 1), (0.6, 0)), 1.0, id="the same, in another order"),
        pytest.param(boxes((0.9, 0)), boxes((0.9, 1), at=5), 1.0, id="a little aside"),
        pytest.param(boxes((0.9, 0)), boxes((0.9, 1), at=15), 0.0, id="elsewhere"),
        pytest.param(boxes((0.9, 0)), boxes((0.9, 0)), 0.0, id="called otherwise"),
        pytest.param(boxes((0.9, 0), (0.8, 0)), boxes((0.9, 1)), 2 / 3, id="one is missing"),
        pytest.param(boxes((0.9, 0)), boxes(), 0.0, id="all are missing"),
        pytest.param(boxes(), boxes(), None, id="nothing is there"),
    ],
)
def test_what_two_detectors_agree_on(one: Detections, other: Detections, share: float | None) -> None:
    agreement = Agreement()
    for _ in range(20):
        agreement.detections(one, other, labels=LABELS)
    assert agreement.share == (None if share is None else pytest.approx(share))
    outcome = agreement.judge(RULES)
    assert outcome.code is (Code.DISAGREES if share is not None and share < 0.9 else None)


def test_one_box_is_the_same_as_one_other_at_most() -> None:
    agreement = Agreement()
    one = boxes((0.9, 0))
    two = Detections(np.repeat(one.boxes_px, 2, axis=0), np.repeat(one.scores, 2), np.repeat(one.class_ids, 2))
    for _ in range(20):
        agreement.detections(two, boxes((0.9, 1)), labels=LABELS)
    assert agreement.share == pytest.approx(2 / 3)


def test_what_two_classifiers_agree_on_and_too_little_is_nothing() -> None:
    agreement = Agreement()
    for one, other in [("cat", "cat")] * 7 + [("cat", "dog"), ("cat", None)]:
        agreement.classes(one, other)
    assert agreement.share is None
    outcome = agreement.judge(RULES)
    assert (outcome.gates, outcome.code) == ({}, None)
    assert "9 of 10" in outcome.reason
    agreement.classes(None, None)
    assert agreement.share == pytest.approx(0.8)
    outcome = agreement.judge(RULES)
    assert outcome.code is Code.DISAGREES
    assert "80%" in outcome.reason
