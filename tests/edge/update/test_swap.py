"""Another model sees from one frame to the next: nothing is lost, and who saw what is said."""

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.errors import ConfigError, DeviceError, InferenceError
from tinysight_contract.messages import Counts, Event, EventType, Info, decode
from tinysight_edge.belt import Belt
from tinysight_edge.config.types import (
    AgentConfig,
    BrokerConfig,
    CameraConfig,
    LineConfig,
    ModelConfig,
    PublishConfig,
    SnapshotsConfig,
    TilesConfig,
)
from tinysight_edge.inference import Inference, Looked, Seen
from tinysight_edge.runtime import Agent
from tinysight_edge.update import swap as module
from tinysight_edge.view import Seer

LIVE = CameraConfig(source="synthetic:belt?fps=40", lines={"exit": LineConfig(start=(0.5, 1.0), end=(0.5, 0.0))})


class Running:
    """An agent in this process, in a thread of its own."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.agent = Agent(Bundle.open(config.model.bundle or Path()), config)
        self.result: dict[str, Any] = {}
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.result = self.agent.run(ready=self._ready.set)
        except BaseException as error:  # noqa: BLE001 -- shown by the test
            self.error = error

    def start(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(30), self.error
        return self

    def swap(self, bundle: Path, *, keep: bool = False) -> None:
        swapper = self.agent.swapper
        swapper.swap(swapper.load(Bundle.open(bundle), self.config.model), keep=keep)

    def join(self) -> dict[str, Any]:
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert self.error is None
        return self.result

    def end(self) -> dict[str, Any]:
        self.agent.stop()
        return self.join()


@pytest.fixture
def run(mosquitto: Any, belt_bundle: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(camera: CameraConfig = LIVE, **more: Any) -> Running:
        (tmp_path / "state").mkdir()
        config = AgentConfig(
            site="s", device="d", state=tmp_path / "state", broker=BrokerConfig(url=mosquitto.url),
            model=ModelConfig(bundle=belt_bundle, engine="interpreter"), cameras={"belt": camera}, **more,
        )  # fmt: skip
        made.append(Running(config))
        return made[-1].start()

    yield make
    for each in made:
        each.agent.stop()


@pytest.fixture
def other(belt_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """The belt's bundle with another manifest."""

    def make(version: str, **changes: Any) -> Path:
        first = Bundle.open(belt_bundle)
        files = {name: first.read(name) for name in first.manifest.files}
        if (labels := changes.get("labels")) is not None:
            files["labels.txt"] = "".join(f"{label}\n" for label in labels).encode()
            changes["files"] = {name: file_ref(data) for name, data in files.items()}
        path = tmp_path / f"{version}.bundle"
        path.write_bytes(pack_bundle(replace(first.manifest, version=version, **changes), files))
        return path

    return make


def film(path: Path, pictures: Iterable[Any]) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (320, 240))
    for picture in pictures:
        video.write(picture)
    video.release()


def seen(running: Running) -> int:
    return running.agent.meter.frames


def whole(events: list[Event]) -> None:
    """Each number once, each object begun once and ended once."""
    assert sorted(event.seq for event in events) == list(range(1, len(events) + 1))
    for kind in (EventType.START, EventType.END):
        assert set(Counter(event.id for event in events if event.type is kind).values()) <= {1}
    begun = {event.id for event in events if event.type is EventType.START}
    assert begun == {event.id for event in events if event.type is EventType.END}


