"""What all tests share: golden files, a real broker, the real command, and no silent skips."""

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import hypothesis
import pytest
from msgspec.structs import replace

from tinysight_contract import manifest as mf
from tinysight_contract.bundle import file_ref
from tinysight_contract.messages import Event, decode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import ROOT, EventTopic, Topic, parse
from tinysight_edge.belt import _digits

hypothesis.settings.register_profile("tinysight", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("tinysight")

# What computes for a minute or more, and some of it makes what others wait for: begun first, so that no core idles at
# the end. There come those that wait more than they compute, for brokers and cameras, with the machine to themselves.
LONGEST = (
    "e2e/test_demo.py", "trainer/data/test_clean.py", "converters/test_convert.py", "trainer/test_train.py",
    "trainer/test_qat.py", "trainer/test_tune.py", "trainer/test_evaluate.py", "trainer/test_devices.py",
    "converters/test_foreign_model.py", "converters/test_onnx.py", "e2e/test_wheel.py", "deploy/test_wheelhouse.py",
    "faults/test_update.py",
)  # fmt: skip
LAST = "faults"
GOLDEN = Path(__file__).parent / "golden"
AS_ROOT = "user root\n" if os.geteuid() == 0 else ""  # else mosquitto gives up rights and cannot read the test's files


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="write the golden files again instead of comparing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    long = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    if gone := [str(path) for path in long if not path.is_file()]:
        raise pytest.UsageError(f"LONGEST names files that are not there: {gone}")
    waits = Path(__file__).parent / LAST
    items.sort(key=lambda item: long.get(item.path, len(long) + item.path.is_relative_to(waits)))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test is a failure: CI installs what the tests need."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter and os.environ.get("TINYSIGHT_NO_SKIPS") and exitstatus == 0 and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("Skipped tests fail this run (TINYSIGHT_NO_SKIPS is set).", red=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    """Compare bytes with a golden file, or write it with ``--regen``."""

    def compare(name: str, produced: bytes) -> None:
        path = GOLDEN / name
        if request.config.getoption("--regen"):
            path.write_bytes(produced)
        expected = path.read_bytes() if path.exists() else b""
        assert produced == expected, (
            f"{name} changed: if meant, run pytest --regen {request.node.nodeid.split('::')[0]}"
        )

    return compare


def _module(name: str) -> ModuleType:
    """A file below this folder, without its ending; the same module for all who ask."""
    full = f"tests_{name.replace('/', '_')}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module  # dataclasses look themselves up there
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def module() -> Callable[[str], ModuleType]:
    """Load a file below ``tests`` that is no test: ``module("deploy/sshd")``."""
    return _module


@pytest.fixture(scope="session")
def serving(module: Callable[[str], ModuleType]) -> ModuleType:
    """``deploy/fleet/serving.py``: a fleet's server that runs in a thread."""
    return module("deploy/fleet/serving")


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Once:
    """A folder that is made once for all test processes together; the others wait for it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if hasattr(request.config, "workerinput") else own

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


def _made_by(script: str, *options: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name(script)), str(folder), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    return make


@pytest.fixture(scope="session")
def obvious() -> ModuleType:
    """``obvious.py``: slow decoders to compare the fast ones with."""
    return _module("obvious")


@pytest.fixture(scope="session")
def graphs(once: Once) -> Path:
    """A folder of small TFLite files as other people's trainers write them; ``graphs.py`` says what they are."""
    return once("graphs", _made_by("graphs.py"))


@pytest.fixture(scope="session")
def troubles(once: Once) -> Path:
    """Those of them that are no graphs but whole bundles, made in a fraction of the time; see ``graphs.troubles``."""
    return once("troubles", _made_by("graphs.py", "--troubles"))


@pytest.fixture(scope="session")
def habits() -> ModuleType:
    """``habits.py``: small Keras models that suffer from int8, each by one habit, or by none."""
    return _module("habits")


@pytest.fixture(scope="session")
def habit_files(once: Once) -> Path:
    """A folder of some of them, converted."""
    return once("habits", _made_by("habits.py"))


@pytest.fixture(scope="session")
def cameras() -> ModuleType:
    """``cameras/cameras.py``: servers that are cameras, and scenes that they show."""
    return _module("cameras/cameras")


@pytest.fixture
def rtsp(cameras: Any) -> Iterator[Any]:
    """An RTSP camera, not yet started."""
    server = cameras.RtspServer()
    yield server
    server.kill()


@pytest.fixture
def mjpeg(cameras: Any) -> Iterator[Any]:
    """An MJPEG camera, not yet started."""
    server = cameras.MjpegServer()
    yield server
    server.kill()


@dataclass
class Mosquitto:
    """Debian's broker on a port of its own."""

    folder: Path
    port: int
    extra: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it listens."""
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed: apt-get install mosquitto mosquitto-clients")
        config = self.folder / f"mosquitto-{self.port}.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\npersistence false\n{self.extra}\n{AS_ROOT}")
        self.process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("mosquitto does not listen")

    def kill(self) -> None:
        """End it without a goodbye."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


@pytest.fixture
def make_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Make real brokers, not yet started; all end with the test."""
    made: list[Mosquitto] = []

    def make(extra: str = "allow_anonymous true") -> Mosquitto:
        made.append(Mosquitto(tmp_path, free_port(), extra))
        return made[-1]

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def mosquitto(make_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A real broker that runs."""
    broker = make_mosquitto()
    broker.start()
    return broker


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Any]]:
    """Make networks in front of a broker's port that can fail, see ``proxy.py``; all end with the test."""
    made: list[Any] = []

    def make(port: int, **options: Any) -> Any:
        made.append(_module("proxy").Proxy(port, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def pki(once: Once) -> Path:
    """A folder of certificates as ``certificates.py`` makes them: NAME.crt and NAME.key."""
    return once("pki", _module("certificates").make)


class Reader:
    """Hears everything under the contract's root."""

    def __init__(self, url: str) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self._connection = Connection(
            Address.parse(url), client_id="", on_message=lambda *message: self.heard.append(message)
        )
        self._connection.open(timeout_s=5)
        self._connection.subscribe(f"{ROOT}/#")
        until_s = time.monotonic() + 20
        while not self._connection.subscribed:
            assert time.monotonic() < until_s, "the broker does not take the subscription"
            time.sleep(0.005)

    def of(self, kind: type[Topic]) -> list[bytes]:
        """Payloads of one kind of topic, in the order they came."""
        return [payload for topic, payload, _ in self.heard if isinstance(parse(topic), kind)]

    def events(self) -> list[Event]:
        return [decode(payload, Event) for payload in self.of(EventTopic)]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="session")
def wire() -> Any:
    """``wire.py``: judges whether what was heard fits the contract."""
    return _module("wire").Judge()


@pytest.fixture
def make_reader(wire: Any) -> Iterator[Callable[[str], Reader]]:
    """Make readers that end with the test; all that they heard must fit the contract."""
    made: list[Reader] = []

    def make(url: str) -> Reader:
        made.append(Reader(url))
        return made[-1]

    yield make
    for reader in made:
        reader.close()
    for reader in made:
        wire.check(reader.heard)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until something is true; fail after 20 s."""

    def wait(true: Callable[[], object]) -> None:
        until_s = time.monotonic() + 20
        while not true():
            assert time.monotonic() < until_s, "it did not become true"
            time.sleep(0.02)

    return wait


Run = Callable[..., subprocess.CompletedProcess[str]]


def _surroundings(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "100"}


@pytest.fixture
def tinysight(tmp_path: Path) -> Run:
    """Run the ``tinysight`` command as a user would, in a folder of its own."""

    def run(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tinysight_deploy", *map(str, arguments)],
            cwd=tmp_path,
            env=_surroundings(tmp_path),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def warm() -> Any:
    """``warm.py``: processes that begin with TensorFlow loaded."""
    return _module("warm").Warm()


@pytest.fixture
def tinysight_warm(warm: Any, tmp_path: Path) -> Run:
    """As ``tinysight``, for what trains: five seconds less."""

    def run(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        words = map(str, arguments)
        done = warm.run("tinysight_deploy", *words, cwd=tmp_path, env=_surroundings(tmp_path), timeout_s=timeout)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(scope="module")
def warm_children(warm: Any) -> Iterator[None]:
    """Conversions begin with TensorFlow loaded; those of commands that run as processes of their own do not."""
    instead = SimpleNamespace(run=warm.run_command, TimeoutExpired=subprocess.TimeoutExpired)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinysight_converters.child.subprocess", instead)
        yield


def cli(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tinysight_deploy", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="session")
def world(once: Once) -> Path:
    """A folder with what a user has after a small training of each task.

    ``folder`` (images by class), ``belt`` and ``digits`` (data sets), ``detector`` and ``classifier`` (runs),
    ``detector.bundle`` and ``classifier.bundle``: too small to be good, whole in every other way.
    """
    return once("world", make_world)


def make_world(root: Path) -> None:
    """Draw, train, convert."""
    images, labels = _digits()
    for number, (image, label) in enumerate(zip(images[:300], labels, strict=False)):
        path = root / "folder" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), 255 - cv2.resize(image * 15, (32, 32)))
    small = ("--epochs", "2", "--scale", "0.5", "--batch", "16", "--seed", "5", "--quiet")
    for arguments in (
        ("data", "synth", "belt", "--out", "belt", "--images", "64", "--seed", "5", "--quiet"),
        ("data", "import", "folder", "--out", "digits", "--quiet"),
        ("train", "belt", "--out", "detector", *small),
        ("train", "digits", "--out", "classifier", "--input", "32x32", *small),
        ("convert", "detector", "--out", "detector.bundle", "--scheme", "int8,float32", "--quiet"),
        ("convert", "classifier", "--out", "classifier.bundle", "--scheme", "int8,float32", "--quiet"),
    ):
        done = cli(*arguments, cwd=root)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def belt_bundle() -> Path:
    """A small detector for the belt, int8 only; made by ``tests/golden/regen.py``."""
    return GOLDEN / "belt.bundle"


@pytest.fixture(scope="session")
def belt_repo(once: Once, belt_bundle: Path) -> Path:
    """A repository in which it is released, with its keys beside it; only to be read."""

    def make(folder: Path) -> None:
        for arguments in (("keys", "init"), ("release", "add", belt_bundle)):
            done = cli(*arguments, "--repo", folder / "repo", "--keys", folder / "keys", cwd=folder)
            assert done.returncode == 0, done.stderr

    return once("belt-repo", make) / "repo"


Sample = Callable[..., tuple[mf.Manifest, dict[str, bytes]]]


@pytest.fixture(scope="session")
def sample() -> Sample:
    """A manifest and its files that are consistent and hold no real model; keyword arguments change the manifest."""

    def make(**changes: object) -> tuple[mf.Manifest, dict[str, bytes]]:
        files = {
            "int8.tflite": b"not a model",
            "labels.txt": b"cat\ndog\n",
            "golden-input.bin": bytes(16 * 16 * 3),
            "golden-int8-heatmap.bin": bytes(2 * 2 * 2),
            "golden-int8-box.bin": bytes(2 * 2 * 4),
        }
        outputs = [
            mf.Output(name="heatmap", role="heatmap", shape=[1, 2, 2, 2], dtype="int8", scale=1 / 256, zero_point=-128),
            mf.Output(name="box", role="box", shape=[1, 2, 2, 4], dtype="int8", scale=0.0125, zero_point=11),
        ]
        manifest = mf.Manifest(
            name="pets",
            version="1.0.0",
            release=3,
            task="detect",
            labels=["cat", "dog"],
            input=mf.Input(height=16, width=16),
            decode=mf.CenterNet(stride=8),
            thresholds=mf.Thresholds(score=0.3),
            variants=[
                mf.Variant(
                    file="int8.tflite",
                    scheme="int8",
                    input=mf.Tensor(name="image", shape=[1, 16, 16, 3], dtype="uint8", scale=1.0),
                    outputs=outputs,
                    runtimes=[mf.RuntimeCheck(name="litert", version="2.3.0", ok=True)],
                    golden={output.name: f"golden-int8-{output.name}.bin" for output in outputs},
                )
            ],
            golden=mf.Golden(file="golden-input.bin", count=1),
            provenance=mf.Provenance(
                dataset_digest="0" * 64, calibration_digest="1" * 64, seed=7, config={"epochs": 3}, tools={"keras": "3"}
            ),
            files={name: file_ref(data) for name, data in files.items()},
        )
        return replace(manifest, **changes), files

    return make
