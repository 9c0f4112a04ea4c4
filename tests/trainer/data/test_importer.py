"""An import takes what can be used, lists what cannot, and is there whole or not at all."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinysight_contract.errors import ConfigError, DataError
from tinysight_trainer.data.dataset import ANNOTATIONS, DATASET, Dataset, open_dataset
from tinysight_trainer.data.formats.raw import Raw
from tinysight_trainer.data.importer import import_pictures
from tinysight_trainer.data.item import Shown
from tinysight_trainer.data.ready import check_ready

Make = Callable[..., Dataset]
Picture = Callable[..., bytes]

CAT, DOG = Shown(label="cat"), Shown(label="dog")


def png_head(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def encoded(mode: str, form: str, *, size: tuple[int, int] = (60, 40), orientation: int = 1) -> bytes:
    image = Image.new(mode, size, 1 if mode == "I;16" else None)
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, form, **({"exif": exif} if form == "JPEG" else {}))
    return out.getvalue()


def test_a_data_set_is_read_back_as_it_was_written(make_data: Make) -> None:
    box = Shown(label="a", box=(1.5, 2.25, 30.0, 40.0), polygons=((1.5, 2.25, 30.0, 40.0, 1.5, 40.0),))
    data = make_data(
        [[box], [], [Shown(label="b", box=(0.0, 0.0, 9.0, 9.0), crowd=True)], [box]], sessions=list("aabb")
    )
    again = open_dataset(data.root)
    assert again.items == data.items
    assert (again.labels, again.task, again.digest, again.figures) == (data.labels, "detect", data.digest, data.figures)
    assert again.notes == ()
    assert json.loads((data.root / DATASET).read_text())["digest"] == data.digest


def test_classes_are_in_natural_order(make_data: Make) -> None:
    data = make_data([[Shown(label=label)] for label in ("10", "9", "b", "a", "1")])
    assert data.labels == ("1", "9", "10", "a", "b")


def test_the_digest_says_what_is_shown_and_not_what_files_are_called(tmp_path: Path, picture: Picture) -> None:
    def raws(prefix: str, *, other: str = "cat") -> Iterator[Raw]:
        for number in range(6):
            label = other if number == 3 else "cat" if number % 2 else "dog"
            yield Raw(name=f"{prefix}{number}.png", content=picture(number), shown=(Shown(label=label),), split="train")

    one, renamed, relabelled = (
        import_pictures(each, tmp_path / str(number), source={})
        for number, each in enumerate((raws("a"), raws("z"), raws("a", other="cow")))
    )
    assert one.digest == renamed.digest != relabelled.digest


def test_a_hand_that_changed_the_annotations_is_noticed(make_data: Make) -> None:
    data = make_data([[CAT], [DOG], [CAT]])
    path = data.root / ANNOTATIONS
    path.write_text(path.read_text().replace('"dog"', '"fox"'))
    assert "was changed" in open_dataset(data.root).notes[0]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda text: text[: len(text) // 2], "damaged", id="cut off"),
        pytest.param(lambda text: text.replace('"000.png"', '"../../etc/passwd"'), "damaged", id="leaves the folder"),
        pytest.param(lambda text: text.replace('"image_id":1', '"image_id":99'), "damaged", id="points to nothing"),
        pytest.param(lambda text: text.replace('"schema":1', '"schema":2'), "schema 2", id="another schema"),
    ],
)
def test_damaged_annotations_are_refused(spoil: Callable[[str], str], said: str, make_data: Make) -> None:
    data = make_data([[CAT], [DOG], [CAT]])
    path = data.root / ANNOTATIONS
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=said):
        open_dataset(data.root)


def test_what_is_no_data_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data synth belt"):
        open_dataset(tmp_path / "none")
    with pytest.raises(DataError, match="tinysight data import"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "is empty", id="zero bytes"),
        pytest.param(b"GIF89a and no more", "broken", id="broken"),
        pytest.param(png_head(1 << 20, 1 << 20), "100 million", id="a billion pixels"),
    ],
)
def test_a_picture_that_cannot_be_used_is_listed(content: bytes, said: str, tmp_path: Path, picture: Picture) -> None:
    raws = [Raw(name=f"{n}.png", content=picture(n), shown=(CAT,)) for n in range(4)]
    data = import_pictures(iter([*raws, Raw(name="bad.png", content=content)]), tmp_path / "data", source={})
    assert len(data.items) == 4
    assert [each.file for each in data.left_out] == ["bad.png"]
    assert said in data.left_out[0].why
    assert open_dataset(data.root).left_out == data.left_out


def test_a_file_that_is_missing_is_listed_and_many_are_an_error(tmp_path: Path, picture: Picture) -> None:
    there = [Raw(name=f"{n}.png", content=picture(n), shown=(CAT,)) for n in range(3)]
    gone = [Raw(name=f"gone{n}.png", file=tmp_path / f"gone{n}.png", shown=(CAT,)) for n in range(4)]
    data = import_pictures(iter([*there, gone[0]]), tmp_path / "data", source={})
    assert [each.why for each in data.left_out] == ["it is missing"]
    with pytest.raises(DataError, match=r"Of 7 images 3 can be used"):
        import_pictures(iter([*there, *gone]), tmp_path / "other", source={})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("mode", "form", "said"),
    [
        pytest.param("RGBA", "PNG", "transparency", id="alpha"),
        pytest.param("I;16", "PNG", "more than 8 bits", id="16 bits"),
        pytest.param("CMYK", "JPEG", "CMYK", id="CMYK"),
        pytest.param("L", "PNG", None, id="grey"),
        pytest.param("RGB", "JPEG", None, id="plain"),
    ],
)
def test_what_the_model_will_not_see_of_a_file_is_said(
    mode: str, form: str, said: str | None, tmp_path: Path, picture: Picture
) -> None:
    raws = [Raw(name=f"{n}.png", content=picture(n), shown=(CAT,)) for n in range(3)]
    data = import_pictures(
        iter([*raws, Raw(name="odd.x", content=encoded(mode, form), shown=(DOG,))]), tmp_path / "data", source={}
    )
    assert len(data.items) == 4
    assert (said is None) == (data.notes == ())
    assert said is None or said in data.notes[0]


def test_a_picture_turned_by_its_exif_data_has_the_sides_that_are_seen(tmp_path: Path, picture: Picture) -> None:
    box = Shown(label="a", box=(1.0, 1.0, 9.0, 9.0))
    raws = [Raw(name=f"{n}.png", content=picture(n), shown=(box,)) for n in range(3)]
    turned = Raw(name="t.jpg", content=encoded("RGB", "JPEG", orientation=6), shown=(box,), size=(40, 60))
    wrong = Raw(name="w.jpg", content=encoded("RGB", "JPEG", size=(62, 40), orientation=6), shown=(box,), size=(62, 40))
    data = import_pictures(iter([*raws, turned, wrong]), tmp_path / "data", source={})
    assert [(item.width, item.height) for item in data.items if item.name == "t.jpg"] == [(40, 60)]
    assert "turned by its EXIF data" in data.left_out[0].why
    assert "1 images: each is turned by its EXIF data." in data.notes


def test_classes_that_differ_only_in_case_are_an_error_with_the_line_that_mends_it(
    tmp_path: Path, picture: Picture
) -> None:
    def raws() -> Iterator[Raw]:
        for number in range(6):
            label = "Cat" if number == 2 else "cat" if number % 2 else "dog"
            yield Raw(name=f"{number}.png", content=picture(number), shown=(Shown(label=label),))

    with pytest.raises(DataError, match="--rename") as caught:
        import_pictures(raws(), tmp_path / "data", source={})
    assert "'Cat' and 'cat'" in caught.value.what
    assert not (tmp_path / "data").exists()
    assert import_pictures(raws(), tmp_path / "data", source={}, rename={"Cat": "cat"}).labels == ("cat", "dog")
    with pytest.raises(ConfigError, match="no class 'cow'"):
        import_pictures(raws(), tmp_path / "other", source={}, rename={"cow": "cat"})


def test_sessions_come_from_names(tmp_path: Path, picture: Picture) -> None:
    raws = [Raw(name=f"cam{n % 2}_day{n // 6}_{n}.png", content=picture(n), shown=(CAT,)) for n in range(12)]
    data = import_pictures(iter(raws), tmp_path / "data", source={}, session=r"^(cam\d+_day\d+)_")
    assert {item.session for item in data.items} == {"cam0_day0", "cam0_day1", "cam1_day0", "cam1_day1"}
    by_session = {
        session: {i.split for i in data.items if i.session == session} for session in {i.session for i in data.items}
    }
    assert all(len(splits) == 1 for splits in by_session.values())
    for pattern, said in (("(", "no regular expression"), ("cam", "has no group")):
        with pytest.raises(ConfigError, match=said):
            import_pictures(iter(raws), tmp_path / "x", source={}, session=pattern)


def test_two_pictures_of_one_name_and_a_folder_in_use_are_refused(tmp_path: Path, picture: Picture) -> None:
    twice = [Raw(name=name, content=picture(1), shown=(CAT,)) for name in ("a.png", "A.png")]
    with pytest.raises(DataError, match="Two images"):
        import_pictures(iter(twice), tmp_path / "data", source={})
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="exists already"):
        import_pictures(iter(twice[:1]), tmp_path / "used", source={})


def test_boxes_and_classes_do_not_mix(tmp_path: Path, picture: Picture) -> None:
    box = Shown(label="a", box=(1.0, 1.0, 9.0, 9.0))
    raws = [Raw(name=f"{n}.png", content=picture(n), shown=(CAT if n else box,)) for n in range(3)]
    with pytest.raises(DataError, match="data sets of their own"):
        import_pictures(iter(raws), tmp_path / "data", source={})


def test_a_reader_that_fails_leaves_nothing(tmp_path: Path, picture: Picture) -> None:
    def raws() -> Iterator[Raw]:
        yield Raw(name="a.png", content=picture(1), shown=(CAT,))
        raise DataError("The label file is broken.", mend="Mend it.")

    with pytest.raises(DataError, match="Mend it"):
        import_pictures(raws(), tmp_path / "data", source={})
    assert list(tmp_path.iterdir()) == []


def test_a_killed_import_leaves_no_data_set_and_the_next_one_succeeds(tmp_path: Path, picture: Picture) -> None:
    for number in range(400):
        path = tmp_path / "src" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number % 40, width=640, height=480))
    command = [sys.executable, "-m", "tinysight_deploy", "data", "import", "src", "--out", "data", "--quiet"]
    killed = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until_s = time.monotonic() + 60
    while not list((tmp_path / ".data.part").glob("images/*/*")) and time.monotonic() < until_s:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(30) == -signal.SIGKILL
    assert not (tmp_path / "data").exists()
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert len(open_dataset(tmp_path / "data").items) == 400
    assert not (tmp_path / ".data.part").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "src" / "a").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "src" / "a" / f"{number}.png").write_bytes(picture(number, width=640, height=480))
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from tinysight_deploy.cli import _run; sys.exit(_run(['data', 'import', 'src', '--out', 'data', '--quiet']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 2
    assert "free space" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


THREE = ["train", "train", "train", "test"]
GOOD = [Shown(label="a", box=(1.0, 1.0, 30.0, 30.0))]


def boxed(*box: float) -> list[list[Shown]]:
    x1, y1, x2, y2 = box
    return [[Shown(label="a", box=(x1, y1, x2, y2))], GOOD, GOOD, GOOD]


@pytest.mark.parametrize(
    ("shown", "splits", "said"),
    [
        pytest.param([[]] * 4, THREE, "Nothing in", id="nothing labelled"),
        pytest.param([[CAT], [DOG]] * 2, [None] * 4, "is not split", id="not split"),
        pytest.param([[CAT], [DOG]] * 2, ["train"] * 4, "no images for test", id="no test"),
        pytest.param([[CAT]] * 4, THREE, "one class", id="one class"),
        pytest.param([[CAT], [CAT], [CAT], [DOG]], THREE, "'dog' has no example", id="class only in the test"),
        pytest.param([[CAT, DOG], [DOG], [CAT], [DOG]], THREE, "of 2 classes", id="two classes"),
        pytest.param(boxed(5, 5, 5, 9), THREE, "is empty", id="box without area"),
        pytest.param(boxed(70, 1, 80, 9), THREE, "lies outside", id="box outside"),
        pytest.param(boxed(1, 1, 80, 9), THREE, "sticks out", id="box sticks out"),
        pytest.param([GOOD, GOOD, GOOD, []], THREE, "show nothing", id="empty test"),
        pytest.param([[Shown(label="a\n", box=GOOD[0].box)]] * 4, THREE, "no usable label", id="unreadable label"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    shown: list[list[Shown]], splits: list[str | None], said: str, make_data: Make
) -> None:
    data = make_data(shown, splits=splits if any(splits) else [])
    if not any(splits):
        data = data.with_items([_unsplit(item) for item in data.items])
    with pytest.raises(DataError, match=said):
        check_ready(data)


def _unsplit(item: Any) -> Any:
    from msgspec.structs import replace

    return replace(item, split=None)


def test_what_is_passed_over_is_said(make_data: Make) -> None:
    data = make_data(
        [[CAT], [DOG], [CAT], [DOG], [CAT], []],
        splits=["train", "train", "test", "test", None, None],
        labelled=[True] * 5 + [False],
    )
    assert check_ready(data) == (
        "1 labelled images are in no split and left out; `tinysight data split` adds them.",
        "1 images are not labelled and left out.",
    )


def test_one_image_in_two_splits_is_refused(tmp_path: Path, picture: Picture) -> None:
    raws = [
        Raw(
            name=f"{n}.png",
            content=picture(n // 2),
            shown=((CAT, DOG)[n // 2 % 2],),
            split="test" if n == 3 else "train",
        )
        for n in range(8)
    ]
    with pytest.raises(DataError, match="the same image"):
        check_ready(import_pictures(iter(raws), tmp_path / "data", source={}))


def test_a_hundred_thousand_pictures_are_never_held_at_once(tmp_path: Path, picture: Picture) -> None:
    """The reader is asked for a few more only when the last few are done."""
    asked = 0
    ahead = []

    def raws() -> Iterator[Raw]:
        nonlocal asked
        for number in range(500):
            asked += 1
            yield Raw(name=f"{number}.png", content=picture(number % 7, width=16, height=16), shown=(CAT,))

    import_pictures(raws(), tmp_path / "data", source={}, progress=lambda done: ahead.append(asked - done))
    assert np.max(ahead) <= 64


@pytest.mark.parametrize("label", ["", "x" * 101])
def test_what_could_not_be_read_back_does_not_replace_what_can(label: str, make_data: Make) -> None:
    from msgspec.structs import replace

    data = make_data([[CAT], [DOG], [CAT], [DOG]])
    spoiled = data.with_items([replace(item, shown=(Shown(label=label),)) for item in data.items])
    with pytest.raises(DataError, match="cannot be written"):
        spoiled.save()
    assert open_dataset(data.root).items == data.items
