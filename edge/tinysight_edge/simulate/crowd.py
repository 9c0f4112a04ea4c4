"""Many simulated devices in one process: one thread serves all their connections with a selector.

In: a `Plan`.  Out: what the devices say, until time is over or `stop`. Connections are dialled by a few threads, for
that may take long; all else happens in the thread that calls `run`. Others may ask that thread for something by `call`.
"""

import heapq
import itertools
import random
import resource
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from tinysight_contract.errors import BrokerError, ConfigError
from tinysight_contract.mqtt import Connection
from tinysight_edge.simulate.recording import Recording
from tinysight_edge.simulate.simulate import Device, Plan, Play

__all__ = ["Crowd"]

ANSWER_S: Final = 10.0
DIALS_AT_ONCE: Final = 32
CARE_EVERY_S: Final = 2.0
RETRY_S: Final = (1.0, 5.0)
GOODBYE_S: Final = 10.0
NAP_S: Final = 0.1
BUSY_S: Final = 1.0
STEPS_AT_ONCE: Final = 256
SPARE_FILES: Final = 64


class Crowd:
    """All devices.

    Args:
        plan: what is to be simulated.
        recording: what they tell.
    """

    def __init__(self, plan: Plan, recording: Recording) -> None:
        self.plan = plan
        self._dice = random.Random(plan.seed)  # noqa: S311 -- where a story begins is no secret
        self.devices = [
            self._make(f"{plan.prefix}-{number:04d}", recording, self._plays(recording))
            for number in range(1, plan.devices + 1)
        ]
        self._numbers: dict[Device, int] = {device: number for number, device in enumerate(self.devices)}
        self._selector = selectors.DefaultSelector()
        self._files: dict[Device, int] = {}
        self._dialling: dict[Future[Connection], Device] = {}
        self._away: list[tuple[float, int]] = []  # when to dial
        self._kept_away: set[Device] = set()
        self._steps: list[tuple[float, int, str, int]] = []  # when, whose, which camera, in which session
        self._begun_s: dict[tuple[int, str], float] = {}
        self._errands: list[tuple[float, int, Device, Callable[[], None]]] = []
        self._tickets = itertools.count()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stopped = False

    def stop(self) -> None:
        """End `run` soon, with a goodbye. May be called from a signal handler."""
        self._stopped = True

    def call(self, do: Callable[[], None]) -> None:
        """Have something done soon by the thread that runs. From any thread."""
        self._calls.put(do)

    def later(self, device: Device, delay_s: float, do: Callable[[], None]) -> None:
        """Have something done for a device after a while. In the thread that runs."""
        heapq.heappush(self._errands, (time.monotonic() + delay_s, next(self._tickets), device, do))

    def go_away(self, *devices: Device) -> None:
        """Cut devices off without a goodbye, until they come back. In the thread that runs."""
        for device in devices:
            self._kept_away.add(device)
            if (file := self._files.pop(device, None)) is not None and device.connection is not None:
                self._selector.unregister(file)
                device.connection.abandon()
                device.lose()

    def come_back(self, *devices: Device) -> None:
        """Let devices dial that were away. In the thread that runs."""
        calling = {number for _, number in self._away} | {self._numbers[each] for each in self._dialling.values()}
        for device in devices:
            self._kept_away.discard(device)
            if device not in self._files and self._numbers[device] not in calling:
                heapq.heappush(self._away, (0.0, self._numbers[device]))

    def run(
        self, *, duration_s: float | None = None, clear: bool = False, ready: Callable[[], None] = lambda: None
    ) -> dict[str, int | float]:
        """Play until time is over or `stop`.

        Args:
            duration_s: None for ever.
            clear: take back at the end what the broker retains.
            ready: called once, when the first device is connected.

        Returns:
            Devices, events sent and acknowledged, how often a session was lost, seconds.

        Raises:
            ConfigError: the process may not have so many connections.
            BrokerError: no broker is there, or it refuses the first device.
        """
        _allow_files(self.plan.devices + DIALS_AT_ONCE + SPARE_FILES)
        begun_s = time.monotonic()
        self._line_up(begun_s)
        until_s = begun_s + duration_s if duration_s is not None else float("inf")
        care_s = begun_s + CARE_EVERY_S
        with ThreadPoolExecutor(DIALS_AT_ONCE, thread_name_prefix="dial") as pool:
            try:
                self._first(until_s=begun_s + ANSWER_S)
                ready()
                while not self._stopped and (now_s := time.monotonic()) < until_s:
                    self._dial(pool, now_s)
                    self._serve(self._nap_s(now_s))
                    self._play(time.monotonic())
                    self._attend_errands(time.monotonic())
                    if now_s >= care_s:
                        care_s = now_s + CARE_EVERY_S
                        self._care()
                self._leave(clear=clear)
            finally:
                self._close()
        return {
            "devices": len(self.devices),
            "events_sent": sum(device.sent for device in self.devices),
            "acknowledged": sum(device.acknowledged for device in self.devices),
            "sessions_lost": sum(device.cut for device in self.devices),
            "seconds": round(time.monotonic() - begun_s, 3),
        }

    def _make(self, name: str, recording: Recording, plays: dict[str, Play]) -> Device:
        return Device(name=name, plan=self.plan, recording=recording, plays=plays)

    def _line_up(self, now_s: float) -> None:
        """Who dials when."""
        for number, device in enumerate(self.devices):
            if device.begins_s is None:
                self._kept_away.add(device)
            else:
                self._away.append((now_s + device.begins_s, number))
        heapq.heapify(self._away)

    def _plays(self, recording: Recording) -> dict[str, Play]:
        cameras = range(self.plan.cameras)
        return {f"cam{n}": Play(recording, self._dice.uniform(0.0, recording.duration_s)) for n in cameras}

    def _first(self, *, until_s: float) -> None:
        """Connect the first device; if that fails, all would. None where all come later."""
        if not self._away or self._away[0][0] > time.monotonic():
            return
        first = self.devices[heapq.heappop(self._away)[1]]
        connection = first.dial()
        self._admit(first, connection)
        while not connection.alive:
            if connection.refusal is not None:
                raise connection.refusal
            if time.monotonic() >= until_s or connection.fileno() < 0:
                what = (
                    f"{self.plan.address} accepts the connection and does not speak MQTT {self.plan.address.version}."
                )
                raise BrokerError(what, mend="Check the port, or add ?version=3 for a broker that knows 3.1.1 only.")
            self._serve(NAP_S)

    def _dial(self, pool: ThreadPoolExecutor, now_s: float) -> None:
        """Let those that are away call, and take in who got through."""
        while self._away and self._away[0][0] <= now_s and len(self._dialling) < DIALS_AT_ONCE:
            device = self.devices[heapq.heappop(self._away)[1]]
            if device in self._kept_away:
                continue
            self._dialling[pool.submit(device.dial)] = device
        for future in [each for each in self._dialling if each.done()]:
            device = self._dialling.pop(future)
            if future.exception() is None:
                if device in self._kept_away:
                    future.result().abandon()
                else:
                    self._admit(device, future.result())
            else:
                self._again(device)

    def _admit(self, device: Device, connection: Connection) -> None:
        device.connection = connection
        self._files[device] = connection.fileno()
        self._selector.register(connection.fileno(), selectors.EVENT_READ, device)

    def _again(self, device: Device) -> None:
        """Dial later, unless it is to stay away."""
        if device in self._kept_away:
            return
        due_s = time.monotonic() + self._dice.uniform(*RETRY_S)
        heapq.heappush(self._away, (due_s, self._numbers[device]))

    def _serve(self, nap_s: float) -> None:
        for key, mask in self._selector.select(nap_s):
            self._attend(key.data, readable=bool(mask & selectors.EVENT_READ))

    def _attend(self, device: Device, *, readable: bool = False) -> None:
        """Let a connection work, and see what has become of it."""
        if (connection := device.connection) is None:
            return
        connection.serve(readable=readable)
        if connection.alive and not device.ready:
            device.greet()
            for camera in device.plays:
                self._resume(device, camera)
        self._look(device, connection)

    def _look(self, device: Device, connection: Connection) -> None:
        """Whether it still stands, and whether it waits for room to write."""
        file = self._files[device]
        if connection.fileno() != file or connection.refusal is not None:
            self._selector.unregister(file)
            del self._files[device]
            connection.close()
            device.lose()
            self._again(device)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_to_write else 0)
        if self._selector.get_key(file).events != wanted:
            self._selector.modify(file, wanted, device)

    def _resume(self, device: Device, camera: str) -> None:
        """The story goes on where it was; meanwhile no time has passed in it."""
        number, play = self._numbers[device], device.plays[camera]
        now_s = time.monotonic()
        self._begun_s[number, camera] = now_s - play.due_s / self.plan.rate
        heapq.heappush(self._steps, (now_s, number, camera, device.cut))

    def _nap_s(self, now_s: float) -> float:
        due_s = [each[0][0] for each in (self._steps, self._errands) if each]
        return min(max(min(due_s) - now_s, 0.0), NAP_S) if due_s else NAP_S

    def _attend_errands(self, now_s: float) -> None:
        """Do what others have asked for, and what is due."""
        with suppress(Empty):
            for _ in range(STEPS_AT_ONCE):
                self._calls.get_nowait()()
        for _ in range(STEPS_AT_ONCE):
            if not self._errands or self._errands[0][0] > now_s:
                return
            _, _, device, do = heapq.heappop(self._errands)
            do()
            if device in self._files and device.connection is not None:
                self._look(device, device.connection)

    def _play(self, now_s: float) -> None:
        """Tell what is due."""
        for _ in range(STEPS_AT_ONCE):
            if not self._steps or self._steps[0][0] > now_s:
                return
            _, number, camera, session = heapq.heappop(self._steps)
            device = self.devices[number]
            if (connection := device.connection) is None or not device.ready or session != device.cut:
                continue
            due_s = now_s + BUSY_S
            if device.step(camera):
                due_s = self._begun_s[number, camera] + device.plays[camera].due_s / self.plan.rate
            heapq.heappush(self._steps, (due_s, number, camera, session))
            self._look(device, connection)

    def _care(self) -> None:
        """Keep sessions alive, and tell health when its time has come."""
        now_s = time.monotonic()
        for device in list(self._files):
            self._attend(device)
            if device.ready and now_s >= device.next_health_s:
                device.next_health_s = now_s + self.plan.health_s
                device.health()

    def _leave(self, *, clear: bool) -> None:
        """Say goodbye, and wait until the broker has heard it."""
        steps: list[Callable[[Device], None]] = [Device.stop, *([Device.clear] if clear else [])]
        for say in steps:
            for device in list(self._files):
                if device.ready and device.connection is not None:
                    say(device)
                    self._look(device, device.connection)
            until_s = time.monotonic() + GOODBYE_S
            while any(device.ready and not device.idle for device in self._files) and time.monotonic() < until_s:
                look_s = time.monotonic() + NAP_S  # not after every answer: there are thousands
                while time.monotonic() < look_s:
                    self._serve(NAP_S / 2)

    def _close(self) -> None:
        for device in self._files:
            if device.connection is not None:
                device.connection.close()
        for future in self._dialling:
            if not future.cancel() and future.exception() is None:
                future.result().close()
        self._selector.close()


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise ConfigError(
            f"This process may open {hard} files, {wanted} are needed.",
            mend=f"Say `ulimit -n {wanted}` before, or simulate fewer devices in each of several processes.",
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
