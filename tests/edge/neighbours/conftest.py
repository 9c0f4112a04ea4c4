"""What tests of neighbours share: a configuration, what the device says of itself, and the example's database."""

import os
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tinysight_contract.messages import Counts, Event, Info, decode
from tinysight_edge.config.compare import read_leaf
from tinysight_edge.config.types import AgentConfig

GOLDEN = Path(__file__).parents[2] / "golden"
ODD = 'it\'s "}}" {% \\ é😀'
LABELS = ["7", "traffic light", ODD]
TEXT = """\
site = "plant-1"
device = "belt-7"
[broker]
url = "mqtt://127.0.0.1"
[model]
bundle = "belt.bundle"
[cameras.cam0]
source = "0"
[cameras.cam0.zones.dock]
polygon = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
labels = ["7"]
[cameras.cam0.lines.door]
start = [0.0, 0.0]
end = [1.0, 1.0]
"""

Make = Callable[..., AgentConfig]
Sql = Callable[[str], list[str]]
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


@pytest.fixture
def configured(tmp_path: Path) -> Make:
    """Make a configuration of a camera with a zone and a line; more TOML comes after it."""

    def make(more: str = "[home_assistant]\n[frigate]\n", *, text: str = TEXT) -> AgentConfig:
        given: dict[str, Any] = {"state": str(tmp_path), **tomllib.loads(text + more)}
        return msgspec.convert(given, AgentConfig, dec_hook=read_leaf)

    return make


@pytest.fixture(scope="session")
def info() -> Info:
    """The golden one, of a model with labels that are not easy."""
    golden = decode((GOLDEN / "info.json").read_bytes(), Info)
    return msgspec.structs.replace(golden, bundle=msgspec.structs.replace(golden.bundle, labels=LABELS))


@pytest.fixture(scope="session")
def counts() -> Counts:
    """The golden ones, of the same labels."""
    golden = decode((GOLDEN / "counts.json").read_bytes(), Counts)
    objects, zones, lines = {"7": 2, "traffic light": 3, ODD: 1}, {"dock": {"7": 1}}, {"door": {"in": 4, "out": 1}}
    return msgspec.structs.replace(golden, objects=objects, zones=zones, lines=lines)


@pytest.fixture(scope="session")
def event() -> Event:
    """The golden one."""
    return decode((GOLDEN / "event.json").read_bytes(), Event)


@pytest.fixture(scope="session")
def database() -> Iterator[Sql]:
    """A real PostgreSQL with the schema; give it SQL, get its rows as text."""
    if PROGRAMS is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # It refuses to be root, and must reach its folder.
    other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="tinysight-pg-"))
    folder.chmod(0o755)
    if other:
        shutil.chown(folder, "postgres", "postgres")

    def call(*command: str | Path, text: str = "") -> str:
        done = subprocess.run(
            [*other, *map(str, command)],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        call(PROGRAMS / "initdb", "-D", folder / "data", "--no-sync", "-A", "trust", "-U", "me")
        server = subprocess.Popen(
            [*other, PROGRAMS / "postgres", "-D", folder / "data", "-k", folder, "-h", "", "-F"],
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        until_s = time.monotonic() + 20
        while not (folder / ".s.PGSQL.5432").exists():
            assert time.monotonic() < until_s, "PostgreSQL does not start"
            time.sleep(0.05)

        def run(text: str) -> list[str]:
            psql = (PROGRAMS / "psql", "-h", folder, "-U", "me", "-d", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1")
            return call(*psql, text=text).splitlines()

        schema = (Path(__file__).parents[3] / "examples" / "telegraf" / "schema.sql").read_text()
        run(schema)
        run(schema)
        yield run
        server.terminate()
        server.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sql(database: Sql) -> Sql:
    """The same with empty tables."""
    database("TRUNCATE event, counts, crossed, health, camera_health")
    return database


@pytest.fixture
def inbox(sql: Sql) -> Callable[..., None]:
    """Give it rows of kind and payload of one device, which go in by COPY as Telegraf's do."""

    def put(rows: list[tuple[str, bytes]], *, device: str = "belt-7") -> None:
        lines = []
        for kind, payload in rows:
            camera = "\\N" if kind == "health" else "cam0"
            value = payload.decode().replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
            lines.append("\t".join(("2026-11-26 00:00:00", "plant-1", device, camera, kind, value)))
        sql("COPY inbox (time, site, device, camera, kind, value) FROM stdin;\n" + "\n".join(lines) + "\n\\.\n")

    return put
