"""Where orders come in: one thread that takes commands, answers each, and tells what became of the desired state.

In: messages as the publisher hears them, without waiting.  Out: `Ack`s, `Reported`, pictures that were asked for, and
what `actions` do. Each command is carried out once, one after the other, however often it comes.
"""

import logging
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from tinysight_contract.errors import ConfigError, ContractError, TinySightError
from tinysight_contract.messages import Ack, AckCode, Command, Desired, DesiredState, Reported, decode, utc_now
from tinysight_contract.topics import ID, AckTopic, CommandTopic, DesiredTopic, ReportedTopic, SnapshotTopic, Topic
from tinysight_contract.updates import Update
from tinysight_edge.config.checks import near
from tinysight_edge.config.wanted import Became
from tinysight_edge.orders.actions import ACTIONS, Action, Hands, Picture
from tinysight_edge.orders.ledger import Ledger
from tinysight_edge.orders.ruling import MAX_BYTES, Refusal, id_of, overdue, read

__all__ = ["Desk"]

log = logging.getLogger(__name__)

WAITING: Final = 16
"""Commands that may wait; more are refused."""
MOST_HELD: Final = 64
"""Messages, with those that are to be refused; more are not even answered."""
PER_S: Final = 1.0
"""Commands, beyond a burst of ``WAITING``: each is written to disk twice."""
NO_FILE: Final = "This agent runs from flags and has no file to lay it over. Start it with --config."
TICK_S: Final = 0.25
MAX_ERROR: Final = 500
MAX_NAME: Final = 64
"""Of a command, one more than an id may have: what is cut is none."""
NO_NAME: Final = "invalid"
"""Stands in an answer for a name that is no id."""
ACK_LIVES_S: Final = 3600
_WAKE: Final = ("", b"", False)


class Teller(Protocol):
    """What is needed of the publisher."""

    away_since_s: float | None

    def state(self, topic: Topic, message: Struct | None) -> None:
        """Publish the newest of a topic."""

    def once(self, topic: Topic, message: Struct | bytes, *, lives_s: int) -> None:
        """Publish a message once, for who gets it within so long."""


