"""Boxes that walk through a picture, what a detector makes of them, and how well they were followed.

**Sequences.** Boxes in a picture of 1920 by 1080 at 30 frames a second: they come in at an edge, wander (the velocity
is an Ornstein-Uhlenbeck process around where they are heading), pass each other and behind posts, and leave; another
one follows. The detector finds an object with a probability and a score that fall with what posts and nearer objects
hide of it, with 2 % of its size as noise on each edge, more when partly hidden; it drops one of two boxes that overlap
by more than 0.7, misses one in 25, and sees things that are not there. All of it follows from the seed.

**IDF1** (E. Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking, 2016): true
and told trajectories are paired so that most boxes agree, at an IoU of 0.5 or more. An object counts where a quarter of
it can be seen.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysight_edge.decode import iou_matrix
from tinysight_edge.tracking.assign import assign

__all__ = ["FPS", "FRAMES", "Array", "Sequence", "idf1", "play"]

FRAMES, FPS = 600, 30.0
WIDTH, HEIGHT = 1920.0, 1080.0
MIN_SCORE = 0.3  # what scores less is not handed to anybody
COUNTED_FROM = 0.25  # of an object that can be seen
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sequence:
    """What is there and what a detector makes of it, in one array each; ``frame`` is the first column of both.

    Attributes:
        truth: (n, 6): frame, object, x1 y1 x2 y2.
        found: (m, 7): frame, x1 y1 x2 y2, score, class; strongest first within a frame.
    """

    truth: Array
    found: Array


class World:
    """Objects that walk through the picture."""

    def __init__(self, objects: int, seed: int) -> None:
        self.dice = np.random.default_rng((seed, objects))
        self.made = 0
        self.scale = scale = 1.0 if objects < 50 else 0.6  # a hundred large ones would hide each other all the time
        self.x, self.v, self.aim, self.size = (np.zeros((objects, 2)) for _ in range(4))
        self.ids = np.zeros(objects)
        for k in range(objects):
            self.enter(k, anywhere=True)
        left, posts = self.dice.uniform(100, WIDTH - 200, 4), self.dice.uniform(30, 70, 4) * scale
        self.posts = np.stack((left, np.zeros(4), left + posts, np.full(4, HEIGHT)), 1)

    def enter(self, k: int, *, anywhere: bool = False) -> None:
        """A new object in place ``k``, at an edge or anywhere."""
        dice = self.dice
        height = dice.uniform(60, 200) * self.scale
        self.size[k] = height * dice.uniform(0.4, 1.2), height
        from_left = dice.random() < 0.5
        self.x[k] = (
            (-self.size[k, 0] / 2 if from_left else WIDTH + self.size[k, 0] / 2),
            dice.uniform(100, HEIGHT - 100),
        )
        if anywhere:
            self.x[k, 0] = dice.uniform(0, WIDTH)
        speed = dice.uniform(0.5, 2.5) * height
        self.aim[k] = (speed if from_left else -speed), dice.normal(0, 0.2) * speed
        self.v[k] = self.aim[k]
        self.made += 1
        self.ids[k] = self.made

    def step(self) -> None:
        """One frame on."""
        dt = 1 / FPS
        spread = 0.5 * np.abs(self.aim[:, :1])
        self.v += (self.aim - self.v) * dt / 1.0 + spread * self.dice.normal(size=self.v.shape) * np.sqrt(dt)
        self.x += self.v * dt
        away = (self.x + self.size / 2 < 0) | (self.x - self.size / 2 > (WIDTH, HEIGHT))
        for k in np.flatnonzero(away.any(1)):
            self.enter(int(k))

    def boxes(self) -> Array:
        """(n, 4), cut at the picture's edges."""
        return np.clip(np.concatenate((self.x - self.size / 2, self.x + self.size / 2), 1), 0, (WIDTH, HEIGHT) * 2)

    def visible(self, boxes: Array) -> Array:
        """(n,), the share of each box that is neither behind a post nor behind an object that stands lower."""
        steps = (np.arange(10) + 0.5) / 10
        px = boxes[:, None, 0] + steps * (boxes[:, None, 2] - boxes[:, None, 0])
        py = boxes[:, None, 1] + steps * (boxes[:, None, 3] - boxes[:, None, 1])
        others = np.concatenate((boxes, self.posts))
        nearer = np.concatenate((self.x[:, 1] + self.size[:, 1] / 2, np.full(len(self.posts), np.inf)))
        seen = np.zeros(len(boxes))
        for k, (xs, ys) in enumerate(zip(px, py, strict=True)):
            front = others[nearer > nearer[k]]
            across = (front[:, :1] <= xs) & (xs <= front[:, 2:3])
            down = (front[:, 1:2] <= ys) & (ys <= front[:, 3:])
            seen[k] = 1 - (across[:, :, None] & down[:, None]).any(0).mean()
        return seen

    def look(self, boxes: Array, seen: Array) -> Array:
        """What a detector finds: (m, 6): x1 y1 x2 y2, score, class; strongest first."""
        dice, n = self.dice, len(boxes)
        inside = np.prod(boxes[:, 2:] - boxes[:, :2], 1) / np.prod(self.size, 1)  # cut off at the picture's edge
        share = seen * inside
        found = (dice.random(n) > 0.04) & (share > dice.uniform(0.1, 0.4, n))
        noise = 0.02 + 0.05 * (1 - seen)
        noisy = boxes + dice.normal(size=boxes.shape) * (noise[:, None] * np.tile(self.size, 2))
        score = 0.88 - 0.6 * (1 - share) + dice.normal(0, 0.07, n)
        labels = np.where(dice.random(n) < 0.03, 2, self.ids % 2)
        real = np.column_stack((noisy, score, labels))[found]
        false = dice.poisson(0.1 + 0.01 * n)
        corner = dice.uniform((0, 0), (WIDTH - 100, HEIGHT - 100), (false, 2))
        extent = dice.uniform(40, 150, (false, 2)) * self.scale
        ghosts = np.column_stack((corner, corner + extent, dice.uniform(0.3, 0.75, false), np.full(false, 1.0)))
        rows = np.concatenate((real, ghosts))
        rows[:, :4] = np.clip(rows[:, :4], 0, (WIDTH, HEIGHT) * 2)
        rows[:, 4] = np.clip(rows[:, 4], 0.01, 0.99)
        rows = rows[((rows[:, 2:4] - rows[:, :2]) > 2).all(1) & (rows[:, 4] >= MIN_SCORE)]
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        rivals = iou_matrix(rows[:, :4].astype(np.float32), rows[:, :4].astype(np.float32)) > 0.7
        kept: list[int] = []
        for k in range(len(rows)):
            if not rivals[k, kept].any():
                kept.append(k)
        return np.asarray(rows[kept])


