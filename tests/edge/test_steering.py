"""What happens beside the frames, and that the frames go on."""

import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from tinysight_edge.cameras.hub import Hub
from tinysight_edge.config.reload import Change
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, ModelConfig
from tinysight_edge.steering import Steering


@pytest.mark.timeout(20)
def test_changes_that_come_faster_than_they_are_made_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    config = AgentConfig(
        site="s",
        device="d",
        state=tmp_path,
        broker=BrokerConfig(url="mqtt://h"),
        model=ModelConfig(bundle=tmp_path),
        cameras={"gate": CameraConfig(source="0")},
    )
    change = Change(config, (), (), (), ("gate",), (), (), "again")
    watch, lineup = Mock(), Mock(disabled=set(), unopened={})
    watch.take.return_value = change
    lineup.broken.return_value = {}
    others = {name: Mock() for name in ("governor", "caretaker", "publisher", "teller", "tell_info")}
    others["seer"] = Mock(**{"bundle.manifest.labels": ["person"]})
    steering = Steering(config, watch, hub=Hub(), lineup=lineup, **others)
    looked = threading.Event()

    def look() -> None:
        for _ in range(3):
            steering.look_around()
        looked.set()

    try:
        threading.Thread(target=look, daemon=True).start()
        assert looked.wait(10)
        assert lineup.apply.call_count == 3
    finally:
        watch.take.return_value = None
