"""Turn tracks into the messages of the contract: the life of each object, and what is present now.

In: one camera's tracks after each frame.  Out: `Event`s with rising ``seq``, and `Counts` when they changed.
No clock and no I/O: times come with the frame.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from tinysight_contract.messages import Counts, Event, EventType, FrameSize, LatencyMs, ModelRef, Zones
from tinysight_contract.messages import Track as TrackInfo
from tinysight_edge.track import Track

__all__ = ["Identity", "Lives", "Moment", "Sequence"]

UPDATE_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Moment:
    """The frame that events speak of.

    Attributes:
        at: when it was captured, aware UTC.
        at_s: the same in the source's seconds, as in the tracks.
        frame: its size.
        latency: what it has cost so far.
        clock_synced: whether the clock is known to be right; None when that is not known.
    """

    at: datetime
    at_s: float
    frame: FrameSize
    latency: LatencyMs
    clock_synced: bool | None


class Sequence:
    """The device's event number, from 1, shared by its cameras."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        """The next number."""
        self.last += 1
        return self.last


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is speaking: what every event of a camera carries.

    Attributes:
        site: the site's id.
        device: the device's id.
        camera: the camera's id.
        boot_id: of this start of the agent.
        model: which model sees.
        labels: its labels by class id.
    """

    site: str
    device: str
    camera: str
    boot_id: str
    model: ModelRef
    labels: tuple[str, ...]


@dataclass
class _Told:
    """What the broker knows of a track."""

    id: str
    started_at: datetime
    class_id: int
    stationary: bool
    at_s: float


class Lives:
    """The lives of one camera's objects, told as events.

    Args:
        who: goes into every event.
        sequence: of the device.
    """

    def __init__(self, who: Identity, sequence: Sequence) -> None:
        self._who, self._sequence = who, sequence
        self._told: dict[int, _Told] = {}
        self._counts: dict[str, int] | None = None

    def tell(self, alive: list[Track], ended: list[Track], moment: Moment) -> Iterator[Event]:
        """Events for what changed with this frame: ends first, then starts and updates.

        Args:
            alive: believed tracks that are alive.
            ended: believed tracks that ended with this frame.
            moment: the frame.
        """
        for track in ended:
            yield self._event(EventType.END, track, moment)
        for track in alive:
            told = self._told.get(track.number)
            if told is None:
                yield self._event(EventType.START, track, moment)
            elif (
                track.class_id != told.class_id
                or track.stationary != told.stationary
                or moment.at_s - told.at_s >= UPDATE_EVERY_S
            ):
                yield self._event(EventType.UPDATE, track, moment)

    def counts(self, alive: list[Track], *, at: datetime) -> Counts | None:
        """What is present now, if that changed since it was last asked for."""
        present = dict.fromkeys(self._who.labels, 0)
        for track in alive:
            present[self._who.labels[track.class_id]] += 1
        if present == self._counts:
            return None
        self._counts = present
        return Counts(at=at, boot_id=self._who.boot_id, objects=present, zones={}, lines={})

    def _event(self, kind: EventType, track: Track, moment: Moment) -> Event:
        at, at_s, frame = moment.at, moment.at_s, moment.frame
        seen_at = at - timedelta(seconds=at_s - track.seen_s)
        told = self._told.pop(track.number, None)
        if told is None:
            started_at = at - timedelta(seconds=at_s - track.started_s)
            unique = f"{int(started_at.timestamp() * 1000):x}-{secrets.token_hex(4)}"
            told = _Told(unique, started_at, track.class_id, track.stationary, at_s)
        told.class_id, told.stationary, told.at_s = track.class_id, track.stationary, at_s
        if kind is not EventType.END:
            self._told[track.number] = told
        size = np.array((frame.width, frame.height) * 2, np.float32)
        x1, y1, x2, y2 = (round(float(side), 5) for side in np.clip(track.box_px / size, 0.0, 1.0))
        return Event(
            id=told.id,
            type=kind,
            boot_id=self._who.boot_id,
            seq=self._sequence.next(),
            site=self._who.site,
            device=self._who.device,
            camera=self._who.camera,
            model=self._who.model,
            label=self._who.labels[track.class_id],
            class_id=track.class_id,
            score=round(track.score, 4),
            best_score=round(track.best_score, 4),
            box=(x1, y1, x2, y2),
            frame=frame,
            zones=Zones(now=[], entered=[]),
            track=TrackInfo(age_s=round(track.seen_s - track.started_s, 3), stationary=track.stationary),
            started_at=told.started_at,
            seen_at=seen_at,
            ended_at=seen_at if kind is EventType.END else None,
            clock_synced=moment.clock_synced,
            replayed=False,
            latency_ms=moment.latency,
        )
