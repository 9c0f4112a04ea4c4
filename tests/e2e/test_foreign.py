"""Bring your own model: a foreign file is imported, run on pictures, and what it finds is heard over MQTT."""

from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import EventType
from tinysight_edge.interpreter import find_runtime
from tinysight_edge.tracking.track import SAME_OBJECT_IOU

H, W = 32, 48
STRETCHED = ("--resize", "stretch", "--pixels", "0..1")


@pytest.mark.parametrize(
    ("file", "flags"),
    [
        pytest.param("yolov5-int8", ("--decode", "yolo", "--units", "normalized", "--score", "0.2"), id="yolo in int8"),
        pytest.param("ssd", ("--decode", "ssd", "--score", "0.3"), id="ssd without a signature"),
        pytest.param(
            "ssd-heads",
            ("--decode", "ssd-anchors", "--activation", "softmax", "--background", "--anchors", "a.json", "--output",
             "boxes=raw_boxes", "--score", "0.7"), id="ssd heads",
        ),
        pytest.param("no-signature", ("--decode", "centernet", "--score", "0.3"), id="centernet without a signature"),
        pytest.param(
            "background", ("--decode", "classify", "--activation", "softmax", "--background", "--score", "0.2"),
            id="classes",
        ),
    ],
)  # fmt: skip
def test_a_foreign_models_detections_are_published(
    file: str, flags: tuple[str, ...], graphs: Path, mosquitto: Any, make_reader: Any, tinysight: Any, tmp_path: Path,
    eventually: Any, obvious: ModuleType,
) -> None:  # fmt: skip
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "a.json").write_text(
        '{"strides": [16, 32], "min_scale": 0.2, "max_scale": 0.9, "aspect_ratios": [1, 2, 0.5]}'
    )
    given = ("--labels", "labels.txt", "--name", "theirs", "--out", "x.bundle", "--quiet", *STRETCHED, *flags)
    done = tinysight("bundle", "import", graphs / f"{file}.tflite", *given)
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(tmp_path / "x.bundle")
    manifest, variant = bundle.manifest, bundle.manifest.variants[0]
    plain = find_runtime().interpreter(model_content=(graphs / f"{file}.tflite").read_bytes())
    plain.allocate_tensors()
    (taken,) = plain.get_input_details()
    (tmp_path / "pictures").mkdir()
    want: list[tuple[str, NDArray[Any]]] = []
    for number in range(3):
        rgb = np.random.default_rng(number).integers(120, 256, (H, W, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), rgb[..., ::-1])
        fed = (rgb.astype(np.int16) - 128 if taken["dtype"] == np.int8 else rgb / 255).astype(taken["dtype"])[None]
        if variant.named_by == "signature":
            outputs = plain.get_signature_runner()(**{variant.input.name: fed})
        else:
            plain.set_tensor(taken["index"], fed)
            plain.invoke()
            outputs = {each["name"]: plain.get_tensor(each["index"]) for each in plain.get_output_details()}
        kept: list[NDArray[Any]] = []
        for _, class_id, box in obvious.decode(manifest, variant, outputs):  # strongest first
            seen = np.clip(np.array(box) / (W, H, W, H), 0.0, 1.0)
            if (seen[2:] > seen[:2]).all() and all(
                obvious.overlap(tuple(seen), tuple(each)) < SAME_OBJECT_IOU for each in kept
            ):
                kept.append(seen)
                want.append((manifest.labels[class_id], seen))
    reader = make_reader(mosquitto.url)
    who = ("--site", "plant-1", "--device", "belt-7", "--broker", mosquitto.url)
    done = tinysight("run", "--bundle", "x.bundle", "--source", "pictures", *who, "--quiet")
    assert done.returncode == 0, done.stderr
    eventually(lambda: sum(event.type is EventType.END for event in reader.events()) == len(want))
    told = [(event.label, list(event.box)) for event in reader.events() if event.type is EventType.START]
    assert len(told) == len(want) > 2
    assert sorted(label for label, _ in told) == sorted(label for label, _ in want)
    left = list(want)
    for label, box in told:
        near = [i for i, (name, seen) in enumerate(left) if name == label and np.allclose(seen, box, atol=2e-3)]
        assert near, (label, box)
        left.pop(near[0])
    assert {event.model.digest for event in reader.events()} == {bundle.digest}
