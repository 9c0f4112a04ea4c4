"""Pictures worth keeping: the best of each event, and those that the model finds hard.

In: every inferred frame, in the inference loop.  Out: files below the agent's state folder, written by one thread.
`offer` decides on arrays and copies the frame only when it is wanted; no more than a few copies wait, and what finds no
room is counted, not waited for. A full or broken disk is told by `trouble` and never reaches the loop; writing goes on
when the disk does. The pictures are the frames themselves, so what privacy polygons have blacked is black here too.

::

    snapshots/<camera>/<event>.jpg          with box, label, score and time
    snapshots/<camera>/<event>.clean.jpg    without
    examples/                               see `examples`
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import StoreError
from tinysight_contract.messages import MAX_PAYLOAD_BYTES, FrameSize, ModelRef
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.config.types import ExamplesConfig, SnapshotsConfig
from tinysight_edge.decode import Detections
from tinysight_edge.frames import detection_of
from tinysight_edge.pictures.doubts import Doubts, Reason, Sampler
from tinysight_edge.pictures.examples import INDEX_SHARE, MAX_PROPOSALS, Example, Examples
from tinysight_edge.pictures.jpeg import shrunk, write_jpeg
from tinysight_edge.pictures.ring import Ring
from tinysight_edge.pictures.snapshots import Best, Snapshot, draw
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["About", "Pictures"]

log = logging.getLogger(__name__)

MOST_ENDED: Final = 256  # in the queue; of more the pictures are not sent
HELD_BYTES: Final = 12 * 2**20  # four frames of 720p, one of 4K
INDEX_EVERY_S: Final = 600.0
INDEX_EVERY: Final = 10
PROBE_EVERY_S: Final = 10.0  # while there is trouble
PROBE_BYTES: Final = 4096
SUSPECT_S: Final = 1.0
_NONE: Final = np.empty(0, np.intp)
_MEND: Final = "Free some space on the disk of the state folder and check its rights; lower `keep` if it is full again."


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What goes into every picture.

    Attributes:
        site: the site's id.
        device: the device's id.
        model: which model sees.
        task: detect or classify.
        labels: by class id.
        threshold: the score from which on a detection counts.
    """

    site: str
    device: str
    model: ModelRef
    task: str
    labels: tuple[str, ...]
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A copy of a frame, and what is to be made of it."""

    image: NDArray[np.uint8]
    snapshots: list[Snapshot]
    example: Example | None


@dataclass(frozen=True, slots=True)
class _Ended:
    """An event whose picture is to be sent."""

    camera: str
    event: str


@dataclass(slots=True, eq=False)
class _Suspect:
    """A frame in which an object may have been missed; the next frames tell."""

    image: NDArray[np.uint8]
    example: Example
    at_s: float


class _View:
    """What is remembered of one camera."""

    def __init__(self, threshold: float) -> None:
        self.best, self.doubts = Best(), Doubts(threshold)


class Pictures:
    """Keeps pictures. `offer` is for the inference loop, all else happens in a thread of its own.

    Args:
        state: the agent's folder.
        about: goes into every picture.
        snapshots: None to keep none.
        examples: None to keep none.
        send: takes camera, event and the best picture of an event that has ended, in the pictures' thread; None to
            send none.

    Attributes:
        counts: pictures so far: ``snapshots`` and ``examples`` written, ``alike`` (near-duplicates passed over),
            ``dropped`` (the disk was too slow) and ``failed`` (the disk said no).
        trouble: why the last one could not be written; None when it could. While nothing is to be written, a small file
            tells every 10 s whether it could be.
    """

    def __init__(
        self,
        state: Path,
        about: About,
        *,
        snapshots: SnapshotsConfig | None,
        examples: ExamplesConfig | None,
        send: Callable[[str, str, bytes], None] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.trouble: StoreError | None = None
        self._about, self._snapshots, self._send = about, snapshots, send
        self._sampler = None if examples is None else Sampler(examples.per_hour)
        self._views: dict[str, _View] = {}
        self._suspect: _Suspect | None = None
        self._held_bytes, self._lock = 0, threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | _Ended | None] = queue.SimpleQueue()
        self._ring = None if snapshots is None else Ring(state / "snapshots", keep_bytes=snapshots.keep)
        self._examples = None
        if examples is not None:
            index = int(examples.keep * INDEX_SHARE)
            ring = Ring(state / "examples" / "images", keep_bytes=examples.keep - index)
            self._examples = Examples(ring, index_bytes=index // 2)  # the old one and the new one lie there together
        self._probe_s = 0.0
        self._thread = threading.Thread(target=self._live, name="pictures", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def sees(self, about: About) -> None:
        """Another model sees from the next frame on. From the thread that offers."""
        self._about, self._suspect = about, None
        for view in self._views.values():
            view.doubts = Doubts(about.threshold)

    def offer(self, frame: Frame, found: Detections, alive: Tracks, ids: Mapping[int, str]) -> None:
        """Look whether this frame is worth keeping; never waits, and copies it only then.

        Args:
            frame: was inferred.
            found: what the model saw in it, in its pixels.
            alive: tracks that are believed after it.
            ids: the event of each object that has one open, by the track's number.
        """
        view = self._views.get(frame.camera)
        if view is None:
            view = self._views[frame.camera] = _View(self._about.threshold)
        height, width = frame.image_bgr.shape[:2]
        size = FrameSize(width=width, height=height)
        example = self._doubt(view, frame, found, alive, size) if self._sampler is not None else None
        rows = _NONE if self._snapshots is None else view.best.better(alive, ids, frame.at_s, size)
        if not len(rows) and example is None:
            return
        snapshots = [self._snapshot(frame, alive, int(row), ids, size) for row in rows]
        if self._hand_over(frame.image_bgr, snapshots, example) and snapshots:
            view.best.took(rows, frame.at_s)

    def ended(self, camera: str, event: str) -> None:
        """An event has ended: send its best picture once all that waits is written. Never waits."""
        if self._send is not None and self._ring is not None and self._jobs.qsize() < MOST_ENDED:
            self._jobs.put(_Ended(camera, event))

    def close(self, *, wait_s: float = 2.0) -> None:
        """Write what waits, for so long, and end."""
        self._jobs.put(None)
        self._thread.join(wait_s)

    def _doubt(self, view: _View, frame: Frame, found: Detections, alive: Tracks, size: FrameSize) -> Example | None:
        """The example to make of this frame, if it is one. The frame before, if it was one, is handed over here."""
        sampler, camera, now_s = self._sampler, frame.camera, frame.captured_s
        if sampler is None or not sampler.open(now_s):
            view.doubts.forget()
            return None
        reasons, flickered = view.doubts.of(found, alive, frame.at_s, size)
        if (suspect := self._suspect) is not None and suspect.example.camera == camera:
            self._suspect = None
            if flickered and sampler.choose(camera, ["flicker"], now_s) is not None:
                sampler.took(camera, "flicker", now_s)
                self._hand_over(suspect.image, [], suspect.example)
                return None
        elif suspect is not None and now_s - suspect.at_s > SUSPECT_S:
            self._suspect = None
        if view.doubts.missing and self._suspect is None and sampler.due(camera, "flicker", now_s):
            self._suspect = _Suspect(frame.image_bgr.copy(), self._example(frame, found, "flicker", size), now_s)
        if not reasons or (reason := sampler.choose(camera, reasons, now_s)) is None:
            return None
        sampler.took(camera, reason, now_s)
        return self._example(frame, found, reason, size)

    def _hand_over(self, image: NDArray[np.uint8], snapshots: list[Snapshot], example: Example | None) -> bool:
        """Give a copy to the thread; False when too much waits there already."""
        with self._lock:
            if self._held_bytes and self._held_bytes + image.nbytes > HELD_BYTES:
                self.counts["dropped"] += 1
                return False
            self._held_bytes += image.nbytes
        self._jobs.put(_Job(image.copy(), snapshots, example))
        return True

    def _snapshot(self, frame: Frame, alive: Tracks, row: int, ids: Mapping[int, str], size: FrameSize) -> Snapshot:
        return Snapshot(
            site=self._about.site,
            device=self._about.device,
            camera=frame.camera,
            event=ids[int(alive.numbers[row])],
            captured_at=frame.captured_at,
            frame=size,
            model=self._about.model,
            detection=detection_of(
                self._about.labels, alive.class_ids[row], alive.scores[row], alive.boxes_px[row], size
            ),
        )

    def _example(self, frame: Frame, found: Detections, reason: Reason, size: FrameSize) -> Example:
        most = min(int(np.count_nonzero(found.scores >= self._about.threshold)), MAX_PROPOSALS)
        if self._about.task == "classify":
            most = min(len(found), 1)
        rows = zip(found.class_ids[:most], found.scores[:most], found.boxes_px[:most], strict=True)
        return Example(
            site=self._about.site,
            device=self._about.device,
            camera=frame.camera,
            captured_at=frame.captured_at,
            reason=reason,
            frame=size,
            model=self._about.model,
            task=self._about.task,
            detections=[detection_of(self._about.labels, *row, size) for row in rows],
        )

    # Everything below runs in the pictures' own thread.

    def _live(self) -> None:
        opened, going = False, True
        while going:
            try:
                job = self._jobs.get(timeout=INDEX_EVERY_S if self.trouble is None else PROBE_EVERY_S)
                going = job is not None
            except queue.Empty:
                job = None
            try:
                if not opened:
                    self._open()
                    opened = True
                if isinstance(job, _Ended):
                    self._say(job)
                elif job is not None:
                    self._write(job)
                if self.trouble is not None and time.monotonic() >= self._probe_s:
                    self._probe()
                self._write_index(now=job is None)
            except Exception as error:  # noqa: BLE001 -- whatever a codec or a disk throws costs one picture, not all
                self._failed(error, lost=job is not None)
            if isinstance(job, _Job):
                with self._lock:
                    self._held_bytes -= job.image.nbytes

    def _open(self) -> None:
        if self._ring is not None:
            self._ring.open()
        if self._examples is not None:
            self._examples.open()

    def _write(self, job: _Job) -> None:
        if self._ring is not None and self._snapshots is not None:
            for each in job.snapshots:
                quality = self._snapshots.quality
                files = {
                    ".clean.jpg": write_jpeg(job.image, each, quality=quality),
                    ".jpg": write_jpeg(draw(job.image, each), each, quality=quality),
                }
                self._ring.put(f"{each.camera}/{each.event}", files)
                self.counts["snapshots"] += 1
                self.trouble = None
        if self._examples is not None and job.example is not None:
            if self._examples.put(job.image, job.example):
                self.counts["examples"] += 1
                self.trouble = None
            else:
                self.counts["alike"] += 1

    def _say(self, ended: _Ended) -> None:
        """Send the picture of an event, as small as it must be; of some events there is none."""
        if self._ring is None or self._send is None:
            return
        try:
            jpeg = self._ring.path(f"{ended.camera}/{ended.event}", ".jpg").read_bytes()
        except FileNotFoundError:
            return
        if len(jpeg) > MAX_PAYLOAD_BYTES:
            jpeg = shrunk(jpeg, Snapshot, most_bytes=MAX_PAYLOAD_BYTES)
        self._send(ended.camera, ended.event, jpeg)

    def _probe(self) -> None:
        """Whether the disk takes a picture again, though there is none to write."""
        if self._ring is not None:
            self._ring.probe(PROBE_BYTES)
        if self._examples is not None:
            self._examples.ring.probe(PROBE_BYTES)
        log.info("pictures can be written again")
        self.trouble = None

    def _write_index(self, *, now: bool) -> None:
        """A picture every few, when there is a pause, and at the end: what a kill leaves out the next start adds."""
        if self._examples is not None and self._examples.unwritten >= (1 if now else INDEX_EVERY):
            self._examples.write_index()

    def _failed(self, error: Exception, *, lost: bool) -> None:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or repr(error)
        if self.trouble is None:
            log.warning("a picture could not be written: %s", why)
        self.trouble = StoreError(f"Pictures cannot be written: {why}.", mend=_MEND)
        self.counts["failed"] += lost
        self._probe_s = time.monotonic() + PROBE_EVERY_S
