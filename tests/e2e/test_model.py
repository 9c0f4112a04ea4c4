"""What a model finds before its cameras: a real agent tells it, and says when it is no longer what it was tested on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.bundle import Bundle, pack_bundle
from tinysight_contract.manifest import Reference
from tinysight_contract.messages import Alert, Health, Info, ModelMetrics, ModelRef, Well, decode
from tinysight_contract.metrics import LEAST
from tinysight_edge.belt import Belt
from tinysight_edge.health.model_metrics import ModelMeter
from tinysight_edge.inference import Inference
from tinysight_edge.interpreter import Model

CAMERAS = 20
SECONDS = 40
TEXT = """\
site = "plant-1"
device = "belt-7"
state = "state"
[broker]
url = "{url}"
[model]
bundle = "proved.bundle"
engine = "interpreter"
[health]
every = "1s"
"""
CAMERA = """\
[cameras.belt{number}]
source = "synthetic:belt?fps=2&seed={number}"
rotate = {rotate}
"""


@pytest.fixture(scope="module")
def proved(once: Any, belt_bundle: Path) -> Path:
    """The belt's detector, with what it finds on belts that are none of the cameras' as its reference."""

    def make(folder: Path) -> None:
        bundle = Bundle.open(belt_bundle)
        manifest, model = bundle.manifest, Model.load(bundle)
        ref = ModelRef(name=manifest.name, version=manifest.version, digest=bundle.digest)
        infer, meter = Inference(bundle, model), ModelMeter(manifest, ref, manifest.thresholds.score, "b1")
        for second in range(150):
            found = infer(Belt(1000 + second // 5).frame(60 + second * 30)[0], float(second)).found
            assert found is not None
            meter.note("test", float(second), found, 1.0)
        told = meter.take()
        assert sum(told.scores) >= LEAST
        changed = replace(manifest, reference=Reference(scores=told.scores, labels=told.labels))
        (folder / "proved.bundle").write_bytes(
            pack_bundle(changed, {name: bundle.read(name) for name in manifest.files})
        )

    folder: Path = once("proved", make)
    return folder / "proved.bundle"


class Device:
    """An agent, and who listens to it."""

    def __init__(self, folder: Path, broker: Any, reader: Any, bundle: Path) -> None:
        self.folder, self.reader = folder, reader
        (folder / "proved.bundle").write_bytes(bundle.read_bytes())
        self.head = TEXT.format(url=broker.url)

    def start(self, cameras: str) -> subprocess.Popen[bytes]:
        (self.folder / "agent.toml").write_text(self.head + cameras)
        command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(self.folder / "agent.toml")]
        home = {"XDG_STATE_HOME": str(self.folder / "home")}
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **home}, stdout=log, stderr=log)
        return self.process

    def told(self) -> ModelMetrics | None:
        heard = self.reader.of(t.ModelTopic)
        return decode(heard[-1], ModelMetrics) if heard else None

    def health(self) -> Health:
        return decode(self.reader.of(t.HealthTopic)[-1], Health)

    def alert(self) -> Alert | None:
        topic = str(t.AlertTopic("plant-1", "belt-7", "model-drifted"))
        heard = [raw for each, raw, _ in self.reader.heard if each == topic]
        return decode(heard[-1], Alert) if heard and heard[-1] else None

    def weighed(self) -> bool:
        told = self.told()
        return told is not None and told.drift is not None


@pytest.fixture
def device(tmp_path: Path, mosquitto: Any, make_reader: Any, proved: Path) -> Iterator[Device]:
    each = Device(tmp_path, mosquitto, make_reader(mosquitto.url), proved)
    yield each
    if each.process.poll() is None:
        each.process.send_signal(signal.SIGKILL)
        each.process.wait(10)


def belts(rotate: int) -> str:
    return "".join(CAMERA.format(number=number, rotate=rotate) for number in range(CAMERAS))


def test_a_video_is_counted_second_by_second_and_adds_up(device: Device) -> None:
    from tinysight_trainer.synth import belt_video

    belt_video(device.folder / "belt.mp4", frames=SECONDS * 15, seed=5)
    assert device.start('[cameras.clip]\nsource = "belt.mp4"\n').wait(60) == 0, (device.folder / "log").read_text()
    told = device.told()
    assert told is not None
    info = decode(device.reader.of(t.InfoTopic)[-1], Info)
    assert (told.bundle, told.name, told.version) == (info.bundle.digest, info.bundle.name, info.bundle.version)
    assert (told.boot_id, told.frames) == (info.boot_id, SECONDS)
    assert sum(told.scores) == sum(told.labels.values()) > SECONDS
    assert set(told.labels) <= set(info.bundle.labels)
    assert told.since <= told.at
    assert told.inference_ms is not None
    assert 0 < told.inference_ms.p50 <= told.inference_ms.p95
    counted = [decode(raw, ModelMetrics).frames for raw in device.reader.of(t.ModelTopic)]
    assert counted == sorted(counted)


def test_cameras_like_the_test_pictures_do_not_drift(device: Device, eventually: Callable[..., None]) -> None:
    device.start(belts(rotate=0))
    eventually(device.weighed)
    told = device.told()
    assert told is not None
    assert sum(told.scores) >= LEAST
    assert (told.drift or 0.0) < 0.4, told
    assert device.alert() is None


def test_cameras_that_hang_askew_are_an_alert_that_says_what_to_do(
    device: Device, eventually: Callable[..., None]
) -> None:
    device.start(belts(rotate=90))
    eventually(lambda: device.alert() is not None)
    alert, told = device.alert(), device.told()
    assert alert is not None
    assert told is not None
    assert told.drift is not None
    assert told.drift > 0.3
    assert "0.40 are allowed" in alert.what
    assert "hard examples" in alert.mend
    assert device.health().verdict.state is Well.DEGRADED
