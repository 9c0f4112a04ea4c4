"""Where rollouts are kept: the tables, and a database that says in our words what ails it.

In: a file's path or a URL.  Out: a `Database` that gives transactions, on SQLite and PostgreSQL alike: any number read,
one at a time writes. Knows nothing of rollouts.

A write begins by taking the one writer's place: SQLite's ``BEGIN IMMEDIATE``, in PostgreSQL a lock on the row that has
the schema's version. Whoever writes sees all that was written before; so the audit log has no gaps, and nobody has to
try again because somebody else was quicker.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc

from tinysight_contract.errors import ConfigError, FleetError, StateGone
from tinysight_contract.files import fsync_folder

__all__ = ["AUDIT", "BOXED", "LEAD", "ROLLOUT", "TOKEN", "WISH", "Database"]

VERSION: Final = 1
WAIT_S: Final = 10  # for the one who writes now
LONGEST_S: Final = 30  # one statement; also how long a writer that hangs keeps others out of PostgreSQL
CONNECT_S: Final = 5

META: Final = sa.MetaData()
SCHEMA: Final = sa.Table(
    "fleet_schema",
    META,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
)
ROLLOUT: Final = sa.Table(
    "fleet_rollout",
    META,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),  # in the order of their beginning
    sa.Column("clock_s", sa.Double, nullable=False),  # counts, not the body's: it moves each second
    sa.Column("body", sa.Text, nullable=False),
)
WISH: Final = sa.Table(
    "fleet_wish",
    META,
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)
BOXED: Final = sa.Table(
    "fleet_boxed",
    META,
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)
AUDIT: Final = sa.Table(
    "fleet_audit",
    META,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("line", sa.Text, nullable=False),  # the entry's canonical JSON, as it is hashed and mirrored
)
LEAD: Final = sa.Table(
    "fleet_lead",
    META,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
)
TOKEN: Final = sa.Table(
    "fleet_token",
    META,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False, unique=True),
    sa.Column("body", sa.Text, nullable=False),
)

_GUARDS: Final = {
    "sqlite": """
CREATE TRIGGER fleet_audit_update BEFORE UPDATE ON fleet_audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;;
CREATE TRIGGER fleet_audit_delete BEFORE DELETE ON fleet_audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;;
CREATE TRIGGER fleet_audit_insert BEFORE INSERT ON fleet_audit
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM fleet_audit)
BEGIN SELECT RAISE(ABORT, 'the audit log has no gaps'); END""",
    "postgresql": """
