"""The best picture of each event: when a frame is a better one, and how it is drawn.

In: one camera's tracks after each frame.  Out: the rows whose best picture so far this frame beats clearly, and drawn
pictures. A picture is good when the model is sure, the object is large and nothing of it is cut off. The first one is
taken with the event's start; the pause before the next doubles each time, so an object that comes closer quickly and
one that stays for a day both cost few writes. Decides and draws; writes nothing (`pictures` does).
"""

import math
from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.messages import Detection, FrameSize, ModelRef
from tinysight_contract.scalars import Id, Time
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["Best", "Snapshot", "draw", "quality"]

Image = NDArray[np.uint8]

BETTER: Final = 1.15
CUT_COUNTS: Final = np.float32(0.4)  # of a whole object
EDGE_PX: Final = 2.0
PAUSE_S: Final = (0.2, 10.0)
COLOUR_BGR: Final = (64, 200, 64)


class Snapshot(Struct, frozen=True, kw_only=True):
    """What a snapshot shows, written into the file itself.

    Attributes:
        event: the ``id`` of the event.
        captured_at: when this picture was taken, which is not when the event began.
        detection: the object in this very picture.
    """

    site: Id
    device: Id
    camera: Id
    event: Id
    captured_at: Time
    frame: FrameSize
    model: ModelRef
    detection: Detection


def quality(tracks: Tracks, width: int, height: int) -> NDArray[np.float32]:
    """How good a picture of each track its last box would make, (n,), 0..1."""
    x1, y1, x2, y2 = tracks.boxes_px.T
    area = (x2 - x1) * (y2 - y1) / np.float32(width * height)
    cut = (x1 <= EDGE_PX) | (y1 <= EDGE_PX) | (x2 >= width - EDGE_PX) | (y2 >= height - EDGE_PX)
    return np.asarray(tracks.scores * np.sqrt(area) * np.where(cut, CUT_COUNTS, np.float32(1.0)), np.float32)


class Best:
    """How good the best picture of each of one camera's objects is so far."""

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._numbers: list[int] = []
        self._best = np.empty(0, np.float32)  # of each row; infinite where no event is open
        self._due_s, self._pause_s = np.empty(0), np.empty(0)
        self._now: NDArray[np.float32] = self._best

    def better(self, alive: Tracks, ids: Mapping[int, str], at_s: float, size: FrameSize) -> NDArray[np.intp]:
        """Rows of ``alive`` for which this frame is a clearly better picture than any before, and the time has come.

        Args:
            alive: after this frame.
            ids: the event of each object that has one open, by the track's number.
            at_s: of the frame, as in the tracks.
            size: of the frame.
        """
        numbers = alive.numbers.tolist()
        if numbers != self._numbers or ids != self._ids:
            self._follow(numbers, ids)
        self._now = quality(alive, size.width, size.height)
        return np.flatnonzero((self._now > self._best * BETTER) & (alive.seen_s >= at_s) & (self._due_s <= at_s))

    def took(self, rows: NDArray[np.intp], at_s: float) -> None:
        """These rows of the last call have their pictures now."""
        self._best[rows] = self._now[rows]
        self._due_s[rows] = at_s + self._pause_s[rows]
        self._pause_s[rows] = np.minimum(self._pause_s[rows] * 2, PAUSE_S[1])

    def _follow(self, numbers: list[int], ids: Mapping[int, str]) -> None:
        """Take over what is known of those that go on; an event that is new has no picture yet."""
        known = {number: row for row, number in enumerate(self._numbers) if number in self._ids}
        before = self._best, self._due_s, self._pause_s
        best, due_s, pause_s = np.empty(len(numbers), np.float32), np.empty(len(numbers)), np.empty(len(numbers))
        for row, number in enumerate(numbers):
            if number not in ids:
                best[row], due_s[row], pause_s[row] = math.inf, 0.0, 0.0
            elif number in known and self._ids[number] == ids[number]:
                best[row], due_s[row], pause_s[row] = (each[known[number]] for each in before)
            else:
                best[row], due_s[row], pause_s[row] = -1.0, -math.inf, PAUSE_S[0]
        self._ids, self._numbers = dict(ids), numbers
        self._best, self._due_s, self._pause_s = best, due_s, pause_s


def draw(image: Image, what: Snapshot) -> Image:
    """A copy with the object's box, label and score, and when and where it was taken.

    OpenCV's letters are ASCII; others become question marks.
    """
    out = image.copy()
    height, width = out.shape[:2]
    thick, scale = max(1, round(min(width, height) / 300)), min(max(min(width, height) / 800, 0.4), 2.0)
    x1, y1, x2, y2 = (round(side * full) for side, full in zip(what.detection.box, (width, height) * 2, strict=True))
    cv2.rectangle(out, (x1, y1), (x2, y2), COLOUR_BGR, thick)
    _tag(out, f"{what.detection.label} {what.detection.score:.0%}", (x1, y1), scale)
    _tag(out, f"{what.device}/{what.camera} {what.captured_at:%Y-%m-%d %H:%M:%S} UTC", (0, height), scale)
    return out


def _tag(image: Image, text: str, corner: tuple[int, int], scale: float) -> None:
    """Black letters on colour; their lower left is at the corner, moved so that all is within the picture."""
    text = text.encode("ascii", "replace").decode()
    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = max(min(corner[0], image.shape[1] - wide - 4), 0)
    y = max(corner[1], high + below + 4)
    cv2.rectangle(image, (x, y - high - below - 4), (x + wide + 4, y), COLOUR_BGR, cv2.FILLED)
    cv2.putText(image, text, (x + 2, y - below - 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
