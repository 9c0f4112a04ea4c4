"""Give a candidate its trial: it sees some frames beside the model that sees, if that is wanted, and then in its place.

In: a release of the store, and the running agent.  Out: an `Outcome`; the candidate sees then, unless it failed. What
is to become of it is not decided here, and what `trial` judges is only gathered.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError, DeviceError, InferenceError, StoreError, TinySightError
from tinysight_contract.updates import Code, Gate, Release
from tinysight_edge.update.body import Body
from tinysight_edge.update.shadow import Shadow, comparable
from tinysight_edge.update.trial import Before, Outcome, Rules, Trial
from tinysight_edge.view import Seer

__all__ = ["Tryout"]

log = logging.getLogger(__name__)

BEFORE_S: Final = 20.0
"""So long is waited at most for figures of the model that sees before another one is tried."""
TURN_S: Final = 0.5


class Tryout:
    """Of one candidate.

    Args:
        body: the agent.
        heed: called often; raises what ends it.
        turn: waits for about half a second, and heeds.
    """

    def __init__(self, body: Body, *, heed: Callable[[], None], turn: Callable[[], None]) -> None:
        self._body, self._heed, self._turn = body, heed, turn

    def before(self) -> Before:
        """How the model that sees does; waits a while until that is known."""
        until_s = time.monotonic() + BEFORE_S
        while (p95_ms := self._body.pulse().p95_ms) is None and time.monotonic() < until_s:
            self._turn()
        return Before(cameras=self._body.pulse().cameras(time.monotonic()), p95_ms=p95_ms)

    def stand(self, release: Release, open_: Callable[[Release], Bundle], before: Before) -> Outcome:
        """How it does. The one before stays loaded until it has stood.

        Args:
            release: the candidate.
            open_: has its bundle.
            before: how the model that sees does.

        Raises:
            DeviceError: the loop did not change its model in time.
        """
        wanted = self._body.config().update
        rules = Rules(over_s=wanted.trial, max_slowdown=wanted.max_slowdown, min_agreement=wanted.min_agreement)
        beside = Outcome()
        try:
            seer = self._body.swapper.load(open_(release), self._body.config().model, heed=self._heed)
            if wanted.shadow:
                beside = self._compare(release, seer, rules, every=wanted.shadow)
                if beside.code is not None:
                    return beside
        except StoreError as error:  # its file, which was right when it came, is not any more
            return Outcome(beside.gates, Code.TAMPERED, str(error))
        except MemoryError:
            what = "There is no room for it beside the one that sees. Take a smaller model."
            return Outcome(beside.gates, Code.MEMORY, what)
        except TinySightError as error:
            return Outcome(beside.gates, Code.BROKE, str(error))
        try:
            self._body.swapper.swap(seer, keep=True)
        except ConfigError as error:
            return Outcome(beside.gates, Code.BROKE, str(error))
        except DeviceError:
            self._heed()  # the agent has ended
            raise
        del seer  # it is the swapper's, to let go of
        alone = self._see(Trial(rules, before, time.monotonic()))
        gates: dict[str, Gate] = {**beside.gates, **alone.gates}
        if alone.code is not None:
            return Outcome(gates, alone.code, alone.reason)
        return Outcome(gates, reason=" ".join(each for each in (beside.reason, alone.reason) if each))

    def _see(self, trial: Trial) -> Outcome:
        """Let it see, until that is judged."""
        swapper = self._body.swapper
        while True:
            self._turn()
            failure = None if swapper.failure is None else swapper.failure.what
            outcome = trial.judge(self._body.pulse(), self._body.came(), time.monotonic(), failure=failure)
            if outcome is None:
                continue
            if outcome.code is None:
                try:
                    swapper.settle()
                except InferenceError:
                    continue  # it failed just now
            return outcome

    def _compare(self, release: Release, new: Seer, rules: Rules, *, every: int) -> Outcome:
        """Let it see some frames beside the one that sees, for as long as its trial takes."""
        now = self._body.swapper.seer
        if not comparable(now, new):
            why = "It was not compared with the one before, which has another task."
            log.info("%s %s: %s", release.name, release.version, why)
            return Outcome(reason=why)
        shadow = Shadow(now, new, self._body.config().cameras, every=every)
        until_s = time.monotonic() + rules.over_s
        self._body.shadow(shadow)
        try:
            while time.monotonic() < until_s:
                shadow.work(TURN_S)
                self._heed()
        finally:
            self._body.shadow(None)
        return shadow.agreement.judge(rules)