def test_models_change_and_all_that_is_followed_goes_on(
    run: Callable[..., Running], other: Callable[..., Path], belt_bundle: Path, mosquitto: Any, make_reader: Any,
    eventually: Any,
) -> None:  # fmt: skip
    reader = make_reader(mosquitto.url)
    later = other("9.0.0")
    running = run(publish=PublishConfig(frames=100.0), snapshots=SnapshotsConfig())
    for bundle in (later, belt_bundle, later):
        before = seen(running)
        eventually(lambda before=before: seen(running) > before + 40)
        first = weakref.ref(running.agent.swapper.seer.model)
        running.swap(bundle)
        gc.collect()
        assert first() is None, "the old one's memory is free again"
    before = seen(running)
    eventually(lambda: seen(running) > before + 40)
    digest = Bundle.open(later).digest
    eventually(lambda: decode(reader.of(t.InfoTopic)[-1], Info).bundle.digest == digest)
    running.end()
    eventually(lambda: len(reader.events()) == running.agent._teller.made.total())
    events = reader.events()
    whole(events)
    assert {event.reason for event in events} <= {None, "left", "stopped"}
    assert {event.model.version for event in events} == {Bundle.open(belt_bundle).manifest.version, "9.0.0"}
    assert events[-1].model.digest == digest
    over = [id_ for id_ in {event.id for event in events} if len({e.model.version for e in events if e.id == id_}) > 1]
    assert over, "an object's life is told by more than one model"
    totals = running.agent.meter.totals()
    dropped = sum(totals.dropped.values())
    assert sum(totals.frames.values()) == sum(totals.inferred.values()) + dropped
    assert ("belt", "reloaded") not in totals.dropped