@lru_cache(maxsize=32)
def play(objects: int, seed: int) -> Sequence:
    """One sequence."""
    world = World(objects, seed)
    truth, found = [], []
    for frame in range(FRAMES):
        boxes = world.boxes()
        seen = world.visible(boxes)
        there = (seen >= COUNTED_FROM) & (boxes[:, 2:] - boxes[:, :2] > 2).all(1)
        truth.append(np.column_stack((np.full(there.sum(), frame), world.ids[there], boxes[there])))
        rows = world.look(boxes, seen)
        found.append(np.column_stack((np.full(len(rows), frame), rows)))
        world.step()
    return Sequence(np.concatenate(truth), np.concatenate(found))


def idf1(truth: Array, told: Array) -> float:
    """Of true and told rows: frame, identity, x1 y1 x2 y2."""
    agree: Counter[tuple[int, int]] = Counter()
    for frame in range(FRAMES):
        real, said = truth[truth[:, 0] == frame], told[told[:, 0] == frame]
        same = iou_matrix(real[:, 2:].astype(np.float32), said[:, 2:].astype(np.float32)) >= 0.5
        for i, j in zip(*same.nonzero(), strict=True):
            agree[int(real[i, 1]), int(said[j, 1])] += 1
    pairs, counts = list(agree), [float(count) for count in agree.values()]
    taken = assign([pair[0] for pair in pairs], [pair[1] for pair in pairs], counts)
    return 2 * sum(counts[k] for k in taken) / (len(truth) + len(told))
