"""A frame goes into the model's picture, and boxes find their way back."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinysight_contract.errors import ShapeError
from tinysight_contract.manifest import Input, Tensor
from tinysight_edge.preprocess import Fit, Preprocessor, fit_picture

sides = st.integers(1, 4000)


def frame(height: int, width: int, bgr: tuple[int, int, int] = (10, 20, 30)) -> NDArray[np.uint8]:
    return np.full((height, width, 3), bgr, np.uint8)


@given(
    sides, sides, st.sampled_from(["letterbox", "stretch", "crop"]), st.lists(st.floats(0, 1), min_size=4, max_size=4)
)
def test_a_box_goes_into_the_model_and_comes_back(
    frame_w: int, frame_h: int, resize: str, corners: list[float]
) -> None:
    spec = Input(height=96, width=128, resize=resize)  # type: ignore[arg-type]  # sampled from the literals
    fit = Fit.of(frame_w, frame_h, spec)
    box = np.array([corners], np.float32) * np.array((frame_w, frame_h) * 2, np.float32)
    again = fit.to_frame(fit.to_model(box))
    assert np.allclose(again, box, atol=1e-3 * max(frame_w, frame_h))


@given(sides, sides)
def test_a_letterbox_shows_the_whole_frame_and_keeps_it_in_the_middle(frame_w: int, frame_h: int) -> None:
    fit = Fit.of(frame_w, frame_h, Input(height=96, width=128))
    whole = fit.to_model(np.array([[0, 0, frame_w, frame_h]], np.float32))[0]
    assert whole[0] >= 0
    assert whole[1] >= 0
    assert whole[2] <= 128 + 1e-3
    assert whole[3] <= 96 + 1e-3
    assert abs((128 - whole[2]) - whole[0]) <= 1 + 1e-3
    assert abs((96 - whole[3]) - whole[1]) <= 1 + 1e-3


def test_a_mark_in_the_frame_is_where_the_fit_says() -> None:
    image = frame(240, 320, (0, 0, 0))
    cv2.rectangle(image, (100, 60), (139, 99), (255, 255, 255), -1)
    spec = Input(height=128, width=128)
    out = np.empty((128, 128, 3), np.uint8)
    fit = fit_picture(image, spec, out)
    ys, xs = np.nonzero(out[..., 0] > 200)
    want = fit.to_model(np.array([[100, 60, 140, 100]], np.float32))[0]
    assert np.allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], want, atol=1.0)


def test_the_padding_has_the_fill_and_the_colour_order_is_the_manifests() -> None:
    out = np.empty((64, 64, 3), np.uint8)
    fit_picture(frame(32, 64), Input(height=64, width=64, fill=114), out)
    assert (out[:16] == 114).all()
    assert (out[32] == (30, 20, 10)).all(), "RGB"
    fit_picture(frame(64, 64), Input(height=64, width=64, color="BGR"), out)
    assert (out == (10, 20, 30)).all()
    gray = np.empty((64, 64, 1), np.uint8)
    fit_picture(frame(64, 64, (50, 50, 50)), Input(height=64, width=64, color="GRAY"), gray)
    assert (gray == 50).all()


def test_a_strip_of_one_pixel_is_filled_too() -> None:
    out = np.full((96, 96, 3), 7, np.uint8)
    fit_picture(frame(646, 640), Input(height=96, width=96, fill=114), out)
    assert not (out == 7).any()


def test_a_crop_fills_the_picture_and_cuts_the_longer_side() -> None:
    out = np.zeros((64, 64, 3), np.uint8)
    image = frame(100, 300)
    image[:, :50] = 255
    fit_picture(image, Input(height=64, width=64, resize="crop"), out)
    assert (out == (30, 20, 10)).all(), "the white strip lies outside"


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "mean", "std", "want"),
    [
        pytest.param("uint8", 1.0, 0, None, None, 30, id="bytes as they are"),
        pytest.param("float32", 0.0, 0, None, None, 30.0, id="float"),
        pytest.param("float32", 0.0, 0, [20.0] * 3, [5.0] * 3, 2.0, id="mean and deviation"),
        pytest.param("int8", 1.0, -128, None, None, -98, id="signed"),
        pytest.param("int8", 0.02, -10, [0.0] * 3, [255.0] * 3, -4, id="quantized after normalisation"),
        pytest.param("uint8", 0.05, 0, None, None, 255, id="saturates"),
    ],
)
def test_the_tensor_holds_what_the_manifest_asks_for(
    dtype: str, scale: float, zero_point: int, mean: list[float] | None, std: list[float] | None, want: float
) -> None:
    spec = Input(height=16, width=16, mean=mean, std=std)
    tensor = Tensor(name="x", shape=[1, 16, 16, 3], dtype=dtype, scale=scale, zero_point=zero_point)  # type: ignore[arg-type]  # from the table
    made, _ = Preprocessor(spec, tensor)(frame(16, 16, (30, 30, 30)))
    assert made.dtype == dtype
    assert made.shape == (1, 16, 16, 3)
    assert np.allclose(made, want)


def test_channels_come_first_where_the_model_wants_them_so() -> None:
    tensor = Tensor(name="x", shape=[1, 3, 16, 16], dtype="float32")
    made, _ = Preprocessor(Input(height=16, width=16, layout="NCHW"), tensor)(frame(16, 16))
    assert made.shape == (1, 3, 16, 16)
    assert made[0, :, 0, 0].tolist() == [30, 20, 10]


DTYPES = st.sampled_from(["float32", "int8", "uint8"])


@given(
    st.sampled_from(["NHWC", "NCHW"]),
    st.sampled_from(["RGB", "BGR", "GRAY"]),
    DTYPES,
    st.booleans(),
    st.lists(st.floats(0, 255), min_size=3, max_size=3),
    st.lists(st.floats(1, 255), min_size=3, max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_every_value_is_where_and_what_a_plain_loop_says(
    layout: str, color: str, dtype: str, normalised: bool, mean: list[float], std: list[float], seed: int
) -> None:
    channels = 1 if color == "GRAY" else 3
    statistics = {"mean": mean[:channels], "std": std[:channels]} if normalised else {}
    spec = Input(height=4, width=6, layout=layout, color=color, resize="stretch", **statistics)  # type: ignore[arg-type]  # sampled from the literals
    shape = [1, 4, 6, channels] if layout == "NHWC" else [1, channels, 4, 6]
    quantized = {} if dtype == "float32" else {"scale": 0.02 if normalised else 1.0, "zero_point": -3 % 128}
    tensor = Tensor(name="x", shape=shape, dtype=dtype, **quantized)  # type: ignore[arg-type]  # from the table
    image = np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    made, _ = Preprocessor(spec, tensor)(image)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    for y in range(4):
        for x in range(6):
            pixel = {"RGB": image[y, x, ::-1], "BGR": image[y, x], "GRAY": gray[y, x : x + 1]}[color]
            for c in range(channels):
                want = float(pixel[c])
                if normalised:
                    want = (want - mean[c]) / std[c]
                got = made[0, y, x, c] if layout == "NHWC" else made[0, c, y, x]
                if dtype == "float32":
                    assert got == pytest.approx(want, rel=1e-5, abs=1e-5)
                else:
                    low, high = (0, 255) if dtype == "uint8" else (-128, 127)
                    assert got == min(high, max(low, round(want / tensor.scale) + tensor.zero_point))


def test_the_buffer_is_made_once() -> None:
    prepare = Preprocessor(Input(height=16, width=16), Tensor(name="x", shape=[1, 16, 16, 3], dtype="uint8", scale=1.0))
    first, second = prepare(frame(8, 8))[0], prepare(frame(20, 20))[0]
    assert np.shares_memory(first, second)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_frame_is_refused(bad: NDArray[np.uint8]) -> None:
    with pytest.raises(ShapeError):
        fit_picture(bad, Input(height=16, width=16), np.empty((16, 16, 3), np.uint8))


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["letterbox", "stretch", "crop"]),
    st.sampled_from(["RGB", "BGR", "GRAY"]),
    st.integers(0, 2**32 - 1),
)
def test_a_picture_is_what_resizing_and_pasting_gives_and_the_frame_stays_as_it_was(
    height: int, width: int, resize: str, color: str, seed: int
) -> None:
    spec = Input(height=40, width=56, resize=resize, color=color)  # type: ignore[arg-type]  # sampled from the literals
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    before = image.copy()
    channels = 1 if color == "GRAY" else 3
    out = np.full((1, 40, 56, channels), 7, np.uint8)
    prepare = Preprocessor(spec, Tensor(name="x", shape=[1, 40, 56, channels], dtype="uint8", scale=1.0))
    for _ in range(2):  # the second time into what the first has left
        tensor, fit = prepare(image, out)
    assert tensor is out
    assert np.array_equal(image, before)
    inner = (round(width * fit.scale_x), round(height * fit.scale_y))
    small = cv2.resize(image, inner)
    if color != "BGR":
        small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB if color == "RGB" else cv2.COLOR_BGR2GRAY)
    want = np.full((40, 56, channels), spec.fill, np.uint8)
    for y in range(40):
        for x in range(56):
            from_y, from_x = y - int(fit.pad_y), x - int(fit.pad_x)
            if 0 <= from_y < inner[1] and 0 <= from_x < inner[0]:
                want[y, x] = small[from_y, from_x]
    assert np.array_equal(out[0], want)
