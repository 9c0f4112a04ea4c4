"""A yard seen from above: four lanes of coloured crates that pass each other, about 20 of them in view at any time.

What the benchmarks of the edge look at: large enough in a 720p picture for a 128x96 model, plain enough to be learned
in minutes, and drawn from a seed, so that every frame can be drawn again with the truth of what it shows.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["FPS", "LABELS", "Crate", "Yard"]

FPS: Final = 30.0
WIDTH: Final = 1280
HEIGHT: Final = 720
LANES: Final = 4
PITCH_PX: Final = 250  # between the middles of neighbours in a lane: five and a part of them are in view
LABELS: Final = ("red", "orange", "yellow", "lime", "green", "cyan", "blue", "violet", "pink", "white")
_COLOURS_BGR: Final = (
    (40, 40, 210), (30, 130, 240), (40, 220, 235), (60, 235, 150), (60, 140, 40),
    (220, 210, 50), (210, 80, 30), (190, 50, 120), (190, 130, 240), (235, 235, 235),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Crate:
    """One crate in one frame.

    Attributes:
        number: the same in every frame that shows it.
        label: index into ``LABELS``.
        box_px: x1, y1, x2, y2 within the frame, in pixels.
        share: how much of it is inside, 0..1.
    """

    number: int
    label: int
    box_px: tuple[int, int, int, int]
    share: float


class Yard:
    """A floor, its lanes and their endless rows of crates.

    Args:
        seed: what it looks like and who passes.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng((seed, 0))
        coarse = rng.normal(0, 1, (18, 32)).astype(np.float32)
        fine = rng.normal(0, 1, (180, 320)).astype(np.float32)
        floor = np.zeros((HEIGHT, WIDTH), np.float32)
        for each, by in ((coarse, 9.0), (fine, 5.0)):
            floor += cv2.resize(each, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * by
        shade = float(rng.uniform(60, 120))
        self._floor = np.clip(shade + floor[..., None] * rng.uniform(0.9, 1.1, 3), 0, 255).astype(np.uint8)
        self._light = float(rng.uniform(0.75, 1.1))
        self._noise = (rng.standard_normal((HEIGHT, WIDTH, 3), np.float32) * np.float32(3.0)).astype(np.int16)
        self._speeds_px = rng.uniform(2.0, 5.0, LANES) * rng.permutation((-1, 1, -1, 1))

    def frame(self, index: int) -> tuple[NDArray[np.uint8], list[Crate]]:
        """Draw frame ``index``: (720, 1280, 3) uint8 BGR, and the crates that it shows. About 5 ms."""
        image = self._floor.copy()
        shown = []
        for lane, speed in enumerate(self._speeds_px):
            moved = float(index * speed)
            first = int(-moved // PITCH_PX) - 1
            slots = range(first, first + WIDTH // PITCH_PX + 4)
            shown += [crate for slot in slots if (crate := self._draw(image, lane, slot, moved)) is not None]
        noisy = cv2.add(image, np.roll(self._noise, index * 7919, axis=0), dtype=cv2.CV_8U)
        return np.asarray(noisy, np.uint8), shown

    def _draw(self, image: NDArray[np.uint8], lane: int, slot: int, moved: float) -> Crate | None:
        rng = np.random.default_rng((self.seed, 1 + lane, slot + 1_000_000))
        w, h = (int(side) for side in rng.uniform(105, 145, 2))
        label = int(rng.integers(len(LABELS)))
        pitch = HEIGHT // LANES
        x = round(slot * PITCH_PX + float(rng.uniform(0, PITCH_PX - 30 - w)) + moved)
        y = lane * pitch + int(rng.uniform(8, pitch - h - 8))
        x1, x2 = max(x, 0), min(x + w, WIDTH)
        if x2 - x1 < 8:
            return None
        colour = np.array(_COLOURS_BGR[label]) * self._light * rng.uniform(0.9, 1.1)
        body, edge = (tuple(float(min(part * by, 255.0)) for part in colour) for by in (1.0, 0.55))
        cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), body, -1)
        cv2.rectangle(image, (x + 3, y + 3), (x + w - 4, y + h - 4), edge, 6)
        cv2.line(image, (x + 6, y + 6), (x + w - 7, y + h - 7), edge, 5)
        return Crate(slot * LANES + lane, label, (x1, y, x2, y + h), (x2 - x1) / w)
