"""A fake-quantized model answers in float what its int8 file answers on the device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract.errors import ConversionError
from tinysight_converters.audit import float_tensors, operators
from tinysight_converters.calibration import fit_examples
from tinysight_converters.run import load_examples, load_run
from tinysight_converters.tflite import Recipe, convert_model
from tinysight_converters.trial import try_model
from tinysight_edge.interpreter import find_runtime

Pictures = NDArray[np.uint8]


def of_run(folder: Path) -> tuple[Any, Pictures, Pictures]:
    """A trained model, pictures to calibrate with, and others."""
    import keras

    run, examples = load_run(folder), load_examples(folder)
    model = keras.models.load_model(folder / "model.keras", compile=False)
    seen, others = (fit_examples(side, Path(run.dataset), run.input) for side in (examples.calibration, examples.test))
    return model, seen, others


def noise(channels: int) -> tuple[Pictures, Pictures]:
    pictures = np.random.default_rng(0).integers(0, 256, (32, 16, 16, channels)).astype(np.uint8)
    return pictures[:16], pictures[16:]


def as_if_trained(model: Any) -> Any:
    """Give every normalisation and bias something to fold."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if variable.name not in {"kernel", "seed_generator_state"}:
            variable.assign(np.asarray(variable) * rng.uniform(0.5, 1.5, variable.shape))
            if variable.name in {"bias", "beta", "moving_mean"}:
                variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


def swish(_: Path) -> tuple[Any, Pictures, Pictures]:
    """Depthwise and pointwise convolutions, each with swish."""
    import keras
    from keras import layers

    image = keras.Input((16, 16, 1), name="image")
    x = layers.Rescaling(1 / 255)(image)
    for channels, stride in ((8, 2), (16, 2), (16, 1)):
        convolutions = (
            layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False),
            layers.Conv2D(channels, 1, use_bias=False),
        )
        for convolution in convolutions:
            x = layers.Activation("swish")(layers.BatchNormalization()(convolution(x)))
    scores = layers.Dense(7, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return as_if_trained(keras.Model(image, {"scores": scores})), *noise(1)


def all_layers(_: Path) -> tuple[Any, Pictures, Pictures]:
    """Everything that can be quantized, once at least, with a model inside the model."""
    import keras
    from keras import layers

    inner = keras.Input((16, 16, 3))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Rescaling([1 / 50, 1 / 60, 1 / 70], -2.0)(inner))
    y = layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(y))
    inside = keras.Model(inner, {"small": layers.AveragePooling2D(3)(y), "large": y})
    image = keras.Input((16, 16, 3), name="image")
    maps = inside(image)
    up = layers.UpSampling2D(3, interpolation="bilinear")(layers.Conv2D(8, 1, activation="hard_silu")(maps["small"]))
    x = layers.Add()([maps["large"], layers.BatchNormalization()(layers.Conv2D(8, 1)(up))])
    both = layers.Add()([x, layers.ReLU()(x)])
    heat = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="sigmoid", name="heat")(layers.ReLU(6.0)(both))
    flat = layers.Flatten()(layers.Reshape((27, 3, 8))(layers.Dropout(0.5)(x)))
    scores = layers.Softmax()(layers.Dense(5)(flat))
    return as_if_trained(keras.Model(image, {"heatmap": heat, "scores": scores})), *noise(3)


def trained(task: str) -> Callable[[Path], tuple[Any, Pictures, Pictures]]:
    return lambda world: of_run(world / task)


@pytest.mark.parametrize(
    ("make", "near", "furthest"),
    [
        # Of all outputs, how many may be more than one step off, and how far the furthest. Both sides round the same
        # numbers; where one lies within float's error of a half they part by a step, which 17 layers carry on.
        pytest.param(trained("classifier"), 1.0, 1, id="classifier"),
        pytest.param(trained("detector"), 0.99, 3, id="detector"),
        pytest.param(swish, 1.0, 1, id="depthwise and swish"),
        # A sigmoid is steep: a step of what goes in is up to three of what comes out.
        pytest.param(all_layers, 0.98, 3, id="every layer there is"),
    ],
)
def test_the_int8_file_answers_what_the_fake_quantized_model_answers(
    make: Callable[[Path], tuple[Any, Pictures, Pictures]], near: float, furthest: int, world: Path, tmp_path: Path
) -> None:
    import keras

    from tinysight_converters.clone import quantized_clone
    from tinysight_converters.ranges import calibrate

    keras.utils.set_random_seed(0)
    model, seen, pictures = make(world)
    quantized = quantized_clone(model)
    calibrate(quantized, seen, method="mse")
    quantized.save(tmp_path / "q.keras")
    (content,) = convert_model(tmp_path / "q.keras", seen[:1], [Recipe(scheme="int8-qat")]).files
    runtime = find_runtime()
    trial = try_model(content).loaded()
    assert float_tensors(trial) == []
    assert not {"DEQUANTIZE", "TRANSPOSE"} & set(operators(trial))
    interpreter = runtime.interpreter(model_content=content)
    runner = interpreter.get_signature_runner()
    assert {each["quantization"] for each in runner.get_input_details().values()} == {(1.0, 0)}, "raw pictures go in"
    answers = [runner(image=picture[None]) for picture in pictures]
    again = keras.models.load_model(tmp_path / "q.keras", compile=False, safe_mode=True)
    wanted = again(pictures.astype(np.float32), training=False)
    reference = model(pictures.astype(np.float32), training=False)
    assert set(wanted) == set(reference) == set(answers[0])
    for name, details in runner.get_output_details().items():
        scale, zero = details["quantization"]
        got = np.concatenate([answer[name] for answer in answers]).astype(np.float64)
        steps = np.abs(got - (np.asarray(wanted[name], np.float64) / scale + zero))
        assert got.std() > 2, "it answers something"
        assert (steps < 1.01).mean() >= near
        assert steps.max() < furthest + 0.01
        assert np.corrcoef(np.ravel(wanted[name]), np.ravel(reference[name]))[0, 1] > 0.98, "it is still that model"