class Desk:
    """Takes orders for one device.

    Args:
        site: the site's id.
        device: the device's id.
        boot_id: of this process.
        bundle: the digest of what runs.
        hands: what the actions reach.
        ledger: which commands are known.
        clock_synced: whether this device's clock is right.

    Attributes:
        filters: what the publisher is to listen to.
        bundle: the digest of what runs; may be changed, from any thread.
        update: what became of the newest bundle that was to be installed; likewise.
    """

    def __init__(
        self,
        site: str,
        device: str,
        boot_id: str,
        *,
        bundle: str,
        hands: Hands,
        ledger: Ledger,
        clock_synced: Callable[[], bool | None],
    ) -> None:
        self._me, self._boot_id, self.bundle = (site, device), boot_id, bundle
        self.filters = (CommandTopic.filter(site=site, device=device), str(DesiredTopic(site, device)))
        self._hands, self._ledger, self._clock_synced = hands, ledger, clock_synced
        self._heard: SimpleQueue[tuple[str, bytes, bool]] = SimpleQueue()
        self._crowd: deque[tuple[str, bytes, bool]] = deque(maxlen=MOST_HELD - WAITING)
        self._retained: set[str] = set()
        self.update: Update | None = None
        self._told: tuple[Became, str, Update | None] | None = None
        self._asked_in_vain = Became()
        self._away_s = self._filled_s = time.monotonic()
        self._room = float(WAITING)
        self._off = threading.Event()
        self._thread: threading.Thread | None = None

    def hear(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message came. From the publisher's thread; never waits."""
        watch = self._hands.watch
        if watch is not None and topic == self.filters[1]:
            watch.reloader.ask(payload)
        elif self._heard.qsize() < WAITING:
            self._heard.put((topic, payload[: MAX_BYTES + 1], retained))
        else:
            self._crowd.append((topic, payload[: MAX_BYTES + 1], retained))

    def start(self, teller: Teller) -> None:
        """Begin to answer."""
        self._teller = teller
        self._thread = threading.Thread(target=self._live, name="orders", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; may be called although it was never started. What waits is not carried out."""
        self._off.set()
        self._heard.put(_WAKE)
        self._hands.lamp.stop()
        self._hands.level.tick(now=True)
        if self._thread is not None:
            self._thread.join(2 * TICK_S)

    # Everything below runs in the desk's own thread.

    def _live(self) -> None:
        for ack in self._ledger.open(utc_now()):
            self._say(ack)
        while not self._off.is_set():
            try:
                self._tick()
                heard = self._heard.get(timeout=TICK_S)
                if not self._off.is_set():
                    self._take(*heard)
                while self._crowd and not self._off.is_set():
                    self._take(*self._crowd.popleft(), crowded=True)
            except Empty:
                pass
            except Exception:  # one message must not end the answering of all others
                log.exception("an order broke the desk; report this as a bug")

    def _tick(self) -> None:
        now_s = time.monotonic()
        if self._teller.away_since_s is not None:
            self._away_s = now_s
        self._room = min(self._room + (now_s - self._filled_s) * PER_S, float(WAITING))
        self._filled_s = now_s
        self._hands.level.tick()
        watch = self._hands.watch
        became = self._asked_in_vain if watch is None else watch.reloader.became
        now = became, self.bundle, self.update
        if now != self._told:
            self._told = now
            self._report(*now)

    def _report(self, became: Became, bundle: str, update: Update | None) -> None:
        reported = Reported(
            revision=became.revision,
            at=utc_now(),
            bundle=bundle,
            state=became.state,
            reason=became.reason,
            refused=dict(became.refused),
            applied=became.applied,
            config_digest=became.config_digest,
            restart=list(became.restart),
            boot_id=self._boot_id,
            due_at=became.due_at,
            update=update,
        )
        self._teller.state(ReportedTopic(*self._me), reported)

    def _take(self, topic: str, payload: bytes, retained: bool, *, crowded: bool = False) -> None:
        if topic == self.filters[1]:
            self._in_vain(payload)
            return
        if not payload:  # somebody clears a retained one
            return
        name = topic.rpartition("/")[2][:MAX_NAME]  # whatever somebody wrote there
        try:
            command = read(payload, retained=retained)
            if (known := self._ledger.answer(command.id)) is not None:
                self._say(known)
                return
            if crowded:
                raise _too_many()
            self._carry_out(name, command)
        except Refusal as refusal:
            self._refuse(topic, name, payload, refusal)

    def _carry_out(self, name: str, command: Command) -> None:
        """Do it, and answer.

        Raises:
            Refusal: it is not to be done.
        """
        action = ACTIONS.get(name)
        if action is None:
            what = f"This version knows no command {name!r}."
            raise Refusal(AckCode.UNKNOWN, what, mend=near(name, ACTIONS, what="command"))
        connected_s = time.monotonic() - self._away_s
        late = overdue(command, now=utc_now(), synced=self._clock_synced(), connected_s=connected_s)
        if late is not None:
            raise late
        try:
            arguments = msgspec.convert(command.args, action.arguments)
        except msgspec.ValidationError as error:
            what = f"The arguments do not fit: {error}."
            raise Refusal(AckCode.MALFORMED, what, mend="Compare them with docs/commands.md.") from error
        if self._room < 1.0:
            raise _too_many()
        self._room -= 1.0
        if not self._ledger.begin(command.id, name) and action.once:
            self._ledger.forget(command.id)
            what = "The disk takes nothing, so nobody would know after it that it was done."
            raise Refusal(AckCode.REFUSED, what, mend="Free some space on the device.")
        log.info("command %s %s", name, command.id)
        ack = self._do(action, name, command.id, arguments)
        self._ledger.done(ack)
        self._say(ack)
        if ack.ok and action.after is not None:
            action.after(self._hands)

    def _do(self, action: Action, name: str, id_: str, arguments: Any) -> Ack:  # noqa: ANN401 -- of the action's type
        try:
            done = action.do(self._hands, arguments)
            if isinstance(done, tuple):
                result, picture = done
                self._show(id_, picture)
            else:
                result = done
        except Refusal as error:
            return self._ack(id_, name, error=str(error), code=error.code)
        except TinySightError as error:
            code = AckCode.REFUSED if isinstance(error, ConfigError) else AckCode.FAILED
            return self._ack(id_, name, error=str(error), code=code)
        except Exception as error:
            log.exception("command %s broke; report this as a bug", name)
            what = f"It broke: {type(error).__name__}. Report this as a bug."
            return self._ack(id_, name, error=what, code=AckCode.FAILED)
        return Ack(id=id_, name=name, ok=True, at=utc_now(), result=dict(result))

    def _show(self, id_: str, picture: Picture) -> None:
        self._teller.once(SnapshotTopic(*self._me, picture.camera, id_), picture.jpeg, lives_s=ACK_LIVES_S)

    def _refuse(self, topic: str, name: str, payload: bytes, refusal: Refusal) -> None:
        id_ = id_of(payload)
        name = name if ID.fullmatch(name) else NO_NAME
        if refusal.code is not AckCode.RETAINED:
            log.warning("command %s %s is not carried out: %s", name, id_ or "without an id", refusal)
        elif topic not in self._retained and len(self._retained) < MOST_HELD:  # it comes at each connect
            self._retained.add(topic)
            quoted = shlex.quote(topic) if topic.isprintable() else repr(topic)  # it goes to a shell
            log.warning("%s: %s Say `mosquitto_pub -r -n -t %s`.", quoted, refusal, quoted)
        if id_ is None:
            return
        ack = self._ack(id_, name, error=str(refusal), code=refusal.code)
        if refusal.code is not AckCode.RETAINED:
            self._ledger.refused(ack)
        self._say(ack)

    def _in_vain(self, payload: bytes) -> None:
        """A desired state for an agent that has no file."""
        asked = Became()
        if payload:
            asked = Became(state=DesiredState.REFUSED, reason=NO_FILE)
            try:
                asked = Became(revision=decode(payload, Desired).revision, state=asked.state, reason=asked.reason)
            except ContractError as error:
                log.error("desired: %s", error)
        self._asked_in_vain = asked

    def _ack(self, id_: str, name: str, *, error: str, code: AckCode) -> Ack:
        return Ack(id=id_, name=name, ok=False, at=utc_now(), error=error[:MAX_ERROR], code=code)

    def _say(self, ack: Ack) -> None:
        self._teller.once(AckTopic(*self._me, ack.id), ack, lives_s=ACK_LIVES_S)


def _too_many() -> Refusal:
    return Refusal(AckCode.REFUSED, "Too many commands at once.", mend="Send it again, more slowly.")
