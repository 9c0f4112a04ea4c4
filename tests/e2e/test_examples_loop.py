"""The loop back: what a device's model finds hard goes to the fleet's server and from there into a data set.

A real server, real sockets, pictures that the device's own code keeps.
"""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from tinysight_contract.messages import ModelRef
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_deploy.fleet.server import example_routes
from tinysight_deploy.fleet.server.problems import Problem
from tinysight_edge.belt import LABELS, Belt
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.config.types import (
    AgentConfig,
    BrokerConfig,
    CameraConfig,
    ExamplesConfig,
    FleetConfig,
    ModelConfig,
)
from tinysight_edge.decode import Detections
from tinysight_edge.pictures import sent, upload
from tinysight_edge.pictures.pictures import About, Pictures
from tinysight_edge.pictures.sent import Sent
from tinysight_edge.pictures.upload import Uploader
from tinysight_edge.tracking.tracks import Tracks
from tinysight_edge.units import Size
from tinysight_trainer.data.dataset import open_dataset

ME = "plant-1", "belt-1"
PICTURES = 5


@pytest.fixture
def served(module: Callable[[str], ModuleType], tmp_path: Path, mosquitto: Any, belt_repo: Path) -> Iterator[Any]:
    with module("deploy/fleet/serving").Served(tmp_path, mosquitto.url, belt_repo) as server:
        yield server


@pytest.fixture
def state(tmp_path: Path, _settles_at_once: None) -> Path:
    """A device's folder, with examples that it kept itself."""
    about = About(
        site=ME[0],
        device=ME[1],
        model=ModelRef(name="belt", version="1", digest="d" * 64),
        task="detect",
        labels=LABELS,
        threshold=0.5,
    )
    Sent(tmp_path / "state" / "examples").look({"gate": CameraConfig(source="synthetic:belt")})  # as an agent's start
    pictures = Pictures(tmp_path / "state", about, snapshots=None, examples=ExamplesConfig(per_hour=3600))
    pictures.start()
    began = datetime(2026, 11, 25, 10, tzinfo=UTC)
    for number in range(PICTURES):
        image, truths = Belt(5).frame(100 + 40 * number)
        boxes = np.array([truth.box_px for truth in truths], np.float32)
        scores = np.linspace(0.9, 0.51, len(truths)).astype(np.float32)
        found = Detections(boxes, scores, np.array([truth.label for truth in truths], np.int32))
        at_s = number * 1.5
        pictures.offer(Frame("gate", image, at_s, began + timedelta(seconds=at_s), at_s), found, Tracks.none(), {})
    pictures.close()
    assert pictures.counts == {"examples": PICTURES}
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def _settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "SETTLE_S", 0.0)


def configured(
    served: Any, state: Path, tmp_path: Path, *, per_day: int = 64 << 20, on: bool = True, **camera: Any
) -> AgentConfig:
    token = tmp_path / "token"
    token.write_text(served.tokens[Role.DEVICE])
    token.chmod(0o600)
    return AgentConfig(
        site=ME[0],
        device=ME[1],
        state=state,
        broker=BrokerConfig(url="mqtt://localhost"),
        model=ModelConfig(bundle=Path("x")),
        cameras={"gate": CameraConfig(source="synthetic:belt", **camera)},
        examples=ExamplesConfig(),
        fleet=FleetConfig(url=served.url, token_file=token, upload=Size(per_day) if on else None),
    )


