"""The file as people and power cuts treat it: real files, real processes that are killed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinysight_contract.errors import ConfigError
from tinysight_contract.messages import CameraState
from tinysight_edge.config.reload import Change
from tinysight_edge.config.reloader import AGAIN_S, EVERY_S, Reloader
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.watch import Watch

TEXT = """\
site = "s"
device = "d"
state = "state"
broker = {{url = "{broker}"}}
model = {{bundle = "a.bundle"}}
[cameras.gate]
source = "{gate}"
{more}
"""


class Agent:
    """An agent's file with its reloader, on a clock of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "a.bundle").touch()
        self.path, self.memory = folder / "agent.toml", folder / "memory"
        self.environ: dict[str, str] = {}
        self.now_s = 0.0

    def write(self, gate: str = "0", broker: str = "mqtt://h", more: str = "") -> None:
        """As an editor: a new file under the old name."""
        new = self.path.with_suffix(".new")
        new.write_text(TEXT.format(gate=gate, broker=broker, more=more))
        new.replace(self.path)

    def start(self) -> str:
        """The source of ``gate`` that runs."""
        self.reloader = Reloader(self.path, self.memory, environ=self.environ)
        return self.reloader.start(self.now_s).cameras["gate"].source

    def passes(self, seconds: float) -> list[Change]:
        """What is to be changed meanwhile."""
        until_s = self.now_s + seconds
        found = []
        while self.now_s < until_s:
            self.now_s += EVERY_S
            found.append(self.reloader.poll(self.now_s))
        return [change for change in found if change is not None]

    def sees(self, *cameras: str, state: CameraState = CameraState.ONLINE) -> None:
        for camera in cameras:
            self.reloader.note_camera(camera, state)

    @property
    def good(self) -> str:
        return (self.memory / "agent.good.toml").read_text()


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


@pytest.fixture
def steady(agent: Agent) -> Agent:
    """One that has stood its first trial."""
    agent.write()
    agent.start()
    agent.sees("gate")
    agent.passes(31)
    assert agent.good == agent.path.read_text()
    assert agent.reloader.status == "holds"
    return agent


def test_a_change_is_handed_over_within_three_looks_and_kept_after_its_trial(steady: Agent) -> None:
    before = steady.good
    steady.write(gate="1")
    (change,) = steady.passes(3 * EVERY_S)
    assert (change.reopened, change.config.cameras["gate"].source) == (("gate",), "1")
    assert (steady.reloader.status, steady.good) == ("on trial", before)
    steady.sees("gate")
    assert steady.passes(30) == []
    assert (steady.reloader.status, steady.good) == ("holds", steady.path.read_text())


def test_a_camera_that_is_opened_again_has_to_show_itself_again(steady: Agent) -> None:
    steady.write(gate="1")
    forth, back = steady.passes(40)
    assert (forth.config.cameras["gate"].source, back.config.cameras["gate"].source) == ("1", "0")
    assert "no pictures came from gate" in back.why
    assert "no pictures came from gate" in steady.reloader.status
    steady.sees("gate")
    assert steady.passes(60) == [], "not tried again"
    steady.write(gate="1", more="# again")
    assert len(steady.passes(3)) == 1


@pytest.mark.parametrize(
    ("states", "stays"),
    [
        ([CameraState.DARK], True),
        ([CameraState.FROZEN], True),
        ([CameraState.ONLINE, CameraState.DISABLED], True),
        ([CameraState.DISABLED], False),
        ([CameraState.ONLINE, CameraState.RECONNECTING], False),
        ([CameraState.ONLINE, CameraState.STALLED], False),
    ],
)
def test_what_counts_as_pictures(states: list[CameraState], stays: bool, steady: Agent) -> None:
    steady.write(gate="1")
    steady.passes(3)
    for state in states:
        steady.sees("gate", state=state)
    assert bool(steady.passes(40)) is not stays


