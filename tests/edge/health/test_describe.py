"""What the device says of itself: what a page needs to draw, and nothing that is nobody's business."""

from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest

from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import MAX_PAYLOAD_BYTES, CameraInfo, Info, LineShape, ZoneShape, decode, encode
from tinysight_edge.config.types import (
    AgentConfig,
    BrokerConfig,
    CameraConfig,
    LineConfig,
    ModelConfig,
    Polygon,
    PublishConfig,
    ZoneConfig,
)
from tinysight_edge.health.describe import describe
from tinysight_edge.interpreter import Model
from tinysight_edge.telling import Teller

CORNERS: Polygon = ((0.25, 0.0), (1.0, 0.0), (1.0, 1.0))
MASK = (0.015625, 0.015625)
SHOWN = CameraInfo(source="rtsp://camera.example/1", width=320, height=240, fps=15.0)


@pytest.fixture(scope="module")
def seen(belt_bundle: Path) -> tuple[Bundle, Model]:
    bundle = Bundle.open(belt_bundle)
    return bundle, Model.load(bundle)


def told(seen: tuple[Bundle, Model], camera: CameraConfig, publish: PublishConfig | None = None) -> Info:
    config = AgentConfig(
        site="s",
        device="d",
        state=Path("state"),
        broker=BrokerConfig(url="mqtt://broker.example", username="gate-user", password_file=Path("/etc/password")),
        model=ModelConfig(bundle=Path("belt.bundle")),
        cameras={"gate": camera},
        publish=publish or PublishConfig(),
    )
    return describe(config, *seen, {"gate": SHOWN}, boot_id="b00t", started_at=datetime(2026, 11, 26, tzinfo=UTC))


def test_shapes_are_told_and_masks_and_logins_are_not(seen: tuple[Bundle, Model]) -> None:
    camera = CameraConfig(
        source="rtsp://camera.example/1",
        username="operator",
        password_file=Path("/etc/tinysight/gate.password"),
        privacy=((MASK, (0.5, 0.0), (0.5, 1.0)),),
        zones={"dock": ZoneConfig(polygon=CORNERS, labels=("7", "8")), "yard": ZoneConfig(polygon=CORNERS)},
        lines={"exit": LineConfig(start=(0.5, 1.0), end=(0.5, 0.0))},
    )
    info = told(seen, camera)
    gate = info.cameras["gate"]
    assert gate.zones == {
        "dock": ZoneShape(polygon=[*CORNERS], labels=["7", "8"]),
        "yard": ZoneShape(polygon=[*CORNERS]),
    }
    assert gate.lines == {"exit": LineShape(start=(0.5, 1.0), end=(0.5, 0.0))}
    assert (gate.source, gate.width, gate.height) == (SHOWN.source, 320, 240)
    payload = encode(info)
    for secret in (b"operator", b"password", b"gate-user", b"privacy", b"0.015625", b"broker.example"):
        assert secret not in payload
    assert decode(payload, Info) == info


@pytest.mark.parametrize(
    ("publish", "kinds"),
    [
        (PublishConfig(), []),
        (PublishConfig(frames=5.0), ["frame"]),
        (PublishConfig(snapshots=True), ["snapshot"]),
        (PublishConfig(frames=5.0, snapshots=True), ["frame", "snapshot"]),
    ],
)
def test_the_kinds_that_the_file_lets_out_are_told(
    publish: PublishConfig, kinds: list[str], seen: tuple[Bundle, Model]
) -> None:
    assert told(seen, CameraConfig(source="0"), publish).publishes == kinds


def test_shapes_that_no_message_could_hold_are_left_out_and_all_else_is_told(seen: tuple[Bundle, Model]) -> None:
    polygon = tuple((x / 97, (x * x % 89) / 89) for x in range(64))
    zones = {f"zone-{number}": ZoneConfig(polygon=polygon) for number in range(200)}
    info = told(seen, CameraConfig(source="0", zones=zones))
    assert info.cameras == {"gate": SHOWN}
    assert len(encode(info)) < MAX_PAYLOAD_BYTES
    few = told(seen, CameraConfig(source="0", zones=dict([*zones.items()][:20])))
    assert len(few.cameras["gate"].zones) == 20


def test_a_camera_that_comes_and_goes_is_no_news_of_the_device(seen: tuple[Bundle, Model]) -> None:
    publisher, neighbours = Mock(), Mock()
    teller = Teller("s", "d", "b00t", publisher=publisher, caretaker=Mock(), neighbours=neighbours)
    config = Mock()
    info = told(seen, CameraConfig(source="0"))
    for each in (
        info,
        told(seen, CameraConfig(source="0")),
        told(seen, CameraConfig(source="0"), PublishConfig(frames=1.0)),
    ):
        teller.info(config, each)
    assert [len(call.args[1].publishes) for call in publisher.state.call_args_list] == [0, 1]
    assert neighbours.tell.call_count == 3, "they want to know of each change of the configuration"
