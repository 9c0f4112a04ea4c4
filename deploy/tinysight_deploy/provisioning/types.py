"""What provisioning is asked for, and what it answers."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tinysight_deploy.provisioning.findings import Finding
from tinysight_deploy.remote.targets import SshTarget

__all__ = ["Act", "Claim", "Provisioned", "State", "Step", "Wishes"]

Act = tuple[str, Callable[[], Awaitable[str]], Callable[[], Awaitable[object]]]
"""A step: its name, what is to be done or nothing, and how."""
State = Literal["ok", "changed", "would change", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a device is to become.

    Attributes:
        target: where it is.
        site: its site in MQTT.
        device: its id in MQTT.
        name: in the inventory.
        repo: the repository's folder, whose root of trust the device is given.
        keys: of the repository, whose root that has to be; beside it unless given.
        wheelhouse: a folder of wheelhouses; without it the programs that are there stay.
        broker: its address, for a broker that asks for no certificate.
        ca: the certificates to trust for that.
        broker_config: the folder of `tinysight broker config`, whose authority signs for the device.
        config: the agent's file, instead of one that is made.
        groups: in the inventory; none means those that it has.
        tags: likewise.
        check: only look.
        identity: a private key's file, to log in.
        fingerprint: what the host key must be, if that is known; the inventory's unless given.
        replace: take the place of another machine that has the same name or id.
        service: have systemd run the agent also where the device is a folder of a machine.
    """

    target: SshTarget
    site: str
    device: str
    name: str
    repo: Path
    keys: Path | None = None
    wheelhouse: Path | None = None
    broker: str | None = None
    ca: Path | None = None
    broker_config: Path | None = None
    config: Path | None = None
    groups: Sequence[str] = ()
    tags: dict[str, str] = field(default_factory=dict)
    check: bool = False
    identity: Path | None = None
    fingerprint: str | None = None
    replace: bool = False
    service: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one step.

    Attributes:
        name: of the step.
        state: what became of it.
        what: what was to be done, or why it was skipped; empty when nothing was.
    """

    name: str
    state: State
    what: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What to write down of a device: by this it can be recognised later."""

    name: str
    site: str
    device: str
    address: str
    host_key: str
    model: str
    serial: str
    system: str
    machine: str
    python: str
    cameras: tuple[str, ...]
    accelerators: tuple[str, ...]
    root_sha256: str
    certificate_sha256: str
    tinysight: str
    runtime: str


@dataclass(frozen=True, slots=True)
class Provisioned:
    """How a run ended.

    Attributes:
        steps: in their order.
        findings: what is not as it should be.
        claim: what to write down.
        ready: whether the agent has all that it needs to run.
    """

    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]
    claim: Claim
    ready: bool

    @property
    def changed(self) -> bool:
        """Whether anything was done, or would be."""
        return any(each.state in {"changed", "would change"} for each in self.steps)
