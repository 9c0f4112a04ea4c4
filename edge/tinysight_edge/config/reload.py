"""Changes of ``agent.toml`` while the agent runs: which one runs, which is on trial, which is refused and why.

In: what stands in the file and lies over it, what the cameras deliver, the time.  Out: `Now`, and the `Change` between
two of them. Pure: decides and does nothing; `reloader` reads, keeps and tells.

A content is marked before it is applied. One that ends the process during its trial is known by that mark at the next
start: it is tried once more, then refused.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import ConfigError
from tinysight_edge.config.overlay import Overlay
from tinysight_edge.config.types import AgentConfig, CameraConfig

__all__ = ["Bad", "Change", "Content", "Mark", "Now", "Trial", "begin", "changes", "judge", "mark_of", "offer"]

STARTS: Final = 2
"""So often a content may be started without standing its trial."""
RESTART: Final = ("site", "device", "state", "broker", "model", "outbox")
REACH: Final = ("source", "username", "password_file", "password_env", "transport", "open_timeout", "read_timeout")
"""Of a camera, what decides whether it delivers at all."""


@dataclass(frozen=True, slots=True)
class Content:
    """A content of the file that can run.

    Attributes:
        digest: SHA-256 of ``raw``, and of what lies over it.
        raw: the file's bytes.
        config: what runs of it: ``restart`` has its old values.
        restart: what it changes that waits for a restart, such as ``broker``.
        overlay: of the desired state; None when the file alone holds.
    """

    digest: str
    raw: bytes
    config: AgentConfig
    restart: tuple[str, ...] = ()
    overlay: Overlay | None = None


@dataclass(frozen=True, slots=True)
class Bad:
    """A content that does not run.

    Attributes:
        digest: its SHA-256, or why there is none.
        error: what is wrong with it.
        tried: it was right, was tried and taken back, and is not tried again.
    """

    digest: str
    error: ConfigError
    tried: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """Of the content that runs.

    Attributes:
        ends_s: when it is judged.
        before: cameras that delivered before it began.
        blamed: cameras that must deliver at its end.
        starts: how often this content was started.
    """

    ends_s: float
    before: frozenset[str]
    blamed: frozenset[str]
    starts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What runs, and what is known.

    Attributes:
        running: what runs.
        good: what it would go back to; None as long as nothing has stood its trial.
        trial: of what runs; None when it has stood it.
        refused: what stands in the file and does not run; None when it does.
    """

    running: Content
    good: Content | None = None
    trial: Trial | None = None
    refused: Bad | None = None


