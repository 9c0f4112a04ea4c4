"""Vary pictures, so that a model learns what does not matter.

In: fitted uint8 pictures with their boxes, strengths, dice.  Out: other pictures, and the boxes that go with them.
The dice are thrown for a whole batch at once; per picture there is one warp and one table look-up.
Sources: S. Yun et al., CutMix, arXiv 1905.04899; H. Zhang et al., mixup, arXiv 1710.09412; A. Bochkovskiy et al.,
YOLOv4 (mosaic), arXiv 2004.10934.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_trainer.config import Config

__all__ = ["Boxes", "blend", "cut_boxes", "mosaic", "vary"]

CLEAR_SHARE: Final = 0.7  # an object of which less is left in the picture is not to be named
LEVELS: Final = 18.0  # of 256, per 0.3 of light: a constant added to all

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Boxes = tuple[Floats, NDArray[np.int32], NDArray[np.bool_]]
"""Of one picture: boxes_px (n, 4) x1 y1 x2 y2, class_ids (n,), crowd (n,)."""


def vary(images: Bytes, shown: list[Boxes], config: Config, rng: np.random.Generator, *, turn: bool) -> list[Boxes]:
    """Size, slant, place, mirror, light, colour, blur and noise; the pictures in place.

    Args:
        images: uint8 (b, height, width, channels).
        shown: per picture.
        config: how strongly.
        rng: the dice.
        turn: turning and slanting is among the variations.

    Returns:
        What the varied pictures show.
    """
    count, height, width, channels = (int(side) for side in images.shape)
    moves: NDArray[np.float64] = _moves(count, width, height, config, rng, turn=turn)
    tables = _tables(count, channels, config, rng)
    blurred = rng.random(count) < config.blur
    noise = rng.uniform(0, 1, count) * config.noise * (rng.random(count) < 0.5)
    out = []
    for number in range(count):
        image = cv2.warpAffine(images[number], moves[number], (width, height), borderMode=cv2.BORDER_REPLICATE)
        image = cv2.LUT(image, tables[number])
        if blurred[number]:
            image = cv2.GaussianBlur(image, (3, 3), 0)
        if noise[number] > 0:
            grain = rng.standard_normal((height, width, channels), np.float32) * np.float32(noise[number])
            image = np.clip(image.reshape(height, width, channels) + grain, 0, 255).astype(np.uint8)
        images[number] = image.reshape(height, width, channels)
        boxes, class_ids, crowd = shown[number]
        boxes, crowd = cut_boxes(_moved(boxes, moves[number]), crowd, width, height)
        out.append((boxes, class_ids, crowd))
    return out


def _moves(
    count: int, width: int, height: int, config: Config, rng: np.random.Generator, *, turn: bool
) -> NDArray[np.float64]:
    """Affine maps (count, 2, 3) of the pictures about their centre."""
    dice = rng.uniform(-1, 1, (count, 7))
    angle = np.deg2rad(dice[:, 0] * config.turn * turn)
    slant = dice[:, 1] * config.slant * turn
    zoom = (1 + config.zoom) ** dice[:, 2:3] * (1 + config.stretch) ** dice[:, 3:5]
    mirror = np.where(rng.random(count) < config.flip, -1.0, 1.0)
    linear = np.empty((count, 2, 2))
    linear[:, 0, 0], linear[:, 0, 1] = np.cos(angle), np.cos(angle) * slant - np.sin(angle)
    linear[:, 1, 0], linear[:, 1, 1] = np.sin(angle), np.sin(angle) * slant + np.cos(angle)
    linear *= zoom[:, None, :]
    linear[:, :, 0] *= mirror[:, None]
    centre = np.array(((width - 1) / 2, (height - 1) / 2))
    shift = centre - linear @ centre + dice[:, 5:7] * config.shift * (width, height)
    return np.concatenate((linear, shift[..., None]), 2)


def _tables(count: int, channels: int, config: Config, rng: np.random.Generator) -> Bytes:
    """What each of the 256 values becomes, (count, 1, 256, channels)."""
    gain = (1 + config.light) ** rng.uniform(-1, 1, (count, 1, 1))
    gain = gain * (1 + config.tint * rng.uniform(-1, 1, (count, 1, channels)))
    added = rng.uniform(-1, 1, (count, 1, 1)) * config.light / 0.3 * LEVELS
    table = np.clip(np.arange(256.0)[None, :, None] * gain + added, 0, 255).astype(np.uint8)
    return table[:, None]


def _moved(boxes: Floats, move: NDArray[np.float64]) -> Floats:
    """The box around each moved box; its sides grow with turn and slant, so half of that growth is taken back."""
    linear = move[:, :2]
    middle = ((boxes[:, :2] + boxes[:, 2:] - 1) / 2) @ linear.T + move[:, 2] + 0.5
    sides = (boxes[:, 2:] - boxes[:, :2]) @ ((np.abs(linear) + np.diag(np.abs(np.diag(linear)))) / 2).T
    return np.concatenate((middle - sides / 2, middle + sides / 2), 1).astype(np.float32)


def cut_boxes(boxes: Floats, crowd: NDArray[np.bool_], width: int, height: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Boxes within the picture; what was mostly cut away is no longer to be named."""
    if not len(boxes):
        return boxes, crowd
    inside = np.clip(boxes, 0.0, np.array((width, height, width, height), np.float32))
    before, after = ((each[:, 2:] - each[:, :2]).prod(1) for each in (boxes, inside))
    return inside, crowd | (after < CLEAR_SHARE * before)


