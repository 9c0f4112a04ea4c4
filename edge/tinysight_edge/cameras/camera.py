"""One camera: a capture thread from the source to the hub, and somebody who notices when it hangs.

In: a `CameraConfig`.  Out: `Frame`s at the hub, and states. Files are read whole and end. A device is opened in a
thread of its own, which does all the work: grab, limit the rate, retrieve, orient and mask, look, hand over. Whatever
goes wrong there ends that thread; a second one, asleep meanwhile, tells the state, waits and begins anew, for ever. A
driver whose call never returns is left behind with its thread.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

from tinysight_contract.errors import CameraError, ConfigError
from tinysight_contract.messages import CameraInfo, CameraState, utc_now
from tinysight_edge.cameras.hub import Frame, Hub, Seat
from tinysight_edge.cameras.orient import Orient
from tinysight_edge.cameras.pace import BackOff, RateLimit
from tinysight_edge.cameras.sight import Sight
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.preprocess import Fitted
from tinysight_edge.sources import Image, Policy, Source, name_of, open_source, policy_of

__all__ = ["Camera", "stop_all"]

log = logging.getLogger(__name__)

MAX_DURATION_S: Final = 10 * 365 * 86400.0  # a file's header may say anything
MARGIN_S: Final = 2.0  # beyond a time-out, for a driver that keeps it itself
ASK_MARGIN_S: Final = 20.0  # opening may wait for cameras of the other transport, and ask why it failed
STALL_SHARE: Final = 0.9  # of read_timeout: a read that failed after that long has stalled, sooner it has lost its peer
MOST_HUNG: Final = 4
STOP_S: Final = 1.5
REASONS: Final = {
    CameraState.ONLINE: "the source delivers",
    CameraState.DARK: "the picture is dark and has no contrast",
    CameraState.COVERED: "the picture has lost nearly all its structure",
    CameraState.FROZEN: "the picture repeats to the bit",
}


class _Attempt(threading.Thread):
    """One opening of the source, read until it ends, breaks, or nobody wants it any more."""

    def __init__(self, camera: str, read: Callable[["_Attempt"], None], sight: Sight) -> None:
        super().__init__(name=f"capture-{camera}", daemon=True)
        self._read = read
        self.sight = sight  # its own: an attempt that hangs and comes back must not disturb the next one's
        self.ended = threading.Event()
        self.error: CameraError | None = None
        self.progress_s = time.monotonic()
        self.opened = False
        self.first_s: float | None = None

    def run(self) -> None:
        try:
            self._read(self)
        except CameraError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 -- whatever a driver throws must not pass for the end of the source
            kind, place = type(error).__name__, traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s: %s in %s:%s", self.name, kind, place.filename, place.lineno)  # its text may hold a password
            self.error = CameraError(f"The source broke: {kind}.", mend="Check it; report this as a bug.")
        finally:
            self.ended.set()


class Camera:
    """A source with its threads.

    Args:
        id_: the camera's id, a level of its topics.
        config: what it is and how it is treated.
        hub: where frames go.
        tell: called with the id, the new state and its reason whenever either changes; by any thread, never two at
            a time.
        secret: gives the camera's password, or raises `ConfigError`; asked at each opening.

    Attributes:
        policy: how its kind of source is treated; known after `open`.
        fit: makes of a file's picture what the model sees, in the capture thread, so that the model need not wait.
        failure: why a file ended before its end; or None.
    """

    policy: Policy
    _seat: Seat

    def __init__(
        self,
        id_: str,
        config: CameraConfig,
        hub: Hub,
        tell: Callable[[str, CameraState, str], None],
        *,
        secret: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.id, self.config = id_, config
        self.failure: CameraError | None = None
        self.fit: Callable[[Image], Fitted | None] = lambda _image: None
        self._hub, self._tell, self._secret = hub, tell, secret
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._current: _Attempt | None = None
        self._hung: list[threading.Thread] = []
        self._told: tuple[CameraState, str] | None = None
        self._sight = Sight(config.frozen_after)
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Join the hub. Opens what is no device: a device may be absent, and is opened by its thread after `start`.

        Raises:
            CameraError: the source is unknown, or is no device and cannot be opened.
            ConfigError: the crop is empty.
        """
        self.policy = policy_of(self.config)
        self._orient = Orient(self.config)
        self._source: Source | None = None if self.policy.lasting else self._open()
        self._info = self._describe(self._source)
        self._seat = self._hub.join(self.id)

    def start(self) -> None:
        """Begin to capture."""
        self._begun_s = time.monotonic()
        if self.policy.lasting:
            self._say(CameraState.RECONNECTING, "the source is being opened")
        work = self._keep if self.policy.lasting else self._play
        self._thread = threading.Thread(target=work, name=f"camera-{self.id}", daemon=True)
        self._thread.start()

    def stop(self, *, wait_s: float = STOP_S) -> None:
        """End this camera alone, after `open`; what waits at the hub is dropped. May be called again.

        Args:
            wait_s: at most, for its thread to end; a source that hangs is left behind.
        """
        with self._lock:
            self._stop.set()
            self._current = None
        self._seat.leave(now=True)
        if self._thread is not None:
            self._thread.join(wait_s)

    def describe(self) -> CameraInfo:
        """What is known of it: the size of its frames, and zeros as long as a device has not been opened."""
        return self._info

    def _open(self) -> Source:
        try:
            secret = self._secret()
        except ConfigError as error:
            raise CameraError(error.what, mend=error.mend) from error
        return open_source(self.config, secret=secret)

    def _describe(self, source: Source | None) -> CameraInfo:
        if source is None:
            return CameraInfo(source=name_of(self.config), width=0, height=0, fps=0.0)
        width, height = self._orient.size(source.width, source.height)
        return CameraInfo(source=source.name, width=width, height=height, fps=source.fps)

    def _say(self, state: CameraState, reason: str, attempt: _Attempt | None = None) -> bool:
        """Tell a change, and whether it was one. What an attempt finds that was given up is no news."""
        with self._lock:
            if (state, reason) == self._told or (attempt is not None and attempt is not self._current):
                return False
            self._told = state, reason
            self._tell(self.id, state, reason)
            return True

    # What is no device.

    def _play(self) -> None:
        """Read the source once, in this thread."""
        attempt = self._current = _Attempt(self.id, self._read, self._sight)
        attempt.run()
        self.failure = attempt.error
        if not self._stop.is_set():
            error = attempt.error
            self._say(CameraState.DISABLED, error.what if error else "the source has ended")
        self._seat.leave()

    # A device.

    def _keep(self) -> None:
        """Open the source in a thread of its own, watch that, and begin anew when it ends or hangs."""
        back_off = BackOff()
        while not self._stop.is_set():
            delivered_s = 0.0
            try:
                delivered_s = self._once()
            except Exception:  # such as no thread to be had: nothing may end the camera unheard
                log.exception("%s: an attempt broke.", self.id)
            self._stop.wait(back_off.next_s(delivered_s=delivered_s))

    def _once(self) -> float:
        """One attempt; for how many seconds it delivered."""
        self._hung = [thread for thread in self._hung if thread.is_alive()]
        while len(self._hung) >= MOST_HUNG:
            self._say(CameraState.STALLED, f"{MOST_HUNG} calls of the driver hang; waiting for one to return")
            if self._stop.wait(1.0):
                return 0.0
            self._hung = [thread for thread in self._hung if thread.is_alive()]
        self._sight = self._sight.heir()
        attempt = _Attempt(self.id, self._read, self._sight)
        with self._lock:
            if self._stop.is_set():
                return 0.0
            self._current = attempt
        attempt.start()
        self._await(attempt)
        self._account(attempt)
        return time.monotonic() - attempt.first_s if attempt.first_s is not None else 0.0

    def _await(self, attempt: _Attempt) -> None:
        """Wait until the attempt ends, or makes no progress for longer than its time-out."""
        while True:
            limit_s = self.config.read_timeout + MARGIN_S if attempt.opened else self.config.open_timeout + ASK_MARGIN_S
            left_s = attempt.progress_s + limit_s - time.monotonic()
            if attempt.ended.wait(max(left_s, 0.0)) or left_s <= 0:
                return

    def _account(self, attempt: _Attempt) -> None:
        """Say how an attempt went that is over; from now on nothing of it counts."""
        with self._lock:
            self._current = None
        if self._stop.is_set():
            return
        if attempt.first_s is not None:
            self._seat.lose()
        if not attempt.ended.is_set():
            self._hung.append(attempt)
            state = CameraState.STALLED if attempt.opened else CameraState.RECONNECTING
            reason = "the driver does not return from reading" if attempt.opened else "opening does not come to an end"
        elif attempt.opened and time.monotonic() - attempt.progress_s >= STALL_SHARE * self.config.read_timeout:
            state, reason = CameraState.STALLED, "no picture came within the read time-out"
        else:
            state = CameraState.RECONNECTING
            reason = attempt.error.what if attempt.error else "the stream has ended"
        log.log(
            logging.WARNING if self._say(state, reason) else logging.INFO, "%s: %s", self.id, attempt.error or reason
        )

    # Both.

    def _read(self, attempt: _Attempt) -> None:
        """The way of a picture, in the attempt's thread."""
        source = self._source if self._source is not None else self._open()
        try:
            attempt.progress_s, attempt.opened = time.monotonic(), True
            known = 0 < source.duration_s < MAX_DURATION_S
            begun = utc_now() - timedelta(seconds=source.duration_s if known else 0)
            damaged_s: float | None = None
            told: CameraState | None = None
            orient, limit = Orient(self.config), RateLimit(self.config.max_fps)  # this thread's alone
            while attempt is self._current and (at_s := source.grab()) is not None:
                if attempt is not self._current:  # given up meanwhile: nothing of it counts
                    return
                now_s = time.monotonic()
                if self.policy.live:
                    at_s, captured_at = now_s - self._begun_s, utc_now()
                else:
                    captured_at = begun + timedelta(seconds=at_s)
                attempt.progress_s = now_s
                if not limit.passes(at_s):
                    self._seat.drop("rate")
                    continue
                image = source.retrieve()
                if attempt is not self._current:
                    return
                if image is None:
                    self._seat.drop("damaged")
                    damaged_s = now_s if damaged_s is None else damaged_s
                    if self.policy.lasting and now_s - damaged_s > self.config.read_timeout:
                        raise CameraError("All pictures are damaged.", mend="Check its cable or network.")
                    continue
                damaged_s = None
                image = orient(image)
                state = CameraState.ONLINE
                if self.policy.live:
                    state = attempt.sight.look(image, now_s, hidden=orient.hidden)
                ahead = not self.policy.live and self._seat.waiting  # else it may be for nothing, or the model waits
                fitted = self.fit(image) if ahead else None
                self._give(attempt, Frame(self.id, image, at_s, captured_at, now_s, fitted))
                del image  # the hub's reader alone decides when its memory is free
                if attempt.first_s is None:
                    attempt.first_s, self._info = now_s, self._describe(source)
                if state is not told:
                    told = state
                    self._say(state, REASONS[state], attempt)
        finally:
            source.close()

    def _give(self, attempt: _Attempt, frame: Frame) -> None:
        """Hand over, unless the attempt was given up meanwhile. A file waits, so it must not hold the lock."""
        if not self.policy.lasting:
            self._seat.put(frame, live=self.policy.live)
            return
        with self._lock:
            if attempt is self._current:
                self._seat.put(frame, live=True)


def stop_all(cameras: Iterable[Camera]) -> None:
    """End them together, within 1.5 s."""
    cameras = list(cameras)
    until_s = time.monotonic() + STOP_S
    for camera in cameras:
        camera.stop(wait_s=0.0)
    for camera in cameras:
        camera.stop(wait_s=max(until_s - time.monotonic(), 0.0))
