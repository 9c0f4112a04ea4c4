"""What is told to neighbours: which of it has changed, and what of earlier has to be taken back.

In: the configuration, `Info`, counts and states as the agent tells them.  Out: retained messages under topics outside
of the contract, and what goes out beside each event. Without a section for a neighbour nothing happens here.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tinysight_contract.errors import ContractError
from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.messages import CameraState, Counts, Info
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.neighbours import frigate
from tinysight_edge.neighbours.home_assistant import MANY_LABELS, discovery, labels_shown

__all__ = ["Neighbours"]

log = logging.getLogger(__name__)

MAX_MEMORY_BYTES: Final = 4 * 2**20
MAX_GONE: Final = 512
CLEARED_STARTS: Final = 8
"""So many starts clear a topic: one may end before the broker is back. Not for ever: another may use it by then."""
TOPIC: Final = re.compile(r"(?!tinysight/)[^+#\0]{1,1000}")


class _Memory(Struct, frozen=True, kw_only=True):
    """``neighbours.json``: what stands at the broker, retained, and would stay there for ever.

    Attributes:
        topics: that are told.
        gone: that are told no more, and how many starts are still to clear each, this one included.
        components: of Home Assistant, with their platforms.
    """

    topics: list[str] = []
    gone: dict[str, int] = {}
    components: dict[str, str] = {}


class Neighbours:
    """Tells neighbours. Called by several threads; never waits for the network.

    Args:
        config: what is configured.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._info: Info | None = None
        self._foreign: Callable[[str, bytes], None] | None = None
        self._counts: dict[str, Counts] = {}
        self._states: dict[str, CameraState] = {}
        self._told: dict[str, bytes] = {}
        self._translator, self._lock = frigate.Translator(), threading.Lock()
        self._path = config.state / "neighbours.json"
        self._memory = _Memory()
        self._late: dict[str, int] = {}

    def start(self, foreign: Callable[[str, bytes], None]) -> None:
        """Begin to tell, knowing what an earlier start told.

        Args:
            foreign: takes a retained message for a topic outside of the contract; an empty one clears it.
        """
        self._memory = _remembered(self._path)
        self._late = {topic: starts - 1 for topic, starts in self._memory.gone.items() if starts > 1}
        self._foreign = foreign

    def tell(self, config: AgentConfig, info: Info, *, wanted: str | None = None) -> None:
        """What may have changed: the configuration, what the device is, the bundle that is wanted (its digest)."""
        with self._lock:
            if config.home_assistant != self._config.home_assistant or self._info is None:
                _warn(config, info)
            self._config, self._info = config, info
            for id_ in {*self._counts, *self._states} - config.cameras.keys():
                self._counts.pop(id_, None)
                self._states.pop(id_, None)
            due = frigate.retained(config, info.bundle.labels, self._counts, self._states)
            if config.frigate is not None:
                due |= [frigate.available(config.frigate.prefix, here=True)]
            found = discovery(config, info, wanted=wanted, known=self._memory.components)
            if found is not None:
                due[found.topic] = found.payload
            new = {*self._memory.topics, *(topic for topic, payload in self._told.items() if payload)}
            gone = {**self._late, **dict.fromkeys(sorted(new), CLEARED_STARTS)}
            gone = {topic: starts for topic, starts in gone.items() if topic not in due}
            self._late = dict(list(gone.items())[-MAX_GONE:])
            platforms = {} if found is None else found.platforms
            self._remember(_Memory(topics=sorted(due), gone=self._late, components=platforms))
            self._say({**dict.fromkeys(gone, b""), **due})
            self._told = {**dict.fromkeys(self._late, b""), **due}

    def counts(self, camera: str, counts: Counts) -> None:
        """What a camera sees now."""
        with self._lock:
            self._counts[camera] = counts
            if self._info is not None and camera in self._config.cameras:
                self._say(frigate.counts_of(self._config, self._info.bundle.labels, camera, self._counts))

    def camera(self, camera: str, state: CameraState) -> None:
        """What a camera delivers now."""
        with self._lock:
            self._states[camera] = state
            if camera in self._config.cameras:
                self._say(frigate.state_of(self._config, camera, state))

    def also(self, event: bytes) -> tuple[str, bytes] | None:
        """What is to go out beside an event of the contract; called by the publisher's thread alone."""
        section = self._config.frigate
        if section is None:
            return None
        try:
            return self._translator.translate(section.prefix, event)
        except ContractError as error:  # as the outbox may hold one of another version
            log.warning("an event cannot be told to who reads Frigate: %s", error)
            return None

    def leave(self) -> None:
        """Say that nobody is here any more."""
        with self._lock:
            if self._config.frigate is not None:
                self._say([frigate.available(self._config.frigate.prefix, here=False)])

    def _say(self, due: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> None:
        """Tell what is new of it, once it is known what is to be told at all."""
        if self._info is None or self._foreign is None:
            return
        for topic, payload in dict(due).items():
            if self._told.get(topic) != payload:
                self._told[topic] = payload
                self._foreign(topic, payload)

    def _remember(self, now: _Memory) -> None:
        """Before it is told: what is remembered too much is cleared in vain, what is forgotten stays for ever."""
        if now == self._memory:
            return
        self._memory = now
        try:
            replace_file(self._path, msgspec.json.encode(now))
        except OSError as error:
            log.warning("what neighbours were told may stay at the broker: %s cannot be written: %s", self._path, error)


def _remembered(path: Path) -> _Memory:
    """What an earlier start told; a damaged file is nothing."""
    try:
        raw = read_capped(path, MAX_MEMORY_BYTES)
        memory = _Memory() if len(raw) > MAX_MEMORY_BYTES else msgspec.json.decode(raw, type=_Memory)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Memory()
    gone = {topic: starts for topic, starts in memory.gone.items() if TOPIC.fullmatch(topic)}
    gone = {topic: min(starts, CLEARED_STARTS) for topic, starts in list(gone.items())[-MAX_GONE:]}
    topics = [each for each in memory.topics if TOPIC.fullmatch(each)]
    return msgspec.structs.replace(memory, topics=topics, gone=gone)


def _warn(config: AgentConfig, info: Info) -> None:
    labels = info.bundle.labels
    if config.home_assistant is not None and config.home_assistant.labels is None and not labels_shown(config, labels):
        log.warning(
            "the model has %d labels, more than %d, so Home Assistant gets sums alone: name some in its labels",
            len(labels),
            MANY_LABELS,
        )