def test_a_model_with_other_labels_begins_anew_and_lines_go_on(
    run: Callable[..., Running], other: Callable[..., Path], mosquitto: Any, make_reader: Any, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    running = run()
    lives = running.agent._lineup.views["belt"].lives
    eventually(lambda: lives.ids)
    lives._lines._totals["exit"]["in"] = 700
    labels = [f"n{number}" for number in range(10)]
    running.swap(other("9.0.0", labels=labels))
    view = running.agent._lineup.views["belt"]
    eventually(lambda: view.lives.ids)
    assert view.lives.crossed["exit"]["in"] >= 700
    running.end()
    eventually(lambda: len(reader.events()) == running.agent._teller.made.total())
    events = reader.events()
    whole(events)
    (place,) = {number for number, event in enumerate(events) if event.model.version == "9.0.0"} & {
        number for number, event in enumerate(events[1:], 1) if events[number - 1].model.version != "9.0.0"
    }
    assert events[place - 1].reason == "model changed"
    assert all(event.label in labels for event in events[place:]), "nothing of the old one is told any more"
    assert not any(event.label in labels for event in events[:place])
    counted = [decode(raw, Counts) for raw in reader.of(t.CountsTopic)]
    assert set(counted[-1].objects) == set(labels)
    assert counted[-1].lines["exit"]["in"] >= 700


def test_every_frame_of_a_file_is_seen_once_though_its_pictures_were_made_for_the_other_model(
    run: Callable[..., Running], other: Callable[..., Path], tmp_path: Path, belt_bundle: Path
) -> None:
    belt = Belt(3)
    film(tmp_path / "v.avi", (np.ascontiguousarray(belt.frame(number % 100)[0]) for number in range(900)))
    spec = Bundle.open(belt_bundle).manifest.input
    stretched = other("9.0.0", input=replace(spec, resize="stretch" if spec.resize != "stretch" else "letterbox"))
    running = run(CameraConfig(source=str(tmp_path / "v.avi")))
    running.swap(stretched)
    with suppress(DeviceError):  # the file has ended by then
        running.swap(belt_bundle)
    assert running.join()["frames"] == 900


def test_what_fails_on_a_frame_gives_way_and_the_frame_is_seen(
    run: Callable[..., Running], troubles: Path, tmp_path: Path, mosquitto: Any, make_reader: Any, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    belt = Belt(3)
    film(tmp_path / "v.avi", (belt.frame(number)[0] // 8 + 220 for number in range(300)))
    running = run(CameraConfig(source=str(tmp_path / "v.avi"), realtime=True))
    swapper = running.agent.swapper
    good, before = swapper.seer, seen(running)
    running.swap(troubles / "fails.bundle", keep=True)
    eventually(lambda: swapper.failure is not None)
    assert swapper.seer is good
    with pytest.raises(InferenceError, match="fails on a picture"):
        swapper.settle()
    swapper.go_back()
    eventually(lambda: seen(running) > before + 30)
    running.end()
    eventually(lambda: len(reader.events()) == running.agent._teller.made.total())
    whole(reader.events())


def test_what_cannot_do_what_a_camera_asks_for_is_refused_and_the_old_one_goes_on(
    run: Callable[..., Running], world: Path, eventually: Any
) -> None:
    running = run(CameraConfig(source="synthetic:belt?fps=20", tiles=TilesConfig(columns=1, rows=1)))
    good = running.agent.swapper.seer
    with pytest.raises(ConfigError, match="cannot look at tiles"):
        running.swap(world / "classifier.bundle")
    before = seen(running)
    eventually(lambda: seen(running) > before + 5)
    assert running.agent.swapper.seer is good
    assert running.agent._lineup._beside == set()


def test_one_goes_back_to_what_was_kept(run: Callable[..., Running], other: Callable[..., Path]) -> None:
    running = run()
    swapper = running.agent.swapper
    good = swapper.seer
    running.swap(other("9.0.0"), keep=True)
    assert swapper.back is good
    swapper.go_back()
    assert {swapper.seer, swapper.back} == {good, None}
    swapper.go_back()
    running.swap(other("9.0.0"), keep=True)
    swapper.settle()
    assert swapper.seer.ref.version == "9.0.0"
    assert swapper.back is None


def test_a_change_that_came_too_late_is_undone(
    run: Callable[..., Running], other: Callable[..., Path], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run()
    swapper = running.agent.swapper
    good, saw = swapper.seer, []
    became = swapper._became

    def noted(seer: Seer) -> None:
        saw.append(seer.ref.version)
        became(seer)

    monkeypatch.setattr(swapper, "_became", noted)
    new = swapper.load(Bundle.open(other("9.0.0")), running.config.model)
    looking, held = running.agent._looking, threading.Event()
    switch = looking.switch
    monkeypatch.setattr(looking, "switch", lambda to: (held.wait(20), switch(to)))
    monkeypatch.setattr(module, "WITHIN_S", 0.6)
    with pytest.raises(DeviceError, match="in time"):
        swapper.swap(new, keep=True)
    held.set()
    eventually(lambda: len(saw) == 2)
    assert saw == ["9.0.0", good.ref.version]
    assert (swapper.seer, swapper.back) == (good, None)


def test_a_change_that_nobody_waits_for_any_more_is_not_begun(
    run: Callable[..., Running], other: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run()
    swapper = running.agent.swapper
    new = swapper.load(Bundle.open(other("9.0.0")), running.config.model)
    monkeypatch.setattr(module, "WITHIN_S", 0.0)
    with pytest.raises(DeviceError, match="in time"):
        swapper.swap(new)
    monkeypatch.undo()
    swapper.settle()
    assert swapper.seer is not new


def test_an_answer_that_cannot_be_read_is_the_new_models_fault(
    run: Callable[..., Running], other: Callable[..., Path], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run()
    swapper = running.agent.swapper
    good = swapper.seer
    read = Inference.read
    gone = Bundle.open(other("9.0.0"))

    def broken(self: Inference, looked: Looked) -> Seen:
        if self in new:
            raise IndexError("index 7 is out of bounds")
        return read(self, looked)

    new: list[Inference] = []
    monkeypatch.setattr(Inference, "read", broken)
    seer = swapper.load(gone, running.config.model)
    ready = running.agent._lineup.ready

    def noted(each: Seer) -> None:
        ready(each)
        new.extend(view.infer(each) for view in running.agent._lineup.views.values() if each is seer)

    monkeypatch.setattr(running.agent._lineup, "ready", noted)
    swapper.swap(seer, keep=True)
    eventually(lambda: swapper.seer is good)
    assert swapper.failure is not None
    assert "answers what cannot be read: IndexError" in swapper.failure.what
    before = seen(running)
    eventually(lambda: seen(running) > before + 5)