class Mark(Struct, frozen=True, kw_only=True):
    """What the next start must know; ``agent.trial.json``."""

    trial: str | None = None
    starts: Annotated[int, Meta(ge=0)] = 0
    refused: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What the runtime has to do; ids in sorted order.

    Attributes:
        config: all that holds now.
        added: cameras to open.
        removed: cameras to close; their tracks end.
        reopened: cameras whose source or picture is another now: close and open.
        remeant: cameras that keep their source and have other zones, lines, motion gating or tiles.
        sections: of rules, snapshots, examples, governor, health and trial, those that are others now.
        restart: what waits for a restart.
        why: one line.
    """

    config: AgentConfig
    added: tuple[str, ...]
    removed: tuple[str, ...]
    reopened: tuple[str, ...]
    remeant: tuple[str, ...]
    sections: tuple[str, ...]
    restart: tuple[str, ...]
    why: str


def changes(old: AgentConfig, new: Content, *, why: str) -> Change:
    """What differs between what ran and what runs. Pure."""
    was, now = old.cameras, new.config.cameras
    both = sorted(was.keys() & now.keys())
    return Change(
        config=new.config,
        added=tuple(sorted(now.keys() - was.keys())),
        removed=tuple(sorted(was.keys() - now.keys())),
        reopened=tuple(id_ for id_ in both if _opened(was[id_]) != _opened(now[id_])),
        remeant=tuple(id_ for id_ in both if was[id_] != now[id_] and _opened(was[id_]) == _opened(now[id_])),
        sections=tuple(
            name
            for name in AgentConfig.__struct_fields__
            if name not in {*RESTART, "cameras"} and getattr(old, name) != getattr(new.config, name)
        ),
        restart=new.restart,
        why=why,
    )


def begin(offered: Content | Bad, good: Content | None, mark: Mark, now_s: float) -> Now:
    """What runs at a start: the file when it may be tried, else the last good one. Pure.

    Raises:
        ConfigError: the file is wrong, and there is no good one.
    """
    if good is not None and offered.digest == good.digest:
        return Now(running=good, good=good)
    if isinstance(offered, Bad):
        if good is None:
            raise offered.error
        return Now(running=good, good=good, refused=offered)
    if good is not None and offered.digest == mark.refused:
        return Now(running=good, good=good, refused=Bad(offered.digest, _taken_back(mark.why), tried=True))
    starts = mark.starts if offered.digest == mark.trial else 0
    if good is not None and starts >= STARTS:
        why = f"the agent ended {starts} times while it was on trial"
        return Now(running=good, good=good, refused=Bad(offered.digest, _taken_back(why), tried=True))
    trial = _trial(offered, good, frozenset(), now_s)
    return Now(running=offered, good=good, trial=replace(trial, starts=starts + 1))


def offer(now: Now, offered: Content | Bad, delivering: Collection[str], now_s: float) -> Now:
    """What runs after a look at the file. ``delivering`` are the cameras that give pictures now. Pure."""
    if offered.digest == now.running.digest:
        return replace(now, refused=None)
    if isinstance(offered, Bad):
        same = now.refused is not None and (now.refused.digest, str(now.refused.error)) == (
            offered.digest,
            str(offered.error),
        )
        return now if same else replace(now, refused=offered)
    if now.refused is not None and now.refused.tried and now.refused.digest == offered.digest:
        return now
    running = _kept(now.running.config, offered)
    if now.good is not None and offered.digest == now.good.digest:
        return Now(running=running, good=running)
    if running.config == now.running.config and now.trial is None:  # comments, or what waits for a restart
        return Now(running=running, good=running)
    before = (now.trial.before if now.trial else frozenset()) | frozenset(delivering)
    return Now(running=running, good=now.good, trial=_trial(running, now.good, before, now_s))


def judge(now: Now, delivering: Collection[str], now_s: float) -> Now:
    """What runs when the time of a trial is over: it stays, or what was good before comes back. Pure.

    With nothing to go back to it stays.
    """
    if now.trial is None or now_s < now.trial.ends_s:
        return now
    missing = sorted(now.trial.blamed - set(delivering))
    if not missing or now.good is None:
        return replace(now, good=now.running, trial=None)
    why = f"after {now.running.config.trial.written()} no pictures came from {', '.join(missing)}"
    back = _kept(now.running.config, now.good)
    return Now(running=back, good=back, refused=Bad(now.running.digest, _taken_back(why), tried=True))


def mark_of(now: Now) -> Mark:
    """What the next start must know of this. Pure."""
    tried = now.refused if now.refused is not None and now.refused.tried else None
    return Mark(
        trial=now.running.digest if now.trial else None,
        starts=now.trial.starts if now.trial else 0,
        refused=tried.digest if tried else None,
        why=tried.error.what if tried else "",
    )


def _taken_back(why: str) -> ConfigError:
    what = why if why.endswith(".") else f"The change was taken back: {why}."
    return ConfigError(what, mend="Change the file to try it again.")


def _opened(camera: CameraConfig) -> CameraConfig:
    """What a camera is opened with: all but what its pictures mean."""
    return msgspec.structs.replace(camera, zones={}, lines={}, motion=None, tiles=None)


def _reach(camera: CameraConfig) -> list[object]:
    return [getattr(camera, name) for name in REACH]


def _kept(running: AgentConfig, wanted: Content) -> Content:
    """``wanted``, but what needs a restart stays as it runs."""
    asked = wanted.config
    health = msgspec.structs.replace(asked.health, prometheus_port=running.health.prometheus_port)
    config = msgspec.structs.replace(asked, health=health, **{name: getattr(running, name) for name in RESTART})
    waits = [name for name in RESTART if getattr(asked, name) != getattr(running, name)]
    waits += ["health.prometheus_port"] if health != asked.health else []
    return replace(wanted, config=config, restart=tuple(dict.fromkeys((*wanted.restart, *waits))))


def _trial(content: Content, good: Content | None, before: frozenset[str], now_s: float) -> Trial:
    """Blamed are cameras that delivered before, are new, or are reached in another way.

    Not those that were silent before and have only another zone or mask.
    """
    known = good.config.cameras if good else {}
    blamed = {
        id_
        for id_, camera in content.config.cameras.items()
        if id_ in before or id_ not in known or _reach(known[id_]) != _reach(camera)
    }
    return Trial(now_s + content.config.trial, before, frozenset(blamed))
