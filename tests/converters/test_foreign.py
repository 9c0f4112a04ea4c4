"""Somebody else's model becomes a bundle that finds what a slow reading of its outputs finds; or one line says why."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, ConversionError, DataError
from tinysight_converters.foreign.importer import Wanted, import_model
from tinysight_converters.foreign.metadata import read_labels
from tinysight_converters.foreign.picture import Picture
from tinysight_converters.foreign.roles import PRESETS, Asked
from tinysight_edge.decode import make_decoder
from tinysight_edge.interpreter import Model, find_runtime, golden_inputs, self_test
from tinysight_edge.preprocess import Preprocessor

H, W = 32, 48
FLOAT = ("--pixels", "0..1")
YOLO = ("--decode", "yolo", "--resize", "stretch", "--score", "0.2")
SSD = ("--decode", "ssd", "--resize", "stretch", "--score", "0.1")
HEADS = (
    "--decode", "ssd-anchors", "--resize", "stretch", "--anchors", "anchors.json", "--activation", "softmax",
    "--background", "--output", "boxes=raw_boxes", "--score", "0.5",
)  # fmt: skip
CENTERNET = ("--decode", "centernet", "--resize", "stretch", "--score", "0.1")
CLASSIFY = ("--decode", "classify", "--resize", "stretch", "--score", "0.1", "--activation")
Bring = Callable[..., tuple[int, str, str]]
Prepare = Callable[[NDArray[np.uint8]], NDArray[Any]]
YOLO_BOXES = {"layout": "channels-first", "units": "normalized"}


def shares(rgb: NDArray[np.uint8]) -> NDArray[Any]:
    return np.asarray(rgb / 255, np.float32)[None]


def named(rgb: NDArray[np.uint8]) -> NDArray[Any]:
    return np.asarray((rgb - np.array([10.0, 20.0, 30.0])) / np.array([50.0, 60.0, 70.0]), np.float32)[None]


def one_to_one(rgb: NDArray[np.uint8]) -> NDArray[Any]:
    return (rgb / 127.5 - 1.0).astype(np.float32)[None]


def gray(rgb: NDArray[np.uint8]) -> NDArray[Any]:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) / 255, np.float32)[None, ..., None]


def signed(rgb: NDArray[np.uint8]) -> NDArray[Any]:
    return (rgb.astype(np.int16) - 128).astype(np.int8)[None]


MODELS: dict[str, tuple[str, tuple[str, ...], dict[str, Any], mf.Scheme, Prepare]] = {
    "yolov8": ("yolov8-normalized", (*YOLO, "--units", "normalized", *FLOAT), YOLO_BOXES, "float32", shares),
    "yolov8 in pixels": (
        "yolov8-pixels", (*YOLO, "--units", "pixels", *FLOAT), {"units": "pixels"}, "float32", shares
    ),
    "yolov8 in int8": ("yolov8-int8", (*YOLO, "--units", "normalized"), YOLO_BOXES, "int8", signed),
    "yolov5": (
        "yolov5", (*YOLO, "--units", "normalized", *FLOAT),
        {"layout": "channels-last", "objectness": True}, "float32", shares,
    ),
    "yolo with objectness said": (
        "yolo-turned-boxes", (*YOLO, "--units", "normalized", "--objectness", *FLOAT),
        {"layout": "channels-first", "objectness": True}, "float32", shares,
    ),
    "yolo without objectness said": (
        "yolo-square", (*YOLO, "--units", "normalized", "--no-objectness", *FLOAT), YOLO_BOXES, "float32", shares
    ),
    "yolo that has suppressed": (
        "yolo-end-to-end", (*YOLO, "--units", "normalized", *FLOAT), {"layout": "end-to-end"}, "float32", shares
    ),
    "ssd": ("ssd", (*SSD, *FLOAT), {"background": False}, "float32", shares),
    "ssd whose classes begin with a background": (
        "ssd-background", (*SSD, "--background", *FLOAT), {"background": True}, "float32", shares
    ),
    "ssd heads": ("ssd-heads", (*HEADS, *FLOAT), {"background": True}, "float32", shares),
    "ssd heads in int8": ("ssd-heads-int8", HEADS, {"activation": "softmax"}, "int8", signed),
    "centernet": ("centernet", (*CENTERNET, *FLOAT), {"stride": 8}, "float32", shares),
    "centernet without a signature": ("no-signature", (*CENTERNET, *FLOAT), {"stride": 8}, "float32", shares),
    "probabilities": ("probabilities", (*CLASSIFY, "none", *FLOAT), {"background": False}, "float32", shares),
    "logits": ("logits", (*CLASSIFY, "softmax", "--pixels", "-1..1"), {}, "float32", one_to_one),
    "logits by themselves": (
        "logits", (*CLASSIFY, "sigmoid", "--mean", "10,20,30", "--std", "50,60,70"), {}, "float32", named
    ),
    "background first": (
        "background", (*CLASSIFY, "softmax", "--background", *FLOAT), {"background": True}, "float32", shares
    ),
    "channels first": (
        "channels-first", (*CLASSIFY, "softmax", *FLOAT), {}, "float32", lambda rgb: shares(rgb).transpose(0, 3, 1, 2)
    ),
    "blue first": (
        "logits", (*CLASSIFY, "softmax", "--color", "bgr", *FLOAT), {}, "float32", lambda rgb: shares(rgb[..., ::-1])
    ),
    "gray": ("gray", (*CLASSIFY, "softmax", *FLOAT), {}, "float32", gray),
    "plain bytes": ("bytes", (*CLASSIFY, "none"), {}, "float32", lambda rgb: rgb[None]),
    "an open batch": ("open-batch", (*CLASSIFY, "softmax", *FLOAT), {}, "float32", shares),
    "weights": ("convolved", (*CLASSIFY, "none", *FLOAT), {}, "float32", shares),
    "weights in float16": ("convolved-float16", (*CLASSIFY, "none", *FLOAT), {}, "float16", shares),
    "weights in int8": ("convolved-dynamic", (*CLASSIFY, "none", *FLOAT), {}, "dynamic", shares),
    "int8": ("convolved-int8", (*CLASSIFY, "none"), {}, "int8", signed),
    "uint8": ("convolved-uint8", (*CLASSIFY, "none"), {}, "int8", lambda rgb: rgb[None]),
    "int8 with floats at its ends": ("convolved-int8-inside", (*CLASSIFY, "none", *FLOAT), {}, "int8", shares),
    "int8 but for a layer": ("waved-mixed", (*CLASSIFY, "none", *FLOAT), {}, "int8-mixed", shares),
}  # fmt: skip


def picture(seed: int) -> NDArray[np.uint8]:
    """RGB, brighter than what is drawn for the golden vectors, so that something is found."""
    return np.random.default_rng(seed).integers(120, 256, (H, W, 3)).astype(np.uint8)


def raw_outputs(content: bytes, variant: mf.Variant, given: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What the file answers, asked without any code of the device."""
    plain = find_runtime().interpreter(model_content=content)
    plain.allocate_tensors()
    if variant.named_by == "signature":
        return dict(plain.get_signature_runner()(**{variant.input.name: given}))
    plain.set_tensor(plain.get_input_details()[0]["index"], given)
    plain.invoke()
    return {each["name"]: plain.get_tensor(each["index"]) for each in plain.get_output_details()}


