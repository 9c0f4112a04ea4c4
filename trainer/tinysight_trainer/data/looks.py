"""How pictures look, boiled down until a hundred thousand of them can be compared with each other.

In: decoded pictures.  Out: `Looks`, and the pairs of near-duplicates among them. Each picture becomes a small grey one,
shifted so that its edges balance (then a camera that shook does not matter), and a 64-bit perceptual hash of it
(``imagehash.phash``). Hashes that differ in few bits name the candidates, the correlation of the small pictures
decides.
Knows nothing of files or labels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SAME", "Look", "Looks", "Pairs", "Union", "clusters", "look_at", "near_pairs"]

SIDE: Final = 32
BLUR: Final = 0.6  # pixels of the small picture; JPEG's blocks and a sensor's noise are gone after it
RADIUS_BITS: Final = 10
# Correlations. What they find is measured by `benchmarks/data_clean.py`.
SAME: Final = 0.995  # the same but for coding and noise
ALIKE: Final = 0.96  # the same, if it stands out so far among its neighbours
CLOSE: Final = 0.95  # counts as a neighbour
NEIGHBOUR: Final = 3  # which of the neighbours makes the measure
RATIO: Final = 0.75  # of the distance to that neighbour
BLOCK: Final = 256
BLANK: Final = 1e-3

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One picture's: its hash, its small grey picture (32, 32) uint8 with its full contrast, and what was measured.

    Attributes:
        hash: 64 bits.
        small: uint8 (32, 32), stretched to the full range.
        spread: standard deviation of the grey values, 0..127; next to nothing in a blank picture.
        sharpness: variance of the Laplacian.
    """

    hash: int
    small: Bytes
    spread: float
    sharpness: float


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Those of n pictures.

    Attributes:
        hashes: uint64 (n,).
        small: uint8 (n, 32, 32).
    """

    hashes: NDArray[np.uint64]
    small: Bytes

    @classmethod
    def of(cls, looks: Iterable[Look]) -> "Looks":
        """Gather single ones."""
        held = list(looks)
        small = np.stack([each.small for each in held]) if held else np.empty((0, SIDE, SIDE), np.uint8)
        return cls(np.array([each.hash for each in held], np.uint64), small)

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pictures that look alike.

    Attributes:
        first: int64 (k,), index of one picture.
        second: int64 (k,), of the other, always larger.
        likeness: float32 (k,), their correlation, 0..1.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    likeness: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def where(self, keep: NDArray[np.bool_]) -> "Pairs":
        """Only some of them."""
        return Pairs(self.first[keep], self.second[keep], self.likeness[keep])


_NONE: Final = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def look_at(image: NDArray[np.uint8]) -> Look:
    """Boil down a picture (H, W, 3) uint8 BGR."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    spread = float(small.std())
    sharpness = float(cv2.Laplacian(cv2.resize(grey, (128, 128), interpolation=cv2.INTER_AREA), cv2.CV_64F).var())
    small = _balanced(np.asarray(cv2.GaussianBlur(small, (0, 0), BLUR), np.float32))
    low, high = float(small.min()), float(small.max())
    stretched = ((small - low) * (255.0 / max(high - low, BLANK))).astype(np.uint8)
    bits = imagehash.phash(Image.fromarray(stretched)).hash.ravel()
    return Look(int.from_bytes(np.packbits(bits).tobytes(), "big"), stretched, spread, sharpness)