def test_a_wrong_file_is_refused_once_and_the_last_good_one_goes_on(
    steady: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    steady.write(more="rotat = 90")
    assert steady.passes(60) == []
    assert "agent.toml:8: cameras.gate.rotat: Nobody knows this key. Did you mean 'cameras.gate.rotate'?" in (
        steady.reloader.status
    )
    assert len([each for each in caplog.records if "rotat" in each.getMessage()]) == 1
    steady.write(more="rotate = 90")
    assert len(steady.passes(3)) == 1


def test_a_half_written_file_is_not_read(steady: Agent) -> None:
    whole = TEXT.format(gate="1", broker="mqtt://h", more='[cameras.door]\nsource = "2"\n')
    for end in range(len(whole) - 60, len(whole), 7):  # some of these are right as they are, with one camera less
        steady.path.write_text(whole[:end])
        assert steady.passes(EVERY_S) == []
    steady.path.write_text(whole)
    (change,) = steady.passes(2 * EVERY_S)
    assert change.added == ("door",)


def test_a_missing_file_is_said_and_changes_nothing(steady: Agent) -> None:
    steady.path.unlink()
    assert steady.passes(5) == []
    assert "cannot be read: No such file" in steady.reloader.status
    steady.write()
    assert steady.passes(5) == []
    assert steady.reloader.status == "holds"


def test_a_refused_file_is_taken_once_its_password_is_there(steady: Agent) -> None:
    steady.write(gate="rtsp://h/1", more='username = "u"\npassword_env = "P"')
    assert steady.passes(5) == []
    assert "The environment has no P" in steady.reloader.status
    steady.environ["P"] = "p"
    assert len(steady.passes(AGAIN_S)) == 1


def test_labels_of_a_change_are_those_of_the_model(steady: Agent) -> None:
    steady.reloader.labels = ["cat", "dog"]
    steady.write(more="[rules.a]\nlabels = ['dgo']")
    assert steady.passes(5) == []
    assert "Did you mean 'dog'?" in steady.reloader.status


def test_what_waits_for_a_restart_is_said_and_no_good_one_before_it_has_run(steady: Agent) -> None:
    before = steady.good
    steady.write(broker="mqtt://other")
    assert steady.passes(40) == []
    assert (steady.reloader.status, steady.good) == ("holds; waits for a restart: broker", before)
    steady.start()
    assert steady.reloader.now.running.config.broker.url == "mqtt://other"
    steady.sees("gate")
    steady.passes(31)
    assert steady.good == steady.path.read_text()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("site = ")], ids=["missing", "a typo"])
