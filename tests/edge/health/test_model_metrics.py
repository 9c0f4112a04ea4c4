"""What a model finds, counted: against a slow count, from several threads, and when another model sees."""

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.manifest import Manifest, Reference
from tinysight_contract.messages import MAX_PAYLOAD_BYTES, ModelMetrics, ModelRef, decode, encode
from tinysight_contract.metrics import BINS, LEAST, drift
from tinysight_edge.decode import Detections
from tinysight_edge.health.model_metrics import CALM, LEAST_RUNS, MOST_LABELS, WINDOW, DriftWatch, ModelMeter

REF = ModelRef(name="pets", version="1.2.0", digest="a" * 64)
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
LABELS = ["cat", "dog", "hen"]
Make = Callable[..., ModelMeter]
Object = tuple[float, int]


@pytest.fixture(scope="session")
def make(sample: Any) -> Make:
    """A meter of a detector of cats, dogs and hens with threshold 0.5; keyword arguments change its manifest."""
    manifest: Manifest = sample()[0]

    def made(ref: ModelRef = REF, **changes: Any) -> ModelMeter:
        return ModelMeter(replace(manifest, **{"labels": LABELS, **changes}), ref, 0.5, "b1")

    return made


def found(*objects: Object) -> Detections:
    """Strongest first, as decoders give them."""
    ranked = sorted(objects, reverse=True)
    scores, ids = [score for score, _ in ranked], [id_ for _, id_ in ranked]
    return Detections(np.zeros((len(ranked), 4), np.float32), np.array(scores, np.float32), np.array(ids, np.int32))


@dataclass
class Slow:
    """The same, one object after the other."""

    classifies: bool = False
    frames: int = 0
    scores: list[int] = field(default_factory=lambda: [0] * BINS)
    labels: Counter[str] = field(default_factory=Counter)
    newest: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    seconds: dict[str, int] = field(default_factory=dict)

    def note(self, camera: str, at_s: float, objects: list[Object]) -> None:
        if self.seconds.get(camera) == int(at_s):
            return
        self.seconds[camera] = int(at_s)
        self.frames += 1
        ranked = sorted(objects, reverse=True)
        for score, id_ in ranked[:1] if self.classifies else [each for each in ranked if each[0] >= 0.5]:
            place = next(n for n in range(BINS) if n == BINS - 1 or score < np.float32(n + 1) / np.float32(BINS))
            self.scores[place] += 1
            self.labels[LABELS[id_]] += 1
            self.newest.append((place, LABELS[id_]))

    def far(self, reference: Reference) -> tuple[float, float] | None:
        places = Counter(place for place, _ in self.newest)
        return drift([places[n] for n in range(BINS)], Counter(label for _, label in self.newest), reference)


score = st.integers(0, 256).map(lambda step: step / 256)  # as int8 answers; 1.0 may come as well
frames = st.lists(
    st.tuples(
        st.sampled_from(["gate", "yard"]),
        st.floats(0.0, 0.7),
        st.lists(st.tuples(score, st.integers(0, 2)), max_size=60),
    ),
    max_size=60,
)


@given(frames, st.booleans())
def test_every_figure_is_that_of_a_slow_count(sample: Any, told: list[Any], classifies: bool) -> None:
    reference = Reference(scores=[LEAST, *[10] * (BINS - 1)], labels={"cat": 300, "hen": 90})
    task = {"task": "classify" if classifies else "detect"}
    manifest = replace(sample()[0], labels=LABELS, reference=reference, **task)
    meter, slow, at_s = ModelMeter(manifest, REF, 0.5, "b1"), Slow(classifies), 0.0
    for camera, after_s, objects in told:
        at_s += after_s
        meter.note(camera, at_s, found(*objects), 4.0)
        slow.note(camera, at_s, objects)
    with pytest.MonkeyPatch.context() as few:
        few.setattr("tinysight_contract.metrics.LEAST", 5)
        metrics, far = meter.take(), slow.far(reference)
    assert (metrics.frames, metrics.scores, metrics.labels) == (slow.frames, slow.scores, dict(slow.labels))
    if far is None:
        assert metrics.drift is metrics.mix is None
    else:
        assert (metrics.drift, metrics.mix) == pytest.approx(far, abs=1e-4)
    assert decode(encode(metrics), ModelMetrics) == metrics


def test_of_each_camera_one_frame_a_second_counts_and_a_camera_that_begins_anew_goes_on(make: Make) -> None:
    meter = make()
    for number in range(90):  # three seconds of 30 fps
        for camera in ("gate", "yard"):
            meter.note(camera, number / 30, found((0.9, 0)), 4.0)
    assert meter.take().frames == 6
    meter.note("gate", 0.0, found((0.9, 0)), 4.0)
    assert meter.take().frames == 7