class Device:
    """What sends, and a configuration that may be changed under it."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.asked: list[tuple[str, int]] = []
        self.sends = Uploader(config.state / "examples", *ME, config=lambda: self.config, dice=lambda: 1.0)
        ask = self.sends._ask

        def asks(line: Any, method: str, url: str, headers: dict[str, str], body: bytes) -> Any:
            self.asked.append((method, len(body)))
            return ask(line, method, url, headers, body)

        self.answers(asks)

    def answers(self, ask: Callable[..., Any]) -> None:
        """Have something else answer."""
        setattr(self.sends, "_ask", ask)  # noqa: B010 -- a method is no attribute to mypy

    def turn(self) -> None:
        self.sends.turn()


def uploader(served: Any, state: Path, tmp_path: Path, *, per_day: int = 64 << 20, on: bool = True) -> Uploader:
    return Device(configured(served, state, tmp_path, per_day=per_day, on=on)).sends


def test_hard_examples_come_back_as_a_data_set_to_be_labelled(
    served: Any, state: Path, tmp_path: Path, tinysight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PIECE_BYTES", 3000)  # several pieces for each
    sends = uploader(served, state, tmp_path)
    sends.turn()
    assert sends.sent == PICTURES
    sends.turn()
    uploader(served, state, tmp_path).turn()
    assert len(served.kept.listing()) == PICTURES

    (tmp_path / "read.token").write_text(served.tokens[Role.READ])
    monkeypatch.setenv("TINYSIGHT_FLEET_TOKEN_FILE", str(tmp_path / "read.token"))
    pull = ("data", "pull", "--fleet", served.url, "--json", "--quiet")
    few = tinysight(*pull, "--most", "2", "--out", "few")
    assert (few.returncode, len(open_dataset(tmp_path / "few").items)) == (0, 2), few.stderr
    done = tinysight(*pull, "--group", "all", "--out", "hard")
    assert done.returncode == 0, done.stderr
    data = open_dataset(tmp_path / "hard")
    assert len(data.items) == PICTURES
    assert {item.session for item in data.items} == {"plant-1-belt-1-gate-20261125"}
    assert all(item.shown and not item.labelled for item in data.items), "proposals, which nobody has looked at"
    sent = {path.read_bytes() for path in (state / "examples" / "images").rglob("*.jpg")}
    assert {data.path(item).read_bytes() for item in data.items} == sent

    again = tinysight(*pull, "--out", "more", "--known", "hard")
    assert (again.returncode, "new" in again.stderr) == (2, True)
    (tmp_path / "wrong").write_text("not-a-token-at-all")
    wrong = tinysight(*pull, "--out", "more", "--token-file", "wrong")
    assert (wrong.returncode, "401" in wrong.stderr) == (2, True)
    assert not list(tmp_path.glob("more*")) + list(tmp_path.glob("*.part"))


def test_what_was_cut_off_goes_on_where_it_ended(
    served: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PIECE_BYTES", 2000)
    sizes = [path.stat().st_size for path in (state / "examples" / "images").rglob("*.jpg")]
    few = Device(configured(served, state, tmp_path, per_day=5000))
    few.turn()
    assert (few.sends.sent, served.kept.listing()) == (0, []), "the day's bytes are used up within the first"
    assert few.asked == [("HEAD", 0), ("PATCH", 2000), ("PATCH", 2000), ("PATCH", 1000)]
    few = Device(few.config)
    few.turn()
    assert few.asked == [], "not even asked before the next day, nor after a restart"
    rest = Device(configured(served, state, tmp_path))
    rest.turn()
    assert rest.sends.sent == PICTURES
    assert sum(size for _, size in rest.asked) == sum(sizes) - 5000, "three pieces were there already"


@pytest.mark.parametrize("change", ["upload off", "another server", "examples off"])
def test_nothing_more_leaves_once_the_configuration_is_another(
    served: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(upload, "PIECE_BYTES", 2000)
    device = Device(configured(served, state, tmp_path))
    fleet = device.config.fleet
    assert fleet is not None
    changes: dict[str, dict[str, Any]] = {
        "upload off": {"fleet": replace(fleet, upload=None)},
        "another server": {"fleet": replace(fleet, url="https://other.example.com")},
        "examples off": {"examples": None},
    }
    ask = device.sends._ask

    def asks(*args: Any) -> Any:
        answer = ask(*args)
        if len(device.asked) == 3:
            device.config = replace(device.config, **changes[change])
        return answer

    device.answers(asks)
    device.turn()
    assert device.asked == [("HEAD", 0), ("PATCH", 2000), ("PATCH", 2000)]
    if change != "another server":
        device.turn()
        assert len(device.asked) == 3


def test_what_was_kept_before_a_privacy_polygon_is_never_sent(served: Any, state: Path, tmp_path: Path) -> None:
    corner = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5))
    open_again = configured(served, state, tmp_path)
    images = state / "examples" / "images" / "belt-1" / "gate"
    shown = sorted(images.glob("*.jpg"))
    for config in (configured(served, state, tmp_path, privacy=(corner,)), open_again):
        device = Device(config)  # after a restart, too
        device.turn()
        assert device.asked == []
    new = images / "99991231T000000000Z-margin-0000.jpg"
    new.write_bytes(shown[0].read_bytes() + b" ")
    device.turn()
    assert device.sends.sent == 1, "what is kept since is sent"
    device.config = replace(device.config, cameras={})
    (images / "99991231T000000000Z-margin-0001.jpg").write_bytes(shown[1].read_bytes())
    device.turn()
    assert device.sends.sent == 1, "nobody knows any more what its camera may show"
    (state / "examples" / "sent.json").write_bytes(b"{")
    lost = Device(open_again)
    lost.turn()
    assert lost.asked == [], "nobody knows any more what they were kept under"


def test_a_change_is_noticed_between_two_turns(
    served: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "NOTICE_S", 0.01)
    device = Device(before := configured(served, state, tmp_path, on=False))
    memory = state / "examples" / "sent.json"
    said = memory.read_bytes()
    monkeypatch.setattr(sent, "SETTLE_S", 0.1)
    with device.sends:  # its first turn is far away
        device.config = configured(served, state, tmp_path, on=False, flip="vertical")
        until_s = time.monotonic() + 20
        while said == (now := memory.read_bytes()) or b'"views":{}' in now:
            assert time.monotonic() < until_s, "it was not noticed, or did not settle"
            time.sleep(0.01)
    device.config = replace(before, fleet=configured(served, state, tmp_path).fleet)
    device.turn()
    assert device.asked == [], "though what holds now held before, too"


def test_what_comes_just_after_a_change_counts_as_before_it(
    state: Path, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sent, "SETTLE_S", 60.0)
    device = Device(configured(served, state, tmp_path, rotate=180))
    device.turn()
    images = state / "examples" / "images" / "belt-1" / "gate"
    late = images / "99991231T000000000Z-margin-0000.jpg"  # was on its way
    late.write_bytes(next(images.glob("*.jpg")).read_bytes())
    device.turn()
    monkeypatch.setattr(sent, "SETTLE_S", 0.0)
    device.turn()
    device.turn()
    assert device.asked == []


def test_a_server_that_keeps_none_is_sent_none(
    served: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(configured(served, state, tmp_path))
    monkeypatch.setattr(example_routes, "_kept", no_examples)
    with pytest.raises(upload._LaterError, match="no server there"):
        device.turn()
    assert device.asked == [("HEAD", 0)]
    assert served.kept.listing() == []


def no_examples(_: object) -> None:
    raise Problem(404, "This server keeps no examples.", mend="Start it with --examples FOLDER.")


def test_what_was_damaged_at_the_server_is_sent_again_from_its_beginning(
    served: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PIECE_BYTES", 3000)
    Device(configured(served, state, tmp_path, per_day=3000)).turn()
    (part,) = served.folder.glob("examples/**/*.part")
    part.write_bytes(bytes(3000))
    device = Device(configured(served, state, tmp_path))
    device.turn()
    assert device.sends.sent == PICTURES
    assert len(served.kept.listing()) == PICTURES


def test_a_server_that_answers_nonsense_is_left_alone_and_what_was_sent_counts(
    served: Any, state: Path, tmp_path: Path
) -> None:
    said = {"HEAD": (404, 0, False), "PATCH": (204, 1, False)}
    device = Device(configured(served, state, tmp_path))
    ask = device.sends._ask
    device.answers(lambda _, method, *__: upload._Answer(*said[method]))
    with pytest.raises(upload._LaterError, match="204 at 1"):
        device.turn()
    assert b'"bytes":0' not in (state / "examples" / "sent.json").read_bytes(), "they count for today"
    offsets = iter((5, 7, 5, 7, 5, 7))
    first = upload._Answer(404, 0, False)
    device.answers(lambda _, method, *__: first if method == "HEAD" else upload._Answer(409, next(offsets), False))
    with pytest.raises(upload._LaterError, match="409"):
        device.turn()
    assert next(offsets) == 5, "three jumps, and no more"
    device.answers(ask)
    device.turn()
    assert device.sends.sent == PICTURES


def test_nothing_leaves_a_device_that_was_not_told_to(served: Any, state: Path, tmp_path: Path) -> None:
    uploader(served, state, tmp_path, on=False).turn()
    assert served.kept.listing() == []
    assert not list(served.folder.glob("examples/**/*.part"))


def test_a_device_sends_under_its_own_name_only(served: Any, state: Path) -> None:
    raw = next((state / "examples" / "images").rglob("*.jpg")).read_bytes()
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(raw))}
    one = f"/v1/examples/plant-1/belt-1/{'a' * 64}"
    for role, path, status in (
        (Role.DEVICE, f"/v1/examples/plant-1/other/{'a' * 64}", 403),
        (Role.READ, one, 403),
        (Role.ADMIN, one, 403),
        (None, one, 401),
        (Role.DEVICE, one, 422),  # it is not what its name says
        (Role.DEVICE, "/v1/examples/plant-1/belt-1/..%2f..%2fx", 404),
    ):
        with served.client(role) as http:
            assert http.patch(path, headers=headers, content=raw).status_code == status, (role, path)
    assert served.kept.listing() == []


def test_the_thread_ends_at_once_beside_a_server_that_hangs(
    state: Path, tmp_path: Path, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        served.url = f"http://127.0.0.1:{hole.getsockname()[1]}"
        monkeypatch.setattr(upload, "LOOK_S", 0.0)
        with uploader(served, state, tmp_path) as sends:
            reached, _ = hole.accept()
        reached.close()
        assert not sends._thread.is_alive()