def test_at_a_start_the_last_good_one_runs_when_the_file_does_not(
    spoil: Callable[[Path], None], steady: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(steady.path)
    assert steady.start() == "0"
    assert steady.reloader.status.startswith("refused: ")
    assert "The last good one goes on." in caplog.text


def test_relative_paths_of_the_last_good_one_start_from_the_files_folder(steady: Agent) -> None:
    steady.path.write_text("no")
    steady.start()
    assert steady.reloader.now.running.config.state == steady.path.parent / "state"


def test_without_a_good_one_a_wrong_file_is_an_error(agent: Agent) -> None:
    agent.write(more="rotat = 1")
    with pytest.raises(ConfigError, match=r"agent\.toml:8"):
        agent.start()


def test_a_clean_end_does_not_count_against_a_trial(steady: Agent) -> None:
    steady.write(gate="1")
    for _ in range(5):
        assert steady.start() == "1"
        steady.reloader.close()


@pytest.mark.parametrize("damage", [b"\xff{", b'{"why": "\xff"}', b'{"odd": ' + b"[" * 2000], ids=range(3))
@pytest.mark.parametrize("name", ["agent.good.toml", "agent.trial.json"])
def test_a_damaged_memory_is_as_none(name: str, damage: bytes, steady: Agent) -> None:
    (steady.memory / name).write_bytes(damage)
    assert steady.start() == "0"


def test_a_memory_that_cannot_be_written_refuses_changes_and_stops_nothing(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.memory.write_text("a file in its place")
    agent.write()
    assert agent.start() == "0"
    assert agent.passes(31) == []
    agent.write(gate="1")
    assert agent.passes(31) == []
    assert "cannot be tried" in agent.reloader.status
    assert len([each for each in caplog.records if "may outlive a restart" in each.getMessage()]) == 1
    agent.memory.unlink()
    (change,) = agent.passes(AGAIN_S + EVERY_S)
    assert change.config.cameras["gate"].source == "1"


def run(agent: Agent, code: str = "", *, before: str = "", killed: bool = False) -> str:
    """A process that starts, does something, and says what runs; ``killed`` by itself or not."""
    lines = (
        "import os, signal",
        "from pathlib import Path",
        "from tinysight_contract.messages import CameraState",
        "from tinysight_edge.config.reloader import Reloader",
        before,
        f"reloader = Reloader(Path({str(agent.path)!r}), Path({str(agent.memory)!r}), environ={{}})",
        "print(reloader.start(0.0).cameras['gate'].source, flush=True)",
        code,
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    return done.stdout.strip()


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_a_file_that_kills_the_agent_during_its_trial_is_taken_back_by_restarts(steady: Agent) -> None:
    steady.write(gate="1")
    assert [run(steady, KILL, killed=True) for _ in range(4)] == ["1", "1", "0", "0"]
    steady.write(gate="2")
    assert run(steady, KILL, killed=True) == "2", "another content is another trial"


def test_a_change_that_kills_a_running_agent_counts_from_its_first_moment(steady: Agent) -> None:
    edit = (
        f"path = Path({str(steady.path)!r})\n"
        "path.write_text(path.read_text().replace('source = \"0\"', 'source = \"1\"'))\n"
        "while not any(reloader.poll(now) for now in range(1, 9)): pass\n"
    )
    assert run(steady, edit + KILL, killed=True) == "0"
    assert [run(steady, KILL, killed=True) for _ in range(2)] == ["1", "0"]


COUNT = """
left = {number}
def counted(call):
    def counting(*given, **named):
        global left
        left -= "rb" not in given
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    return counting
Path.replace, os.fsync, Path.open = counted(Path.replace), counted(os.fsync), counted(Path.open)
"""
STAND = """
reloader.note_camera("gate", CameraState.ONLINE)
for now in range(1, 40):
    reloader.poll(float(now))
"""
STEPS = 4  # to write a file: open, sync, rename, sync its folder


@pytest.mark.parametrize("number", range(1, 3 * STEPS + 2))
def test_a_kill_at_any_step_of_keeping_leaves_the_old_or_the_new(number: int, steady: Agent) -> None:
    """Killed before the nth call that changes the disk: the mark at the start, the good one and the mark at the end."""
    steady.write(gate="1")
    run(steady, STAND, before=COUNT.format(number=number), killed=number <= 3 * STEPS)
    assert run(steady) == "1", "one crash is forgiven"
    steady.path.write_text("a typo")
    assert run(steady) == ("1" if number >= 2 * STEPS else "0"), "never dark"


def test_the_thread_hands_changes_over(steady: Agent, eventually: Callable[[Callable[[], object]], None]) -> None:
    steady.reloader = Reloader(steady.path, steady.memory, environ={})
    steady.reloader.start(0.0)
    found: list[Change] = []

    def taken() -> bool:
        found.extend(filter(None, [watch.take()]))
        return bool(found)

    with Watch(steady.reloader) as watch:
        assert watch.take() is None
        steady.write(gate="1")
        eventually(taken)
    assert found[-1].reopened == ("gate",)


def test_a_folder_in_the_files_place_is_said(steady: Agent) -> None:
    steady.path.unlink()
    steady.path.mkdir()
    assert steady.passes(5) == []
    assert "cannot be read: Is a directory" in steady.reloader.status


def test_a_check_that_throws_refuses_the_file_and_a_look_that_throws_ends_nothing(
    steady: Agent, eventually: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_config: AgentConfig) -> None:
        raise ZeroDivisionError

    steady.reloader.check = broken
    steady.write(gate="1")
    assert steady.passes(3) == []
    assert "cannot be checked: ZeroDivisionError" in steady.reloader.status
    failed, poll = list[float](), steady.reloader.poll

    def fails_once(now_s: float, *, at_once: bool) -> Change | None:
        if not failed:
            failed.append(now_s)
            raise OSError
        return poll(now_s, at_once=at_once)

    monkeypatch.setattr(steady.reloader, "poll", fails_once)
    steady.reloader.check = lambda _config: None
    steady.write(gate="2")
    found: list[Change] = []

    def taken() -> bool:
        if (change := watch.take()) is not None:
            found.append(change)
        return bool(found)

    with Watch(steady.reloader) as watch:
        eventually(taken)
    assert failed
    assert found[-1].reopened == ("gate",)
