"""What the benchmarks of the edge stand on: trained detectors, a video, a broker. Made once and kept.

Everything is made by the commands that a user types, and kept below the user's cache under a digest of its recipe.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from steps import tinysight
from yard import FPS, LABELS, Yard

from tinysight_edge.belt import LABELS as DIGITS
from tinysight_edge.belt import Belt

__all__ = ["MODELS", "broker", "detector", "kept", "long_video", "parcel_detector", "say", "write_h264", "yard_video"]

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinysight" / "benchmarks"
CLEAR_SHARE: Final = 0.7  # of which less is in view is not to be named
VIDEO_SEED: Final = 20
BELT_SEED: Final = 7
PARCEL_PICTURES: Final = 2000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a detector of the yard is trained.

    Attributes:
        pictures: to train on; a sixth of that is to calibrate with, and as many to test.
        flags: of ``tinysight train``.
    """

    pictures: int
    flags: tuple[str, ...]


MODELS: Final = {
    "small": Recipe(600, ("--input", "128x96", "--epochs", "12", "--batch", "8")),
    "large": Recipe(180, ("--input", "320x320", "--scale", "1.25", "--epochs", "8", "--batch", "4")),
}
"""``small``: the architecture and input of the demo's belt detector. ``large``: 320x320 and 0.7 million parameters."""
LOOKS: Final = ("--turn", "0", "--slant", "0", "--seed", "1")


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def program(name: str) -> str:
    """Where a program of Debian's is."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        raise SystemExit(f"{name} is needed: apt-get install {name}")
    return path


def kept(name: str, recipe: object, make: Callable[[Path], None]) -> Path:
    """A file below the cache: found by the digest of its recipe, or made now, whole or not at all."""
    drawn = Yard(0).frame(0)[0].tobytes()
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode() + drawn).hexdigest()[:12]
    path = CACHE / f"{Path(name).stem}-{digest}{Path(name).suffix}"
    if not path.exists():
        say(f"making {path} once")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            part = Path(folder) / name
            make(part)
            part.replace(path)
    return path


def detector(name: str) -> Path:
    """The bundle of one of `MODELS`; minutes at the first time."""
    recipe = MODELS[name]

    def make(out: Path) -> None:
        folder = out.parent
        _draw_pictures(folder / "pictures", recipe.pictures)
        tinysight("data", "import", "pictures", "--out", "data", cwd=folder)
        trained = tinysight("train", "data", "--out", "run", *recipe.flags, *LOOKS, cwd=folder)
        proof = tinysight("convert", "run", "--out", out.name, cwd=folder)
        say(
            f"{name}: {trained['params']} parameters, {trained['train_s']:.0f} s, AP50 in int8 {proof['int8_ap50']:.3f}"
        )

    return kept(f"{name}.bundle", [recipe.pictures, recipe.flags, LOOKS], make)


def parcel_detector() -> Path:
    """The demo's detector, trained on the belt to find parcels whatever their digit; four minutes at the first time.

    One that reads the digits doubts one parcel in a hundred so much that it is rightly never believed.
    """

    def make(out: Path) -> None:
        folder, seed = out.parent, ("--seed", str(BELT_SEED))
        tinysight("data", "synth", "belt", "--out", "digits", "--images", str(PARCEL_PICTURES), *seed, cwd=folder)
        merged = [word for digit in DIGITS for word in ("--rename", f"{digit}=parcel")]
        tinysight("data", "export", "digits", "--format", "yolo", "--out", "yolo", cwd=folder)
        tinysight("data", "import", "yolo", "--out", "data", *merged, cwd=folder)
        tinysight("train", "data", "--out", "run", "--epochs", "10", *seed, cwd=folder)
        proof = tinysight("convert", "run", "--out", out.name, cwd=folder)
        say(f"parcel: AP50 in int8 {proof['int8_ap50']:.3f}")

    drawn = hashlib.sha256(Belt(BELT_SEED).frame(0)[0].tobytes()).hexdigest()
    return kept("parcel.bundle", [BELT_SEED, PARCEL_PICTURES, drawn], make)


def _draw_pictures(folder: Path, count: int) -> None:
    """A data set as YOLO writes it; each picture is of a yard of its own."""
    first = 1000
    for split, number in (("train", count), ("val", count // 6), ("test", count // 6)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for seed in range(first, first + number):
            image, crates = Yard(seed).frame(seed % 97)
            height, width = image.shape[:2]
            lines = []
            for crate in (each for each in crates if each.share >= CLEAR_SHARE):
                x1, y1, x2, y2 = crate.box_px
                middle = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
                lines.append(" ".join((str(crate.label), *(f"{part:.6f}" for part in middle))))
            (folder / "labels" / split / f"{seed}.txt").write_text("\n".join(lines), encoding="ascii")
            cv2.imwrite(str(folder / "images" / split / f"{seed}.jpg"), image)
        first += number
    named = "".join(f"  {number}: {label}\n" for number, label in enumerate(LABELS))
    text = f"train: images/train\nval: images/val\ntest: images/test\nnames:\n{named}"
    (folder / "data.yaml").write_text(text, encoding="ascii")


def yard_video(frames: int) -> Path:
    """The yard as a 720p H.264 file of 30 frames a second, by ffmpeg and libx264."""
    flags = ("-preset", "medium", "-crf", "23", "-g", "60")

    def make(out: Path) -> None:
        yard = Yard(VIDEO_SEED)
        write_h264(out, (yard.frame(index)[0] for index in range(frames)), fps=FPS, flags=flags)

    return kept("yard.mp4", [frames, flags, VIDEO_SEED], make)


def write_h264(out: Path, images: Iterable[NDArray[np.uint8]], *, fps: float, flags: tuple[str, ...]) -> None:
    """Pictures of one size (height, width, 3) BGR as a video file."""
    todo = iter(images)
    first = next(todo)
    raw = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{first.shape[1]}x{first.shape[0]}", "-r", str(fps), "-i", "-")
    coded = ("-c:v", "libx264", *flags, "-pix_fmt", "yuv420p", "-threads", "1")
    command = [program("ffmpeg"), "-loglevel", "error", *raw, *coded, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as ffmpeg:
        if ffmpeg.stdin is not None:
            for image in chain((first,), todo):
                ffmpeg.stdin.write(image.tobytes())
    if ffmpeg.returncode:
        raise SystemExit("ffmpeg could not write H.264.")


def long_video(frames: int, times: int) -> Path:
    """The yard's video several times over, without coding it again."""

    def make(out: Path) -> None:
        command = [program("ffmpeg"), "-loglevel", "error", "-stream_loop", str(times - 1), "-i", str(once)]
        subprocess.run([*command, "-c", "copy", str(out)], check=True)

    once = yard_video(frames)
    return kept("yard-long.mp4", [once.name, times], make)


@contextmanager
def broker(*lines: str) -> Iterator[str]:
    """Debian's mosquitto on a port of its own, with these lines in its configuration; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
        config.write("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *lines]))
        config.flush()
        process = subprocess.Popen([program("mosquitto"), "-c", config.name], stderr=subprocess.DEVNULL)
        wait_for(port)
    try:
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    """Until somebody listens there, ten seconds at most."""
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
