"""The agent's loop in this process, where memory can be watched."""

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_edge.cameras.buffers import Buffers
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, ModelConfig
from tinysight_edge.runtime import Agent


def test_a_frame_is_let_go_of_before_the_next_is_waited_for(
    mosquitto: Any, belt_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[int]()
    take = Buffers.take

    def watched(buffers: Buffers, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        buffer = take(buffers, shape)
        if shape == (120, 160, 3):
            taken.append(buffer.ctypes.data)
        return buffer

    monkeypatch.setattr(Buffers, "take", watched)
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 120))
    for grey in range(20):
        video.write(np.full((120, 160, 3), 10 * grey, np.uint8))
    video.release()
    config = AgentConfig(
        site="s",
        device="d",
        state=tmp_path,
        broker=BrokerConfig(url=mosquitto.url),
        model=ModelConfig(bundle=belt_bundle, engine="interpreter"),
        cameras={"a": CameraConfig(source=str(tmp_path / "v.avi"), realtime=True)},
    )
    assert Agent(Bundle.open(belt_bundle), config).run()["frames"] == 20
    ((_, most),) = Counter(taken).most_common(1)
    assert most > 15, "at 10 frames a second the model waits, so one buffer serves nearly all"
