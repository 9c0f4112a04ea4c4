"""Give each detection to one track so that the total of their overlaps is the highest there is.

In: boxes that are expected and boxes that are seen.  Out: pairs that overlap; those of them that are taken.
Knows nothing of scores and of time.

Nearly all pairs have no rival, or none that could win; those are taken at once. What is left falls apart into small
groups, each solved exactly. No SciPy: 60 MB on the device for one function.
"""

from collections.abc import Sequence
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign", "overlapping"]

FEW_PAIRS: Final = 256  # so many are looked through by hand in the time that NumPy's dozen calls take


def overlapping(
    expected: NDArray[np.float64], seen: NDArray[np.float32], min_iou: float
) -> tuple[list[int], list[int], list[float]]:
    """Pairs that overlap by ``min_iou`` (above zero) or more.

    Args:
        expected: (4, n): x1 y1 x2 y2, as columns.
        seen: (m, 4): the same, as rows.
        min_iou: intersection over union.

    Returns:
        The column of ``expected``, rising; the row of ``seen``, rising within; their overlap.
    """
    if expected.shape[1] * len(seen) <= FEW_PAIRS:
        return _few(expected.T.tolist(), seen.tolist(), min_iou)
    there = np.array(seen.T, np.float64, order="C")
    common = np.minimum(expected[2:, :, None], there[2:, None])
    common -= np.maximum(expected[:2, :, None], there[:2, None])
    np.maximum(common, 0.0, out=common)
    shared = common[0] * common[1]
    sides, there_sides = expected[2:] - expected[:2], there[2:] - there[:2]
    areas = (sides[0] * sides[1])[:, None] + there_sides[0] * there_sides[1]
    rows, cols = (shared >= areas * (min_iou / (1 + min_iou))).nonzero()
    both = shared[rows, cols]
    return rows.tolist(), cols.tolist(), (both / (areas[rows, cols] - both)).tolist()


def _few(
    expected: list[list[float]], seen: list[list[float]], min_iou: float
) -> tuple[list[int], list[int], list[float]]:
    """The same, one by one."""
    rows, cols, overlaps = [], [], []
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in seen]
    for i, (left, top, right, bottom) in enumerate(expected):
        for j, (x1, y1, x2, y2) in enumerate(seen):
            if left < x2 and x1 < right and top < y2 and y1 < bottom:
                wide = (right if right < x2 else x2) - (left if left > x1 else x1)  # no calls: half the time
                high = (bottom if bottom < y2 else y2) - (top if top > y1 else y1)
                shared = wide * high
                overlap = shared / ((right - left) * (bottom - top) + areas[j] - shared)
                if overlap >= min_iou:
                    rows.append(i)
                    cols.append(j)
                    overlaps.append(overlap)
    return rows, cols, overlaps


def assign(rows: Sequence[int], cols: Sequence[int], gains: Sequence[float]) -> list[int]:
    """Choose pairs of the highest total gain, of which no two share a row or a column.

    Args:
        rows: of each pair.
        cols: of each pair; no pair stands there twice.
        gains: what each pair is worth, above zero.

    Returns:
        Indices of the pairs that are taken.
    """
    row_sums, col_sums = dict.fromkeys(rows, 0.0), dict.fromkeys(cols, 0.0)
    for row, col, gain in zip(rows, cols, gains, strict=True):
        row_sums[row] += gain
        col_sums[col] += gain
    # Whoever is worth more than all its rivals together is in the best choice: putting it in can only win.
    taken = [
        k
        for k, (row, col, gain) in enumerate(zip(rows, cols, gains, strict=True))
        if 3 * gain > row_sums[row] + col_sums[col]
    ]
    if len(taken) == min(len(row_sums), len(col_sums)):
        return taken
    gone_rows, gone_cols = {rows[k] for k in taken}, {cols[k] for k in taken}
    left = [k for k in range(len(rows)) if rows[k] not in gone_rows and cols[k] not in gone_cols]
    for group in _groups(left, rows, cols):
        taken += _best(group, rows, cols, gains)
    return taken


def _groups(pairs: list[int], rows: Sequence[int], cols: Sequence[int]) -> list[list[int]]:
    """Pairs that are connected by a row or a column."""
    groups: list[tuple[set[int], set[int], list[int]]] = []
    for k in pairs:
        mine = ({rows[k]}, {cols[k]}, [k])
        apart = []
        for group in groups:
            if rows[k] in group[0] or cols[k] in group[1]:
                mine = (mine[0] | group[0], mine[1] | group[1], group[2] + mine[2])
            else:
                apart.append(group)
        groups = [*apart, mine]
    return [group[2] for group in groups]


def _best(pairs: list[int], rows: Sequence[int], cols: Sequence[int], gains: Sequence[float]) -> list[int]:
    """The best choice of a group: shortest augmenting paths (Kuhn 1955, Munkres 1957; R. Jonker, A. Volgenant 1987)."""
    if len(pairs) == 1:
        return pairs
    side, other = (rows, cols) if len({rows[k] for k in pairs}) <= len({cols[k] for k in pairs}) else (cols, rows)
    i_of = {value: i for i, value in enumerate(dict.fromkeys(side[k] for k in pairs))}
    j_of = {value: j for j, value in enumerate(dict.fromkeys(other[k] for k in pairs))}
    n, m = len(i_of), len(j_of)
    cost = [[0.0] * m for _ in range(n)]
    pair = {}
    for k in pairs:
        i, j = i_of[side[k]], j_of[other[k]]
        cost[i][j] = -gains[k]
        pair[i, j] = k
    u, v = [0.0] * n, [0.0] * (m + 1)
    owner = [-1] * (m + 1)  # of each column; column m is where a search begins
    for start in range(n):
        owner[m], j = start, m
        near, came, done = [inf] * m, [m] * m, [False] * (m + 1)
        while owner[j] >= 0:
            done[j] = True
            i, step, following = owner[j], inf, m
            for k in range(m):
                if not done[k]:
                    reduced = cost[i][k] - u[i] - v[k]
                    if reduced < near[k]:
                        near[k], came[k] = reduced, j
                    if near[k] < step:
                        step, following = near[k], k
            for k in range(m + 1):
                if done[k]:
                    u[owner[k]] += step
                    v[k] -= step
                elif k < m:
                    near[k] -= step
            j = following
        while j != m:
            owner[j] = owner[came[j]]
            j = came[j]
        owner[m] = -1
    return [pair[owner[j], j] for j in range(m) if (owner[j], j) in pair]
