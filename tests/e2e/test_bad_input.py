"""What is wrong in a command is one line with a mend and status 2."""

import tarfile
from pathlib import Path
from typing import Any

import cv2
import pytest

from tinysight_edge.belt import Belt

WHO = ("--site", "plant-1", "--device", "belt-7")


@pytest.fixture
def bad(tmp_path: Path, belt_bundle: Path) -> dict[str, Path]:
    """Files that are wrong in one way each."""
    raw = belt_bundle.read_bytes()
    (tmp_path / "half.bundle").write_bytes(raw[:50_000])
    assert raw.count(b'"schema": "1.0"') == 1
    (tmp_path / "future.bundle").write_bytes(raw.replace(b'"schema": "1.0"', b'"schema": "2.0"'))
    with tarfile.open(belt_bundle) as held, tarfile.open(tmp_path / "climbs.bundle", "w") as climbs:
        for member in held:
            content = held.extractfile(member)
            member.name = member.name.replace("labels.txt", "../labels.txt")
            climbs.addfile(member, content)
    (tmp_path / "wrong.bundle").write_bytes(raw[:-20_000] + bytes([raw[-20_000] ^ 1]) + raw[-19_999:])
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "a.png"), Belt(1).frame(50)[0])
    (tmp_path / "pictures" / "b.png").write_bytes(b"\x89PNG and then nothing")
    (tmp_path / "video.mp4").write_bytes(b"no video")
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"--bundle": "none.bundle"}, "There is no bundle", id="missing bundle"),
        pytest.param({"--bundle": "half.bundle"}, "half.bundle", id="half-written bundle"),
        pytest.param({"--bundle": "future.bundle"}, "this runtime reads 1.x", id="bundle of an unknown major version"),
        pytest.param({"--bundle": "wrong.bundle"}, "wrong digest", id="bundle with a wrong digest"),
        pytest.param({"--bundle": "climbs.bundle"}, "might leave its folder", id="bundle with a path that climbs out"),
        pytest.param({"--source": "dream"}, "Unknown source", id="unknown source"),
        pytest.param({"--source": "synthetic:moon"}, "no synthetic source", id="unknown synthetic source"),
        pytest.param({"--source": "video.mp4"}, "cannot be opened", id="file that is no video"),
        pytest.param({"--source": "pictures"}, "b.png is broken", id="broken image"),
        pytest.param({"--broker": "mqtt://127.0.0.1:1"}, "No broker answers", id="absent broker"),
        pytest.param({"--broker": "http://x"}, "Write it as mqtt:", id="address of no broker"),
        pytest.param({"--site": "Plant 1"}, "not a valid id", id="site that is no id"),
        pytest.param({"--scheme": "float16"}, "has no variant", id="variant that is not there"),
        pytest.param({"--store": "nowhere"}, "either --bundle or --store", id="two things to run"),
    ],
)
@pytest.mark.usefixtures("bad")
def test_bad_input_is_one_line_with_status_two(
    changes: dict[str, str], said: str, mosquitto: Any, belt_bundle: Path, tinysight: Any
) -> None:
    given = {
        "--bundle": str(belt_bundle), "--source": "synthetic:belt?frames=3", "--broker": mosquitto.url,
        "--site": "s", "--device": "d", **changes,
    }  # fmt: skip
    done = tinysight("run", "--quiet", *(word for pair in given.items() for word in pair))
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


def test_a_refusing_broker_is_one_line_with_status_two(
    make_mosquitto: Any, belt_bundle: Path, tinysight: Any, tmp_path: Path
) -> None:
    (tmp_path / "passwords").touch()
    broker = make_mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    done = tinysight(
        "run", "--quiet", "--bundle", belt_bundle, "--source", "synthetic:belt", "--broker", broker.url, *WHO
    )
    assert done.returncode == 2
    assert "refuses the connection" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("flash", "none.bundle", "--to", "dir:x"), "There is no bundle", id="flash without bundle"),
        pytest.param(("flash", "half.bundle", "--to", "dir:x"), "tampered: half.bundle", id="flash of half a bundle"),
        pytest.param(("flash", "half.bundle", "--to", "moon:x"), "There is no target", id="flash to an unknown target"),
        pytest.param(("watch", "--broker", "mqtt://127.0.0.1:1"), "No broker answers", id="watch without broker"),
        pytest.param(("run", "--store", "x", "--source", "synthetic:belt", "--broker", "mqtt://h", *WHO),
                     "no bundle installed", id="run of an empty store"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("bad")
def test_bad_input_of_the_other_commands_is_one_line_and_writes_nothing(
    arguments: tuple[str, ...], said: str, tinysight: Any, tmp_path: Path
) -> None:
    done = tinysight(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "x").exists()
