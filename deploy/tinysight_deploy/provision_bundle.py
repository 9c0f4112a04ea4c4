"""The first bundle of a device, by the way that all bundles go: `flash_ssh`."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tinysight_contract.errors import DeviceError
from tinysight_deploy.device_keys import KnownHosts
from tinysight_deploy.flash_report import GOOD, Silence
from tinysight_deploy.flash_slices import Slices
from tinysight_deploy.flash_ssh import Order, Way, flash_ssh
from tinysight_deploy.inventory import Inventory
from tinysight_deploy.keys import Passphrase
from tinysight_deploy.provision_steps import Flash
from tinysight_deploy.provision_types import Wishes
from tinysight_deploy.repository import Repository
from tinysight_deploy.ssh import Remote

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
            slices = Slices(lambda base, to: repository.slice(release, base=base, to=to), Path(room))
            result = await flash_ssh(wishes.name, way, Order(release), slices, Silence())
        if result.outcome not in GOOD:
            raise DeviceError(
                f"{release.name} {release.version} is {result.outcome}: {result.reason.rstrip('.')}.",
                mend="All else is in place; mend that and run the same again.",
            )
        return "" if result.outcome == "unchanged" else f"{release.name} {release.version} {result.outcome}"

    return bring