@pytest.mark.parametrize("case", MODELS)
def test_a_foreign_model_finds_what_a_slow_reading_of_its_outputs_finds(
    case: str, graphs: Path, at_hand: Path, bring: Bring, obvious: ModuleType
) -> None:
    file, flags, how, scheme, prepare = MODELS[case]
    status, out, err = bring(graphs / f"{file}.tflite", *flags)
    assert (status, err) == (0, "")
    bundle = Bundle.open(at_hand / "x.bundle")
    manifest, variant = bundle.manifest, bundle.manifest.variants[0]
    assert json.loads(out)["digest"] == bundle.digest
    assert {key: getattr(manifest.decode, key) for key in how} == how
    assert variant.scheme == scheme
    assert bundle.read(variant.file) == (graphs / f"{file}.tflite").read_bytes()
    model = Model.load(bundle)
    assert self_test(bundle, model) is None
    fit, decode = Preprocessor(manifest.input, variant.input), make_decoder(manifest, variant)
    found = 0
    for seed in range(4):
        rgb = picture(seed)
        want = obvious.decode(manifest, variant, raw_outputs(bundle.read(variant.file), variant, prepare(rgb)))
        got = decode(model.run(fit(rgb[..., ::-1].copy())[0]))
        assert got.class_ids.tolist() == [class_id for _, class_id, _ in want]
        assert np.allclose(got.scores, [min(1.0, score) for score, _, _ in want], atol=2e-3)
        assert np.allclose(got.boxes_px, np.array([box for _, _, box in want]).reshape(-1, 4), atol=0.05)
        found += len(want)
    assert found >= 4, "the case is worth something"


