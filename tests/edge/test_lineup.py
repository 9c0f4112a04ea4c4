"""Which cameras run: what cannot be opened is told and tried again, what is changed goes on where it was."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import CameraError, ConfigError
from tinysight_contract.messages import CameraState, Counts, Event
from tinysight_edge.cameras.hub import Hub
from tinysight_edge.config.reload import Content, changes
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, LineConfig, ModelConfig, TilesConfig
from tinysight_edge.interpreter import Model
from tinysight_edge.lineup import Lineup
from tinysight_edge.meaning.events import Sequence
from tinysight_edge.parts import cameras_gone
from tinysight_edge.view import Seer

BELT = "synthetic:belt?fps=30"
LINE = LineConfig(start=(0.5, 1.0), end=(0.5, 0.0))


class Kit:
    """A lineup, and what it says."""

    def __init__(self, bundle: Path, **cameras: CameraConfig) -> None:
        self.bundle = opened = Bundle.open(bundle)
        self.config = AgentConfig(
            site="s", device="d", state=Path("state"), broker=BrokerConfig(url="mqtt://h"),
            model=ModelConfig(bundle=bundle), cameras=cameras,
        )  # fmt: skip
        self.counts: list[tuple[str, Counts]] = []
        self.said: list[tuple[str, CameraState, str]] = []
        self.hub = Hub()
        self._lock = threading.Lock()
        seer = Seer(opened, Model.load(opened), "b00t", Sequence())
        self.lineup = Lineup(seer, self.config, self.hub, environ={}, tell=self._tell, say=self._say)

    def _tell(self, camera: str, _events: Iterable[Event], counts: Counts | None) -> None:
        if counts is not None:
            self.counts.append((camera, counts))

    def _say(self, camera: str, state: CameraState, reason: str) -> None:
        with self._lock:
            self.said.append((camera, state, reason))

    def change(self, **cameras: CameraConfig) -> None:
        before, self.config = self.config, replace(self.config, cameras=cameras)
        self.lineup.apply(changes(before, Content("0" * 64, b"", self.config), why="a test"))


@pytest.fixture
def kit(belt_bundle: Path) -> Any:
    made: list[Kit] = []

    def make(**cameras: CameraConfig) -> Kit:
        made.append(Kit(belt_bundle, **cameras))
        return made[-1]

    yield make
    for each in made:
        each.hub.stop()
        each.lineup.stop()


def test_what_cannot_be_opened_is_told_and_the_others_go_on(kit: Callable[..., Kit], tmp_path: Path) -> None:
    missing = CameraConfig(source=str(tmp_path / "film.mp4"))
    each = kit(gate=CameraConfig(source=BELT), film=missing)
    each.lineup.open(all_of_them=False)
    assert set(each.lineup.cameras) == set(each.lineup.views) == {"gate"}
    assert [(camera, state) for camera, state, _ in each.said] == [("film", CameraState.DISABLED)]
    assert set(each.lineup.broken()) == {"film"}
    assert "film.mp4" in each.lineup.broken()["film"]
    told = {id_: (info.source, info.width) for id_, info in each.lineup.describe().items()}
    assert told == {"gate": ("synthetic:belt", 320), "film": ("film.mp4", 0)}


def test_a_camera_that_asks_for_what_the_model_cannot_give_is_told_and_the_others_go_on(
    kit: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = kit(gate=CameraConfig(source=BELT), tiled=CameraConfig(source=BELT, tiles=TilesConfig()))
    manifest = replace(each.bundle.manifest, task="classify")
    monkeypatch.setattr(each.bundle, "manifest", manifest)
    each.lineup.open(all_of_them=False)
    assert set(each.lineup.cameras) == {"gate"}
    assert "cannot look at tiles" in each.lineup.broken()["tiled"]
    assert len(each.hub._seats) == 1, "nothing of it is left at the hub"


def test_a_model_that_cannot_do_what_a_camera_asks_for_is_refused_though_it_is_switched_off_or_unplugged(
    kit: Callable[..., Kit], tmp_path: Path, belt_bundle: Path
) -> None:
    missing = CameraConfig(source=str(tmp_path / "film.mp4"), tiles=TilesConfig())
    each = kit(gate=CameraConfig(source=BELT), film=missing)
    each.lineup.open(all_of_them=False)
    classifier = Bundle.open(belt_bundle)
    classifier.manifest = replace(classifier.manifest, task="classify")
    with pytest.raises(ConfigError, match="cannot look at tiles"):
        each.lineup.ready(Seer(classifier, Model.load(Bundle.open(belt_bundle)), "b00t", Sequence()))
    assert each.lineup._beside == set()


def test_all_or_none_and_none_at_all_are_errors(kit: Callable[..., Kit], tmp_path: Path) -> None:
    missing = CameraConfig(source=str(tmp_path / "film.mp4"))
    with pytest.raises(CameraError, match=r"film\.mp4"):
        kit(gate=CameraConfig(source=BELT), film=missing).lineup.open(all_of_them=True)
    with pytest.raises(CameraError, match=r"film\.mp4"):
        kit(film=missing).lineup.open(all_of_them=False)


def test_what_could_not_be_opened_is_tried_again_and_told_once(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    each = kit(gate=CameraConfig(source=BELT), album=CameraConfig(source=str(folder)))
    each.lineup.open(all_of_them=False)
    each.lineup.again()
    assert "album" in each.lineup.unopened, "not yet"
    monkeypatch.setattr(each.lineup, "_again_s", 0.0)
    each.lineup.again()
    assert len(each.said) == 1, "the same is not told twice"
    folder.mkdir()
    import cv2
    import numpy as np

    cv2.imwrite(str(folder / "one.png"), np.zeros((48, 64, 3), np.uint8))
    monkeypatch.setattr(each.lineup, "_again_s", 0.0)
    each.lineup.again()
    assert set(each.lineup.cameras) == {"gate", "album"}
    assert not each.lineup.broken()


def test_a_change_touches_only_what_it_names_and_crossings_go_on(kit: Callable[..., Kit]) -> None:
    lined = CameraConfig(source=BELT, lines={"exit": LINE})
    each = kit(one=lined, two=CameraConfig(source=BELT), three=CameraConfig(source=BELT))
    each.lineup.open(all_of_them=True)
    lives = each.lineup.views["one"].lives
    lives._lines._totals["exit"]["in"] = 7
    before, two = each.lineup.cameras["one"], each.lineup.cameras["two"]
    each.change(one=replace(lined, max_fps=5.0), two=CameraConfig(source=BELT), four=CameraConfig(source=BELT))
    assert set(each.lineup.cameras) == {"one", "two", "four"}
    assert each.lineup.cameras["two"] is two
    assert each.lineup.cameras["one"] is not before, "another rate is another capture"
    assert each.lineup.views["one"].lives.crossed == {"exit": {"in": 7, "out": 0}}
    again = replace(lined, max_fps=5.0, lines={"exit": LINE, "entry": LINE})
    one = each.lineup.cameras["one"]
    each.change(one=again, two=CameraConfig(source=BELT), four=CameraConfig(source=BELT))
    assert each.lineup.cameras["one"] is one, "another meaning needs no other capture"
    assert each.lineup.views["one"].lives.crossed == {"exit": {"in": 7, "out": 0}, "entry": {"in": 0, "out": 0}}
    assert "three" not in each.hub.frames


def test_a_change_to_a_source_that_is_none_is_told(kit: Callable[..., Kit]) -> None:
    each = kit(one=CameraConfig(source=BELT), two=CameraConfig(source=BELT))
    each.lineup.open(all_of_them=True)
    each.change(one=CameraConfig(source="rtps://10.0.0.1/x"), two=CameraConfig(source=BELT))
    assert set(each.lineup.broken()) == {"one"}
    each.change(two=CameraConfig(source=BELT))
    assert not each.lineup.broken()


def test_cameras_that_are_gone_are_named_at_each_start_until_they_are_back(tmp_path: Path) -> None:
    assert cameras_gone(tmp_path, ["a", "b"]) == []
    assert cameras_gone(tmp_path, ["b", "c"]) == ["a"]
    assert cameras_gone(tmp_path, ["b", "c"]) == ["a"], "the broker may have been away"
    assert cameras_gone(tmp_path, ["c"]) == ["a", "b"]
    assert cameras_gone(tmp_path, ["a", "c"]) == ["b"]
    (tmp_path / "cameras.txt").write_text("../x b\n")
    assert cameras_gone(tmp_path, ["b"]) == [], "what is no id is nobody's"


def test_of_the_cameras_that_are_gone_the_last_64_are_remembered(tmp_path: Path) -> None:
    for number in range(70):
        cameras_gone(tmp_path, [f"cam{number}"])
    assert cameras_gone(tmp_path, ["cam70"]) == [f"cam{number}" for number in range(6, 70)]


def test_a_camera_is_switched_off_and_on_and_stays_off_through_a_change(kit: Callable[..., Kit]) -> None:
    each = kit(gate=CameraConfig(source=BELT), door=CameraConfig(source=BELT))
    each.lineup.open(all_of_them=True)
    each.lineup.start()
    each.lineup.enable("gate", enabled=False)
    each.lineup.enable("nobody", enabled=False)
    assert (set(each.lineup.cameras), set(each.lineup.views), each.lineup.disabled) == ({"door"}, {"door"}, {"gate"})
    assert each.said[-1][:2] == ("gate", CameraState.DISABLED)
    assert set(each.lineup.describe()) == {"gate", "door"}
    each.change(gate=CameraConfig(source=BELT, max_fps=5.0), door=CameraConfig(source=BELT))
    each.lineup.again()
    assert set(each.lineup.cameras) == {"door"}, "opened with another rate, were it on"
    each.lineup.enable("gate", enabled=True)
    assert each.lineup.cameras["gate"].config.max_fps == 5.0
    each.lineup.enable("gate", enabled=False)
    each.change(door=CameraConfig(source=BELT))
    each.change(gate=CameraConfig(source=BELT), door=CameraConfig(source=BELT))
    assert set(each.lineup.cameras) == {"door", "gate"}, "one that was taken out and comes back is on"
