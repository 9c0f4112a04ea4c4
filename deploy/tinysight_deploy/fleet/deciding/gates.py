"""The gates of one stage: what is counted, and what that means. Pure.

In: the `Verdict` of each device that was asked in the stage.  Out: a `Check` for each gate, and why the stage cannot be
passed any more.

A figure of one device moves no median as long as more than half of the others are honest.
"""

from math import inf
from statistics import median_high, median_low
from typing import Final

from tinysight_deploy.fleet.types import Check, Key, Outcome, Policy, Verdict, Wish

__all__ = ["OF_ALL", "Figures", "Tally", "failures_of_all", "gates", "is_enough", "of", "share"]

OF_ALL: Final = "failures of all stages"
"""Names the gate that counts all that were asked, in whatever stage."""

_EPS: Final = 1e-9  # 0.29 of 100 are 29
_MINUTE_S: Final = 60.0
_CONFIRMED, _GOING, _FAILED = Outcome.CONFIRMED, Outcome.GOING, Outcome.FAILED
_SILENT, _LEFT = Outcome.SILENT, Outcome.LEFT


class Tally:
    """What has become of a stage's devices, or of those of several stages.

    Args:
        policy: the rules; None when only outcomes are to be counted, and no figures.
        window_s: who ended up to then is not counted, because a person has let it go on since; 0 for all.

    Attributes:
        asked: all of them.
        away: were not there since; they do not count.
        left: are wanted for something else; they do not count.
        earlier: ended before the window.
        stood: of these, the ones that run the bundle.
        going: are on their way.
        untold: of these, the ones that are there, and whose wish the broker has not shown for a minute.
        soonest_s: since when one of these is known to be there; infinite without one.
        confirmed: run the bundle.
        failed: do not.
        silent: have not said so in time.
        first: of the failing, the one that ended first: when, who, why.
        latency: by how much runs became longer, of those that confirmed and told it.
        agreement: what both models see alike, of those that confirmed and told it.
    """

    __slots__ = (
        "_window_s",
        "agreement",
        "asked",
        "away",
        "confirmed",
        "earlier",
        "failed",
        "first",
        "going",
        "latency",
        "left",
        "silent",
        "soonest_s",
        "stood",
        "untold",
    )

    def __init__(self, policy: Policy | None, window_s: float) -> None:
        self.asked = self.away = self.left = self.earlier = self.going = self.confirmed = self.failed = self.silent = 0
        self.stood = self.untold = 0
        self.soonest_s = inf
        self.first: tuple[float, Key, str] | None = None
        longer = None if policy is None else policy.max_latency_regression
        drop = None if policy is None else policy.max_agreement_drop
        self.latency = None if longer is None else Figures(1.0 + longer)
        self.agreement = None if drop is None else Figures(1.0 - drop, least=True)
        self._window_s = window_s

    @property
    def failing(self) -> int:
        """Failed and silent ones."""
        return self.failed + self.silent

    @property
    def counted(self) -> int:
        """Those that were there, and did not end before the window."""
        return self.going + self.confirmed + self.failed + self.silent

    @property
    def reached(self) -> int:
        """Those that were there."""
        return self.counted + self.earlier

    def add(self, key: Key, wish: Wish, verdict: Verdict, now_s: float) -> None:
        """One device that was asked."""
        self.asked += 1
        outcome, settled_s = verdict.outcome, wish.settled_s
        if outcome is _CONFIRMED:
            if settled_s is not None and settled_s <= self._window_s > 0.0:
                self.earlier += 1
                self.stood += 1
                return
            self.confirmed += 1
            if self.latency is not None and verdict.slowdown is not None:
                self.latency.add(verdict.slowdown, key)
            if self.agreement is not None and verdict.agreement is not None:
                self.agreement.add(verdict.agreement, key)
        elif outcome is _GOING:
            self.going += 1
            self.untold += wish.reached_s is None and wish.outcome is _GOING and now_s - wish.sent_s > _MINUTE_S
            self.soonest_s = min(self.soonest_s, now_s if wish.reached_s is None else wish.reached_s)
        elif outcome is _FAILED or outcome is _SILENT:
            turned = wish.outcome is _CONFIRMED  # just now, whenever it confirmed
            ended_s = now_s if settled_s is None or turned else settled_s
            if ended_s <= self._window_s > 0.0:
                self.earlier += 1
                return
            if outcome is _FAILED:
                self.failed += 1
            else:
                self.silent += 1
            if self.first is None or (ended_s, key) < self.first[:2]:
                self.first = ended_s, key, verdict.reason
        elif outcome is _LEFT:
            self.left += 1
        else:
            self.away += 1


class Figures:
    """One figure of several devices, of which the middle counts; of two in the middle the worse one.

    Args:
        limit: what it may be at most.
        least: it is what it may be at least.
    """

    __slots__ = ("_bad", "_least", "_limit", "_told", "_worst")

    def __init__(self, limit: float, *, least: bool = False) -> None:
        self._limit, self._least = limit + (-_EPS if least else _EPS), least
        self._told: list[float] = []
        self._bad = 0
        self._worst: tuple[float, Key] | None = None

    def add(self, value: float, key: Key) -> None:
        """What one device tells."""
        self._told.append(value)
        if (value < self._limit) if self._least else (value > self._limit):
            self._bad += 1
            worst = self._worst
            if worst is None or ((value, key) < worst if self._least else (value, key) > worst):
                self._worst = value, key

    def __len__(self) -> int:
        return len(self._told)

    @property
    def middle(self) -> float:
        """The median; there has to be one."""
        return median_low(self._told) if self._least else median_high(self._told)

    @property
    def worst(self) -> tuple[float, Key] | None:
        """The worst one beyond the limit, and whose it is."""
        return self._worst

    def is_beyond(self, going: int, *, complete: bool) -> bool:
        """Whether the middle is beyond the limit, or will be whatever those on their way tell."""
        return self._bad * 2 > len(self) + going or (complete and 0 < self._bad * 2 >= len(self))


