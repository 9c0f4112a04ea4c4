"""What is to be simulated of devices that update, and what each needs of the crowd that serves it. Values and ports."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Release
from tinysight_edge.simulate.behave import Behaviour
from tinysight_edge.simulate.simulate import Device, Plan
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.sources import Source
from tinysight_edge.update.trust import Offer
from tinysight_edge.update.update import State

__all__ = ["Hub", "Scratch", "UpdatePlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePlan(Plan):
    """What is to be simulated, of devices that update.

    Attributes:
        repository: a folder or an address, as ``repository`` under [update].
        root: the root of trust that each device was provisioned with.
        ca_file: certificates of the repository's server instead of the system's.
        active: what each device runs at first; None for what the recorded device ran.
        shares: of behaviours; all other devices are sound.
        named: how single devices behave, by name, whatever the shares are.
        update_s: how long an update takes from `queued` to `confirmed`, in seconds; a third more or less on each.
        offline_s: after how long devices come that are offline at first; None until they are told to.
    """

    repository: str
    root: bytes
    ca_file: Path | None = None
    active: Release | None = None
    shares: dict[Behaviour, float] = field(default_factory=dict)
    named: dict[str, Behaviour] = field(default_factory=dict)
    update_s: float = 6.0
    offline_s: float | None = None


class Hub(Protocol):
    """What a device needs of the crowd that serves it.

    Attributes:
        folder: where devices keep what they know of signatures, each in its own.
    """

    folder: Path

    def later(self, device: Device, delay_s: float, do: Callable[[], None]) -> None:
        """Have something done after a while."""

    def apart(
        self,
        device: Device,
        work: Callable[[Source], tuple[Offer, State] | UpdateError],
        then: Callable[[tuple[Offer, State] | UpdateError], None],
    ) -> None:
        """Have work done in another thread, with the repository, and its result taken in here."""

    def go_away(self, *devices: Device) -> None:
        """Cut devices off."""


class Scratch(Disk):
    """Files that need not survive a power cut."""

    def sync(self, path: Path) -> None:
        """See `Disk`."""

    def sync_folder(self, path: Path) -> None:
        """See `Disk`."""
