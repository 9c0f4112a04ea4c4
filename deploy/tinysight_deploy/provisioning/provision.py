"""Make a machine that one can log in to a device of TinySight's: step by step, each of which may be repeated.

In: `Wishes`.  Out: `Provisioned`, what each step found or did, and the claim. A step first looks whether anything is to
be done; with ``check`` that is all it does. After it was done it looks again. So a connection that is lost anywhere is
mended by running the same once more, and a run that has nothing to do changes nothing.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError, DeviceError
from tinysight_deploy.devices.inventory import Device, Inventory
from tinysight_deploy.provisioning import probe
from tinysight_deploy.provisioning.credentials import certificate_sha256
from tinysight_deploy.provisioning.files import Files, roots
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
    expected = wishes.fingerprint or _expected(wishes, inventory.devices())
    trust = roots(wishes)
    known = KnownHosts(inventory.known_hosts)
    async with connect(
        wishes.target, known, identity=wishes.identity, fingerprint=expected, tell=tell, remember=False
    ) as remote:
        facts = await look(remote)
        hands = Hands(remote)
        folder, house = _wheelhouse(wishes, facts)
        runtime = None if house is None else Runtime(hands, folder, house, facts)
        whole = runtime is not None and (await runtime.found())[0]
        work = Work(wishes, hands, facts, told)
        found = findings(facts, house, own_root=wishes.target.own_root, installed=whole)
        for each in found:
            tell(f"{each.level}: {each.what} {each.mend}")
        if wrong := [each for each in found if each.level == "error"]:
            raise DeviceError(f"{wishes.target}: {wrong[0].what}", mend=wrong[0].mend)
        if runtime is None:
            await work.has_programs()
        if not wishes.check and not may(remote, facts):
            raise ConfigError("It was not done.", mend="Run it again and say yes, or give --yes.")
        if not wishes.check:
            _pin(known, remote, tell)
        files, service = Files(hands, wishes, facts, trust), Service(hands, facts)
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
        if wishes.broker_config is not None and work.did("certificate"):
            tell(
                f"Bring {wishes.broker_config / 'broker'} to the broker and reload it: only then it lets the device in."
            )
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


def _expected(wishes: Wishes, devices: Mapping[str, Device]) -> str | None:
    """What the host key must be, as far as the inventory knows.

    Raises:
        ConfigError: the name or the id is another machine's.
    """
    target, same = wishes.target, (wishes.site, wishes.device)
    for name, each in devices.items():
        there = each.target
        if (there.host_name, there.prefix) == (target.host_name, target.prefix) or wishes.replace:
            continue
        if name == wishes.name or (each.site, each.device) == same:
            raise ConfigError(
                f"The inventory has {each.site}/{each.device} already, as {name} at {each.address}.",
                mend="Choose another --device and --name, or give --replace if this machine takes its place.",
            )
    return next((each.host_key for each in devices.values() if each.host_key and _host(each) == target.host_name), None)


def _host(device: Device) -> str:
    return device.target.host_name


def _pin(known: KnownHosts, remote: Remote, tell: Callable[[str], None]) -> None:
    """Remember a host's first key, now that somebody has agreed.

    Raises:
        DeviceError: another was remembered in the meantime.
    """
    key, host = remote.host_key, remote.target.host_name
    if key is None or known.key(host) == key:
        return
    if known.pin(host, key) != key:
        raise DeviceError(
            f"{remote.target}: somebody has just met it with another host key.",
            mend="Find out which is right, and run `tinysight device forget-key` for the other.",
        )
    tell(f"{host}: host key {key.fingerprint} is remembered.")


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
        certificate_sha256=certificate_sha256(wishes),
        tinysight=version,
        runtime=runtime,
    )