def gates(policy: Policy, tally: Tally, *, complete: bool) -> tuple[list[Check], str]:
    """The gates, and in one sentence which of them cannot be met any more, and because of whom; empty if all can.

    Args:
        policy: the rules.
        tally: of the stage.
        complete: all that can be reached was asked, and nobody is on its way who is waited for.
    """
    counted, failing = tally.counted, tally.failing
    ok = True if complete and tally.reached else None
    failed = failing > 0 and failing > policy.max_failures * counted + _EPS
    missed = failing > 0 and counted - failing < policy.min_confirmed * counted - _EPS
    checks = [
        Check(
            name="failures",
            ok=False if failed else ok,
            value=of(failing, counted),
            limit=f"at most {share(policy.max_failures)}",
            what=f"{tally.failed} failed, {tally.silent} silent" if failing else "",
        ),
        Check(
            name="confirmed",
            ok=False if missed else ok,
            value=of(tally.confirmed, counted),
            limit=f"at least {share(policy.min_confirmed)}",
        ),
    ]
    why = ""
    if failed:
        why = f"{of(failing, counted)} failed or were silent, at most {share(policy.max_failures)} may.{_first(tally)}"
    elif missed:
        can = of(counted - failing, counted)
        why = f"Only {can} can still confirm, at least {share(policy.min_confirmed)} have to.{_first(tally)}"
    latency, agreement = tally.latency, tally.agreement
    if latency is not None and policy.max_latency_regression is not None:
        limit = f"at most {1.0 + policy.max_latency_regression:.4g} times"
        beyond = latency.is_beyond(tally.going, complete=complete)
        value = f"{latency.middle:.4g} times" if len(latency) else "not told"
        checks.append(_median("latency", value, limit, ok=False if beyond else ok, told=len(latency)))
        if beyond and latency.worst is not None and not why:
            worst, (site, device) = latency.worst
            why = (
                f"The median device takes {value} as long for a run, {limit} is let through. Slowest is "
                f"{site}/{device} with {worst:.4g} times. Convert a smaller or better quantized model."
            )
    if agreement is not None and policy.max_agreement_drop is not None:
        limit = f"at least {share(1.0 - policy.max_agreement_drop)}"
        beyond = agreement.is_beyond(tally.going, complete=complete)
        value = share(agreement.middle) if len(agreement) else "not told"
        checks.append(_median("agreement", value, limit, ok=False if beyond else ok, told=len(agreement)))
        if beyond and agreement.worst is not None and not why:
            worst, (site, device) = agreement.worst
            why = (
                f"At the median device both models see {value} alike, {limit} is asked for. Least is {site}/{device} "
                f"with {share(worst)}. Look at the model's proof."
            )
    return checks, why


def is_enough(policy: Policy, tally: Tally) -> bool:
    """Whether a stage passes its shares by those that have ended, whatever becomes of those on their way."""
    ended, failing = tally.counted - tally.going, tally.failing
    most, least = policy.max_failures * ended, policy.min_confirmed * ended
    return not failing or (failing <= most + _EPS and tally.confirmed >= least - _EPS)


def failures_of_all(policy: Policy, tally: Tally, earlier: Tally) -> tuple[Check, str]:
    """The gate of all that were asked up to now, and in one sentence that too many of them fail; empty if not so.

    A stage that has passed is judged on by it: devices that came back late, that go bad, that are rolled back. What
    failed before the window counts no more, as in a stage; what has confirmed before it still runs the bundle, and
    counts.

    Args:
        policy: the rules.
        tally: of the open stage.
        earlier: of those before.
    """
    both = tally, earlier
    failing, going = sum(each.failing for each in both), sum(each.going for each in both)
    counted = sum(each.counted + each.stood for each in both)
    failed = failing > 0 and failing > policy.max_failures * counted + _EPS
    silent = sum(each.silent for each in both)
    check = Check(
        name=OF_ALL,
        ok=False if failed else None if going or not counted else True,
        value=of(failing, counted),
        limit=f"at most {share(policy.max_failures)}",
        what=f"{failing - silent} failed, {silent} silent" if failing else "",
    )
    if not failed:
        return check, ""
    which = min((each for each in both if each.first is not None), key=lambda each: each.first or (0.0, ("", ""), ""))
    limit = share(policy.max_failures)
    return (
        check,
        f"Of all stages up to now {of(failing, counted)} failed or were silent, at most {limit} may.{_first(which)}",
    )


def share(value: float) -> str:
    """A share in percent, such as ``2.5%``."""
    return f"{round(value * 100, 2):.10g}%"


def of(part: int, whole: int) -> str:
    """So many of so many, such as ``3 of 120 (2.5%)``."""
    return f"{part} of {whole} ({share(part / whole)})" if whole else f"{part} of {whole}"


def _first(tally: Tally) -> str:
    if tally.first is None:
        return ""
    _, (site, device), reason = tally.first
    return f" First {site}/{device}: {reason}"


def _median(name: str, value: str, limit: str, *, ok: bool | None, told: int) -> Check:
    what = f"median of {told}" if told else ("No device has told it, so it is not judged." if ok else "")
    return Check(name=name, ok=ok, value=value, limit=limit, what=what)
