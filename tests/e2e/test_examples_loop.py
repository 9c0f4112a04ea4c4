"""The loop back: what a device's model finds hard goes to the fleet's server and from there into a data set.

A real server, real sockets, pictures that the device's own code keeps.
"""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tinysight_contract.messages import ModelRef
from tinysight_deploy.fleet.tokens import Role
from tinysight_edge.belt import LABELS, Belt
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.config.types import AgentConfig, BrokerConfig, ExamplesConfig, FleetConfig, ModelConfig
from tinysight_edge.decode import Detections
from tinysight_edge.pictures import upload
from tinysight_edge.pictures.pictures import About, Pictures
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
def state(tmp_path: Path) -> Path:
    """A device's folder, with examples that it kept itself."""
    about = About(
        site=ME[0],
        device=ME[1],
        model=ModelRef(name="belt", version="1", digest="d" * 64),
        task="detect",
        labels=LABELS,
        threshold=0.5,
    )
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


def uploader(served: Any, state: Path, tmp_path: Path, *, per_day: int = 64 << 20, on: bool = True) -> Uploader:
    token = tmp_path / "token"
    token.write_text(served.tokens[Role.DEVICE])
    token.chmod(0o600)
    fleet = FleetConfig(url=served.url, token_file=token, upload=Size(per_day) if on else None)
    config = AgentConfig(
        site=ME[0],
        device=ME[1],
        state=state,
        broker=BrokerConfig(url="mqtt://localhost"),
        model=ModelConfig(bundle=Path("x")),
        cameras={},
        fleet=fleet,
    )
    return Uploader(state / "examples", *ME, config=lambda: config)


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

    monkeypatch.setenv("TINYSIGHT_FLEET_TOKEN", served.tokens[Role.READ])
    pull = ("data", "pull", "--fleet", served.url, "--json", "--quiet")
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
    assert not (tmp_path / "more").exists()


def test_what_was_cut_off_goes_on_where_it_ended(
    served: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PIECE_BYTES", 2000)
    sizes = [path.stat().st_size for path in (state / "examples" / "images").rglob("*.jpg")]
    few = uploader(served, state, tmp_path, per_day=5000)
    few.turn()
    assert (few.sent, served.kept.listing()) == (0, []), "the day's bytes are used up within the first"
    rest = uploader(served, state, tmp_path)
    asked: list[tuple[str, int]] = []
    send = Uploader._ask

    def ask(line: Any, method: str, url: str, headers: dict[str, str], body: bytes) -> tuple[int, int]:
        asked.append((method, len(body)))
        return send(line, method, url, headers, body)

    monkeypatch.setattr(Uploader, "_ask", staticmethod(ask))
    rest.turn()
    assert rest.sent == PICTURES
    assert sum(size for _, size in asked) == sum(sizes) - 4000, "two pieces were there already"


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
