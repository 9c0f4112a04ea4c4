"""From a frame to its detections: the same as step by step, only where something moves, and tile by tile."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError, InferenceError
from tinysight_edge.belt import Belt, Truth
from tinysight_edge.config.types import CameraConfig, MotionConfig, TilesConfig
from tinysight_edge.decode import Detections, make_decoder
from tinysight_edge.inference import LOW_BAND, Inference
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor
from tinysight_edge.units import Seconds

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def bundle(belt_bundle: Path) -> Bundle:
    return Bundle.open(belt_bundle)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model.load(bundle)


def camera(*, motion: MotionConfig | None = None, tiles: TilesConfig | None = None) -> CameraConfig:
    return CameraConfig(source="0", motion=motion, tiles=tiles)


def mosaic(seed: int, side: int = 4) -> tuple[Image, list[Truth]]:
    """A large picture of many belts, on which each parcel is small; and what it shows."""
    rows, shown = [], []
    for row in range(side):
        images = []
        for column in range(side):
            image, truths = Belt(seed + row * side + column).frame(200)
            images.append(image)
            for truth in truths:
                x, y = column * 320, row * 240
                x1, y1, x2, y2 = truth.box_px
                shown.append(Truth(truth.parcel, truth.label, (x1 + x, y1 + y, x2 + x, y2 + y), truth.clear))
        rows.append(np.hstack(images))
    return np.vstack(rows), shown


def right_of(found: Detections, shown: list[Truth]) -> int:
    """How many clear parcels were found and named."""
    return sum(
        bool(
            (
                (np.abs(found.boxes_px - np.array(truth.box_px, np.float32)).max(1) < 14)
                & (found.class_ids == truth.label)
                & (found.scores > 0.3945)
            ).any()
        )
        for truth in shown
        if truth.clear
    )


def test_a_frame_shows_what_it_shows_step_by_step(bundle: Bundle, model: Model) -> None:
    infer = Inference(bundle, model)
    prepare = Preprocessor(bundle.manifest.input, model.variant.input)
    threshold = bundle.manifest.thresholds_of(model.variant).score
    decode = make_decoder(bundle.manifest, model.variant, min_score=LOW_BAND * threshold)
    weak = 0
    for number in range(30):
        image, _ = Belt(number).frame(200 + number)
        seen = infer(image, number / 15)
        tensor, fit = prepare(image)
        want = decode(model.run(tensor)).in_frame(fit)
        assert seen.found is not None
        assert np.array_equal(seen.found.boxes_px, want.boxes_px)
        assert np.array_equal(seen.found.scores, want.scores)
        assert np.array_equal(seen.found.class_ids, want.class_ids)
        assert min(seen.preprocess_ms, seen.inference_ms, seen.decode_ms) > 0
        weak += int((seen.found.scores < threshold).sum())
    assert weak > 0, "the low band is told too"


def test_a_still_camera_is_inferred_at_first_and_at_heartbeats(bundle: Bundle, model: Model) -> None:
    infer = Inference(bundle, model, camera(motion=MotionConfig(heartbeat=Seconds(2.0))))
    image, _ = Belt(3).frame(200)
    inferred = [number for number in range(60) if infer(image, number / 10).found is not None]
    assert inferred == [0, 20, 40]
    moving = [infer(Belt(3).frame(200 + number)[0], 6 + number / 10) for number in range(1, 20)]
    assert all(seen.found is not None for seen in moving)
    assert infer(np.ascontiguousarray(image[:200]), 9.0).found is not None, "another size is looked at anew"


def test_tiles_find_small_objects_that_the_whole_frame_hides_and_each_once(bundle: Bundle, model: Model) -> None:
    tiled = Inference(bundle, model, camera(tiles=TilesConfig(columns=4, rows=4, overlap=0.3)))
    plain = Inference(bundle, model)
    right = missed = clear = told = 0
    for seed in (0, 100, 200):
        image, shown = mosaic(seed)
        clear += sum(truth.clear for truth in shown)
        with_tiles, without = tiled(image, 0.0).found, plain(image, 0.0).found
        assert with_tiles is not None
        assert without is not None
        right += right_of(with_tiles, shown)
        missed += right_of(without, shown)
        told += int((with_tiles.scores > 0.3945).sum())
    assert missed < 0.1 * clear
    assert right > 0.6 * clear
    assert told < 1.5 * clear


def test_a_still_tile_keeps_its_objects_while_another_moves(
    bundle: Bundle, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = camera(
        motion=MotionConfig(heartbeat=Seconds(1e9)), tiles=TilesConfig(columns=2, rows=2, overlap=0.0, whole=False)
    )
    still, gated, every = mosaic(7, 2)[0], Inference(bundle, model, config), Inference(bundle, model, config)
    gated(still, 0.0)
    for number in range(1, 30):
        image = still.copy()
        image[20:200, 20:280] = Belt(7).frame(200 + 3 * number)[0][20:200, 20:280]
        got = gated(image, number / 10).found
        assert got is not None
        fresh = Inference(bundle, model, config)(image, 0.0).found
        assert fresh is not None
        assert np.array_equal(got.boxes_px, fresh.boxes_px)
    runs, run = [], model.run_lent

    def counted() -> dict[str, NDArray[Any]]:
        runs.append(1)
        return run()

    monkeypatch.setattr(model, "run_lent", counted)
    image[20:200, 20:280] = Belt(7).frame(400)[0][20:200, 20:280]
    gated(image, 3.0)
    assert len(runs) == 1, "only the tile that moves"
    every(image, 0.0)
    assert len(runs) == 5


def test_cameras_share_a_model_and_not_their_memory(bundle: Bundle, model: Model) -> None:
    config = camera(motion=MotionConfig(heartbeat=Seconds(1e9)))
    first, second = Inference(bundle, model, config), Inference(bundle, model, config)
    image, _ = Belt(3).frame(200)
    assert first(image, 0.0).found is not None
    assert second(image, 0.0).found is not None
    assert first(image, 0.1).found is None


def test_a_classifier_tells_its_strongest_class_however_weak_and_refuses_tiles(world: Path) -> None:
    bundle = Bundle.open(world / "classifier.bundle")
    model = Model.load(bundle)
    seen = Inference(bundle, model)(np.full((90, 120, 3), 128, np.uint8), 0.0).found
    assert seen is not None
    assert np.allclose(seen.boxes_px, [[0, 0, 120, 90]])
    with pytest.raises(ConfigError, match="cannot look at tiles"):
        Inference(bundle, model, camera(tiles=TilesConfig()))


def test_a_model_that_fails_on_a_picture_says_so_and_goes_on_with_the_next(graphs: Path) -> None:
    bundle = Bundle.open(graphs / "fails.bundle")
    infer = Inference(bundle, Model.load(bundle))
    dark, bright = np.zeros((60, 80, 3), np.uint8), np.full((60, 80, 3), 255, np.uint8)
    for number in range(3):
        assert infer(dark, number).found is not None
        with pytest.raises(InferenceError, match=r"m\.tflite fails on a picture.*GATHER") as failed:
            infer(bright, number + 0.5)
        assert "\n" not in str(failed.value)


def test_a_model_that_hangs_passes_its_self_test_and_never_answers_a_bright_picture(graphs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from tinysight_contract.bundle import Bundle; from tinysight_edge.choice import choose\n"
        "from tinysight_edge.inference import Inference\n"
        "bundle = Bundle.open(Path(sys.argv[1])); infer = Inference(bundle, choose(bundle, engine='interpreter'))\n"
        "assert infer(np.zeros((60, 80, 3), np.uint8), 0.0).found is not None\n"
        "print('dark', flush=True); infer(np.full((60, 80, 3), 255, np.uint8), 1.0); print('bright', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code, graphs / "hangs.bundle"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"dark\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(2.0)
        child.kill()
        assert child.stdout.read() == b""


def test_the_frame_is_not_written_into(bundle: Bundle, model: Model) -> None:
    image = np.asarray(cv2.resize(Belt(3).frame(200)[0], (640, 360)), np.uint8)
    before = image.copy()
    for config in (None, camera(motion=MotionConfig(), tiles=TilesConfig())):
        Inference(bundle, model, config)(image, 0.0)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("size", [(240, 320), (96, 128), (61, 243)])
def test_what_the_capture_thread_has_fitted_is_what_the_model_would_have_been_given(
    belt_bundle: Path, size: tuple[int, int]
) -> None:
    bundle = Bundle.open(belt_bundle)
    infer = Inference(bundle, Model.load(bundle))
    image = np.random.default_rng(5).integers(0, 256, (*size, 3)).astype(np.uint8)
    plain, fitted = infer.look(image, 0.0), infer.look(image, 0.0, fitted=infer.fit(image))
    assert plain.answers is not None
    assert fitted.answers is not None
    (_, fit, outputs), (_, same_fit, same) = plain.answers[0], fitted.answers[0]
    assert fit == same_fit
    for name, output in outputs.items():
        assert np.array_equal(output, same[name])


def test_with_tiles_or_a_motion_gate_nothing_is_fitted_before_and_what_was_is_not_used(belt_bundle: Path) -> None:
    bundle = Bundle.open(belt_bundle)
    model = Model.load(bundle)
    image = np.random.default_rng(5).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    tiled = Inference(bundle, model, camera(tiles=TilesConfig()))
    assert tiled.fit(image) is None
    assert Inference(bundle, model, camera(motion=MotionConfig())).fit(image) is None
    stale = Inference(bundle, model).fit(image)
    plain, given = tiled.look(image, 0.0), tiled.look(image, 0.0, fitted=stale)
    assert plain.answers is not None
    assert given.answers is not None
    for (_, _, outputs), (_, _, same) in zip(plain.answers, given.answers, strict=True):
        assert all(np.array_equal(output, same[name]) for name, output in outputs.items())


def test_a_tile_in_which_nothing_moves_is_looked_at_now_and_then(belt_bundle: Path) -> None:
    bundle = Bundle.open(belt_bundle)
    config = camera(tiles=TilesConfig(columns=2, rows=1, whole=False), motion=MotionConfig(heartbeat=Seconds(5.0)))
    infer = Inference(bundle, Model.load(bundle), config)
    rng = np.random.default_rng(1)
    image = rng.integers(0, 60, (240, 640, 3)).astype(np.uint8)
    looked: dict[int, list[float]] = {0: [], 1: []}
    for number in range(120):
        at_s = number / 10
        frame = image.copy()
        frame[100:160, 20 + number : 80 + number] = 255  # never leaves the left tile
        for tile, _, _ in infer.look(frame, at_s).answers or []:
            looked[tile].append(at_s)
    assert len(looked[0]) > 60
    quiet = [at_s for at_s in looked[1] if at_s > 3.0]
    assert 1 <= len(quiet) <= 4
