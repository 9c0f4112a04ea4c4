"""What the fleet's API takes and gives, as types. The OpenAPI document is made of them."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from tinysight_contract.orders import Ack, DesiredState
from tinysight_contract.scalars import Count, Digest, Id, Unit
from tinysight_contract.updates import Release
from tinysight_deploy.fleet.keeping.audit import Entry
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_deploy.fleet.types import Check, Outcome, Phase, Policy, Rollout

__all__ = [
    "Act",
    "Acted",
    "Audit",
    "Begin",
    "Configure",
    "Configured",
    "DeviceRow",
    "DeviceRows",
    "Health",
    "Me",
    "MemberRow",
    "MemberRows",
    "Order",
    "Ordered",
    "Preview",
    "Releases",
    "RolloutRows",
    "StageRow",
    "View",
    "Why",
]

Text = Annotated[str, Meta(max_length=500)]
Which = Annotated[str, Meta(min_length=1, max_length=300)]


class Begin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall be rolled out, to whom, by which rules.

    Attributes:
        bundle: a release of the server's repository: ``NAME@VERSION``, its target's path, or the bundle's SHA-256.
        group: of devices: ``all``, ``site:NAME``, or a group of the inventory.
        policy: the rules.
    """

    bundle: Which
    group: Annotated[str, Meta(min_length=1, max_length=100)]
    policy: Policy


