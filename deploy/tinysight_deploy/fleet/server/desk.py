"""What an operator can ask of rollouts, and have done: the same for the API's server and for a command without one.

In: the state, the repository, what is known of the devices.  Out: the types of `forms`. `Remote` in `client` gives the
same answers from a server. Blocks on the database; knows nothing of HTTP and terminals.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, NoSuch, StateGone
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Release
from tinysight_deploy.fleet.control import operate
from tinysight_deploy.fleet.control.members import Roll
from tinysight_deploy.fleet.deciding.decide import BOXED, decide
from tinysight_deploy.fleet.deciding.why import why as reasons
from tinysight_deploy.fleet.keeping.audit import Entry, read_line
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.server import forms
from tinysight_deploy.fleet.server.figures import behind, device_row, member_row, outcomes_of, sizes, sizes_of
from tinysight_deploy.fleet.types import (
    Decision,
    Facts,
    Key,
    Outcome,
    Policy,
    Rollout,
    Wish,
    parse_stages,
)
from tinysight_deploy.repo.releases import Listed
from tinysight_deploy.repo.repository import Repository

__all__ = ["ACTS", "MOST", "Answers", "Desk"]

MOST: Final = 1000
"""Rows in one answer."""
_MOST_BYTES: Final = 4 << 20
_FEW_LINES: Final = 20  # at a time, of a MiB each at most
ACTS: Final = ("pause", "resume", "abort", "approve")


class Answers(Protocol):
    """What a command line asks for."""

    def preview(self, form: forms.Begin) -> forms.Preview:
        """What a rollout would do."""

    def begin(self, form: forms.Begin) -> Rollout:
        """Begin it."""

    def rollouts(self, *, after: str = "", most: int = MOST) -> forms.RolloutRows:
        """All of them."""

    def view(self, id_: str) -> forms.View:
        """How far one is."""

    def act(self, id_: str, what: str, form: forms.Act) -> forms.Acted:
        """Have one of `ACTS` done."""

    def why(self, id_: str, site: str, device: str) -> forms.Why:
        """Why a device is where it is."""


_BUSY: Final = frozenset({Outcome.AWAY, Outcome.GOING})


class Live(Protocol):
    """What a controller has made of a rollout, while it leads."""

    def decision(self, id_: str) -> Decision | None:
        """What it decided last; None while it does not lead."""

    def held(self, id_: str) -> Mapping[Key, str]:
        """Whom it does not ask, and why."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What is asked for, answered from the state itself.

    Attributes:
        state: of the rollouts.
        who: asks, for the audit log.
        repo: the releases; null when there is no repository here.
        inventory: a file of devices, for its groups.
        facts: of the devices; null when none can be heard.
        live: a controller in this process; null when there is none.
    """

    state: State
    who: str
    repo: Repository | None = None
    inventory: Path | None = None
    facts: Mapping[Key, Facts] | None = None
    live: Live | None = None

    def preview(self, form: forms.Begin) -> forms.Preview:
        """What a rollout would do.

        Raises:
            ConfigError: there is no such release or group, the rules cannot be, or no device can be heard.
        """
        policy = _checked(form.policy)
        release, members = self._release(form.bundle), self._members(form.group)
        heard = [self.facts[key] for key in members if self.facts and key in self.facts]
        have_it = sum(each.active == release.digest for each in heard)
        counts = sizes(policy.stages, len(members))
        return forms.Preview(
            target=release.target,
            bundle=release.digest,
            size_bytes=release.size_bytes,
            group=form.group,
            devices=len(members),
            online=sum(each.online is True for each in heard),
            have_it=have_it,
            bytes_at_most=(len(members) - have_it) * release.size_bytes,
            stages=[
                forms.StageRow(stage=str(stage), devices=count)
                for stage, count in zip(policy.stages, counts, strict=True)
            ],
        )

    def begin(self, form: forms.Begin) -> Rollout:
        """Begin a rollout.

        Raises:
            ConfigError: there is no such release or group, the rules cannot be, or no device can be heard.
            FleetError: the group is empty, or the state cannot be written.
        """
        policy = _checked(form.policy)
        release, members = self._release(form.bundle), self._members(form.group)
        return operate.begin(
            self.state,
            self.facts or {},
            release=release,
            group=form.group,
            policy=policy,
            who=self.who,
            members=members,
        )

    def rollouts(self, *, after: str = "", most: int = MOST) -> forms.RolloutRows:
        """The rollouts, the newest first.

        Raises:
            FleetError: the state cannot be read.
        """
        found = self.state.rollouts()[::-1]
        if after:
            at = next((place for place, each in enumerate(found) if each.id == after), None)
            if at is None:
                raise NoSuch(f"There is no rollout {after}.", mend="Begin again without `after`.")
            found = found[at + 1 :]
        return forms.RolloutRows(items=found[:most], next=found[most - 1].id if len(found) > most else None)

    def view(self, id_: str) -> forms.View:
        """A rollout, and how far it is.

        Raises:
            NoSuch: there is none of this name.
            FleetError: the state cannot be read.
        """
        rollout, wishes = self._rollout(id_), self.state.wishes(id_)
        members = self._members_now(rollout, wishes)
        decision = self._decision(rollout, wishes, members) if rollout.phase not in operate.OVER else None
        verdicts = {} if decision is None else decision.verdicts
        outcomes = outcomes_of(wishes.values(), verdicts, len(rollout.policy.stages))
        devices = sizes_of(rollout, members) if members else [sum(each.values()) for each in outcomes]
        left_s = None
        if rollout.soaked_from_s is not None and rollout.phase not in operate.OVER:
            left_s = max(0.0, rollout.soaked_from_s + rollout.policy.soak_s - rollout.clock_s)
        return forms.View(
            rollout=rollout,
            stages=[
                forms.StageRow(stage=str(stage), devices=count, outcomes=dict(outcome))
                for stage, count, outcome in zip(rollout.policy.stages, devices, outcomes, strict=True)
            ],
            members=None if members is None else len(members),
            checks=[] if decision is None else list(decision.checks),
            soak_left_s=left_s,
        )

    def members(
        self, id_: str, *, after: str = "", most: int = MOST, outcome: Outcome | None = None
    ) -> forms.MemberRows:
        """The devices that were asked in a rollout, by site and id.

        Args:
            id_: of the rollout.
            after: ``SITE/DEVICE``.
            most: rows.
            outcome: only those.

        Raises:
            NoSuch: there is none of this name.
            FleetError: the state cannot be read.
        """
        rollout, wishes = self._rollout(id_), self.state.wishes(id_)
        decision = None
        if rollout.phase not in operate.OVER:  # else what came later would be taken for what it brought
            decision = self._decision(rollout, wishes, self._members_now(rollout, wishes))
        verdicts = {} if decision is None else decision.verdicts
        rows = []
        for key in behind(wishes, after):
            row = member_row(wishes[key], verdicts.get(key))
            if outcome is None or row.outcome is outcome:
                rows.append(row)
            if len(rows) > most:
                break
        last = rows[most - 1] if len(rows) > most else None
        return forms.MemberRows(items=rows[:most], next=None if last is None else f"{last.site}/{last.device}")

    def devices(self, *, after: str = "", most: int = MOST) -> forms.DeviceRows:
        """The devices that were heard of, by site and id."""
        facts = self.facts or {}
        keys = behind(facts, after)
        last = keys[most - 1] if len(keys) > most else None
        return forms.DeviceRows(
            items=[device_row(key, facts[key]) for key in keys[:most]], next=None if last is None else "/".join(last)
        )

    def act(self, id_: str, what: str, form: forms.Act) -> forms.Acted:
        """Have one of `ACTS` done.

        Raises:
            NoSuch: there is no rollout of this name.
            ConfigError: there is no such release, or `what` is none of them.
            FleetError: it cannot be done as the rollout is, or the state cannot be written.
        """
        rollout = self._rollout(id_)
        if what == "abort" and form.revert is not None:
            if self.facts is None:
                raise _unheard()
            releases = {each.release.digest: each.release for each in self._listed()}
            old = releases.get(rollout.bundle)
            reverting = operate.revert(
                self.state,
                self.facts,
                id_,
                release=self._release(form.revert),
                who=self.who,
                reason=form.reason,
                reverted=None if old is None else old.release,
            )
            return forms.Acted(rollout=self._rollout(id_), reverting=reverting)
        if form.revert is not None:
            raise ConfigError("Only aborting takes back what is done.", mend="Leave `revert` out.")
        acts = {"pause": operate.pause, "resume": operate.resume, "abort": operate.abort, "approve": operate.approve}
        if what not in acts:
            raise ConfigError(f"{what!r} is nothing that can be done.", mend=f"Choose one of: {', '.join(acts)}.")
        return forms.Acted(rollout=acts[what](self.state, id_, who=self.who, reason=form.reason))

    def why(self, id_: str, site: str, device: str) -> forms.Why:
        """Why a device is, in a rollout, where it is.

        Raises:
            NoSuch: there is no such rollout, or nothing is known of the device.
            ConfigError: no device can be heard.
            FleetError: the state cannot be read.
        """
        rollout, wishes, key = self._rollout(id_), self.state.wishes(id_), (site, device)
        if self.facts is None:
            raise _unheard()
        members = self._members_now(rollout, wishes) or set()
        if key not in self.facts and key not in wishes and key not in members:
            raise NoSuch(
                f"Nothing was heard of a device {site}/{device}.", mend="Check the names in `tinysight watch`."
            )
        held = self._held(rollout)
        decision = self._decision(rollout, wishes, members) or Decision()
        wish = wishes.get(key)
        checks = reasons(
            rollout,
            key,
            self.facts.get(key),
            wish,
            decision,
            held.get(key),
            now_s=rollout.clock_s,
            member=self._is_member(rollout, key, members),
        )
        verdict = decision.verdicts.get(key)
        outcome = Outcome.HELD if wish is None else wish.outcome if verdict is None else verdict.outcome
        return forms.Why(
            rollout=id_, phase=rollout.phase, site=site, device=device, outcome=outcome, checks=list(checks)
        )

    def audit(self, after: int = 0, most: int = MOST) -> forms.Audit:
        """Who did what, after a number; fewer than `most` where they are long.

        Raises:
            FleetError: the state cannot be read.
        """
        items: list[Entry] = []
        size = 0
        while lines := self.state.lines(after, _FEW_LINES):
            for line in lines:
                size += len(line)
                if len(items) == most or (items and size > _MOST_BYTES):
                    return forms.Audit(items=items, next=items[-1].seq)
                items.append(read_line(line))
            after = items[-1].seq
        return forms.Audit(items=items)

    def releases(self) -> forms.Releases:
        """What may be rolled out.

        Raises:
            ConfigError: the repository is damaged.
            StateGone: it cannot be read.
        """
        return forms.Releases(items=[each.release for each in self._listed()])

    def _listed(self) -> list[Listed]:
        """All of the repository; nothing without one.

        Raises:
            ConfigError: it is damaged.
            StateGone: it cannot be read.
        """
        if self.repo is None:
            return []
        try:
            return self.repo.releases()
        except OSError as error:
            what = f"The repository in {self.repo.folder} cannot be read: {error.strerror or error}."
            raise StateGone(what, mend="See that the folder is there and the server may read it.") from error

    def _rollout(self, id_: str) -> Rollout:
        try:
            return self.state.rollout(id_)
        except ConfigError as error:
            raise NoSuch(error.what, mend=error.mend) from error

    def _release(self, which: str) -> Release:
        """A release by ``NAME@VERSION``, target's path or digest. Never by a file: who asks may be elsewhere."""
        if self.repo is None:
            raise ConfigError("There is no repository here.", mend="Give --repo to the server.")
        releases = [each.release for each in self._listed()]
        found = [each for each in releases if which in {each.target, each.digest, f"{each.name}@{each.version}"}]
        if not found:
            near = ", ".join(each.target for each in releases[:5]) or "none yet"
            mend = "Sign it with `tinysight release add FILE`, or give NAME@VERSION or a target's path."
            raise ConfigError(f"{which} is no release of the repository (there: {near}).", mend=mend)
        if len({each.digest for each in found}) > 1 or len(found) > 1:
            mend = f"Choose one of: {', '.join(each.target for each in found)}."
            raise ConfigError(f"{which} is a release of several projects.", mend=mend)
        return found[0]

    def _members(self, group: str) -> set[Key]:
        if self.facts is None:
            raise _unheard()
        return Roll(self.inventory).members(group, self.facts)

    def _members_now(self, rollout: Rollout, wishes: Mapping[Key, Wish]) -> set[Key] | None:
        """The members as they are now; None when they cannot be known."""
        if self.facts is None:
            return None
        if rollout.reverts is not None:
            before = self.state.wishes(rollout.reverts)
            brought = self.state.rollout(rollout.reverts).bundle
            return {key for key in before if self._active(key) == brought} | set(wishes)
        try:
            return self._members(rollout.group) | set(wishes)
        except ConfigError:  # the group has left the inventory since
            return set(wishes)

    def _is_member(self, rollout: Rollout, key: Key, members: set[Key]) -> bool:
        """Whether a device is of the group now; who was asked stays among the members when it is none any more."""
        if rollout.reverts is not None or self.facts is None:
            return key in members
        try:
            return key in self._members(rollout.group)
        except ConfigError:
            return False

    def _active(self, key: Key) -> str | None:
        facts = (self.facts or {}).get(key)
        return None if facts is None else facts.active

    def _decision(self, rollout: Rollout, wishes: Mapping[Key, Wish], members: set[Key] | None) -> Decision | None:
        """What a controller decided last, or would now; None when no device can be heard."""
        if self.facts is None or members is None:
            return None
        if self.live is not None and (decision := self.live.decision(rollout.id)) is not None:
            return decision
        return decide(rollout, members, self.facts, wishes, self._held(rollout), now_s=rollout.clock_s)

    def _held(self, rollout: Rollout) -> dict[Key, str]:
        """Who is not asked now, with the reason, as a controller would find it."""
        if self.live is not None and self.live.decision(rollout.id) is not None:
            return dict(self.live.held(rollout.id))
        now = utc_now()
        held = {
            key: f"{BOXED}it failed lately, and comes last until {each.until:%Y-%m-%d %H:%M} UTC."
            for key, each in self.state.boxed().items()
            if each.until > now
        }
        for other in self.state.rollouts():
            if other.id != rollout.id and other.phase not in operate.OVER:
                busy = (key for key, wish in self.state.wishes(other.id).items() if wish.outcome in _BUSY)
                held |= dict.fromkeys(busy, f"It is busy in {other.id}.")
        return held


def _checked(policy: Policy) -> Policy:
    """The rules, if their stages rise to 100 % and each hold names one.

    Raises:
        ConfigError: they do not.
    """
    if any((stage.count is None) == (stage.share is None) for stage in policy.stages):
        raise ConfigError("A stage has neither count nor share, or both.", mend="Give each one of them.")
    stages = parse_stages(",".join(map(str, policy.stages)))
    if any(each >= len(stages) for each in policy.hold):
        raise ConfigError("A hold names no stage.", mend=f"Number them 0 to {len(stages) - 1}.")
    return replace(policy, stages=stages, hold=tuple(sorted(set(policy.hold))))


def _unheard() -> ConfigError:
    return ConfigError("No device can be heard without a broker.", mend="Give --broker, or --fleet for a server.")
