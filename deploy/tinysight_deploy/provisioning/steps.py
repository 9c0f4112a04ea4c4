"""The steps of provisioning: look, do, look again.

A step is two functions: one says what is to be done, or nothing; the other does it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from tinysight_contract.errors import DeviceError
from tinysight_deploy.devices.inventory import Device, Inventory, now
from tinysight_deploy.provisioning.hands import Hands
from tinysight_deploy.provisioning.probe import Facts
from tinysight_deploy.provisioning.runtime import Runtime
from tinysight_deploy.provisioning.service import Service
from tinysight_deploy.provisioning.types import Claim, State, Step, Wishes
from tinysight_deploy.remote.ssh import Remote
from tinysight_deploy.wheels.wheelhouse import Wheel

__all__ = ["Flash", "Work"]

_NO_PROGRAMS: Final = "Give --wheelhouse, made with `tinysight wheelhouse`."
Flash = Callable[[Remote], Awaitable[str]]
"""Brings a bundle to the device over the connection; what it did, in a few words."""


class Work:
    """The steps, one after another."""

    def __init__(self, wishes: Wishes, hands: Hands, facts: Facts, told: Callable[[Step], None]) -> None:
        self.steps: list[Step] = []
        self.waits = False
        """Whether the programs are not there, because nothing may be changed."""
        self._wishes, self._hands, self._facts, self._told = wishes, hands, facts, told

    async def step(self, name: str, check: Callable[[], Awaitable[str]], do: Callable[[], Awaitable[object]]) -> State:
        """Do what is to be done, if anything; ``check`` says what, or nothing.

        Raises:
            DeviceError: it was done and is still to be done.
        """
        wanted = await check()
        if not wanted:
            return self._say(Step(name, "ok"))
        if self._wishes.check:
            return self._say(Step(name, "would change", wanted))
        await do()
        if left := await check():
            raise DeviceError(
                f"{self._wishes.target}: {name}: {left}, although it was just done.",
                mend="Look at the device: somebody else changes it, or its disk does not keep what is written.",
            )
        return self._say(Step(name, "changed", wanted))

    def _say(self, step: Step) -> State:
        self.steps.append(step)
        self._told(step)
        return step.state

    def did(self, name: str) -> bool:
        """Whether a step changed something."""
        return any(each.name == name and each.state == "changed" for each in self.steps)

    async def has_programs(self) -> None:
        """Without a wheelhouse TinySight has to be there; that is looked at before anything is changed.

        Raises:
            DeviceError: it is not, and more than a look was asked for.
        """
        self.waits = (await self._hands.ask([str(self._wishes.target.program), "--version"])).status != 0
        if self.waits and not self._wishes.check:
            raise DeviceError(f"{self._wishes.target} has no TinySight yet.", mend=_NO_PROGRAMS)

    async def programs(self, runtime: Runtime | None, service: Service, tell: Callable[[str], None]) -> None:
        """Wheels, environment, link."""
        if runtime is None:
            self._say(
                Step("runtime", "would change", f"missing: {_NO_PROGRAMS}") if self.waits else Step("runtime", "ok")
            )
            return
        used = runtime
        whole_there, runs_there, _ = await used.found()
        if whole_there and runs_there:
            for name in ("wheels", "runtime", "switch"):
                self._say(Step(name, "ok"))
            return

        left: list[Wheel] | None = None

        async def wheels() -> str:
            if (await used.found())[0]:
                return ""
            missing = await to_bring()
            size = sum(each.size_bytes for each in missing) / 2**20
            return f"{len(missing)} wheels, {size:.1f} MiB" if missing else ""

        async def to_bring() -> list[Wheel]:
            nonlocal left
            if (
                left is None
            ):  # once: a small board needs a while for the digests of 100 MiB, and installing reads them too
                left = await used.missing()
            return left

        async def push() -> None:
            nonlocal left
            await used.push(await to_bring(), tell)
            left = []

        async def install() -> None:
            tell("installing; some minutes on a small board")
            await used.install()

        async def whole() -> str:
            return "" if (await used.found())[0] else f"environment {used.name}"

        async def runs() -> str:
            return "" if (await used.found())[1] else f"opt/tinysight/venv becomes {used.name}"

        async def switch() -> None:
            await service.will_restart()
            await used.switch()

        await self.step("wheels", wheels, push)
        self.waits = await self.step("runtime", whole, install) == "would change"
        await self.step("switch", runs, switch)

    async def flash(self, flash: Flash, remote: Remote) -> None:
        """The bundle, by the one way that all bundles go."""
        if self._wishes.check:
            self._say(Step("bundle", "skipped", "with --check nothing is sent"))
            return
        did = await flash(remote)
        self._say(Step("bundle", "changed" if did else "ok", did))

    async def service(self, service: Service, *, ready: bool, why_not: str) -> None:
        """Enabled, and running what is installed now."""

        async def differs() -> str:
            return await service.differs(ready=ready)

        async def do() -> None:
            await service.bring_up(ready=ready)

        if self._wishes.target.own_root and not self._wishes.service:
            self._say(Step("service", "skipped", "below a path only with --service"))
        elif not self._facts.systemd_runs:
            self._say(Step("service", "skipped", "systemd does not run there"))
        else:
            await self.step("service", differs, do)
        if not ready:
            self._say(Step("agent", "skipped", f"not started: {why_not}"))

    async def clean(self, runtime: Runtime | None) -> None:
        """What ran before is of no use any more."""
        if runtime is None:
            return
        await self.step("cleaning up", runtime.useless, runtime.clean)

    def enter(self, inventory: Inventory, claim: Claim) -> None:
        """Into the inventory, where the device keeps its groups, its tags and the day it was added."""
        wishes, before = self._wishes, inventory.devices().get(self._wishes.name)
        entry = Device(
            address=str(wishes.target),
            site=wishes.site,
            device=wishes.device,
            groups=list(wishes.groups) or (before.groups if before else []),
            tags=dict(wishes.tags) or (before.tags if before else {}),
            host_key=claim.host_key,
            added_at=before.added_at if before else now(),
            facts={
                "model": claim.model,
                "serial": claim.serial,
                "system": claim.system,
                "machine": claim.machine,
                "python": claim.python,
                "cameras": len(claim.cameras),
            },
        )
        if before == entry or (before is None and wishes.check):
            self._say(
                Step("inventory", "ok" if before else "would change", "" if before else f"added as {wishes.name}")
            )
        elif wishes.check:
            self._say(Step("inventory", "would change", f"{wishes.name} is entered anew"))
        else:
            for name, each in inventory.devices().items():
                if wishes.replace and name != wishes.name and (each.site, each.device) == (wishes.site, wishes.device):
                    inventory.remove(name)
            inventory.put(wishes.name, entry)
            what = f"{'changed' if before else 'added as'} {wishes.name}"
            if before and before.host_key not in {"", claim.host_key}:
                what += f", whose host key was {before.host_key}"
            self._say(Step("inventory", "changed", what))
