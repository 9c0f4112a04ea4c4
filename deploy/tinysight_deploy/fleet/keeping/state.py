"""What is known of rollouts, kept so that a controller may end at any moment and another goes on.

In: values of `types`.  Out: the same, later. Each method is one transaction: all of it holds, with its entry in the
audit log, or nothing. What only the leader may write wants its `Lead`, and is refused when another leads since.
Decides nothing and sends nothing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, FleetError, StateGone
from tinysight_deploy.fleet.keeping import lease, tokens
from tinysight_deploy.fleet.keeping.audit import MAX_WHAT, ZEROS, Entry, cleaned, follow, line_of, read_line
from tinysight_deploy.fleet.keeping.lease import LEASE_S, Lead, Lease
from tinysight_deploy.fleet.keeping.rows import Boxed, Remade, asked, body_of, failed, read_body, rows_of
from tinysight_deploy.fleet.keeping.tables import AUDIT, BOXED, LEAD, ROLLOUT, WISH, Database
from tinysight_deploy.fleet.keeping.tokens import Role, Token
from tinysight_deploy.fleet.types import Key, Outcome, Phase, Rollout, Wish

__all__ = ["Boxed", "Entry", "Lead", "Remade", "Role", "State", "Token"]

MAX_ROLLOUTS: Final = 1_000
MAX_WISHES: Final = 100_000
MAX_PAGE: Final = 10_000
IN_AN_ENTRY: Final = 1_000  # wishes; a line stays below a third of what the log takes
_ENDED: Final = {Phase.ABORTED, Phase.DONE}
_FAILING: Final = {Outcome.FAILED, Outcome.SILENT}
_OURS: Final = {"ask", "begin", "lead", "leave", "rebuilt", "settle", "token", "token-dropped"}
"""What only the methods of those names write into the log: `mirror.replay` goes by them."""


class State:
    """A fleet's rollouts in a database. Threads may share it.

    Every method raises `StateGone` when the database cannot be used now, and `FleetError` when it is damaged or of a
    newer TinySight. When `StateGone` comes of a write's very end, the write may hold all the same: read it again.

    Args:
        url: a file's path, ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.
        make: make the file and the tables where there are none.
        lease_s: how long the lead stands still before another takes it; the same in all controllers of a fleet.

    Attributes:
        url: without its password.
        path: of the database's file; None of a server.

    Raises:
        ConfigError: the URL names no such database.
    """

    def __init__(self, url: str | Path, *, make: bool = True, lease_s: float = LEASE_S) -> None:
        self._database = Database(url, make=make)
        self.url, self.path = self._database.url, self._database.path
        self._lease_s = lease_s
        self._leases: dict[str, Lease] = {}

    def close(self) -> None:
        """End all connections."""
        self._database.close()

    # Rollouts

    def rollouts(self, skip: Collection[str] = ()) -> list[Rollout]:
        """All, in the order in which they were begun.

        Args:
            skip: ids of those that nobody wants to know of.
        """
        with self._database.read() as connection:
            wanted = sa.select(ROLLOUT).where(ROLLOUT.c.id.not_in(skip)) if skip else sa.select(ROLLOUT)
            rows = connection.execute(wanted.order_by(ROLLOUT.c.number)).all()
        return [_rollout(row) for row in rows]

    def rollout(self, name: str) -> Rollout:
        """One by its id.

        Raises:
            ConfigError: there is none.
        """
        with self._database.read() as connection:
            return _find(connection, name)

    def begin(self, rollout: Rollout, *, who: str) -> None:
        """Keep a new rollout. When there are too many, the oldest that has ended is forgotten; the log still has it.

        Raises:
            ConfigError: its id is taken.
        """
        body = body_of(rollout, Rollout)
        with self._database.write() as connection:
            known = connection.execute(sa.select(ROLLOUT).order_by(ROLLOUT.c.number)).all()
            if any(row.id == rollout.id for row in known):
                raise ConfigError(f"There is a rollout {rollout.id!r}.", mend="Give the new one another id.")
            detail = {"rollout": rollout.id, "begun": rollout}
            if len(known) >= MAX_ROLLOUTS:
                oldest = next((row.id for row in known if _rollout(row).phase in _ENDED), None)
                if oldest is None:
                    raise FleetError(f"{MAX_ROLLOUTS:,} rollouts are going on.", mend="Abort those nobody needs.")
                connection.execute(sa.delete(WISH).where(WISH.c.rollout == oldest))
                connection.execute(sa.delete(ROLLOUT).where(ROLLOUT.c.id == oldest))
                detail["forgot"] = oldest
            seq = _append(connection, who, "begin", detail).seq
            row = {"id": rollout.id, "number": seq, "clock_s": rollout.clock_s, "body": body}
            connection.execute(sa.insert(ROLLOUT), row)

    def change(
        self,
        name: str,
        edit: Callable[[Rollout], Rollout],
        *,
        who: str,
        what: str,
        detail: Mapping[str, Any] | None = None,
        lead: Lead | None = None,
    ) -> Rollout:
        """Change a rollout as it is at this moment; what it is then.

        Args:
            name: the rollout's id.
            edit: gives the new one; nobody else writes meanwhile, so it should be quick. What it raises passes through.
            who: does it.
            what: for the audit log.
            detail: also for it; ``rollout``, ``set`` and ``clock_s`` are added.
            lead: the leader's; None of a person.

        Raises:
            ConfigError: there is no such rollout, or `edit` gave what none can be.
            NotLeading: another leads since.
        """
        _check_word(what)
        with self._database.write() as connection:
            if lead is not None:
                lease.require(connection, lead)
            old = _find(connection, name)
            new = edit(old)
            body = body_of(new, Rollout)
            if new.id != old.id:
                raise ConfigError("A rollout keeps its id.", mend="Begin another one.")
            was, now = (msgspec.to_builtins(each) for each in (old, new))
            told = {"rollout": name, "set": {key: now[key] for key in now if now[key] != was[key]}}
            _append(connection, who, what, {**(detail or {}), **told, "clock_s": new.clock_s})
            here = sa.update(ROLLOUT).where(ROLLOUT.c.id == name)
            connection.execute(here.values(clock_s=new.clock_s, body=body))
        return new

    def tick(self, clocks: Mapping[str, float], *, lead: Lead) -> None:
        """Let rollouts' clocks go on; none ever goes back. No entry in the audit log.

        Args:
            clocks: in seconds, by rollout; one that is not there is passed over.
            lead: the leader's.

        Raises:
            NotLeading: another leads since.
        """
        later = sa.update(ROLLOUT).where(ROLLOUT.c.id == sa.bindparam("name"), ROLLOUT.c.clock_s < sa.bindparam("now"))
        with self._database.write() as connection:
            lease.require(connection, lead)
            if clocks:
                given = [{"name": name, "now": clock_s} for name, clock_s in clocks.items()]
                connection.execute(later.values(clock_s=sa.bindparam("now")), given)

    # Wishes

    def wishes(self, name: str) -> dict[Key, Wish]:
        """What was asked of each device in a rollout; empty when there is none such."""
        with self._database.read() as connection:
            bodies = connection.scalars(sa.select(WISH.c.body).where(WISH.c.rollout == name)).all()
        return {wish.key: wish for wish in read_body(f"[{','.join(bodies)}]", list[Wish])}

    def ask(self, name: str, wishes: Iterable[Wish], *, lead: Lead) -> None:
        """Write down what is about to be asked, so that no device is ever asked twice.

        Raises:
            ConfigError: there is no such rollout.
            FleetError: a device was asked in it before, it has too many, or it does not run any more; nothing is kept.
            NotLeading: another leads since.
        """
        rows, wanted = rows_of(name, wishes)
        if not rows:
            return
        with self._database.write() as connection:
            lease.require(connection, lead)
            rollout = _find(connection, name)
            if rollout.phase is not Phase.RUNNING:
                raise FleetError(f"{name} is {rollout.phase.value}: it asks nobody.", mend="Resume it first.")
            place = sa.select(WISH.c.site, WISH.c.device).where(WISH.c.rollout == name)
            known = {(site, device) for site, device in connection.execute(place)}
            if twice := sorted(known & wanted.keys()):
                raise FleetError(f"{'/'.join(twice[0])} was asked in {name} before.", mend="Read the wishes again.")
            if len(known) + len(wanted) > MAX_WISHES:
                raise FleetError(
                    f"{name} would have more than {MAX_WISHES:,} devices.", mend="Roll out to smaller groups."
                )
            connection.execute(sa.insert(WISH), rows)
            every = list(wanted.values())
            for i in range(0, len(every), IN_AN_ENTRY):
                told = [asked(wish) for wish in every[i : i + IN_AN_ENTRY]]
                detail = {"rollout": name, "clock_s": rollout.clock_s, "wishes": told}
                _append(connection, lead.holder, "ask", detail)

    def settle(
        self, name: str, wishes: Iterable[Wish], *, lead: Lead, boxes: Mapping[Key, Boxed | None] | None = None
    ) -> None:
        """Write down what has become of devices that were asked. The audit log tells of those that fail and of the box.

        Args:
            name: the rollout's id.
            wishes: as they are now.
            lead: the leader's.
            boxes: devices that come into the penalty box; with None those that leave it.

        Raises:
            FleetError: one of them was not asked; nothing is kept.
            NotLeading: another leads since.
        """
        rows, settled = rows_of(name, wishes)
        boxes = boxes or {}
        bodies = {key: body_of(boxed, Boxed) for key, boxed in boxes.items() if boxed is not None}
        if not rows and not boxes:
            return
        failing = [failed(wish) for wish in settled.values() if wish.outcome in _FAILING]
        named = {"rollout": WISH.c.rollout, "site": WISH.c.site, "device": WISH.c.device}
        same = sa.and_(*(column == sa.bindparam(f"of_{key}") for key, column in named.items()))
        given = [{"new": row["body"], **{f"of_{key}": row[key] for key in named}} for row in rows]
        with self._database.write() as connection:
            lease.require(connection, lead)
            if rows:
                done = connection.execute(sa.update(WISH).where(same).values(body=sa.bindparam("new")), given)
                if done.rowcount != len(settled):
                    raise FleetError(f"A device was not asked in {name}.", mend="Read the wishes again.")
            _put_boxes(connection, boxes.keys(), bodies)
            told = [{"site": site, "device": device, "penalty": boxed} for (site, device), boxed in boxes.items()]
            for i in range(0, max(len(failing), len(told)), IN_AN_ENTRY):
                detail = {"rollout": name, "failing": failing[i : i + IN_AN_ENTRY], "boxes": told[i : i + IN_AN_ENTRY]}
                _append(connection, lead.holder, "settle", detail)

    def boxed(self) -> dict[Key, Boxed]:
        """The penalty box."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(BOXED)).all()
        return {(row.site, row.device): read_body(row.body, Boxed) for row in rows}

    # Who leads

    def lead(self, holder: str, *, now_s: float) -> Lead | None:
        """Take the lead or renew it; None while another has it. To be called every second or two.

        Args:
            holder: names the controller; another in each process, such as with the machine's name and a random part.
            now_s: the caller's monotonic clock, the same at each call.

        Raises:
            ConfigError: the holder has no name.
        """
        if not holder:
            raise ConfigError("A controller needs a name.", mend="Give it the machine's and a random part.")
        mine = self._leases.setdefault(holder, Lease(self._lease_s))
        try:
            with self._database.read() as connection:
                if not mine.look(connection, holder, now_s):
                    return None
            with self._database.write() as connection:
                lead, new = mine.take(connection, holder, now_s)
                if lead is not None and new:
                    _append(connection, holder, "lead", {"epoch": lead.epoch})
        except StateGone:
            mine.forget()
            raise
        mine.keep(lead)
        return lead

    def leave(self, lead: Lead) -> None:
        """Give the lead away at the end, so that the next controller need not wait."""
        with self._database.write() as connection:
            if lease.free(connection, lead):
                _append(connection, lead.holder, "leave", {"epoch": lead.epoch})

    # The audit log

    def audit(self, after: int = 0, most: int = 1000) -> list[Entry]:
        """Entries after a number, in their order.

        Args:
            after: number of the last that is known; 0 begins.
            most: how many; at most 10,000.
        """
        return [read_line(line) for line in self.lines(after, most)]

    def lines(self, after: int = 0, most: int = 1000) -> list[bytes]:
        """The same as they are written, and whatever they are."""
        rows = sa.select(AUDIT.c.line).where(AUDIT.c.seq > after).order_by(AUDIT.c.seq)
        with self._database.read() as connection:
            return [line.encode() for line in connection.scalars(rows.limit(max(0, min(most, MAX_PAGE))))]

    def note(self, who: str, what: str, detail: Mapping[str, Any] | None = None, *, lead: Lead | None = None) -> Entry:
        """Write an entry into the audit log.

        Args:
            who: does it.
            what: in a word.
            detail: what is needed to do it again.
            lead: of the leader who is about to do it; None where anybody may.

        Raises:
            ConfigError: it would read as what other methods write, or is no JSON.
            NotLeading: another leads since.
        """
        _check_word(what)
        if "set" in (detail or {}):
            raise ConfigError("`set` says what a rollout became.", mend="Name it otherwise.")
        with self._database.write() as connection:
            if lead is not None:
                lease.require(connection, lead)
            return _append(connection, who, what, detail or {})

    # Tokens

    def add_token(self, name: str, role: Role, *, site: str = "", device: str = "", who: str = "operator") -> str:
        """Make a token; its text, which is shown this once.

        Raises:
            ConfigError: the name is taken or no name, or the role and the device do not go together.
        """
        token = Token(name=name, role=role, site=site, device=device)
        body_of(token, Token)
        with self._database.write() as connection:
            text = tokens.add(connection, token)
            _append(connection, who, "token", {"token": token})
        return text

    def find_token(self, text: str) -> Token | None:
        """Whose token that is; None when it is nobody's."""
        with self._database.read() as connection:
            return tokens.find(connection, text)

    def tokens(self) -> list[Token]:
        """All, by name."""
        with self._database.read() as connection:
            return tokens.every(connection)

    def drop_token(self, name: str, *, who: str = "operator") -> None:
        """Have a token let in nobody any more.

        Raises:
            ConfigError: there is none of that name.
        """
        with self._database.write() as connection:
            tokens.drop(connection, name)
            _append(connection, who, "token-dropped", {"token": name})

    def restore(self, lines: Iterable[bytes], says: Callable[[], Remade], *, who: str) -> Remade:
        """Fill an empty state with an audit log and what that says; for `mirror.rebuild`, which verifies both.

        Args:
            lines: of the log; what they raise passes through, and nothing is kept.
            says: what the log says, once all lines were taken.
            who: for the audit log.

        Raises:
            FleetError: it is not empty.
        """
        with self._database.write() as connection:
            if connection.scalar(sa.select(AUDIT.c.seq).limit(1)) is not None:
                raise FleetError(f"{self.url} has a log of its own.", mend="Rebuild into an empty state.")
            page: list[dict[str, Any]] = []
            for seq, line in enumerate(lines, 1):
                page.append({"seq": seq, "line": line.decode()})
                if len(page) >= 100:
                    connection.execute(sa.insert(AUDIT), page)
                    page = []
            if page:
                connection.execute(sa.insert(AUDIT), page)
            remade = says()
            for seq, rollout in remade.rollouts.values():
                row = {"id": rollout.id, "number": seq, "clock_s": rollout.clock_s, "body": body_of(rollout, Rollout)}
                connection.execute(sa.insert(ROLLOUT), row)
                if rows := rows_of(rollout.id, remade.wishes.get(rollout.id, {}).values())[0]:
                    connection.execute(sa.insert(WISH), rows)
            for (site, device), boxed in remade.boxed.items():
                row = {"site": site, "device": device, "body": body_of(boxed, Boxed)}
                connection.execute(sa.insert(BOXED), row)
            connection.execute(sa.insert(LEAD), {"id": 1, "holder": "", "epoch": remade.epoch, "beat": 0})
            _append(connection, who, "rebuilt", {"rollouts": len(remade.rollouts)})
        return remade


