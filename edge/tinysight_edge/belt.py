"""The belt: a conveyor that carries parcels with handwritten digits, drawn from a seed.

A data set, a video and a live camera from one generator, so the whole way from images to events can be walked with
nothing downloaded and no hardware. ``Belt.frame(i)`` depends on the arguments alone, so any frame can be drawn again,
with the truth of what it shows.

The digits are the 1,797 8x8 scans of scikit-learn's ``load_digits`` (E. Alpaydin, C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI, CC BY 4.0), kept here as ``digits.npz`` so that a device needs no scikit-learn; a test
compares the two. Each split draws from digits of its own.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["LABELS", "Belt", "Split", "Truth", "digit_indices"]

Split = Literal["train", "calibration", "test"]
Image = NDArray[np.uint8]

LABELS: Final = tuple("0123456789")
SHARES: Final[dict[Split, tuple[float, float]]] = {"train": (0.0, 0.6), "calibration": (0.6, 0.7), "test": (0.7, 1.0)}
CLEAR_SHARE: Final = 0.75  # a parcel of which less than this is in the picture is not to be named
PITCH: Final = 0.54  # distance of parcels in a lane, in frame heights
_PALETTE: Final = ((140, 176, 205), (95, 140, 180), (200, 205, 208), (120, 120, 190), (170, 150, 110), (110, 160, 120))


@dataclass(frozen=True, slots=True)
class Truth:
    """One parcel in one frame.

    Attributes:
        parcel: its number, the same in every frame that shows it.
        label: index into ``LABELS``.
        box_px: x1, y1, x2, y2 within the frame, in pixels.
        clear: whether enough of it is in the picture to be named.
    """

    parcel: int
    label: int
    box_px: tuple[float, float, float, float]
    clear: bool


@cache
def _digits() -> tuple[Image, NDArray[np.uint8]]:
    with (files(__package__) / "digits.npz").open("rb") as source, np.load(source, allow_pickle=False) as held:
        return held["images"], held["labels"]


@cache
def digit_indices(split: Split) -> NDArray[np.intp]:
    """Which digit samples a split may use; the splits share none."""
    order = np.random.default_rng(1797).permutation(len(_digits()[1]))
    low, high = SHARES[split]
    return order[int(low * len(order)) : int(high * len(order))]


class Belt:
    """A conveyor, its light and its endless row of parcels.

    Args:
        seed: what this belt looks like and carries.
        split: whose digits the parcels bear.
        width: of the frame in pixels.
        height: of the frame in pixels.
        speed_px: how far the belt moves to the right between two frames, in pixels.
    """

    def __init__(
        self, seed: int, *, split: Split = "test", width: int = 320, height: int = 240, speed_px: float = 4.0
    ) -> None:
        self.seed, self.split, self.width, self.height, self.speed_px = seed, split, width, height, speed_px
        rng = np.random.default_rng((seed, 0))
        self._lanes, self._pitch_px = 2, PITCH * height
        self._floor = _texture(rng, height, width)
        self._band = _texture(rng, int(height * 0.84), 2 * width, ribs=True)
        self._light = _light(rng, height, width)
        grain = rng.standard_normal((height, width, 3), np.float32) * np.float32(rng.uniform(1.0, 6.0))
        self._noise = grain.astype(np.int16)
        self._blur = float(rng.choice([0.0, 0.0, rng.uniform(0.4, 0.9)]))
        self._bar = _bar(rng, height, width)
        self._parcel = lru_cache(maxsize=64)(self._draw_parcel)

    def frame(self, index: int) -> tuple[Image, list[Truth]]:
        """Draw frame ``index``: (height, width, 3) uint8 BGR, and what it shows, left to right.

        Takes about 1 ms for 320x240 on one x86 core.
        """
        moved = index * self.speed_px
        image = self._floor.copy()
        top = (self.height - len(self._band)) // 2
        shift = int(moved) % self.width
        image[top : top + len(self._band)] = self._band[:, self.width - shift : 2 * self.width - shift]
        shown: list[Truth] = []
        for number in self._numbers_in_view(moved):
            patch, alpha, label, left0, y = self._parcel(number)
            if (truth := _paste(image, patch, alpha, left0 + moved, y)) is not None:
                box, share = truth
                shown.append(Truth(number, label, box, clear=share >= CLEAR_SHARE))
        if self._bar is not None:
            x, thickness, shade = self._bar
            image[:, x : x + thickness] = (image[:, x : x + thickness] * 0.25 + shade * 0.75).astype(np.uint8)
        lit = cv2.multiply(image, self._light, dtype=cv2.CV_8U)
        if self._blur:
            lit = cv2.GaussianBlur(lit, (3, 3), self._blur)
        noisy = cv2.add(lit, np.roll(self._noise, index * 7919, axis=0), dtype=cv2.CV_8U)
        return np.asarray(noisy, np.uint8), sorted(shown, key=lambda truth: truth.box_px)

    def _numbers_in_view(self, moved: float) -> list[int]:
        """Parcels move right; parcel ``n`` of a lane begins ``n`` pitches left of the frame."""
        first = int((moved - self.width) // self._pitch_px) - 2
        last = int(moved // self._pitch_px) + 2
        return [slot * self._lanes + lane for slot in range(max(first, 0), last + 1) for lane in range(self._lanes)]

    def _draw_parcel(self, number: int) -> tuple[Image, NDArray[np.float32], int, float, float]:
        """Patch (h, w, 3), alpha (h, w, 1), label, left edge in frame 0, top edge."""
        rng = np.random.default_rng((self.seed, 1, number))
        images, labels = _digits()
        which = int(rng.choice(digit_indices(self.split)))
        side = float(rng.uniform(0.26, 0.41)) * self.height
        w, h = int(side * rng.uniform(0.95, 1.22)), int(side)
        base = np.array(_PALETTE[int(rng.integers(len(_PALETTE)))], np.float32) * rng.uniform(0.7, 1.15)
        patch = base + rng.normal(0, 6, (h, w, 1)).astype(np.float32)
        patch[[0, 1, -2, -1]] *= 0.6
        patch[:, [0, 1, -2, -1]] *= 0.6
        label_side = int(min(w, h) * rng.uniform(0.7, 0.84))
        ink = cv2.resize(
            images[which].astype(np.float32) / 16.0, (label_side, label_side), interpolation=cv2.INTER_CUBIC
        )
        ink = np.clip(ink, 0, 1)[..., None] * rng.uniform(0.75, 1.0)
        paper, pen = rng.uniform(190, 245), rng.uniform(10, 70)
        x, y = (int(rng.uniform(0.2, 0.8) * (outer - label_side)) for outer in (w, h))
        patch[y : y + label_side, x : x + label_side] = paper * (1 - ink) + pen * ink
        if rng.random() < 0.25:  # a strip of tape over the label
            at, thick = int(rng.uniform(0.1, 0.85) * h), max(2, int(0.07 * h))
            patch[at : at + thick] = patch[at : at + thick] * 0.45 + np.array((150, 190, 200), np.float32) * 0.55
        turn = cv2.getRotationMatrix2D((w / 2, h / 2), float(rng.uniform(-6, 6)), 0.96)
        alpha = np.asarray(cv2.warpAffine(np.ones((h, w), np.float32), turn, (w, h)), np.float32)
        turned = cv2.warpAffine(np.clip(patch, 0, 255), turn, (w, h), borderMode=cv2.BORDER_REPLICATE)
        slot, lane = divmod(number, self._lanes)
        left = -(slot + 1) * self._pitch_px + float(rng.uniform(0, self._pitch_px - w))
        lane_height = self.height * 0.84 / self._lanes
        slack = max(lane_height - h, 0.0)
        top = self.height * 0.08 + lane * lane_height + float(rng.uniform(0, 1)) * slack
        return np.asarray(turned, np.uint8), alpha[..., None], int(labels[which]), left, top


def _paste(
    image: Image, patch: Image, alpha: NDArray[np.float32], left: float, top: float
) -> tuple[tuple[float, float, float, float], float] | None:
    """Draw a parcel in place; its box within the frame and the share of it that is inside, or None."""
    x, y = round(left), round(top)
    h, w = patch.shape[:2]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, image.shape[1]), min(y + h, image.shape[0])
    if x2 - x1 < 2 or y2 - y1 < 2:
        return None
    inner = (slice(y1 - y, y2 - y), slice(x1 - x, x2 - x))
    under = image[y1:y2, x1:x2]
    under[:] = (under + (patch[inner].astype(np.float32) - under) * alpha[inner]).astype(np.uint8)
    return (float(x1), float(y1), float(x2), float(y2)), (x2 - x1) * (y2 - y1) / (w * h)


def _texture(rng: np.random.Generator, height: int, width: int, *, ribs: bool = False) -> Image:
    """A worn surface: noise of several sizes over a base colour."""
    base = rng.uniform(35, 120) * rng.uniform(0.85, 1.15, 3)
    out = np.zeros((height, width), np.float32)
    for cells in (4, 12, 40):
        coarse = rng.normal(0, 1, (cells, cells * 2)).astype(np.float32)
        out += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * rng.uniform(2, 9)
    if ribs:
        period = width // int(rng.integers(10, 40))
        out += np.where(np.arange(width) % period < 3, -rng.uniform(4, 24), 0.0).astype(np.float32)
        out[:, width // 2 :] = out[:, : width - width // 2]  # so that the surface can scroll without a seam
    return np.clip(base + out[..., None], 0, 255).astype(np.uint8)


def _light(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Uneven light: a slope, a spot and a cast of colour; (height, width, 3), about 0.5 to 1.4."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    slope = 1 + rng.uniform(-0.35, 0.35) * (x - 0.5) + rng.uniform(-0.35, 0.35) * (y - 0.5)
    spot = rng.uniform(0, 0.4) * np.exp(-((x - rng.uniform()) ** 2 + (y - rng.uniform()) ** 2) / rng.uniform(0.05, 0.3))
    level = (slope + spot) * rng.uniform(0.7, 1.1)
    return np.asarray(level[..., None] * rng.uniform(0.92, 1.08, 3), np.float32)


def _bar(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, float] | None:
    """Some cameras look past a post: its left edge, thickness in pixels and shade."""
    if rng.random() > 0.3:
        return None
    return int(rng.uniform(0.1, 0.9) * width), max(2, height // 60), float(rng.uniform(20, 90))
