"""What the tests of a fleet share: a real PostgreSQL, a state on each kind of database, rollouts and wishes."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Policy, Rollout, Wish, parse_stages

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


class Postgres:
    """Debian's server in a folder of its own, which only a socket there leads to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # It refuses to be root, and must reach its folder.
        root = os.geteuid() == 0
        self._other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if root else []
        self._process: subprocess.Popen[bytes] | None = None
        folder.chmod(0o755)
        if root:
            shutil.chown(folder, "postgres", "postgres")
        self._call("initdb", "-D", str(folder / "data"), "--no-sync", "-A", "trust", "-U", "me", "-E", "UTF8")

    def start(self) -> None:
        """Start, and wait until it answers."""
        assert PROGRAMS is not None
        options = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", "", "-F"]
        command = [*self._other, str(PROGRAMS / "postgres"), *options]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=self.folder)
        until_s = time.monotonic() + 30
        ready = [str(PROGRAMS / "pg_isready"), "-q", "-h", str(self.folder)]
        while subprocess.run(ready, check=False).returncode != 0:
            assert time.monotonic() < until_s, "PostgreSQL does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop now, as a power cut does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)

    def database(self) -> str:
        """The URL of its database, emptied."""
        with psycopg.connect(f"host={self.folder} user=me dbname=postgres", autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'me' "
                "AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return f"postgresql://me@/postgres?host={self.folder}"

    def _call(self, program: str, *words: str) -> None:
        assert PROGRAMS is not None
        command = [*self._other, str(PROGRAMS / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=self.folder)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; it ends with the session."""
    if PROGRAMS is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="tinysight-pg-"))  # short: a socket's path has 107 bytes at most
    try:
        server = Postgres(folder)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def no_room() -> Callable[[int], AbstractContextManager[None]]:
    """The kernel refuses files beyond so many bytes while the ``with`` lasts, as a full disk does."""

    @contextmanager
    def limited(most_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(params=["sqlite", "postgresql"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new state may be kept: the test runs on each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "state" / "fleet.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def open_state(state_url: str) -> Iterator[Callable[..., State]]:
    """Open the state of `state_url` once more, as another process would."""
    opened: list[State] = []

    def make(**options: Any) -> State:
        opened.append(State(state_url, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def state(open_state: Callable[..., State]) -> State:
    """A new state, on each kind of database."""
    return open_state()


@pytest.fixture(scope="session")
def make_rollout() -> Callable[..., Rollout]:
    """A rollout of an id, and with whatever else."""

    def make(name: str = "belt-1", **fields: Any) -> Rollout:
        whole: dict[str, Any] = {
            "id": name,
            "group": "all",
            "target": "belt/belt-1.0.1.bundle",
            "bundle": "ab" * 32,
            "size_bytes": 1000,
            "salt": "5a17",
            "policy": Policy(stages=parse_stages("1,50%,100%"), hold=(2,)),
            "cutoffs": (0.125, 0.5, 1.0),
            "begun_at": datetime(2026, 11, 26, 9, 0, tzinfo=UTC),
            "begun_by": "ann",
        }
        return Rollout(**{**whole, **fields})

    return make


@pytest.fixture(scope="session")
def make_wishes() -> Callable[..., list[Wish]]:
    """Wishes of so many devices, the first of them with a number."""

    def make(count: int, first: int = 0, **fields: Any) -> list[Wish]:
        whole: dict[str, Any] = {"site": "plant-1", "stage": 0, "revision": 3, "sent_s": 1.5, "before": "cd" * 32}
        return [Wish(device=f"belt-{number}", **{**whole, **fields}) for number in range(first, first + count)]

    return make


@pytest.fixture
def served(serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path) -> Iterator[Any]:
    """A fleet's server that runs, with its controller."""
    with serving.Served(tmp_path, mosquitto.url, belt_repo) as server:
        yield server