def _append(connection: sa.Connection, who: str, what: str, detail: Mapping[str, Any]) -> Entry:
    """Write the next entry. Only the one writer comes here, so there is no gap."""
    line = connection.scalar(sa.select(AUDIT.c.line).order_by(AUDIT.c.seq.desc()).limit(1))
    if line is None:
        last = 0, ZEROS
    else:
        newest = read_line(line.encode())
        last = newest.seq, newest.hash
    entry = follow(last, who=who, what=what, detail=detail, at=datetime.now(UTC))
    connection.execute(sa.insert(AUDIT), {"seq": entry.seq, "line": line_of(entry).decode()})
    return entry


def _put_boxes(connection: sa.Connection, keys: Iterable[Key], bodies: Mapping[Key, str]) -> None:
    """Have the penalty box hold these of the devices, and none of the others."""
    here = sa.and_(BOXED.c.site == sa.bindparam("of_site"), BOXED.c.device == sa.bindparam("of_device"))
    if gone := [{"of_site": site, "of_device": device} for site, device in keys]:
        connection.execute(sa.delete(BOXED).where(here), gone)
    if rows := [{"site": site, "device": device, "body": body} for (site, device), body in bodies.items()]:
        connection.execute(sa.insert(BOXED), rows)


def _check_word(what: str) -> None:
    if cleaned(what, MAX_WHAT) in _OURS:
        raise ConfigError(f"{what!r} is a word that the log has for something else.", mend="Say it otherwise.")


def _find(connection: sa.Connection, name: str) -> Rollout:
    row = connection.execute(sa.select(ROLLOUT).where(ROLLOUT.c.id == name)).one_or_none()
    if row is None:
        raise ConfigError(f"There is no rollout {name[:80]!r}.", mend="List them: `tinysight rollout list`.")
    return _rollout(row)


def _rollout(row: sa.Row[Any]) -> Rollout:
    return replace(read_body(row.body, Rollout), clock_s=row.clock_s)
