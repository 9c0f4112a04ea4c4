"""Make a machine that one can log in to a device of TinySight's: step by step, each of which may be repeated.

In: `Wishes`.  Out: `Provisioned`, what each step found or did, and the claim. A step first looks whether anything is to
be done; with ``check`` that is all it does. After it was done it looks again. So a connection that is lost anywhere is
mended by running the same once more, and a run that has nothing to do changes nothing.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError, DeviceError
from tinysight_deploy.devices.inventory import Inventory
from tinysight_deploy.provisioning import probe
from tinysight_deploy.provisioning.files import Files
from tinysight_deploy.provisioning.findings import findings
from tinysight_deploy.provisioning.hands import Hands
from tinysight_deploy.provisioning.runtime import Runtime
from tinysight_deploy.provisioning.service import Service
from tinysight_deploy.provisioning.steps import Flash, Work
from tinysight_deploy.provisioning.types import Claim, Provisioned, Step, Wishes
from tinysight_deploy.remote.known_hosts import KnownHosts
from tinysight_deploy.remote.ssh import Remote, connect
from tinysight_deploy.remote.targets import plain
from tinysight_deploy.wheels.wheelhouse import Wheelhouse, read

__all__ = ["look", "provision"]


_PROBE_S: Final = 60.0


async def provision(
    wishes: Wishes,
    inventory: Inventory,
    *,
    tell: Callable[[str], None],
    told: Callable[[Step], None],
    may: Callable[[Remote, probe.Facts], bool],
    flash: Flash | None = None,
) -> Provisioned:
    """Make a device, or look what that would take.

    Args:
        wishes: which, and how.
        inventory: where it is entered; the host keys are beside it.
        tell: is told in a line what goes on.
        told: is told of each step.
        may: is asked once the device is known and before anything is changed.
        flash: brings a bundle there.

    Raises:
        ConfigError: what was asked for cannot be, or the answer was no.
        DeviceError: the device cannot be reached, cannot work, refuses, or the connection was lost.
        OSError: a file of the workstation cannot be read or written.
    """
    _asked_well(wishes)
    known = KnownHosts(inventory.known_hosts)
    async with connect(
        wishes.target, known, identity=wishes.identity, fingerprint=wishes.fingerprint, tell=tell
    ) as remote:
        facts = await look(remote)
        hands = Hands(remote)
        folder, house = _wheelhouse(wishes, facts)
        runtime = None if house is None else Runtime(hands, folder, house, facts)
        whole = runtime is not None and (await runtime.found())[0]
        found = findings(facts, house, own_root=wishes.target.own_root, installed=whole)
        for each in found:
            tell(f"{each.level}: {each.what} {each.mend}")
        if wrong := [each for each in found if each.level == "error"]:
            raise DeviceError(f"{wishes.target}: {wrong[0].what}", mend=wrong[0].mend)
        if not wishes.check and not may(remote, facts):
            raise ConfigError("It was not done.", mend="Run it again and say yes, or give --yes.")
        work = Work(wishes, hands, facts, told)
        files, service = Files(hands, wishes, facts), Service(hands, facts)
        for name, check, do in files.first():
            await work.step(name, check, do)
        await work.programs(runtime, service, tell)
        for name, check, do in files.then(service):
            await work.step(name, check, do)
        ready, why_not = await files.ready(program=not work.waits)
        if flash is not None:
            await work.flash(flash, remote)
            ready, why_not = await files.ready(program=not work.waits)
        await work.step("unit", service.unit_differs, service.write_unit)
        await work.service(service, ready=ready, why_not=why_not)
        await work.clean(runtime)
        version = await files.version() if house is None or work.waits else house.version
        name = "" if runtime is None else runtime.name
        claim = _claim(wishes, remote, facts, files, version=version, runtime=name)
        work.enter(inventory, claim)
        return Provisioned(tuple(work.steps), tuple(found), claim, ready)


async def look(remote: Remote) -> probe.Facts:
    """What kind of machine a device is.

    Raises:
        DeviceError: it does not say, or says too much.
    """
    command = ["sh", "-c", probe.SCRIPT, "sh", str(remote.target.prefix)]
    done = await remote.run(command, timeout_s=_PROBE_S, most_bytes=probe.MOST_BYTES)
    return probe.read_facts(done.out, time.time())


def _asked_well(wishes: Wishes) -> None:
    """What can be refused before anybody is called."""
    if wishes.broker is not None and wishes.broker_config is not None:
        raise ConfigError("There are two brokers.", mend="Give --broker or --broker-config, not both.")
    if wishes.ca is not None and wishes.broker is None:
        raise ConfigError("There is a --ca and no broker that it is for.", mend="Give --broker as well.")


def _wheelhouse(wishes: Wishes, facts: probe.Facts) -> tuple[Path, Wheelhouse | None]:
    """That for this device, out of the folder of all or a folder of its own."""
    if wishes.wheelhouse is None:
        return Path(), None
    own = wishes.wheelhouse / facts.target
    folder = wishes.wheelhouse if (wishes.wheelhouse / "wheelhouse.json").exists() else own
    if folder == own and not folder.is_dir():
        if facts.python and facts.machine in {"aarch64", "x86_64", "armv7l"}:
            raise ConfigError(
                f"{wishes.wheelhouse} has no wheels for {facts.target}, which the device is.",
                mend=f"Run `tinysight wheelhouse --target {facts.target} --out {wishes.wheelhouse}`.",
            )
        return folder, None  # the findings say why no wheels would help
    return folder, read(folder)


def _claim(wishes: Wishes, remote: Remote, facts: probe.Facts, files: Files, *, version: str, runtime: str) -> Claim:
    key = remote.host_key
    return Claim(
        name=wishes.name,
        site=wishes.site,
        device=wishes.device,
        address=str(wishes.target),
        host_key="" if key is None else key.fingerprint,
        model=facts.model,
        serial=facts.serial,
        system=facts.system,
        machine=facts.machine,
        python=facts.python_version,
        cameras=tuple(plain(f"{each.node} {each.name}", 80) for each in probe.usb_cameras(facts)),
        accelerators=facts.accelerators,
        root_sha256=files.root_sha256(),
        certificate_sha256=files.certificate_sha256(),
        tinysight=version,
        runtime=runtime,
    )
