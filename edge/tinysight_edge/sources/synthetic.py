"""Drawn worlds as cameras."""

import re
import time
from typing import Final, get_args
from urllib.parse import parse_qsl

from tinysight_contract.errors import CameraError
from tinysight_edge.belt import Belt, Split
from tinysight_edge.sources.base import Image, Source

__all__ = ["BeltSource", "check_synthetic", "open_synthetic"]

SPLITS: Final[tuple[Split, ...]] = get_args(Split)


class BeltSource(Source):
    """``synthetic:belt``: the drawn conveyor, at its own pace, as a live camera would.

    Query: ``seed`` (0), ``fps`` (15), ``frames`` (0 is endless), ``split`` (test), ``width`` (320), ``height`` (240).
    """

    name = "synthetic:belt"

    def __init__(self, options: dict[str, str]) -> None:
        split, given = _read(options)
        self.width, self.height = int(given["width"]), int(given["height"])
        self.fps, self._last = given["fps"], int(given["frames"])
        self._belt = Belt(
            int(given["seed"]),
            split=split,
            width=self.width,
            height=self.height,
            speed_px=60.0 / self.fps * self.width / 320.0,
        )
        self._begun: float | None = None
        self._next = 0

    def grab(self) -> float | None:
        """Waits until the next picture is due; those that are overdue by more than a second are skipped."""
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        late = now - self._begun - self._next / self.fps
        if late > 1.0:
            self._next += int(late * self.fps)
        if self._last and self._next >= self._last:
            return None
        if late < 0:
            time.sleep(-late)
        self._next += 1
        return (self._next - 1) / self.fps

    def retrieve(self) -> Image:
        """Draw it."""
        return self._belt.frame(self._next - 1)[0]

    def close(self) -> None:
        """Nothing is held."""


def _read(options: dict[str, str]) -> tuple[Split, dict[str, float]]:
    split: Split | None = next((each for each in SPLITS if each == options.get("split", "test")), None)
    if split is None:
        raise CameraError(f"The belt has no split {options['split']!r}.", mend="Choose train, calibration or test.")
    given = {"seed": 0.0, "fps": 15.0, "frames": 0.0, "width": 320.0, "height": 240.0}
    for key, value in options.items():
        if key == "split":
            continue
        if key not in given or re.fullmatch(r"\d+(\.\d+)?", value) is None:
            raise CameraError(
                f"synthetic:belt does not take {key}={value}.", mend=f"It takes numbers for {', '.join(given)}."
            )
        given[key] = float(value)
    if not (64 <= given["width"] <= 4096 and 64 <= given["height"] <= 4096 and 0 < given["fps"] <= 1000):
        raise CameraError("The belt's size or rate is out of range.", mend="Use 64 to 4096 pixels, up to 1000 fps.")
    return split, given


def check_synthetic(spec: str) -> dict[str, str]:
    """The options that stand behind a name; draws nothing.

    Raises:
        CameraError: there is no such world, or it does not take these options.
    """
    kind, _, query = spec.removeprefix("synthetic:").partition("?")
    if kind != "belt":
        raise CameraError(f"There is no synthetic source {kind!r}.", mend="Choose synthetic:belt.")
    options = dict(parse_qsl(query, keep_blank_values=True))
    _read(options)
    return options


def open_synthetic(spec: str) -> Source:
    """What ``synthetic:`` and a name with its query stand for.

    Raises:
        CameraError: as `check_synthetic`.
    """
    return BeltSource(check_synthetic(spec))
