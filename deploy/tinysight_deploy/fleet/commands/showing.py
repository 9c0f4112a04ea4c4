"""How rollouts look in a terminal: what will happen, how far it is, why a device is where it is. Pictures only, no I/O.

Marks are words, so that they can be read without colours. What comes from devices and servers is made safe here.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tinysight_deploy.fleet.commands.options import told_duration
from tinysight_deploy.fleet.server import forms
from tinysight_deploy.fleet.types import Check, Outcome, Phase, Policy, Rollout
from tinysight_deploy.remote.targets import plain

if TYPE_CHECKING:
    from tinysight_deploy.fleet.deciding.dry_run import Plan

__all__ = ["one_line", "picture", "planned", "preview", "reasons", "table_of", "tokens"]

_PHASES: Final = {
    Phase.RUNNING: "green",
    Phase.PAUSED: "yellow",
    Phase.HALTED: "bold red",
    Phase.ABORTED: "dim",
    Phase.DONE: "bold green",
}
_SHOWN: Final = (Outcome.AWAY, Outcome.GOING, Outcome.CONFIRMED, Outcome.FAILED, Outcome.SILENT, Outcome.LEFT)
_FAILING: Final = 20
_LONG: Final = 80
_BAD: Final = {Outcome.FAILED, Outcome.SILENT}
_MARKS: Final[Mapping[bool | None, tuple[str, str]]] = {
    True: ("ok", "green"),
    False: ("NO", "bold red"),
    None: ("?", "yellow"),
}


def picture(view: forms.View) -> RenderableType:
    """A rollout, and how far it is."""
    parts: list[RenderableType] = [_head(view.rollout)]
    if view.rollout.reason:
        parts.append(Text(plain(view.rollout.reason, 1000)))
    if view.soak_left_s is not None:
        parts.append(Text(f"Watched for another {told_duration(view.soak_left_s)}."))
    parts.append(_stages(view))
    if view.checks:
        parts.append(_checks(view.checks))
    return Group(*parts)


def one_line(view: forms.View) -> str:
    """The same in a line, for a log: it changes when something that a person wants to know has changed."""
    rollout = view.rollout
    told = [f"{rollout.id}: {rollout.phase}, stage {_stage(rollout)}"]
    total: dict[str, int] = {}
    for row in view.stages:
        for name, count in row.outcomes.items():
            total[name] = total.get(name, 0) + count
    told += [f"{total[name]} {name}" for name in _SHOWN if total.get(name)]
    return ", ".join(told) + (f". {plain(rollout.reason, 1000)}" if rollout.reason else "")


def preview(told: forms.Preview, policy: Policy) -> RenderableType:
    """What a rollout would do, for somebody who is about to say yes."""
    lines = {
        "release": plain(told.target),
        "bundle": f"{told.bundle[:12]}, {told.size_bytes:,} bytes",
        "devices": f"{told.devices:,} in {plain(told.group)}: {told.online:,} online, {told.have_it:,} have it already",
        "to fetch": f"{told.bytes_at_most:,} bytes at most; less where a difference does",
        "stages": ", then ".join(f"{row.stage} (about {row.devices:,})" for row in told.stages),
        "each": _rules(policy),
        "speed": f"{policy.per_min:,} a minute, {policy.at_once:,} on their way at once"
        + (f", between {policy.window} where the device is" if policy.window else ""),
    }
    if policy.hold:
        lines["waits"] = "for approval before " + ", ".join(str(policy.stages[each]) for each in policy.hold)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in lines.items():
        table.add_row(name, Text(value))
    return table


def planned(told: "Plan") -> RenderableType:
    """What a rollout would do, by what devices did before."""
    head = Text(f"{told.devices:,} devices, {told.online:,} online; {told.told:,} have told of an update. ")
    head.append(f"It would be {told.phase} after {told_duration(told.takes_s)}, {told.size_bytes:,} bytes moved.")
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for name in ("asked", "away", "confirmed", "failing", "bytes", "from", "to"):
        table.add_column(name, justify="right")
    for each in told.stages:
        numbers = (len(each.devices), each.away, each.confirmed, len(each.failing), each.size_bytes)
        table.add_row(
            f"{each.stage} ({each.size}){', waits for approval' if each.approval else ''}",
            *(f"{number:,}" for number in numbers),
            told_duration(each.begins_s),
            "never" if each.ends_s is None else told_duration(each.ends_s),
        )
    parts: list[RenderableType] = [head, *([Text(plain(told.reason, 1000))] if told.reason else []), table]
    failing = [each for stage in told.stages for each in stage.failing][:_FAILING]
    parts += [Text(f"{each.site}/{each.device} {each.outcome}: {plain(each.reason, 500)}") for each in failing]
    return Group(*parts)


def reasons(told: forms.Why) -> RenderableType:
    """Why a device is where it is: each gate with its figure."""
    head = Text(f"{told.site}/{told.device} in {told.rollout} ({told.phase}): ")
    head.append(str(told.outcome), style="bold red" if told.outcome in _BAD else "bold")
    long = [each for each in told.checks if len(each.what) > _LONG]  # would make a narrow column of many lines
    parts: list[RenderableType] = [head, *(Text(f"{each.name}: {plain(each.what, 1000)}") for each in long)]
    short = [replace(each, what="") if each in long else each for each in told.checks]
    for stage, checks in groupby(short, lambda each: each.name.rpartition(": ")[0]):
        if stage:
            parts.append(Text(f"{stage}:"))
        parts.append(_checks(replace(each, name=each.name.rpartition(": ")[2]) for each in checks))
    return Group(*parts)


def table_of(rollouts: Iterable[Rollout]) -> Table:
    """Rollouts, a line each; `picture` and the log say the rest."""
    table = Table(box=None, pad_edge=False)
    for name in ("rollout", "phase", "stage", "release", "group", "begun"):
        table.add_column(name, overflow="fold", no_wrap=name not in {"release", "group"})
    for each in rollouts:
        table.add_row(
            each.id,
            Text(each.phase, style=_PHASES[each.phase]),
            f"{_stage(each)} of {len(each.policy.stages)}",
            Text(plain(each.target)),
            Text(plain(each.group)),
            f"{each.begun_at:%Y-%m-%d %H:%M}",
        )
    return table


def tokens(rows: Iterable[tuple[str, str, str]]) -> Table:
    """Tokens: name, role, device."""
    table = Table(box=None, pad_edge=False)
    for name in ("name", "role", "device"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _stage(rollout: Rollout) -> str:
    """The open stage, from 0 as everywhere, and its size."""
    return f"{rollout.stage} ({rollout.policy.stages[min(rollout.stage, len(rollout.policy.stages) - 1)]})"


def _head(rollout: Rollout) -> Text:
    head = Text(f"{rollout.id}  ")
    head.append(rollout.phase, style=_PHASES[rollout.phase])
    head.append(f", stage {_stage(rollout)}: {plain(rollout.target)} for {plain(rollout.group)}")
    if rollout.reverts is not None:
        head.append(f", takes back {rollout.reverts}")
    return head


def _stages(view: forms.View) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for name in ("devices", "asked", *_SHOWN):
        table.add_column(str(name), justify="right")
    for number, row in enumerate(view.stages):
        asked = sum(row.outcomes.values())
        cells = [Text(f"{row.devices:,}"), Text(f"{asked:,}")]
        for outcome in _SHOWN:
            count = row.outcomes.get(outcome, 0)
            cells.append(Text(f"{count:,}", style="bold red" if count and outcome in _BAD else ""))
        mark = ">" if number == view.rollout.stage else " "
        table.add_row(Text(f"{mark} {number} ({row.stage})"), *cells)
    return table


def _checks(checks: Iterable[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("", "gate", "figure", "limit", ""):
        table.add_column(name, overflow="fold")
    for each in checks:
        mark, colour = _MARKS[each.ok]
        words = (each.name, each.value, each.limit, each.what)
        table.add_row(Text(mark, style=colour), *(Text(plain(word, 500)) for word in words))
    return table


def _rules(policy: Policy) -> str:
    told = [
        f"watched for {told_duration(policy.soak_s)}",
        f"at most {policy.max_failures * 100:.10g}% failing",
        f"at least {policy.min_confirmed * 100:.10g}% confirmed",
    ]
    if policy.max_latency_regression is not None:
        told.append(f"at most {policy.max_latency_regression * 100:.10g}% slower")
    if policy.max_agreement_drop is not None:
        told.append(f"agreement down by at most {policy.max_agreement_drop * 100:.10g} points")
    if policy.max_drift is not None:
        told.append(f"drift at most {policy.max_drift:.10g}")
    told.append(f"silent after {told_duration(policy.deadline_s)}")
    return ", ".join(told)
