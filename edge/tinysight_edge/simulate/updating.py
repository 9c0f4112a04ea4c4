"""Many simulated devices that update, for tests and measurements of rollouts.

In: an `UpdatePlan`.  Out: devices on the broker, and counts of what they did. As a crowd of others they are served by
one thread; signatures are checked in one more, for each device with files of its own in a folder that goes at the end.
A process that serves more than a thousand can make no other session by `Connection.open`, which waits by ``select``.

::

    plan = UpdatePlan(address=Address.parse("mqtt://broker"), devices=20, repository="repo", root=root)
    with running(plan) as crowd:
        crowd.behave(Behaviour.CRASH, "sim-0003")
        ...
        crowd.come_back_all()
        print(crowd.counts())
"""

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError, UpdateError
from tinysight_contract.files import read_capped
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Release
from tinysight_edge.simulate.behave import Behaviour, behaviour_of
from tinysight_edge.simulate.crowd import Crowd
from tinysight_edge.simulate.recording import Recording, read_recording
from tinysight_edge.simulate.simulate import Device, Play
from tinysight_edge.simulate.update_plan import Scratch, UpdatePlan
from tinysight_edge.simulate.updates import UpdatingDevice
from tinysight_edge.update.signed import Machine
from tinysight_edge.update.sources import Source, open_source
from tinysight_edge.update.trust import MAX_ROOT_BYTES, Offer, Trust, new_trust
from tinysight_edge.update.update import State

__all__ = ["UpdatingCrowd", "read_root", "release_of", "running"]

SWITCH_S: Final = 0.0005
"""How long a check of signatures keeps the thread waiting that serves the sessions; Python's own is ten times that."""