def _balanced(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shifted until the centre of gravity of its edges lies in the middle."""
    across, down = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    m = cv2.moments(across * across + down * down)
    if m["m00"] < BLANK:
        return small
    middle = (SIDE - 1) / 2
    shift = np.array([[1, 0, middle - m["m10"] / m["m00"]], [0, 1, middle - m["m01"] / m["m00"]]], np.float32)
    return np.asarray(cv2.warpAffine(small, shift, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE), np.float32)


def near_pairs(looks: Looks) -> Pairs:
    """Pairs of near-duplicates.

    Two pictures are near-duplicates when they are the same but for coding and noise, or when they are much more alike
    than either is to its next neighbours. So handwritten ones, which all look alike, are none, and a copy of one that
    was blurred or brightened is. A picture that is the same as an earlier one is compared no further: recordings of a
    camera that never moves stay affordable.
    """
    units = _Units(looks.small)
    leaders = np.empty(0, np.int64)
    nearest = np.full((len(looks), NEIGHBOUR), _distance(np.float32(CLOSE)), np.float32)
    found = [_NONE]
    for start in range(0, len(looks), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(looks)))
        pairs = _close(looks, units, block, leaders)
        copies = pairs.where(pairs.likeness >= SAME)
        block = np.setdiff1d(block, copies.second)
        inner = _close(looks, units, block, block)
        inner = inner.where(inner.first < inner.second)
        follow, lead = np.zeros(len(looks), bool), np.zeros(len(looks), bool)
        same = inner.likeness >= SAME
        for a, b in zip(inner.first[same], inner.second[same], strict=True):  # in order: a copy leads nobody
            if not follow[a]:
                follow[b] = True
                lead[a] = True
        copies = _joined(copies, inner.where(same & ~follow[inner.first]))
        block = block[~follow[block]]
        leaders = np.concatenate((leaders, block))
        rest = _joined(pairs.where(~np.isin(pairs.second, copies.second)), inner.where(~same))
        rest = rest.where(~follow[rest.first] & ~follow[rest.second])
        _learn(nearest, rest)
        distance = _distance(rest.likeness)
        limit = np.minimum(nearest[rest.first, -1], nearest[rest.second, -1])
        found += [copies, rest.where((rest.likeness >= ALIKE) & (distance <= limit))]
    every = _joined(*found)
    # The neighbourhoods are whole only now, and only get denser: what stood out before may not any more.
    limit = RATIO * np.minimum(nearest[every.first, -1], nearest[every.second, -1])
    return every.where((every.likeness >= SAME) | (_distance(every.likeness) <= limit))


def _distance(likeness: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Between pictures of length one."""
    return np.asarray(np.sqrt(2 * np.maximum(1 - likeness, 0)), np.float32)


def _learn(nearest: NDArray[np.float32], pairs: Pairs) -> None:
    """Put new distances into each picture's ascending list of the smallest ones."""
    index = np.concatenate((pairs.first, pairs.second))
    distance = np.tile(_distance(pairs.likeness), 2)
    order = np.lexsort((distance, index))
    index, distance = index[order], distance[order]
    begin = np.flatnonzero(np.r_[True, index[1:] != index[:-1]]) if len(index) else np.empty(0, np.int64)
    rank = np.arange(len(index)) - np.repeat(begin, np.diff(np.r_[begin, len(index)]))
    few = rank < NEIGHBOUR
    new = np.full_like(nearest[index[begin]], np.inf)
    new[np.searchsorted(index[begin], index[few]), rank[few]] = distance[few]
    nearest[index[begin]] = np.sort(np.concatenate((nearest[index[begin]], new), 1), 1)[:, :NEIGHBOUR]


def _close(looks: Looks, units: "_Units", block: NDArray[np.int64], others: NDArray[np.int64]) -> Pairs:
    """Pairs of one of ``others`` and one of ``block`` that are at least `CLOSE`."""
    near = np.bitwise_count(looks.hashes[block][:, None] ^ looks.hashes[others][None]) <= RADIUS_BITS
    rows, columns = np.nonzero(near)
    first, second = others[columns], block[rows]
    likeness = units.correlation(first, second)
    return Pairs(first, second, likeness).where(likeness >= CLOSE)


def _joined(*parts: Pairs) -> Pairs:
    return Pairs(
        np.concatenate([each.first for each in parts]),
        np.concatenate([each.second for each in parts]),
        np.concatenate([each.likeness for each in parts]),
    )


class _Units:
    """Small pictures without their mean and at length one, made when they are compared: a quarter of the memory."""

    def __init__(self, small: Bytes) -> None:
        self._flat = small.reshape(len(small), SIDE * SIDE)
        self._mean = np.empty(len(small), np.float32)
        self._length = np.empty(len(small), np.float32)
        for start in range(0, len(small), BLOCK):
            part = self._flat[start : start + BLOCK].astype(np.float32)
            self._mean[start : start + BLOCK] = part.mean(1)
            self._length[start : start + BLOCK] = part.std(1) * np.sqrt(part.shape[1])

    def correlation(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
        """Of each pair; two blank pictures are alike."""
        out = np.empty(len(first), np.float32)
        size = self._flat.shape[1]
        for start in range(0, len(first), 4 * BLOCK):
            a, b = first[start : start + 4 * BLOCK], second[start : start + 4 * BLOCK]
            product = np.einsum("nk,nk->n", self._flat[a].astype(np.float32), self._flat[b].astype(np.float32))
            lengths = self._length[a] * self._length[b]
            with np.errstate(invalid="ignore", divide="ignore"):
                value = (product - size * self._mean[a] * self._mean[b]) / lengths
            out[start : start + 4 * BLOCK] = np.where(lengths < BLANK, self._length[a] == self._length[b], value)
        return out


def clusters(count: int, pairs: Pairs, *, most: int) -> NDArray[np.int64]:
    """A number for each of ``count`` pictures; near-duplicates of near-duplicates share it.

    In a set of very similar pictures everything is linked to everything in the end. A cluster of more than ``most``
    pictures is taken apart again at its weakest links.

    Returns:
        int64 (count,): the smallest index in each picture's cluster.
    """
    union = Union(count)
    for number in np.argsort(-pairs.likeness, kind="stable"):
        union.join(int(pairs.first[number]), int(pairs.second[number]), most=most)
    return union.groups()


class Union:
    """Disjoint sets of indices; each is named by its smallest one."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))
        self._size = [1] * count

    def root(self, index: int) -> int:
        """The name of the set that holds it."""
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, one: int, other: int, *, most: int | None = None) -> None:
        """Put two sets together, unless more than ``most`` would be in it."""
        low, high = sorted((self.root(one), self.root(other)))
        if low != high and (most is None or self._size[low] + self._size[high] <= most):
            self._parent[high] = low
            self._size[low] += self._size[high]

    def groups(self) -> NDArray[np.int64]:
        """int64 (count,): the name of each index's set."""
        return np.array([self.root(index) for index in range(len(self._parent))], np.int64)