class Act(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes with pausing, resuming, aborting and approving.

    Attributes:
        reason: for the audit log.
        revert: with ``abort``: the release to go back to, as `Begin.bundle` names one; null to go back to none.
    """

    reason: Text = ""
    revert: Which | None = None


class Acted(Struct, frozen=True, kw_only=True):
    """What has become of a rollout.

    Attributes:
        rollout: as it is now.
        reverting: the rollout that takes it back, if one was begun.
    """

    rollout: Rollout
    reverting: Rollout | None = None


class StageRow(Struct, frozen=True, kw_only=True):
    """A stage, and how far it is.

    Attributes:
        stage: as it was written, such as ``5%``.
        devices: that belong to it and not to one before; before a rollout begins it is about so many.
        outcomes: how many of those that were asked have come how far, by `Outcome`.
    """

    stage: str
    devices: Count
    outcomes: dict[str, Count] = {}


class Preview(Struct, frozen=True, kw_only=True):
    """What a rollout would do.

    Attributes:
        target: of the release.
        bundle: SHA-256 of it.
        size_bytes: of it.
        group: of devices.
        devices: that are in the group now.
        online: of those.
        have_it: of those, how many run the bundle already.
        bytes_at_most: that the devices would fetch, if none of them fetched a difference.
        stages: with about how many devices each.
    """

    target: str
    bundle: Digest
    size_bytes: Count
    group: str
    devices: Count
    online: Count
    have_it: Count
    bytes_at_most: Count
    stages: list[StageRow]


class View(Struct, frozen=True, kw_only=True):
    """A rollout, and how far it is.

    Attributes:
        rollout: as it is kept.
        stages: each with its figures.
        members: how many devices are in its group now; null when no device can be heard.
        checks: the open stage's gates, each with its figure; empty when it is over, or no device can be heard.
        soak_left_s: how long the open stage is still watched; null while it does not soak.
    """

    rollout: Rollout
    stages: list[StageRow]
    members: Count | None = None
    checks: list[Check] = []
    soak_left_s: float | None = None


class RolloutRows(Struct, frozen=True, kw_only=True):
    """Rollouts, the newest first.

    Attributes:
        items: at most as many as were asked for.
        next: what to give as ``after`` to go on; null at the end.
    """

    items: list[Rollout]
    next: str | None = None


class MemberRow(Struct, frozen=True, kw_only=True):
    """A device that was asked in a rollout.

    Attributes:
        site: its site.
        device: its id.
        stage: in which it was asked, from 0.
        outcome: what has become of it.
        reason: why, for people.
        revision: of its desired state.
        sent_s: when it was asked, by the rollout's clock.
        reached_s: since when it is known that it was there; null while it was not.
        settled_s: when it first had an outcome; null while it has none.
        slowdown: its 95th percentile of a run against the bundle's before; null if not told.
        agreement: share of what both models see alike; null if not told.
    """

    site: Id
    device: Id
    stage: Count
    outcome: Outcome
    reason: str = ""
    revision: Count
    sent_s: float
    reached_s: float | None = None
    settled_s: float | None = None
    slowdown: float | None = None
    agreement: float | None = None


class MemberRows(Struct, frozen=True, kw_only=True):
    """Devices of a rollout, by site and id.

    Attributes:
        items: at most as many as were asked for.
        next: what to give as ``after`` to go on; null at the end.
    """

    items: list[MemberRow]
    next: str | None = None


class DeviceRow(Struct, frozen=True, kw_only=True):
    """A device, as it is known from the broker.

    Attributes:
        site: its site.
        device: its id.
        online: whether it is connected; null when that is not known.
        active: SHA-256 of the bundle that it runs.
        wanted: SHA-256 of the bundle that is wanted of it.
        revision: of the desired state that it has seen.
        state: what became of that.
        reason: why, in its words.
        drift: of its model, 0..1; null if not told.
    """

    site: Id
    device: Id
    online: bool | None = None
    active: Digest | None = None
    wanted: Digest | None = None
    revision: int = 0
    state: DesiredState | None = None
    reason: str = ""
    drift: Unit | None = None


class DeviceRows(Struct, frozen=True, kw_only=True):
    """Devices, by site and id.

    Attributes:
        items: at most as many as were asked for.
        next: what to give as ``after`` to go on; null at the end.
    """

    items: list[DeviceRow]
    next: str | None = None


class Why(Struct, frozen=True, kw_only=True):
    """Why a device is, in a rollout, where it is.

    Attributes:
        rollout: its id.
        phase: what it does.
        site: of the device.
        device: its id.
        outcome: what has become of it; ``held`` when it was not asked.
        checks: all that was looked at, each with its figure.
    """

    rollout: Id
    phase: Phase
    site: Id
    device: Id
    outcome: Outcome
    checks: list[Check]


class Audit(Struct, frozen=True, kw_only=True):
    """Entries of the audit log, in their order.

    Attributes:
        items: at most as many as were asked for.
        next: what to give as ``after`` to go on; null at the end.
    """

    items: list[Entry]
    next: Count | None = None


class Health(Struct, frozen=True, kw_only=True):
    """Whether the server does what it is for.

    Attributes:
        ok: that it answers.
        leads: whether its controller leads; another may.
        connected: whether it hears the broker.
        well: whether nothing keeps its controller from going on; what does stands in the server's log.
    """

    ok: bool
    leads: bool
    connected: bool
    well: bool


class Me(Struct, frozen=True, kw_only=True):
    """Whose token it is that was sent.

    Attributes:
        name: of whoever has it, as the audit log says it.
        role: what it was made for.
        may: the roles whose routes it lets use; of a device none, for it has its own alone.
        site: of the device that it belongs to; null unless the role is ``device``.
        device: likewise.
    """

    name: str
    role: Role
    may: list[Role]
    site: Id | None = None
    device: Id | None = None


class Releases(Struct, frozen=True, kw_only=True):
    """What may be rolled out.

    Attributes:
        items: the newest of each name first; none when the server has no repository.
    """

    items: list[Release]


class Order(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command for one device.

    Attributes:
        args: what the command needs, by name.
        seconds: how long its answer is waited for; it is not carried out later.
    """

    args: dict[str, Any] = {}
    seconds: Annotated[float, Meta(ge=1.0, le=60.0)] = 10.0


class Ordered(Struct, frozen=True, kw_only=True):
    """What has become of a command.

    Attributes:
        id: of the command.
        ack: the device's own answer; null when none came in time.
        waited_s: for it.
    """

    id: Id
    ack: Ack | None = None
    waited_s: float


class Configure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall lie over a device's own file. All else that is wanted of it stays.

    Attributes:
        config: as in `Desired`; null for the file alone.
        based_on: the revision of the desired state that whoever asks has seen; 0 for none.
    """

    config: dict[str, Any] | None
    based_on: Count


class Configured(Struct, frozen=True, kw_only=True):
    """The broker has it; what the device makes of it stands in its `Reported`.

    Attributes:
        revision: of the desired state that says so.
    """

    revision: Count
