"""Standing problems as retained messages: set once, told again when cameras or cause change, cleared when over.

In: what `judge` found.  Out: what to publish. Pure but for what it remembers; knows nothing of MQTT.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tinysight_contract.messages import Alert, Well
from tinysight_contract.topics import AlertTopic
from tinysight_edge.health.verdict import Code, Problem

__all__ = ["Alerts"]

CLEAR_AFTER_S: Final = 10.0  # a problem that comes and goes is one problem
_UNTELLABLE: Final = frozenset({Code.BROKER_ABSENT})  # when it can be told, it is over
_CAUSES: Final = frozenset({Code.CAMERA_FAILED, Code.CONFIG_REFUSED, Code.CONFIG_LABELS, Code.UPDATE_FAILED})
"""Their words are a cause, not figures that vary."""


@dataclass(slots=True)
class _Standing:
    since: datetime
    about: tuple[str, ...]
    seen_s: float


class Alerts:
    """What was told of one device's problems.

    Args:
        site: the site's id.
        device: the device's id.
        boot_id: of this process.
    """

    def __init__(self, site: str, device: str, boot_id: str) -> None:
        self._topics = {code: AlertTopic(site, device, code.replace(".", "-")) for code in Code}
        self._boot_id = boot_id
        self._standing: dict[Code, _Standing] = {}
        self._begun = False

    def changes(self, problems: list[Problem], *, now_s: float, now: datetime) -> list[tuple[AlertTopic, Alert | None]]:
        """What is to be published now; None clears.

        The first call clears all that does not stand: the last boot may have left it at the broker.
        """
        found: list[tuple[AlertTopic, Alert | None]] = []
        present = {problem.code: problem for problem in problems if problem.code not in _UNTELLABLE}
        for code, problem in present.items():
            old = self._standing.get(code)
            since = old.since if old else now
            about = (problem.what,) if code in _CAUSES else problem.subjects
            if old is None or old.about != about:
                found.append((self._topics[code], self._alert(problem, since)))
            self._standing[code] = _Standing(since, about, now_s)
        for code in list(self._standing):
            if code not in present and now_s - self._standing[code].seen_s >= CLEAR_AFTER_S:
                del self._standing[code]
                found.append((self._topics[code], None))
        if not self._begun:
            self._begun = True
            found += [(topic, None) for code, topic in self._topics.items() if code not in self._standing]
        return found

    def _alert(self, problem: Problem, since: datetime) -> Alert:
        rule = problem.rule
        return Alert(
            severity="error" if rule.state is Well.FAILING else "warning",
            what=problem.what,
            mend=rule.mend,
            since=since,
            boot_id=self._boot_id,
        )
