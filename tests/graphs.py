"""Small models of every kind that other people's trainers write; ``python graphs.py FOLDER`` makes them: TFLite files,
``.keras`` files, a SavedModel, what the Keras models answer, and bundles of models that break while they run.

A detector's head is a table of drawn numbers whose scores fade with the picture's brightness, so that its answers are
known and still depend on what it sees. A classifier's logits are the means of the colours.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder, flexbuffers

from tinysight_contract import manifest as mf
from tinysight_contract.bundle import file_ref, pack_bundle

H, W, N, LABELS = 32, 48, 40, 3
SMALL_ANCHORS = 32  # strides 16 and 32, four anchors a cell
rng = np.random.default_rng(7)
Call = Callable[..., Any]


def boxes_in_shares(n: int) -> Any:
    """(n, 4): centre x, centre y, width, height."""
    return np.concatenate((rng.uniform(0.2, 0.8, (n, 2)), rng.uniform(0.1, 0.5, (n, 2))), 1).astype(np.float32)


def scores_of(*shape: int) -> Any:
    return (rng.random(shape) ** 2).astype(np.float32)


def brightness(image: Any) -> Any:
    """(1, 1, 1): the mean of a picture in 0..1, by a convolution so that there is something to quantize."""
    small = tf.nn.conv2d(image, tf.constant(np.full((8, 8, 3, 4), 1 / 192, np.float32)), 8, "VALID")
    return tf.reshape(tf.reduce_mean(small, (1, 2, 3)), (1, 1, 1))


def yolo(channels: int, *, first: bool, units: str = "normalized", n: int = N, last: Call = tf.identity) -> Call:
    """Boxes, then ``channels - 4`` numbers that fade with the picture, of which ``last`` makes scores."""
    size = np.array([W, H, W, H] if units == "pixels" else [1, 1, 1, 1], np.float32)
    boxes, scores = (boxes_in_shares(n) * size)[None], scores_of(1, n, channels - 4)

    def head(image: Any) -> Any:
        light = brightness(image)
        table = tf.concat((tf.constant(boxes) + 0 * light, last(tf.constant(scores) * light)), 2)
        return {"output_0": tf.transpose(table, (0, 2, 1)) if first else table}

    return head


def end_to_end(image: Any) -> Any:
    """Corners, score and class of what the graph left, then rows of nothing."""
    centres, (found, filled) = boxes_in_shares(N), (N - 10, 10)
    corners = np.concatenate((centres[:, :2] - centres[:, 2:] / 2, centres[:, :2] + centres[:, 2:] / 2), 1)
    classes = (np.arange(N) % LABELS).astype(np.float32)[:, None]
    held = np.repeat([1.0, 0.0], (found, filled)).astype(np.float32)[None, :, None]
    light = brightness(image)
    parts = (tf.constant(corners[None]) + 0 * light, scores_of(1, N, 1) * light, tf.constant(classes[None]) + 0 * light)
    return {"output_0": tf.concat(parts, 2) * held}


def loud(call: Call) -> Call:
    """The same eight times as strong, so that scores are no shares."""
    return lambda image: {name: 8 * answer for name, answer in call(image).items()}


def ssd_heads(n: int, classes: int, *, logits: bool) -> Call:
    coded = rng.normal(0, 2, (1, n, 4)).astype(np.float32)
    scores = rng.normal(-1, 2, (1, n, classes)).astype(np.float32) if logits else scores_of(1, n, classes)

    def head(image: Any) -> Any:
        return {
            "raw_boxes": tf.constant(coded) + 0 * brightness(image),
            "raw_scores": tf.constant(scores) * brightness(image),
        }

    return head


def centernet(image: Any) -> Any:
    heat, box = scores_of(1, H // 8, W // 8, LABELS), rng.normal(0, 0.5, (1, H // 8, W // 8, 4)).astype(np.float32)
    light = brightness(image)[..., None]
    return {"a": tf.constant(heat) * light, "b": tf.constant(box) + 0 * light}


def colours(image: Any, *, axes: tuple[int, int] = (1, 2), add: float | None = None) -> Any:
    """Logits (1, 3): the mean of each channel; with ``add`` a class before them."""
    means = tf.reduce_mean(image, axes)
    return means if add is None else tf.concat((tf.reshape(means[:, :1] * 0 + add, (1, 1)), means), 1)


def convolved(image: Any) -> Any:
    """A classifier with weights enough to be quantized alone: (1, 3)."""
    kernel = tf.constant(np.random.default_rng(1).normal(0, 0.05, (3, 3, 3, 64)).astype(np.float32))
    grown = tf.nn.relu6(tf.nn.conv2d(image, kernel, 2, "SAME"))
    last = tf.constant(np.random.default_rng(2).normal(0, 0.2, (64, LABELS)).astype(np.float32))
    return {"p": tf.nn.softmax(tf.matmul(tf.reduce_mean(grown, (1, 2)), last))}


def waved(image: Any) -> Any:
    """The same with a layer that has no int8 kernel."""
    return {"p": tf.nn.softmax(tf.sin(colours(tf.nn.relu6(image * 4.0))))}


NHWC = (1, H, W, 3)
FLOAT: dict[str, tuple[Call, tuple[int | None, ...]]] = {
    "yolov8-normalized": (yolo(4 + LABELS, first=True), NHWC),
    "yolov8-pixels": (yolo(4 + LABELS, first=True, units="pixels"), NHWC),
    "yolov5": (yolo(5 + LABELS, first=False), NHWC),
    "yolo-turned-boxes": (yolo(5 + LABELS, first=True, n=50), NHWC),
    "yolo-pose": (yolo(56, first=True, n=60), NHWC),
    "yolo-masks": (yolo(4 + LABELS + 32, first=True, n=50), NHWC),
    "yolo-end-to-end": (end_to_end, NHWC),
    "yolo-two-labels": (yolo(4 + 2, first=False), NHWC),
    "yolo-logits": (loud(yolo(4 + LABELS, first=True)), NHWC),
    "yolo-many": (lambda image: {"p": tf.fill((1, 4 + LABELS, 300_000), brightness(image)[0, 0, 0])}, NHWC),
    "yolo-square": (yolo(4 + LABELS, first=True, n=5 + LABELS), NHWC),
    "ssd-heads": (ssd_heads(SMALL_ANCHORS, LABELS + 1, logits=True), NHWC),
    "ssd-before": (ssd_heads(N, LABELS + 1, logits=False), NHWC),
    "ssd-loud": (loud(ssd_heads(N, LABELS + 1, logits=False)), NHWC),
    "centernet": (centernet, NHWC),
    "centernet-logits": (loud(centernet), NHWC),
    "logits": (lambda image: {"p": colours(image)}, NHWC),
    "probabilities": (lambda image: {"p": tf.nn.softmax(colours(image))}, NHWC),
    "background": (lambda image: {"p": colours(image, add=0.5)}, NHWC),
    "channels-first": (lambda image: {"p": colours(image, axes=(2, 3))}, (1, 3, H, W)),
    "gray": (lambda image: {"p": tf.concat((colours(image), colours(image) * 2, colours(image) * 0), 1)}, (1, H, W, 1)),
    "open-size": (lambda image: {"p": colours(image)}, (1, None, None, 3)),
    "open-batch": (lambda image: {"p": colours(image)}, (None, H, W, 3)),
    "not-a-number": (lambda image: {"p": tf.math.log(colours(image) * 0 - 1)}, NHWC),
    "large": (lambda image: {"p": colours(image), "q": tf.fill((1, 40 << 20), brightness(image)[0, 0, 0])}, NHWC),
    "convolved": (convolved, NHWC),
    "said": (lambda image: {"scores": colours(image)}, NHWC),
    "random": (lambda image: {"p": colours(image) + tf.random.uniform((1, LABELS))}, NHWC),
    "swish": (lambda image: {"p": colours(image * tf.sigmoid(image))}, NHWC),
}
QUANTIZED: dict[str, tuple[Call, str]] = {
    "yolov8-int8": (yolo(4 + LABELS, first=True), "int8"),
    "yolov8-sigmoid-int8": (yolo(4 + LABELS, first=True, last=tf.sigmoid), "int8"),
    "yolov5-int8": (yolo(5 + LABELS, first=False), "int8"),
    "ssd-heads-int8": (ssd_heads(SMALL_ANCHORS, LABELS + 1, logits=True), "int8"),
    "convolved-int8": (convolved, "int8"),
    "convolved-uint8": (convolved, "uint8"),
    "convolved-int8-inside": (convolved, "float32"),
    "convolved-float16": (convolved, "float16"),
    "convolved-dynamic": (convolved, "dynamic"),
    "waved-mixed": (waved, "mixed"),
}


def fails_when_bright(image: Any) -> Any:
    """Reaches beyond its table when more than half of the picture's light is on."""
    light = brightness(tf.cast(image, tf.float32) / 255)
    beyond = tf.gather(tf.zeros((1, 1)) + 0 * light[0], tf.cast(light[0, 0] * 2, tf.int32))
    return {"a": tf.zeros((1, H // 8, W // 8, LABELS)) + beyond, "b": tf.zeros((1, H // 8, W // 8, 4)) + beyond}


def hangs_when_bright(image: Any) -> Any:
    """Runs in circles when more than half of the picture's light is on."""
    light = brightness(tf.cast(image, tf.float32) / 255)
    turns, _ = tf.while_loop(
        lambda _, left: tf.reduce_max(left) > 0.5, lambda turn, left: (turn + 1, left), (tf.zeros((1, 1, 1)), light)
    )
    turns = 0 * turns[..., None]
    return {"a": tf.zeros((1, H // 8, W // 8, LABELS)) + turns, "b": tf.zeros((1, H // 8, W // 8, 4)) + turns}


def nothing_of(answer: Any) -> Any:
    """The answers of a detector that sees nothing, after ``answer``, which is not negative, has been worked out."""
    much = tf.minimum(tf.reduce_max(answer), 0.0)
    return {"a": tf.zeros((1, H // 8, W // 8, LABELS)) + much, "b": tf.zeros((1, H // 8, W // 8, 4)) + much}


def greedy(image: Any) -> Any:
    """Needs 1 GiB for what is between its input and its outputs."""
    light = brightness(tf.cast(image, tf.float32) / 255)
    return nothing_of(tf.sqrt(tf.fill((1, 1 << 27), light[0, 0, 0])))


def slow(image: Any) -> Any:
    """Takes hundreds of times as long as the others."""
    grown = tf.nn.conv2d(tf.cast(image, tf.float32), tf.constant(np.full((3, 3, 3, 64), 0.01, np.float32)), 1, "SAME")
    for _ in range(4):
        grown = tf.nn.relu6(tf.nn.conv2d(grown, tf.constant(np.full((3, 3, 64, 64), 0.001, np.float32)), 1, "SAME"))
    return nothing_of(grown)


def bundle_of(name: str, content: bytes) -> bytes:
    """A detector's bundle whose golden picture is dark, as small as can be and whole."""
    tensors = {"heatmap": ("a", LABELS), "box": ("b", 4)}
    outputs = [
        mf.Output(name=output, role=role, shape=[1, H // 8, W // 8, width], dtype="float32")  # type: ignore[arg-type]  # from the table
        for role, (output, width) in tensors.items()
    ]
    files = {"m.tflite": content, "labels.txt": b"a\nb\nc\n", "golden-input.bin": bytes(H * W * 3)}
    files |= {f"golden-{output.name}.bin": bytes(4 * int(np.prod(output.shape))) for output in outputs}
    variant = mf.Variant(
        file="m.tflite",
        scheme="float32",
        input=mf.Tensor(name="image", shape=[1, H, W, 3], dtype="uint8", scale=1.0),
        outputs=outputs,
        runtimes=[],
        golden={output.name: f"golden-{output.name}.bin" for output in outputs},
    )
    manifest = mf.Manifest(
        name=name,
        version="1.0.0",
        release=1,
        task="detect",
        labels=["a", "b", "c"],
        input=mf.Input(height=H, width=W, resize="stretch"),
        decode=mf.CenterNet(stride=8),
        thresholds=mf.Thresholds(score=0.5),
        variants=[variant],
        golden=mf.Golden(file="golden-input.bin", count=1),
        provenance=mf.Provenance(dataset_digest=None, calibration_digest=None, seed=None, config={}, tools={}),
        files={each: file_ref(data) for each, data in files.items()},
    )
    return pack_bundle(manifest, files)


def converter_of(call: Call, *shapes: tuple[int | None, ...], dtype: Any = tf.float32) -> Any:
    names = ("image", "other")
    specs = [tf.TensorSpec(shape, dtype, name=name) for name, shape in zip(names, shapes, strict=False)]
    module = tf.Module()
    module.serve = tf.function(call, input_signature=specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)


def quantized(call: Call, how: str) -> bytes:
    converter = converter_of(call, NHWC)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if how == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif how != "dynamic":
        pictures = [np.full(NHWC, value, np.float32) for value in (0.0, 1.0)]
        pictures += [np.random.default_rng(i).random(NHWC, np.float32) for i in range(6)]
        converter.representative_dataset = lambda: ([picture] for picture in pictures)
        if how != "mixed":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if how in {"int8", "uint8"}:
            converter.inference_input_type = converter.inference_output_type = getattr(tf, how)
    return bytes(converter.convert())


def edited(content: bytes, change: Callable[[Any], None]) -> bytes:
    """A flatbuffer after a change of its object tree."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    change(model)
    builder = Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def without_signature(model: Any) -> None:
    model.signatureDefs = []


def add_tensor(model: Any, name: str, shape: list[int], data: Any = None) -> int:
    tensor, buffer = schema.TensorT(), schema.BufferT()
    if data is not None:
        buffer.data = np.frombuffer(data.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.type = name, shape, schema.TensorType.FLOAT32
    tensor.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def with_post_processing(model: Any, classes: float = LABELS) -> None:
    """Add ``TFLite_Detection_PostProcess`` behind raw heads, as the Object Detection API does."""
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = "TFLite_Detection_PostProcess", 1
    model.operatorCodes.append(code)
    options = flexbuffers.Builder()
    with options.Map():
        for key, number in {"max_detections": 10, "max_classes_per_detection": 1, "num_classes": classes}.items():
            options.Add(key, number)
        for key, share in {
            "nms_score_threshold": 0.05, "nms_iou_threshold": 0.6,
            "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0,
        }.items():  # fmt: skip
            options.Float(key, share)
    heads = {each.name: each.tensorIndex for each in model.signatureDefs[0].outputs}
    anchors = np.concatenate((rng.uniform(0.2, 0.8, (N, 2)), rng.uniform(0.2, 0.4, (N, 2))), 1).astype(np.float32)
    op = schema.OperatorT()
    op.opcodeIndex = len(model.operatorCodes) - 1
    op.inputs = [heads[b"raw_boxes"], heads[b"raw_scores"], add_tensor(model, "anchors", [N, 4], anchors)]
    names = ("TFLite_Detection_PostProcess", *(f"TFLite_Detection_PostProcess:{i}" for i in (1, 2, 3)))
    shapes = ([1, 10, 4], [1, 10], [1, 10], [1])
    op.outputs = [add_tensor(model, name, shape) for name, shape in zip(names, shapes, strict=True)]
    op.customOptions = np.frombuffer(bytes(options.Finish()), np.uint8)
    op.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    graph.operators.append(op)
    graph.outputs = op.outputs
    model.signatureDefs = []


def without_options(model: Any) -> None:
    """The post-processing reads its options without looking whether there are any."""
    with_post_processing(model)
    model.subgraphs[0].operators[-1].customOptions = None


def with_custom(model: Any, name: str) -> None:
    """Its last operator becomes one that the runtime does not have."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = name, 1
    model.operatorCodes.append(code)
    op = model.subgraphs[0].operators[-1]
    op.opcodeIndex = len(model.operatorCodes) - 1
    op.builtinOptions, op.builtinOptionsType = None, 0


def filled(model: Any, seed: int) -> Any:
    """The model with weights that are the same each time."""
    dice = np.random.default_rng(seed)
    model.set_weights([dice.normal(0, 0.3, each.shape).astype(np.float32) for each in model.get_weights()])
    return model


def keras_models() -> dict[str, Any]:
    """By name: a classifier, a detector whose outputs are a list, and what no device could run."""
    image = keras.Input((H, W, 3), name="image")
    grown = keras.layers.Conv2D(64, 3, 2, padding="same", activation="relu6")(image)
    flat = keras.layers.GlobalAveragePooling2D()(grown)
    scores = keras.layers.Dense(LABELS, activation="softmax")(keras.layers.Dense(64, activation="relu")(flat))
    cells = keras.layers.Conv2D(8, 8, 8, activation="relu6")(image)
    heads = [
        keras.layers.Conv2D(LABELS, 1, activation="sigmoid")(cells),
        keras.layers.Conv2D(4, 1)(cells),
    ]
    other = keras.Input((H, W, 3), name="other")
    return {
        "classifier": filled(keras.Model(image, scores), 1),
        "detector": filled(keras.Model(image, heads), 2),
        "flex": keras.Model(image, keras.ops.erfinv(flat[:, :LABELS])),
        "two-inputs": keras.Model([image, other], flat[:, :LABELS] + keras.layers.GlobalAveragePooling2D()(other)),
    }


def troubles(folder: Path) -> None:
    """Bundles that pass their self-test and fail or hang on a bright picture, need much of something, or crash."""
    calls = {"fails": fails_when_bright, "hangs": hangs_when_bright, "greedy": greedy, "slow": slow}
    for name, call in calls.items():
        bundle = bundle_of(name, bytes(converter_of(call, NHWC, dtype=tf.uint8).convert()))
        (folder / f"{name}.bundle").write_bytes(bundle)
    crashes = edited(bytes(converter_of(FLOAT["ssd-before"][0], NHWC).convert()), without_options)
    (folder / "crashes.bundle").write_bytes(bundle_of("crashes", crashes))


def main(folder: Path) -> None:
    made = {name: bytes(converter_of(call, shape).convert()) for name, (call, shape) in FLOAT.items()}
    made |= {name: quantized(call, how) for name, (call, how) in QUANTIZED.items()}
    made["ssd"] = edited(made["ssd-before"], with_post_processing)
    made["ssd-background"] = edited(made["ssd-before"], lambda model: with_post_processing(model, LABELS + 1))
    made["ssd-vague"] = edited(made["ssd-before"], lambda model: with_post_processing(model, float(LABELS)))
    made["ssd-logits"] = edited(made["ssd-loud"], with_post_processing)
    made["crashes"] = edited(made["ssd-before"], without_options)
    made["no-signature"] = edited(made["centernet"], without_signature)
    made["unknown-operator"] = edited(made["logits"], lambda model: with_custom(model, "NobodysOperator"))
    made["flex"] = edited(made["logits"], lambda model: with_custom(model, "FlexDigamma"))
    both = converter_of(lambda image, other: {"p": colours(image) + colours(other)}, NHWC, NHWC)
    plain = converter_of(lambda image: {"p": colours(tf.cast(image, tf.float32)) / 255}, NHWC, dtype=tf.uint8)
    made |= {"two-inputs": bytes(both.convert()), "bytes": bytes(plain.convert())}
    models = keras_models()
    dense = tf.lite.TFLiteConverter.from_keras_model(models["classifier"])
    dense.optimizations = [tf.lite.Optimize.DEFAULT]
    made["dense-dynamic"] = bytes(dense.convert())
    made["half"], made["text"] = made["logits"][:400], b"this is no model\n" * 40
    troubles(folder)
    for name, content in made.items():
        (folder / f"{name}.tflite").write_bytes(content)
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
    models["classifier"].export(str(folder / "exported"), verbose=False)
    rgb = np.stack([np.random.default_rng(seed).integers(120, 256, (H, W, 3)) for seed in range(4)])
    heat, box = models["detector"](rgb / 255, training=False)
    scores = models["classifier"](rgb / 127.5 - 1, training=False)
    np.savez(folder / "truth.npz", heatmap=heat, box=box, scores=scores)


if __name__ == "__main__":
    (troubles if "--troubles" in sys.argv else main)(Path(sys.argv[1]))