class UpdatingCrowd(Crowd):
    """All devices.

    `behave`, `come_back_all`, `cut_off`, `device` and `counts` may be called from any thread, before and while it runs.

    Args:
        plan: what is to be simulated.
        recording: what they tell of themselves; None for this package's.
    """

    devices: list[UpdatingDevice]  # type: ignore[assignment]  # of this kind alone

    def __init__(self, plan: UpdatePlan, recording: Recording | None = None) -> None:
        self._own_plan = plan
        self.folder = Path()
        self._machine = Machine.here()
        super().__init__(plan, recording or read_recording())
        self._named = {device.name: device for device in self.devices}

    def run(
        self, *, duration_s: float | None = None, clear: bool = False, ready: Callable[[], None] = lambda: None
    ) -> dict[str, int | float]:
        """See `Crowd`; with what `counts` tells."""
        before_s = sys.getswitchinterval()
        self._source: Source = open_source(self._own_plan.repository, ca=self._own_plan.ca_file)
        with (
            tempfile.TemporaryDirectory(prefix="tinysight-simulate-") as folder,
            ThreadPoolExecutor(1, thread_name_prefix="signatures") as self._pool,
        ):
            self.folder = Path(folder)
            sys.setswitchinterval(SWITCH_S)
            try:
                told = super().run(duration_s=duration_s, clear=clear, ready=ready)
            finally:
                sys.setswitchinterval(before_s)
                self._pool.shutdown(wait=True, cancel_futures=True)
        return {**told, **self.counts()}

    def apart(
        self,
        device: Device,
        work: Callable[[Source], tuple[Offer, State] | UpdateError],
        then: Callable[[tuple[Offer, State] | UpdateError], None],
    ) -> None:
        """See `Hub`."""

        def done(future: "Future[tuple[Offer, State] | UpdateError]") -> None:
            if not future.cancelled():
                self.call(lambda: self.later(device, 0.0, lambda: then(future.result())))

        self._pool.submit(work, self._source).add_done_callback(done)

    def device(self, name: str) -> UpdatingDevice:
        """One of them.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self._named:
            raise ConfigError(f"There is no simulated device {name!r}.", mend=f"They begin at {self.devices[0].name}.")
        return self._named[name]

    def behave(self, behaviour: Behaviour, *names: str) -> None:
        """Devices behave so from now on; one that was silent tells what it owes. One that is away stays away."""
        for device in map(self.device, names):
            self.call(partial(self.later, device, 0.0, partial(device.changed, behaviour)))

    def cut_off(self, *names: str) -> None:
        """Sessions of devices are lost, without a goodbye, until `come_back_all`, or `come_back` in its thread."""
        self.call(partial(self.go_away, *map(self.device, names)))

    def come_back_all(self, *names: str) -> None:
        """Devices come that are away: those named, or all. Who was silent and vanished is sound from then on."""

        def back() -> None:
            devices = [self.device(name) for name in names] or [
                each for each in self.devices if each in self._kept_away
            ]
            for device in devices:
                if device.behave in {Behaviour.VANISH, Behaviour.OFFLINE}:
                    device.changed(Behaviour.SOUND)
            self.come_back(*devices)

        self.call(back)

    def counts(self) -> dict[str, int | float]:
        """What they did so far.

        Returns:
            ``confirmed``, ``failed``: devices whose last update ended so. ``duplicates_acted``: installations begun
            again for a revision that had been acted upon. ``wrong_bundle``: made active, though not wished for or not
            signed. ``passed_over``: desired states that came again or were old. ``messages_out``, ``bytes_out``,
            ``messages_in``, ``bytes_in``: of MQTT messages, topic and payload. ``checks``, ``verify_s``: of
            signatures, with processor time in seconds.
        """
        ended = Counter(
            "failed" if device.state.last.code else "confirmed" for device in self.devices if device.state.last
        )
        return {
            "confirmed": ended["confirmed"],
            "failed": ended["failed"],
            "acted": sum(device.acted.total() for device in self.devices),
            "duplicates_acted": sum(n - 1 for device in self.devices for n in device.acted.copy().values()),
            "wrong_bundle": sum(device.wrong for device in self.devices),
            "passed_over": sum(device.passed_over for device in self.devices),
            "messages_out": sum(device.out for device in self.devices),
            "bytes_out": sum(device.out_bytes for device in self.devices),
            "messages_in": sum(device.heard for device in self.devices),
            "bytes_in": sum(device.heard_bytes for device in self.devices),
            "checks": sum(device.checks for device in self.devices),
            "verify_s": round(sum(device.verify_s for device in self.devices), 3),
        }

    def _make(self, name: str, recording: Recording, plays: dict[str, Play]) -> UpdatingDevice:
        return UpdatingDevice(
            name=name,
            plan=self._own_plan,
            recording=recording,
            plays=plays,
            hub=self,
            machine=self._machine,
            behave=self._own_plan.named.get(name) or behaviour_of(name, self._own_plan.shares),
        )


def read_root(path: Path) -> bytes:
    """A root of trust in a file; it is checked by each device that is given it.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return read_capped(path, MAX_ROOT_BYTES)
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror or error}."
        raise ConfigError(what, mend="Name the repository's metadata/1.root.json.") from error


def release_of(repository: str, root: bytes, target: str) -> Release:
    """A release of a repository, as it is signed.

    Raises:
        UpdateError: it is not; see `Trust`.
    """
    with tempfile.TemporaryDirectory(prefix="tinysight-simulate-") as folder:
        new_trust(Path(folder), root, Scratch())
        return Trust(Path(folder), open_source(repository), now=utc_now(), disk=Scratch()).resolve(target).release


@contextmanager
def running(plan: UpdatePlan) -> Iterator[UpdatingCrowd]:
    """A crowd in a thread of its own; all that begin online dial at once, the first is connected.

    Raises:
        BrokerError: no broker is there, or it refuses the first device.
    """
    crowd, ready = UpdatingCrowd(plan), threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="simulate") as pool:
        life = pool.submit(crowd.run, ready=ready.set)
        life.add_done_callback(lambda _: ready.set())
        ready.wait()
        try:
            if not life.done():
                yield crowd
        finally:
            crowd.stop()
        life.result()