def mosaic(images: list[Bytes], shown: list[Boxes], rng: np.random.Generator) -> tuple[Bytes, Boxes]:
    """Four pictures (height, width, channels), each at half its size, around a point near the middle."""
    height, width, channels = images[0].shape
    x, y = int(width * rng.uniform(0.4, 0.6)), int(height * rng.uniform(0.4, 0.6))
    out = np.empty_like(images[0])
    parts: list[Boxes] = []
    for number, (image, (boxes, class_ids, crowd)) in enumerate(zip(images, shown, strict=True)):
        left, right = (0, x) if number % 2 == 0 else (x, width)
        top, bottom = (0, y) if number < 2 else (y, height)
        size = (right - left, bottom - top)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        out[top:bottom, left:right] = small.reshape(size[1], size[0], channels)
        ratio = np.array((size[0] / width, size[1] / height) * 2, np.float32)
        parts.append((boxes * ratio + np.array((left, top) * 2, np.float32), class_ids, crowd))
    boxes, class_ids, crowd = (np.concatenate(part) for part in zip(*parts, strict=True))
    return out, (boxes.astype(np.float32), class_ids.astype(np.int32), crowd.astype(bool))


def blend(images: Bytes, wanted: Floats, config: Config, rng: np.random.Generator) -> None:
    """MixUp or CutMix within a batch, in place: each picture gets a part of another one, and of its class.

    Args:
        images: uint8 (b, height, width, channels).
        wanted: float32 (b, labels), what is to be answered.
        config: how often.
        rng: the dice.
    """
    count, height, width = (int(side) for side in images.shape[:3])
    other = rng.permutation(count)
    dice = rng.random(count)
    share = rng.beta(0.4, 0.4, count)
    corner = rng.random((count, 2))
    mixed, wanted_then = images.copy(), wanted.copy()
    for number in range(count):
        keep, partner = float(share[number]), int(other[number])
        if dice[number] < config.mixup:
            mixed[number] = cv2.addWeighted(images[number], keep, images[partner], 1 - keep, 0).reshape(
                images.shape[1:]
            )
        elif dice[number] < config.mixup + config.cutmix:
            h, w = (round(side * (1 - keep) ** 0.5) for side in (height, width))
            y, x = (
                round(at * (side - cut)) for at, side, cut in zip(corner[number], (height, width), (h, w), strict=True)
            )
            mixed[number, y : y + h, x : x + w] = images[partner, y : y + h, x : x + w]
            keep = 1 - h * w / (height * width)
        else:
            continue
        wanted_then[number] = keep * wanted[number] + (1 - keep) * wanted[partner]
    images[:], wanted[:] = mixed, wanted_then