def test_golden_pictures_come_from_a_folder_and_bundles_of_equal_content_are_equal(
    graphs: Path, at_hand: Path, bring: Bring
) -> None:
    (at_hand / "pictures").mkdir()
    for number in range(2):
        cv2.imwrite(str(at_hand / "pictures" / f"{number}.png"), picture(number)[..., ::-1])
    flags = (*CLASSIFY, "softmax", *FLOAT, "--pictures", "pictures")
    assert bring(graphs / "logits.tflite", *flags)[0] == 0
    first = (at_hand / "x.bundle").read_bytes()
    bundle = Bundle.parse(first, source="x")
    assert bundle.manifest.reference is None, "there is no truth, and no test"
    assert np.array_equal(golden_inputs(bundle), [picture(0), picture(1)])
    assert bring(graphs / "logits.tflite", *flags)[0] == 0
    assert (at_hand / "x.bundle").read_bytes() == first


def test_a_bundle_whose_floats_came_from_int8_may_drift_by_steps_and_another_model_may_not(
    graphs: Path, at_hand: Path, bring: Bring
) -> None:
    flags = (*CLASSIFY, "none", *FLOAT)
    assert bring(graphs / "convolved-int8-inside.tflite", *flags)[0] == 0
    bundle = Bundle.open(at_hand / "x.bundle")
    model = Model.load(bundle)
    run = model.run
    model.run = lambda tensor: {name: out + 1 / 255 for name, out in run(tensor).items()}  # type: ignore[method-assign]  # stands for another kernel
    assert self_test(bundle, model) is None
    model.run = lambda tensor: {name: out[:, ::-1] for name, out in run(tensor).items()}  # type: ignore[method-assign]  # stands for a broken one
    assert "is off by" in (self_test(bundle, model) or "")


ANY_YOLO = ("--decode", "yolo", "--units", "normalized", "--resize", "letterbox", *FLOAT)
ANY_SSD = (*SSD, *FLOAT)
ANY_CLASS = (*CLASSIFY, "softmax", *FLOAT)


