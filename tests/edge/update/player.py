"""An agent that is none, for the updates' own thread: what it is told to see, it sees."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError, InferenceError, RuntimeLoadError
from tinysight_contract.updates import Update
from tinysight_edge.config.types import AgentConfig, ModelConfig
from tinysight_edge.store import Store
from tinysight_edge.update.body import Body
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.trial import Pulse
from tinysight_edge.update.wish import Answer, Wish


class FullDisk(Disk):
    """Takes nothing while it is full."""

    full = False

    def write(self, path: Path, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().write(path, data)


class Player:
    """What is needed of the agent: it sees two hundred frames whenever somebody asks."""

    def __init__(self, config: AgentConfig, store: Store) -> None:
        self.config, self.store = config, store
        self.seer: Any = None
        self.back: Any = None
        self.failure: InferenceError | None = None
        self.run_ms: dict[str, float] = {}
        self.loads: list[str] = []
        self.log: list[str] = []
        self.refuses: Exception | None = None
        self.breaks = ""
        self.stuck: list[Exception] = []
        self.wish: Wish | None = None
        self.updates: list[Update] = []
        self.answers: list[Answer] = []
        self.alert: str | None = None
        self.runs: str | None = None
        self._pulse = Pulse(time.monotonic())
        self.looks = 0

    def see(self, seer: Any) -> None:
        self.seer, self._pulse = seer, Pulse(time.monotonic())
        self.log.append(f"sees {seer.bundle.manifest.version}")

    def load(self, bundle: Bundle, _wanted: ModelConfig, *, heed: Callable[[], None]) -> Any:
        heed()
        self.loads.append(bundle.manifest.version)
        if isinstance(self.refuses, RuntimeLoadError):
            raise self.refuses
        return SimpleNamespace(bundle=bundle)

    def swap(self, seer: Any, *, keep: bool = False) -> None:
        if isinstance(self.refuses, ConfigError):
            raise self.refuses
        self.failure = None
        self.back = self.seer if keep else None
        self.see(seer)
        if seer.bundle.manifest.version == self.breaks:
            self.failure = InferenceError("It fails on a picture.", mend="Convert it again.")
            self.see(self.back)
            self.back = None

    def go_back(self) -> None:
        if self.stuck:
            raise self.stuck.pop()
        if self.back is not None:
            self.see(self.back)
            self.back = None

    def settle(self) -> None:
        self.back = None

    def close(self) -> None:
        pass

    def pulse(self) -> Pulse:
        self.looks += 1
        for _ in range(200):
            run_ms = self.run_ms.get(self.seer.bundle.manifest.version, 5.0)
            self._pulse.note("gate", run_ms, time.monotonic())
        return self._pulse

    def told(self, active: str | None, update: Update | None, answered: Answer | None) -> None:
        self.runs = active
        self.looks += 1
        if update is not None and (not self.updates or self.updates[-1] != update):
            self.updates.append(update)
        if answered is not None and (not self.answers or self.answers[-1] != answered):
            self.answers.append(answered)

    def body(self) -> Body:
        return Body(
            config=lambda: self.config, swapper=cast("Any", self), pulse=self.pulse, came=dict, shadow=lambda _: None,
            wish=lambda: self.wish, told=self.told, alert=lambda what: setattr(self, "alert", what),
            synced=lambda: True,
        )  # fmt: skip