def toy(add: Callable[[Any], Any], side: int = 16) -> Any:
    import keras

    image = keras.Input((side, side, 3), name="image")
    return keras.Model(image, {"box": add(image)})


def refused(kind: str) -> Any:
    import keras
    from keras import layers

    shared = layers.Conv2D(3, 3, padding="same", name="odd")
    return toy({
        "layer": layers.LayerNormalization(name="odd"),
        "activation": layers.Conv2D(4, 3, activation="gelu", name="odd"),
        "nearest": layers.UpSampling2D(2, name="odd"),
        "lone normalisation": layers.BatchNormalization(name="odd"),
        "late normalisation": lambda x: layers.BatchNormalization(name="odd")(layers.ReLU()(layers.Conv2D(4, 3)(x))),
        "leaky": layers.ReLU(negative_slope=0.1, name="odd"),
        "operation": keras.ops.exp,
        "used twice": lambda x: shared(shared(x)),
    }[kind])  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("layer", "Layer odd is a LayerNormalization.*Use one of: Activation, Add, "),
        ("activation", "Layer odd has the activation gelu.*relu6"),
        ("nearest", "odd does not upsample bilinearly"),
        ("lone normalisation", "odd does not follow a convolution of its own"),
        ("late normalisation", "odd does not follow a convolution of its own"),
        ("leaky", "odd is a ReLU of another kind"),
        ("operation", "is a Exp, which"),
        ("used twice", "odd is used twice"),
    ],
)
def test_what_cannot_be_quantized_is_refused_by_name(kind: str, said: str) -> None:
    from tinysight_converters.clone import quantized_clone

    with pytest.raises(ConversionError, match=said):
        quantized_clone(refused(kind))


def test_a_rare_outlier_is_cut_off_by_squared_error_and_not_by_least_and_greatest() -> None:
    from keras import layers

    from tinysight_converters.clone import quantized_clone
    from tinysight_converters.ranges import calibrate, fake_quants

    model = toy(layers.Conv2D(1, 1), side=128)
    model.set_weights([np.array([0.9, 0.7, 0.4]).reshape(1, 1, 3, 1), np.zeros(1)])
    pictures = np.random.default_rng(0).integers(0, 8, (100, 128, 128, 3)).astype(np.uint8)
    pictures[0, 0, 0] = 255  # one of 1.6 million
    wide, narrow = quantized_clone(model), quantized_clone(model)
    calibrate(wide, pictures, method="minmax")
    calibrate(narrow, pictures, method="mse")
    assert [float(grid.high) for grid in fake_quants(wide)] == pytest.approx([510.0], rel=0.01)
    assert 14 < float(fake_quants(narrow)[0].high) < 255
    plain = pictures[1:9].astype(np.float32)
    errors = [np.abs(np.asarray(each(plain)["box"] - model(plain)["box"])).mean() for each in (wide, narrow)]
    assert errors[1] < 0.6 * errors[0]


def test_an_average_of_weights_leaves_the_range_of_raw_pictures_exact() -> None:
    from keras import layers

    from tinysight_converters.clone import quantized_clone
    from tinysight_converters.fake_quant import FakeQuant

    model = quantized_clone(toy(layers.Conv2D(1, 1)))
    model.set_weights([np.float32(0.3) * weight + np.float32(0.7) * weight for weight in model.get_weights()])
    first = next(layer for layer in model.layers if isinstance(layer, FakeQuant))
    assert (first.low, first.high) == (0.0, 255.0)
