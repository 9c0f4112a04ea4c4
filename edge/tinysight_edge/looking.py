"""The thread that runs the model: takes frames from the hub, in turn, and hands on what the model answered, in order.

In: `Frame`s and `Gap`s.  Out: `Look`s, `Gap`s, and None each time nothing came for a while. So the host's work on one
frame (boxes, tracks, events) is done while the model, which needs no GIL, sees the next one. At most one look waits.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from tinysight_edge.cameras.hub import Frame, Gap, Hub
from tinysight_edge.inference import Looked
from tinysight_edge.view import View

__all__ = ["Look", "Looking"]

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


class Looking:
    """Frames in, looks out.

    Args:
        hub: where frames come from.
        view_of: who is to see a frame, as of now; None when it is passed over, and was counted.
        guard: ends the process when so many runs of the model take too long.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        view_of: Callable[[Frame], View | None],
        guard: Callable[[int], AbstractContextManager[object]],
    ) -> None:
        self._hub, self._view_of, self._guard = hub, view_of, guard
        self._made: SimpleQueue[object] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()  # what may still be put; both queues are C, and need no lock
        self._room.put(None)
        self._kept: Look | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def __iter__(self) -> Iterator[Look | Gap | None]:
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
            assert item is None or isinstance(item, Look | Gap)  # noqa: S101 -- nothing else is put in
            self._room.put(None)
            yield item
            del item  # the frame's memory may be used again

    def close(self) -> None:
        """Wait for the thread, after the hub was stopped; one that hangs is left behind."""
        if self._thread.is_alive():
            self._thread.join(0.5)

    def _run(self) -> None:
        try:
            for item in self._hub:
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
            with self._guard(view.infer.most_runs):
                looked = view.infer.look(frame.image_bgr, frame.at_s, fitted=frame.fitted, prepared=self._flush)
            self._flush()
            self._kept = Look(view, frame, looked)
        if not self._hub.has_more:
            self._flush()

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
