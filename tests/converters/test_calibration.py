"""The calibration set covers, is fed as a device feeds, and is none of what is tested."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tinysight_contract.errors import DataError
from tinysight_contract.manifest import Input
from tinysight_converters.calibration import _looks, _spread, choose_calibration, read_calibration
from tinysight_converters.run import load_examples, load_run

SPEC = Input(height=8, width=8)
NOBODY = np.zeros((0, 8, 8, 3), np.uint8)


def pictures(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)


def test_every_class_is_among_the_chosen_and_the_odd_one_out_too() -> None:
    drawn = pictures(60) // 8 + 100
    drawn[17] = 255  # looks like no other
    shown = [{0}] * 55 + [{1}] * 4 + [{2}]
    chosen = _spread(_looks(drawn), shown, 12)
    assert len(set(chosen)) == 12
    assert {label for at in chosen for label in shown[at]} == {0, 1, 2}
    assert 17 in chosen


def test_fewer_than_wanted_are_all_taken() -> None:
    assert sorted(_spread(_looks(pictures(5)), [set()] * 5, 100)) == [0, 1, 2, 3, 4]


def test_the_set_of_a_run_reaches_from_black_to_white_and_is_not_tested_with(world: Path) -> None:
    run, examples = load_run(world / "classifier"), load_examples(world / "classifier")
    one = choose_calibration(examples.calibration, Path(run.dataset), run.input)
    again = choose_calibration(examples.calibration, Path(run.dataset), run.input)
    assert one.digest == again.digest
    assert (one.pictures.min(), one.pictures.max()) == (0, 255)
    assert not {name.split()[0] for name in one.names} & {each.sha256 for each in examples.test}


def test_a_folder_of_images_is_fitted(tmp_path: Path) -> None:
    for number, picture in enumerate(pictures(3)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.kron(picture, np.ones((4, 3, 1), np.uint8)))
    held = read_calibration(tmp_path, SPEC, held_out=NOBODY)
    assert held.pictures.shape == (3, 8, 8, 3)
    assert held.names == ["0.png", "1.png", "2.png"]


def test_an_array_is_taken_as_it_is_but_for_its_ends(tmp_path: Path) -> None:
    drawn = pictures(4)
    np.save(tmp_path / "set.npy", drawn.astype(np.float32))
    held = read_calibration(tmp_path / "set.npy", SPEC, held_out=NOBODY)
    assert np.array_equal(held.pictures[1:], drawn[1:])
    assert (held.pictures[0, 0, 0] == 0).all()
    assert (held.pictures[0, -1, -1] == 255).all()


@pytest.mark.parametrize(
    ("array", "said"),
    [
        pytest.param(pictures(4) / 255.0, "spans 0 to 1 of the 0 to 255", id="scaled to 0..1"),
        pytest.param(pictures(4) / 127.5 - 1, "a device feeds 0 to 255", id="scaled to -1..1"),
        pytest.param(pictures(4)[:, :, :, :1], r"\(4, 8, 8, 1\), the model takes \(8, 8, 3\)", id="grey"),
        pytest.param(pictures(4)[:, :4], "the model takes", id="another size"),
        pytest.param(pictures(4)[:0], "the model takes", id="none"),
        pytest.param(np.full((4, 8, 8, 3), np.nan), "a device feeds 0 to 255", id="no numbers"),
        pytest.param(np.array(["a"]), "holds no pictures", id="text"),
    ],
)
def test_a_set_that_is_not_what_a_device_feeds_is_refused(array: np.ndarray, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", array)
    with pytest.raises(DataError, match=said):
        read_calibration(tmp_path / "set.npy", SPEC, held_out=NOBODY)


def test_objects_in_an_array_file_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_calibration(tmp_path / "set.npy", SPEC, held_out=NOBODY)


def header(text: str) -> bytes:
    """A .npy with this where its type and shape stand."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(768)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"PK\x03\x04 a zip", id="half a zip"),
        pytest.param(header("((("), id="open brackets"),
        pytest.param(header("{'descr': 1 2"), id="no Python"),
        pytest.param(header("-" * 9000 + "1"), id="deep"),
        pytest.param(header("{'descr': '<f4', 'fortran_order': False, 'shape': (-5,)}"), id="negative"),
        pytest.param(header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30},)}}"), id="huge"),
        pytest.param(header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}"), id="no number"),
        pytest.param(header("{'descr': (), 'fortran_order': False, 'shape': (1,)}"), id="no type"),
    ],
)
def test_a_damaged_array_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "set.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"set\.npy cannot be read: [^\n]{4,250}\Z"):
        read_calibration(tmp_path / "set.npy", SPEC, held_out=NOBODY)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), pictures(1)[0])
    (tmp_path / "0.png").mkdir()
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png is broken"):
        read_calibration(tmp_path, SPEC, held_out=NOBODY)


def test_a_picture_of_the_proof_is_refused(tmp_path: Path) -> None:
    drawn = pictures(4)
    np.save(tmp_path / "set.npy", drawn)
    with pytest.raises(DataError, match="picture 2 is also tested with"):
        read_calibration(tmp_path / "set.npy", SPEC, held_out=drawn[2:3])


def test_an_empty_folder_and_a_missing_file_say_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 0 images"):
        read_calibration(tmp_path, SPEC, held_out=NOBODY)
    with pytest.raises(DataError, match="cannot be read"):
        read_calibration(tmp_path / "none.npy", SPEC, held_out=NOBODY)
