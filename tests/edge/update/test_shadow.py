"""A model beside the one that sees: what it is given, and what both agree on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Code
from tinysight_edge.belt import Belt
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.config.types import CameraConfig, MotionConfig
from tinysight_edge.inference import Inference
from tinysight_edge.interpreter import Model
from tinysight_edge.meaning.events import Sequence
from tinysight_edge.update.shadow import Shadow, comparable
from tinysight_edge.update.trial import Rules
from tinysight_edge.view import Seer

STILL = CameraConfig(source="synthetic:belt", motion=MotionConfig())


@pytest.fixture
def seer(belt_bundle: Path) -> Any:
    def make(**changes: Any) -> Seer:
        bundle = Bundle.open(belt_bundle)
        bundle.manifest = replace(bundle.manifest, **changes)
        return Seer(bundle, Model.load(Bundle.open(belt_bundle)), "b00t", Sequence())

    return make


def play(shadow: Shadow, seer: Seer, frames: int, *, work: bool = True, camera: str = "belt") -> None:
    belt, see = Belt(3), Inference(seer.bundle, seer.model)
    for number in range(frames):
        image = np.ascontiguousarray(belt.frame(number)[0])
        found = see(image, number / 30).found
        assert found is not None
        shadow.offer(Frame(camera, image, number / 30, utc_now(), number / 30), found)
        if work:
            shadow.work(0.0)


def test_the_same_model_sees_the_same_on_every_so_many_th_frame_though_nothing_moves(seer: Any) -> None:
    now, new = seer(), seer(version="2.0.0")
    shadow = Shadow(now, new, {"belt": STILL}, every=3)
    play(shadow, now, 60)
    assert shadow.agreement.frames == 20
    assert shadow.agreement.share == 1.0
    assert shadow.agreement.judge(Rules()).code is None


def test_one_that_calls_things_otherwise_disagrees(seer: Any) -> None:
    now, new = seer(), seer(labels=[f"n{number}" for number in range(10)])
    assert comparable(now, new)
    shadow = Shadow(now, new, {"belt": STILL}, every=1)
    play(shadow, now, 40)
    assert shadow.agreement.judge(Rules()).code is Code.DISAGREES


def test_of_frames_that_come_meanwhile_none_waits_and_no_foreign_camera_is_looked_at(seer: Any) -> None:
    now = seer()
    shadow = Shadow(now, seer(), {"belt": STILL}, every=1)
    play(shadow, now, 10, work=False)
    play(shadow, now, 10, work=False, camera="other")
    for _ in range(3):
        shadow.work(0.0)
    assert shadow.agreement.frames == 1


def test_a_detector_and_a_classifier_cannot_be_compared(seer: Any) -> None:
    assert not comparable(seer(), seer(task="classify"))