@pytest.mark.parametrize(
    ("file", "flags", "said"),
    [
        pytest.param("logits", ("--decode", "pose"), "no decoder for poses", id="poses"),
        pytest.param("logits", ("--decode", "segmentation"), "no decoder for masks", id="masks"),
        pytest.param("logits", ("--decode", "obb"), "no decoder for turned boxes", id="turned boxes"),
        pytest.param("logits", ("--decode", "clasify"), "Did you mean 'classify'?", id="mistyped kind"),
        pytest.param("half", ANY_CLASS, "file is damaged", id="truncated file"),
        pytest.param("text", ANY_CLASS, "no TFLite file", id="no TFLite file"),
        pytest.param("missing", ANY_CLASS, "cannot be read", id="no file"),
        pytest.param("two-inputs", ANY_CLASS, "several-inputs: 2 inputs: a camera feeds one", id="several inputs"),
        pytest.param("open-size", ANY_CLASS, "[1, -1, -1, 3]: the size of the input is open", id="open size"),
        pytest.param("flex", ANY_CLASS, "flex: FlexDigamma: needs TensorFlow's own kernels", id="flex"),
        pytest.param("crashes", ANY_SSD, "dies of SIG", id="a file that crashes the runtime"),
        pytest.param("unknown-operator", ANY_CLASS, "NobodysOperator: is an operator of som", id="unknown operator"),
        pytest.param("not-a-number", ANY_CLASS, "holds what is no number", id="answers that are no numbers"),
        pytest.param("random", ANY_CLASS, "does not answer a picture twice alike", id="answers by chance"),
        pytest.param("yolo-pose", ANY_YOLO, "A head of 56 channels is one of poses", id="head of poses"),
        pytest.param("yolo-masks", ANY_YOLO, "4 + 3 + 32 channels is one of masks", id="head of masks"),
        pytest.param("yolo-turned-boxes", ANY_YOLO, "or one of turned boxes", id="head that may be of turned boxes"),
        pytest.param("yolo-square", ANY_YOLO, "Give --layout channels-first or channels-last", id="two readings"),
        pytest.param(
            "yolo-end-to-end", (*ANY_YOLO, "--labels", "two.txt"), "Give --layout channels-last or end-to-end",
            id="head that may have suppressed",
        ),
        pytest.param(
            "yolo-end-to-end", (*ANY_YOLO, "--labels", "two.txt", "--layout", "channels-last"), "holds no shares",
            id="classes read as scores",
        ),
        pytest.param(
            "yolo-end-to-end", (*ANY_YOLO, "--labels", "two.txt", "--layout", "end-to-end"),
            "tells class 2, 2 labels go up to 1", id="a class without a label",
        ),
        pytest.param(
            "yolo-two-labels", (*ANY_YOLO, "--labels", "two.txt", "--layout", "end-to-end"),
            "no whole numbers as classes", id="scores read as classes",
        ),
        pytest.param("yolo-end-to-end", (*ANY_YOLO, "--layout", "sideways"), "Choose one of ch", id="no such layout"),
        pytest.param("yolo-logits", ANY_YOLO, "holds no shares. Check --decode, or export", id="yolo in logits"),
        pytest.param("ssd-logits", ANY_SSD, "holds no shares. Check --decode, or export", id="ssd in logits"),
        pytest.param("centernet-logits", (*CENTERNET, *FLOAT), "holds no shares. Check --dec", id="heatmap in logits"),
        pytest.param("yolo-many", ANY_YOLO, "cannot be decoded: predictions has shape", id="too many boxes"),
        pytest.param("large", (*ANY_CLASS, "--output", "scores=p"), "take more than 128 MiB", id="too large answers"),
        pytest.param("/dev/zero", ANY_CLASS, "too large for a model", id="a model that never ends"),
        pytest.param("logits", (*ANY_CLASS, "--labels", "/dev/zero"), "more than 1048576 bytes", id="endless labels"),
        pytest.param("ssd-heads", (*HEADS, *FLOAT, "--anchors", "/dev/zero"), "cannot be read", id="endless anchors"),
        pytest.param(
            "ssd", (*ANY_SSD, "--labels", "two.txt"), "tells 3 classes apart, and there are 2 labels. Give --backgr",
            id="a label short of ssd",
        ),
        pytest.param(
            "ssd", (*ANY_SSD, "--background"), "3 labels. Leave --background away", id="ssd without a background"
        ),
        pytest.param(
            "ssd-vague", (*ANY_SSD, "--labels", "two.txt"), "tells class 2, 2 labels go up to 1",
            id="a label short of ssd that does not say it",
        ),
        pytest.param("ssd-background", (*ANY_SSD, "--labels", "one.txt"), "labels file of 4 lines", id="ssd of others"),
        pytest.param("logits", ANY_YOLO, "'p' [1, 3] does not fit yolo with 3 labels", id="wrong kind"),
        pytest.param("yolov8-normalized", ANY_CLASS, "does not fit classify with 3 labels", id="another wrong kind"),
        pytest.param(
            "yolov8-normalized", ("--decode", "yolo", "--resize", "stretch", *FLOAT),
            "Give --units pixels or --units normalized", id="units not said",
        ),
        pytest.param("yolov8-pixels", ANY_YOLO, "Give the other one of --units", id="units said wrongly"),
        pytest.param(
            "logits", ("--decode", "classify", "--resize", "stretch", *FLOAT),
            "Give --activation none, softmax or sigmoid", id="activation not said",
        ),
        pytest.param(
            "logits", (*CLASSIFY, "none", "--pixels", "0..255"), "holds no shares", id="activation said wrongly"
        ),
        pytest.param("logits", (*CLASSIFY, "softmax"), "Give --pixels 0..1, -1..1, 0..255", id="pixels not said"),
        pytest.param("logits", (*CLASSIFY, "softmax", "--mean", "1,2,3"), "both --mean and --std", id="half a scaling"),
        pytest.param(
            "logits", (*CLASSIFY, "softmax", "--mean", "1", "--std", "2"), "do not fit 3 channels", id="one mean"
        ),
        pytest.param(
            "logits", ("--decode", "classify", "--activation", "softmax", *FLOAT),
            "Give --resize letterbox, stretch or crop", id="resize not said",
        ),
        pytest.param("logits", (*ANY_CLASS, "--color", "gray"), "does not fit a picture of 3", id="gray of three"),
        pytest.param("logits", (*ANY_CLASS, "--units", "pixels"), "--units says nothing of classify", id="odd flag"),
        pytest.param("logits", (*ANY_CLASS, "--output", "scores=q"), "has no output 'q'", id="no such output"),
        pytest.param("logits", (*ANY_CLASS, "--output", "boxes=p"), "has no role 'boxes'", id="role of another kind"),
        pytest.param(
            "ssd-heads",
            (*HEADS[:HEADS.index("--output")], *FLOAT),
            "Give --output", id="outputs of equal shape",
        ),
        pytest.param(
            "ssd-heads", ("--decode", "ssd-anchors", "--activation", "softmax", "--resize", "crop", *FLOAT),
            "Give --anchors ssd-mobilenet", id="anchors not said",
        ),
        pytest.param(
            "ssd-heads", (*HEADS, *FLOAT, "--anchors", "ssd-mobilenet"), "does not fit ssd-anchors", id="other anchors"
        ),
        pytest.param("ssd-heads", (*HEADS, *FLOAT, "--anchors", "labels.txt"), "txt cannot be read", id="no anchors"),
        pytest.param("logits", (*ANY_CLASS, "--pictures", "nowhere"), "Check --pictures", id="no pictures"),
        pytest.param(
            "logits", (*ANY_CLASS, "--labels", "two.txt"),
            "'p' has 3 scores for 2 labels. Give --background if its first class is no label, else a labels file of 3",
            id="a label short",
        ),
        pytest.param(
            "ssd-heads", (*(flag for flag in HEADS if flag != "--background"), *FLOAT),
            "'raw_scores' has 4 scores for 3 labels", id="a label short of raw heads",
        ),
        pytest.param("logits", (*ANY_CLASS, "--labels", "two.txt", "--no-background"), "2 labels", id="few labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_one_line_with_status_two_and_no_bundle(
    file: str, flags: tuple[str, ...], said: str, graphs: Path, at_hand: Path, bring: Bring
) -> None:
    (at_hand / "two.txt").write_text("day\nnight\n")
    (at_hand / "one.txt").write_text("day\n")
    before = sorted(at_hand.iterdir())
    status, out, err = bring(Path(file) if file.startswith("/") else graphs / f"{file}.tflite", *flags)
    assert (status, out) == (2, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert sorted(at_hand.iterdir()) == before


def test_a_damaged_file_ends_a_child_and_nothing_else(graphs: Path, at_hand: Path) -> None:
    whole = (graphs / "yolov8-normalized.tflite").read_bytes()
    refused = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for at in rng.integers(len(whole) - 3000, len(whole), 2):  # where the graph is described
            damaged[at] = int(rng.integers(0, 256))
        (at_hand / "damaged.tflite").write_bytes(damaged)
        try:
            import_model(
                at_hand / "damaged.tflite",
                at_hand / "labels.txt",
                at_hand / "x.bundle",
                asked=Asked(decode="yolo", units="normalized"),
                picture=Picture(resize="stretch", pixels="0..1"),
                wanted=Wanted(name="m", version="1.0.0", release=1, thresholds=mf.Thresholds(score=0.5)),
                say=lambda _line: None,
            )
        except ConversionError:
            refused += 1
            assert not (at_hand / "x.bundle").exists()
        else:
            Bundle.open(at_hand / "x.bundle")
            (at_hand / "x.bundle").unlink()
    assert refused >= 2, "the damage is felt"


def test_a_model_of_several_inputs_is_refused_by_the_device_too(graphs: Path, at_hand: Path, bring: Bring) -> None:
    assert bring(graphs / "logits.tflite", *ANY_CLASS)[0] == 0
    variant = Bundle.open(at_hand / "x.bundle").manifest.variants[0]
    content = (graphs / "two-inputs.tflite").read_bytes()
    for naming in ("signature", "tensor"):
        with pytest.raises(BundleError, match="takes 2 inputs"):
            Model(content, replace(variant, named_by=naming))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"a\nb\na\n", "'a' stands in lines 1 and 3", id="doubled"),
        pytest.param(b"a\n\nb\n", "line 2: a label has 1 to 100", id="empty"),
        pytest.param(b"a" * 101, "line 1: a label has 1 to 100", id="overlong"),
        pytest.param(b"\xff\xfe", "no UTF-8", id="not UTF-8"),
        pytest.param(b"", "it has 0 labels", id="none"),
        pytest.param(b"x\n" * (1 << 19) + b"x", "more than 1048576 bytes", id="too large"),
    ],
)
def test_a_labels_file_that_is_wrong_is_said_to_be(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_labels(tmp_path / "labels.txt")


def test_a_labels_file_of_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("\ufeffKäse\r\nBrot\r\n\r\n".encode())
    assert read_labels(tmp_path / "labels.txt") == ["Käse", "Brot"]
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "none.txt")


def test_the_preset_is_that_of_ssd_mobilenet() -> None:
    assert PRESETS["ssd-mobilenet"].count(300, 300) == 1917
