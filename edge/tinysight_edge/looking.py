"""The thread that runs the model: takes frames from the hub, in turn, and hands on what the model answered, in order.

In: `Frame`s and `Gap`s.  Out: `Look`s, `Gap`s, and None each time nothing came for a while. So the host's work on one
frame (boxes, tracks, events) is done while the model, which needs no GIL, sees the next one. At most one look waits.

Another model takes over between two frames: what comes out before a `Switched` was seen by the old one, what comes
after by the new one. One that may go back does so when it fails on a frame, and the same frame is seen by the old one.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from tinysight_contract.errors import InferenceError
from tinysight_edge.cameras.hub import Frame, Gap, Hub
from tinysight_edge.inference import Looked
from tinysight_edge.view import Seer, View

__all__ = ["Look", "Looking", "Switch", "Switched"]

WAIT_S: Final = 0.5
_END: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A frame, what the model answered, and whose it is.

    Attributes:
        view: the camera's, as it was when the frame was taken.
        frame: it.
        looked: the model's answers.
    """

    view: View
    frame: Frame
    looked: Looked

    @property
    def run_ms(self) -> float | None:
        """Of one run of the model, in the mean; None when it was not asked."""
        answers = self.looked.answers
        return self.looked.inference_ms / len(answers) if answers else None


@dataclass(frozen=True, slots=True, eq=False)
class Switch:
    """That another model is to see. Every view must be ready for it.

    Attributes:
        of: who sees now; nothing is done when that is another by then.
        seer: who is to see; the same as ``of`` to change only ``back``.
        back: who sees again when that one fails on a frame; None to end the process then.
    """

    of: Seer
    seer: Seer
    back: Seer | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Switched:
    """Who sees from here on.

    Attributes:
        seer: who does.
        back: who would again.
        asked: by which; None when the model went back by itself.
        error: the failure because of which it did.
    """

    seer: Seer
    back: Seer | None
    asked: Switch | None
    error: InferenceError | None = None


class Looking:
    """Frames in, looks out.

    Args:
        hub: where frames come from.
        seer: the model that sees first.
        view_of: who is to see a frame, as of now; None when it is passed over, and was counted.
        guard: ends the process when a call takes longer, in seconds.
    """

    def __init__(
        self,
        hub: Hub,
        seer: Seer,
        *,
        view_of: Callable[[Frame], View | None],
        guard: Callable[[float], AbstractContextManager[object]],
    ) -> None:
        self._hub, self._view_of, self._guard = hub, view_of, guard
        self._seer = seer
        self._back: Seer | None = None
        self._switches: SimpleQueue[Switch] = SimpleQueue()
        self._made: SimpleQueue[object] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()  # what may still be put; both queues are C, and need no lock
        self._room.put(None)
        self._kept: Look | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def __iter__(self) -> Iterator[Look | Gap | Switched | None]:
        """Until all cameras have left or the hub is stopped.

        Raises:
            InferenceError: the model fails on a frame.
        """
        self._thread.start()
        while not self._hub.stopped:
            try:
                item = self._made.get(timeout=WAIT_S)
            except Empty:
                continue  # no word that the thread is alive, so none is given
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            assert item is None or isinstance(item, Look | Gap | Switched)  # noqa: S101 -- nothing else is put in
            if not isinstance(item, Switched):  # it takes no room, so that the model waits for nobody
                self._room.put(None)
            yield item
            del item  # the frame's memory may be used again

    def switch(self, to: Switch) -> None:
        """Have another model see, from the next frame on; `Switched` tells when. From any thread; never waits."""
        self._switches.put(to)

    def close(self) -> None:
        """Wait for the thread, after the hub was stopped; one that hangs is left behind."""
        if self._thread.is_alive():
            self._thread.join(0.5)

    def _run(self) -> None:
        try:
            for item in self._hub:
                while not self._switches.empty():
                    self._switch(self._switches.get())
                if isinstance(item, Frame):
                    self._look(item)
                else:
                    self._hand_on(item)
                del item
        except Exception as error:  # noqa: BLE001 -- raised again where the loop runs
            self._hand_on(error)
        else:
            self._flush()
            self._made.put(_END)

    def _look(self, frame: Frame) -> None:
        """Hand on the last look only when the model runs again, if it soon will: until then we need the lock."""
        if (view := self._view_of(frame)) is not None:
            try:
                looked = self._see(view, frame)
            except InferenceError as error:
                if self._back is None:
                    raise
                self._go_on(self._back, None, error=InferenceError(error.what, mend=error.mend))  # without its frames
                looked = self._see(view, frame)
            self._flush()
            self._kept = Look(view, frame, looked)
        if not self._hub.has_more:
            self._flush()

    def _see(self, view: View, frame: Frame) -> Looked:
        infer = view.infer(self._seer)
        with self._guard(infer.limit_s):
            return infer.look(frame.image_bgr, frame.at_s, fitted=frame.fitted, prepared=self._flush)

    def _switch(self, asked: Switch) -> None:
        if asked.of is self._seer:
            self._go_on(asked.seer, asked.back, asked=asked)
        else:
            self._go_on(self._seer, self._back, asked=asked)

    def _go_on(
        self, seer: Seer, back: Seer | None, *, asked: Switch | None = None, error: InferenceError | None = None
    ) -> None:
        self._flush()
        self._seer, self._back = seer, back
        self._made.put(Switched(seer, back, asked, error))

    def _flush(self) -> None:
        if (kept := self._kept) is not None:
            self._kept = None
            self._put(kept)

    def _hand_on(self, item: object) -> None:
        self._flush()
        self._put(item)

    def _put(self, item: object) -> None:
        while not self._hub.stopped:
            try:
                self._room.get(timeout=WAIT_S)
            except Empty:
                continue
            self._made.put(item)
            return
