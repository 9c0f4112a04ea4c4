"""Try a new bundle in a process of its own before it may run: is it right, and fast and small enough?

In: a bundle file that nobody runs yet, and the one that runs.  Out: a `Verdict`. What is in the bundle may crash, hang
or eat the process that tries it (`selftest_process`, `selftest_child`); it is gone when `run_selftest` returns or
raises. The active bundle is tried likewise, so that slow means slow beside what runs on this very device at this time.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tinysight_contract.updates import Code, Gate
from tinysight_edge.choice import EngineName
from tinysight_edge.update.memory import free_mib
from tinysight_edge.update.selftest_child import Task
from tinysight_edge.update.selftest_process import Figures, Outcome, attempt, too_much

__all__ = ["Figures", "Limits", "Verdict", "judge", "run_selftest"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bundle may take here.

    Attributes:
        time_s: for loading it, proving it and measuring it, each time that it is done.
        memory_mib: besides Python and its libraries, which the agent has loaded anyway; never more than is free.
        max_slowdown: how many times the active bundle's 95th percentile it may take for a run.
        floor_ms: a run that takes no longer is fast enough, whatever the active one takes: at 20 ms a camera with 25
            pictures a second loses none, and beside a model of 1 ms one of 3 ms is no loss, though three times as slow.
        max_ms: what a run may take at most; binds also below the floor and without an active bundle.
    """

    time_s: float = 120.0
    memory_mib: int = 1024
    max_slowdown: float = 2.0
    floor_ms: float = 20.0
    max_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a bundle may run here.

    Attributes:
        gates: ``golden`` (golden pictures that it answers otherwise than where it was made), ``p95_ms``,
            ``memory_mib``; only those that were measured.
        code: why it may not, or None when it may.
        reason: the same for people, with what to do.
        figures: of the bundle, when it works.
        active: of the one that runs, when it was tried and works.
        active_reason: why the active one was tried and could not be compared with.
    """

    gates: dict[str, Gate] = field(default_factory=dict)
    code: Code | None = None
    reason: str = ""
    figures: Figures | None = None
    active: Figures | None = None
    active_reason: str = ""


def run_selftest(
    bundle: Path,
    *,
    active: Path | None,
    limits: Limits,
    scheme: str | None = None,
    threads: int = 1,
    engine: EngineName = "auto",
    heed: Callable[[], None] = lambda: None,
) -> Verdict:
    """Try a bundle here as the agent would run it; takes up to ``limits.time_s`` for each of at most four processes.

    Args:
        bundle: the file. One that is missing or damaged is malformed.
        active: the file that runs now, to compare with. That it does not work here is said and no reason to refuse.
        limits: what it may take; the gates say what came of them here.
        scheme: of the one variant that the agent is configured for, if it is.
        threads: of every engine, as configured.
        engine: as configured.
        heed: called several times a second; what it raises ends the process and is raised.

    Raises:
        UpdateError: MEMORY, no process can be begun; of which the bundle is not to blame.
    """
    limits = replace(limits, memory_mib=min(limits.memory_mib, free_mib()))

    def tried(path: Path, *, watched: bool = False) -> Outcome:
        task = Task(
            parent=os.getpid(),
            bundle=os.path.abspath(path),  # noqa: PTH100 -- nothing is resolved: the store may be moved meanwhile
            scheme=scheme,
            threads=threads,
            engine=engine,
            time_s=limits.time_s,
            memory_mib=limits.memory_mib,
            watched=watched,
        )
        return attempt(task, heed)

    got = tried(bundle)
    if got.code in {Code.CRASHED, Code.RUNTIME}:  # of this, or of memory that it did not get?
        again = tried(bundle, watched=True)
        got = _of_memory(got, again, limits.memory_mib)
    if got.figures is None:
        gates = {"golden": Gate(value=got.departing, limit=0.0, ok=False)} if got.code is Code.WRONG else {}
        return Verdict(gates, got.code, got.reason)
    beside = Outcome() if active is None else tried(active)
    verdict = judge(got.figures, beside.figures, limits, active_reason=beside.reason)
    if verdict.code is Code.SLOW and active is not None and beside.figures is not None:
        # Something else may have slowed one of them. Once more, the other way round; the better of each counts.
        second, first = tried(active), tried(bundle)
        verdict = judge(
            _faster(got.figures, first.figures),
            _faster(beside.figures, second.figures),
            limits,
            active_reason=beside.reason,
        )
    return verdict


def judge(figures: Figures, active: Figures | None, limits: Limits, *, active_reason: str = "") -> Verdict:
    """Whether a bundle that works here may take what it takes. No I/O."""
    limit_ms = limits.time_s * 1e3  # within which all of the test is over
    if active is not None:
        limit_ms = max(limits.floor_ms, limits.max_slowdown * active.p95_ms)
    beside = f", where the active bundle takes {active.p95_ms:.3g} ms" if active is not None else ""
    mend = "Convert a smaller or better quantized model, or raise `max_slowdown`."
    if limits.max_ms is not None and limits.max_ms <= limit_ms:
        limit_ms, mend = limits.max_ms, "Convert a smaller or better quantized model, or raise `max_ms`."
    before_ms, before_mib = (None, None) if active is None else (active.p95_ms, active.memory_mib)
    gates = {
        "golden": Gate(value=0.0, limit=0.0, ok=True),
        "p95_ms": Gate(value=figures.p95_ms, limit=limit_ms, ok=figures.p95_ms <= limit_ms, before=before_ms),
        "memory_mib": Gate(
            value=figures.memory_mib,
            limit=limits.memory_mib,
            ok=figures.memory_mib <= limits.memory_mib,
            before=before_mib,
        ),
    }
    code, reason = None, ""
    if not gates["memory_mib"].ok:
        code, reason = Code.MEMORY, too_much(limits.memory_mib).reason
    elif not gates["p95_ms"].ok:
        allowed = f"{limit_ms:.3g} ms are allowed"
        code, reason = (
            Code.SLOW,
            f"It takes {figures.p95_ms:.3g} ms for a run (95th percentile){beside}; {allowed}. {mend}",
        )
    return Verdict(gates, code, reason, figures, active, active_reason)


def _faster(one: Figures, other: Figures | None) -> Figures:
    return one if other is None or one.p95_ms <= other.p95_ms else other


def _of_memory(got: Outcome, again: Outcome, memory_mib: int) -> Outcome:
    """What the first attempt has failed of, after one that got all the memory it asked for."""
    works = again.figures is not None and (got.code is Code.RUNTIME or again.figures.memory_mib > memory_mib)
    return too_much(memory_mib) if works or again.code is Code.MEMORY else got
