"""The first bundle of a device, by the way that all bundles go: `flash_ssh`."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tinysight_contract.errors import DeviceError
from tinysight_deploy.devices.inventory import Inventory
from tinysight_deploy.flashing.over_ssh import Order, Way, flash_ssh
from tinysight_deploy.flashing.report import GOOD, Silence
from tinysight_deploy.flashing.shared import Slices
from tinysight_deploy.provisioning.steps import Flash
from tinysight_deploy.provisioning.types import Wishes
from tinysight_deploy.remote.known_hosts import KnownHosts
from tinysight_deploy.remote.ssh import Remote
from tinysight_deploy.repo.repository import Repository
from tinysight_deploy.signing.keys import Passphrase

__all__ = ["flash_of"]


def flash_of(
    wishes: Wishes,
    bundle: str,
    inventory: Inventory,
    *,
    keys: Path,
    passphrase: Path | None,
    tell: Callable[[str], None],
) -> Flash:
    """What brings a release to the device that is being made.

    Args:
        wishes: which device.
        bundle: the release: its bundle's file, ``NAME@VERSION`` or its target.
        inventory: beside which the host keys are.
        keys: of the repository.
        passphrase: a file whose first line opens them.
        tell: hears what goes on.

    Raises:
        ConfigError: there is no such release.
    """
    repository = Repository(wishes.repo, keys, passphrase=Passphrase(passphrase))
    release = repository.find(bundle)

    async def bring(_remote: Remote) -> str:
        tell(f"bringing {release.name} {release.version}")
        way = Way(wishes.target, KnownHosts(inventory.known_hosts), wishes.identity, wishes.fingerprint, tell)
        with tempfile.TemporaryDirectory(prefix="tinysight-add-") as room:
            slices = Slices(repository, release, Path(room))
            result = await flash_ssh(wishes.name, way, Order(release), slices, Silence())
        if result.outcome not in GOOD:
            raise DeviceError(
                f"{release.name} {release.version} is {result.outcome}: {result.reason.rstrip('.')}.",
                mend="All else is in place; mend that and run the same again.",
            )
        return "" if result.outcome == "unchanged" else f"{release.name} {release.version} {result.outcome}"

    return bring