CREATE FUNCTION fleet_audit_kept() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;;
CREATE TRIGGER fleet_audit_change BEFORE UPDATE OR DELETE ON fleet_audit
FOR EACH ROW EXECUTE FUNCTION fleet_audit_kept();;
CREATE TRIGGER fleet_audit_truncate BEFORE TRUNCATE ON fleet_audit
FOR EACH STATEMENT EXECUTE FUNCTION fleet_audit_kept();;
CREATE FUNCTION fleet_audit_next() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
IF NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM fleet_audit) THEN
RAISE EXCEPTION 'the audit log has no gaps'; END IF;
RETURN NEW;
END $$;;
CREATE TRIGGER fleet_audit_insert BEFORE INSERT ON fleet_audit
FOR EACH ROW EXECUTE FUNCTION fleet_audit_next()""",
}
"""What refuses to change or cut the log, even to a slip of our own hand. Who owns the database can drop them: that is
what the hash chain and its mirror are for."""
_MAKING: Final = 0x7469_6E79  # names the lock under which PostgreSQL's tables are made
_MEND_REBUILD: Final = "Stop what uses it, move the file away, and run `tinysight audit rebuild` with its log's copy."
_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "XX001", "XX002")
_GONE: Final = (
    (("SQLITE_FULL", "SQLITE_IOERR", "53100"), "Free space on its disk, and see whether that is sound."),
    (("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "25006", "28"), "Check the rights to it."),
    (("SQLITE_BUSY", "SQLITE_LOCKED", "55P03", "57014", "25P03"), "Find who holds it so long, or wait and try again."),
)
"""By what SQLite's and PostgreSQL's codes begin with: what to do, after which the same call goes well."""


class Database:
    """One database. Threads may share it; a process that was forked may not. It is opened when it is first used.

    Args:
        url: a file's path, ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.
        make: make the file and the tables where there are none.

    Attributes:
        url: the same, without its password.
        path: of SQLite's file; None of a server.

    Raises:
        ConfigError: the URL names no such database.
    """

    def __init__(self, url: str | Path, *, make: bool = True) -> None:
        self._url, self.path = _parse(str(url))
        self.url = self._url.render_as_string(hide_password=True) if self.path is None else str(self.path)
        self._make = make
        self._opening = threading.RLock()
        self._writing = threading.Lock()
        self._engine: sa.Engine | None = None
        self._file: tuple[int, int] | None = None

    def close(self) -> None:
        """End all connections; the next use opens it again."""
        with self._opening:
            engine, self._engine = self._engine, None
            if engine is not None:
                engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing.

        Raises:
            StateGone: the database cannot be used now.
            FleetError: it is damaged, or of a newer TinySight.
        """
        with self._told(), self._ready().connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction of the only writer there is; all of it holds on the disk afterwards, or nothing.

        Raises:
            StateGone: the database cannot be used now. When that comes of the transaction's very end, it may hold.
            FleetError: it is damaged, or of a newer TinySight.
        """
        with self._writing, self._told(), self._ready().connect() as plain:
            connection = plain.execution_options(tinysight_write=True)
            with connection.begin():
                _check(connection.scalar(sa.select(SCHEMA.c.version).with_for_update()))
                yield connection

    def _ready(self) -> sa.Engine:
        with self._opening:
            if self._engine is not None and self.path is not None and _identity(self.path) != self._file:
                self.close()  # somebody has moved the file away or put another one in its place
            if self._engine is None:
                if self.path is not None:
                    self._make_file(self.path)
                engine = self._new_engine()
                try:
                    self._prepare(engine)
                except BaseException:
                    engine.dispose()
                    raise
                self._engine, self._make = engine, False  # what was there is never begun anew by itself
                self._file = None if self.path is None else _identity(self.path)
            return self._engine

    def _make_file(self, path: Path) -> None:
        """See that the file is there: made, for its owner alone, and its folder."""
        try:
            if self._make and not path.exists():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
                fsync_folder(path.parent)
            path.stat()
        except FileNotFoundError as error:
            raise StateGone(
                f"There is no fleet state at {path}.", mend="Bring the file back, or check its path."
            ) from error
        except OSError as error:
            raise StateGone(
                f"{path} cannot be opened: {error.strerror}.", mend="Check the path, its rights and the free space."
            ) from error

    def _new_engine(self) -> sa.Engine:
        if self.path is not None:
            engine = sa.create_engine(self._url, pool_timeout=WAIT_S, connect_args={"timeout": WAIT_S})
            sa.event.listen(engine, "connect", _begin_sqlite)
            sa.event.listen(engine, "begin", _begin)
            return engine
        settings = {"connect_timeout": CONNECT_S, "application_name": "tinysight", "keepalives_idle": 15}
        try:
            engine = sa.create_engine(self._url, pool_pre_ping=True, pool_timeout=WAIT_S, connect_args=settings)
        except ModuleNotFoundError as error:
            raise ConfigError(
                "PostgreSQL needs psycopg.", mend="Install it with `pip install 'tinysight[postgres]'`."
            ) from error
        sa.event.listen(engine, "connect", _begin_postgres)
        return engine

    def _prepare(self, engine: sa.Engine) -> None:
        """Make the tables, unless they are there; look at their version."""
        with engine.connect() as connection, connection.begin():
            if sa.inspect(connection).has_table(SCHEMA.name):
                _check(connection.scalar(sa.select(SCHEMA.c.version)))
                return
        if not self._make:
            raise FleetError(f"There is no fleet state in {self.url}.", mend="Check the path or the URL.")
        if self.path is not None:
            _set_wal(engine)
        with engine.connect() as plain:
            connection = plain.execution_options(tinysight_write=True)
            with connection.begin():
                if self.path is None:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
                if sa.inspect(connection).has_table(SCHEMA.name):
                    return  # another process was quicker
                META.create_all(connection, checkfirst=False)
                for guard in _GUARDS[engine.dialect.name].split(";;"):
                    connection.exec_driver_sql(guard)
                connection.execute(sa.insert(SCHEMA), {"id": 1, "version": VERSION})

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise self._failure(error) from error

    def _failure(self, error: exc.SQLAlchemyError) -> FleetError:
        """What ails the database, in our words."""
        cause = getattr(error, "orig", None)
        said = " ".join(str(cause or error).split())[:300].rstrip(".")
        code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
        if code.startswith(_DAMAGED):
            return FleetError(f"{self.url} is damaged: {said}.", mend=_MEND_REBUILD)
        for codes, mend in _GONE:
            if code.startswith(codes):
                return StateGone(f"{self.url} cannot be used now: {said}.", mend=mend)
        gone = isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError)
        if gone or getattr(error, "connection_invalidated", False):
            return StateGone(f"{self.url} does not answer: {said}.", mend="Start the database, or check the URL.")
        return FleetError(f"{self.url} refuses: {said}.", mend="Check the database, and the rights of its user.")


def _parse(text: str) -> tuple[sa.URL, Path | None]:
    """The URL for SQLAlchemy, and the path of SQLite's file."""
    mend = "Write a file's path, sqlite:///PATH or postgresql://USER@HOST/NAME."
    if "://" not in text:
        path = Path(text).expanduser().absolute()
        if not text or path.is_dir():
            raise ConfigError(f"{text!r} is no file for a fleet's state.", mend=mend)
        return sa.URL.create("sqlite+pysqlite", database=str(path)), path
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError) as error:
        raise ConfigError("The state's URL cannot be read.", mend=mend) from error
    backend = url.drivername.partition("+")[0]
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return _parse(url.database)
    if backend in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+psycopg"), None
    raise ConfigError(f"A fleet's state cannot be kept in {backend}.", mend=mend)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _check(version: int | None) -> None:
    if version != VERSION:
        raise FleetError(
            f"The fleet's state has version {version}, this TinySight knows {VERSION}.",
            mend="Update TinySight here, or name another state.",
        )


def _begin_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # `_begin` says when and how
    connection.execute("PRAGMA synchronous = FULL")


def _set_wal(engine: sa.Engine) -> None:
    """Let readers read while one writes; the file keeps it. SQLite does not wait for others here by itself."""
    until_s = time.monotonic() + WAIT_S
    raw = engine.raw_connection()
    try:
        while True:
            try:
                raw.driver_connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr] # it is sqlite3's
            except sqlite3.OperationalError as error:
                if time.monotonic() > until_s or not error.sqlite_errorname.startswith("SQLITE_BUSY"):
                    raise exc.OperationalError("PRAGMA journal_mode", None, error) from error
                time.sleep(0.02)
            else:
                return
    finally:
        raw.close()


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("tinysight_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _begin_postgres(connection: Any, _record: object) -> None:  # noqa: ANN401 -- psycopg's, an extra of its own
    with connection.cursor() as cursor:
        for name, wait_s in (
            ("statement_timeout", LONGEST_S),
            ("lock_timeout", WAIT_S),
            ("idle_in_transaction_session_timeout", LONGEST_S),
        ):
            cursor.execute(f"SET {name} = '{wait_s}s'")
    connection.commit()