def test_drift_tells_of_the_newest_and_the_counts_of_all(make: Make) -> None:
    reference = Reference(scores=[*[0] * (BINS - 1), 500], labels={"cat": 500})
    meter, second = make(reference=reference), 0
    for objects in (found(*[(0.99, 0)] * 10), found(*[(0.52, 1)] * 10)):
        for _ in range(WINDOW // 10):
            meter.note("gate", float(second), objects, 4.0)
            second += 1
    told = meter.take()
    assert (told.drift, told.mix) == (1.0, 1.0), "what was alike is more than a window away"
    assert told.labels == {"cat": WINDOW, "dog": WINDOW}
    assert (told.scores[-1], told.scores[10]) == (WINDOW, WINDOW)


def test_of_few_objects_and_without_a_reference_nothing_is_said(make: Make) -> None:
    reference = Reference(scores=[LEAST, *[0] * (BINS - 1)], labels={"cat": LEAST})
    for meter, known in ((make(reference=reference), True), (make(), False)):
        for second in range(LEAST):
            assert meter.take().drift is None
            meter.note("gate", float(second), found((0.9, 0), (0.3, 1)), 4.0)
        assert (meter.take().drift == 1.0) is known


def test_more_in_one_frame_than_the_window_holds_is_counted_as_far_as_it_goes(make: Make) -> None:
    meter = make()
    meter.note("gate", 0.0, found(*[(0.9, 0)] * (WINDOW + 5)), 4.0)
    assert sum(meter.take().scores) == WINDOW


def test_times_are_of_the_newest_runs_of_all_frames(make: Make) -> None:
    meter = make()
    for _ in range(LEAST_RUNS - 1):
        meter.note("gate", 0.0, found(), 900.0)
    assert meter.take().inference_ms is None
    for number in range(WINDOW):
        meter.note("gate", 0.0, found(), 4.0 if number % 10 else 8.0)
    told = meter.take().inference_ms
    assert told is not None
    assert (told.p50, told.p95) == (4.0, 8.0)


def test_a_model_of_very_many_labels_tells_those_found_most_in_a_message_that_is_read(make: Make) -> None:
    labels = [f"{number}-{'ö' * 90}" for number in range(2000)]
    meter, second = make(labels=labels), 0
    for id_ in range(2000):
        for _ in range(2 if id_ % 4 == 0 else 1):
            meter.note("gate", float(second), found((0.9, id_)), 4.0)
            second += 1
    told = meter.take()
    assert list(told.labels) == [label for id_, label in enumerate(labels) if id_ % 4 == 0][:MOST_LABELS]
    assert set(told.labels.values()) == {2}
    assert len(encode(told)) < MAX_PAYLOAD_BYTES


def test_what_is_read_while_it_is_written_adds_up(make: Make) -> None:
    meter, done = make(reference=Reference(scores=[20] * BINS, labels={"cat": 400})), threading.Event()
    wrong: list[ModelMetrics] = []
    three = found((0.9, 0), (0.7, 1), (0.55, 2), (0.2, 0))

    def read() -> None:
        while not done.is_set():
            told = meter.take()
            if not sum(told.scores) == sum(told.labels.values()) == 3 * told.frames:
                wrong.append(told)

    readers = [threading.Thread(target=read) for _ in range(2)]
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for each in readers:
            each.start()
        for second in range(3000):
            meter.note("gate", float(second), three, 4.0)
    finally:
        sys.setswitchinterval(before_s)
        done.set()
        for each in readers:
            each.join()
    assert wrong == []
    told = meter.take()
    assert (told.frames, told.labels) == (3000, {"cat": 3000, "dog": 3000, "hen": 3000})


def metrics(far: float | None, bundle: str = "a") -> ModelMetrics:
    return ModelMetrics(
        at=NOW, boot_id="b1", bundle=bundle * 64, name="pets", version="1.2.0", since=NOW, frames=900,
        scores=[0] * 19 + [812], labels={"cat": 812}, drift=far, mix=None if far is None else 0.31,
    )  # fmt: skip


def test_drift_stands_until_it_is_well_below_what_is_allowed_or_another_model_sees() -> None:
    watch = DriftWatch(0.4)
    assert watch.judge(metrics(None)) is None
    assert watch.judge(metrics(0.4)) is None, "as much is allowed"
    said = watch.judge(metrics(0.52))
    assert said == (
        "The newest 812 scores of pets 1.2.0 differ by 0.52 from those in its test pictures, "
        "0.40 are allowed; the mix of its labels by 0.31."
    )
    assert watch.judge(metrics(0.39)) is not None, "it does not come and go"
    assert watch.judge(metrics(0.4 * CALM)) is None
    assert watch.judge(metrics(0.39)) is None
    assert watch.judge(metrics(0.41)) is not None
    assert watch.judge(metrics(0.39, bundle="b")) is None, "the other one has not drifted yet"
    watch.most = 1.0
    assert watch.judge(metrics(1.0)) is None, "any is allowed"
