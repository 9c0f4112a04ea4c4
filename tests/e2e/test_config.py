"""An agent's file as a user treats it: the commands, real processes, a real broker."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract import topics as t
from tinysight_contract.errors import ConfigError, StoreError
from tinysight_contract.messages import Alert, Health, Info, Well, decode
from tinysight_edge.cli import _hold, from_flags, memory_of
from tinysight_edge.config.file import read_config

Tinysight = Callable[..., subprocess.CompletedProcess[str]]

TEXT = """\
site = "plant-1"
device = "belt-7"
state = "state"
[broker]
url = "{url}"
start_offline = false
{login}
[model]
bundle = "{bundle}"
[cameras.left]
source = "synthetic:belt?frames=5"
[cameras.right]
source = "synthetic:belt?frames=5&seed=2"
"""


@pytest.fixture
def file(tmp_path: Path, belt_bundle: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(TEXT.format(url="mqtt://127.0.0.1:1", bundle=belt_bundle, login=""))
    return path


def test_a_file_runs_with_a_password_from_beside_it(
    make_mosquitto: Any,
    make_reader: Any,
    file: Path,
    belt_bundle: Path,
    tinysight: Tinysight,
    tmp_path: Path,
    eventually: Any,
) -> None:
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "passwords", "belt", "p@ss"], check=True)
    broker = make_mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    reader = make_reader(broker.url.replace("//", "//belt:p%40ss@"))
    (tmp_path / "secret").write_text("p@ss\n")
    (tmp_path / "secret").chmod(0o600)
    login = 'username = "belt"\npassword_file = "secret"'
    file.write_text(TEXT.format(url=broker.url, bundle=belt_bundle, login=login))
    done = tinysight("run", "--config", file, "--json")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["frames"] <= 10, "a live source may drop some"
    assert "p@ss" not in done.stdout + done.stderr
    assert (tmp_path / "state" / "outbox.db").exists()
    eventually(lambda: reader.of(t.InfoTopic))
    info = decode(reader.of(t.InfoTopic)[-1], Info)
    assert set(info.cameras) == {"left", "right"}


def test_check_says_what_would_run(file: Path, tinysight: Tinysight) -> None:
    done = tinysight("config", "check", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "plant-1/belt-7" in done.stdout
    assert "camera right" in done.stdout
    as_json = tinysight("config", "check", file, "--json")
    assert json.loads(as_json.stdout) == {"file": str(file), "ok": True, "findings": []}


def test_check_says_all_that_is_wrong_a_line_each_with_status_two(file: Path, tinysight: Tinysight) -> None:
    file.write_text(file.read_text().replace("[cameras.left]", '[cameras.left]\nrotate = 45\nzoens = "x"'))
    done = tinysight("config", "check", file)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: {file}:11: cameras.left.rotate: 45 does not fit here. Write one of 0, 90")
    assert second.endswith("cameras.left.zoens: Nobody knows this key. Did you mean 'cameras.left.zones'?")
    as_json = tinysight("config", "check", file, "--json")
    assert as_json.returncode == 2
    assert [each["line"] for each in json.loads(as_json.stdout)["findings"]] == [11, 12]


def test_check_asks_the_model_for_its_labels(file: Path, tinysight: Tinysight) -> None:
    file.write_text(file.read_text() + '[rules.a]\nlabels = ["3", "cat"]\n')
    done = tinysight("config", "check", file)
    assert done.returncode == 2
    assert "rules.a.labels[1]: The model knows no label 'cat'." in done.stderr


def test_a_label_that_the_model_has_lost_is_told_and_all_else_goes_on(
    mosquitto: Any, make_reader: Any, file: Path, belt_bundle: Path, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    text = TEXT.format(url=mosquitto.url, bundle=belt_bundle, login="").replace("frames=5", "fps=30")
    rules = '[rules.pets]\nlabels = ["cat"]\n[rules.digits]\nlabels = ["cat", "0", "1", "2", "3", "4"]\n'
    file.write_text(text + '[cameras.left.zones.yard]\npolygon = [[0,0],[1,0],[1,1]]\nlabels = ["dog"]\n' + rules)
    command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(file), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(lambda: {event.camera for event in reader.events()} == {"left", "right"})
    eventually(lambda: any(map(len, reader.of(t.AlertTopic))))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "cameras.left.zones.yard.labels[0]: The model knows no label 'dog'." in said
    alerts = {topic: payload for topic, payload, _ in reader.heard if isinstance(t.parse(topic), t.AlertTopic)}
    alert = decode(alerts[str(t.AlertTopic("plant-1", "belt-7", "config-labels"))], Alert)
    for place in ("cameras.left.zones.yard.labels[0]", "rules.pets.labels[0]", "rules.digits.labels[0]"):
        assert place in alert.what
    assert {name for event in reader.events() for name in event.rules} == {"digits"}
    eventually(lambda: reader.of(t.HealthTopic))
    assert decode(reader.of(t.HealthTopic)[-1], Health).verdict.state is Well.DEGRADED


def test_check_of_a_damaged_bundle_is_one_line(file: Path, belt_bundle: Path, tinysight: Tinysight) -> None:
    (file.parent / "half.bundle").write_bytes(belt_bundle.read_bytes()[:9999])
    file.write_text(file.read_text().replace(str(belt_bundle), "half.bundle"))
    done = tinysight("config", "check", file)
    assert done.returncode == 2
    assert "half.bundle: It ends in the middle of" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_of_a_wrong_file_is_one_line_with_the_way_to_the_others(file: Path, tinysight: Tinysight) -> None:
    file.write_text(file.read_text().replace("[cameras.left]", "[cameras.left]\nrotate = 45\nzoens = 1"))
    done = tinysight("run", "--config", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "agent.toml:11: cameras.left.rotate" in done.stderr
    assert done.stderr.endswith(f"1 more: run `tinysight config check {file}`.\n")


def test_a_start_that_waits_for_the_broker_ends_when_asked_to_and_does_not_count_against_its_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "memory"))
    mark = memory_of(file) / "agent.trial.json"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a broker that never answers
        file.write_text(file.read_text().replace("127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}"))
        command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(file), "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(30)
        with silent.accept()[0]:
            assert json.loads(mark.read_text())["starts"] == 1
            process.send_signal(signal.SIGTERM)
            out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "error" not in said
    assert json.loads(out)["frames"] == 0
    assert json.loads(mark.read_text())["starts"] == 0


def test_what_show_prints_is_a_file_of_the_same_meaning(file: Path, tinysight: Tinysight) -> None:
    example = Path(__file__).parents[2] / "examples" / "agent.toml"
    for path in (file, example):
        done = tinysight("config", "show", path)
        assert done.returncode == 0, done.stderr
        shown = file.with_name("shown.toml")
        shown.write_text(done.stdout)
        assert read_config(shown, environ={}) == read_config(path, environ={})
    assert 'cameras.gate.open_timeout = "10s"' in done.stdout, "defaults included"


def test_show_hides_what_an_address_calls_a_token(file: Path, tinysight: Tinysight) -> None:
    file.write_text(file.read_text().replace("synthetic:belt?frames=5&", "http://h/video?token=abc123&"))
    for command in ("show", "check"):
        done = tinysight("config", command, file)
        assert "http://h/video?token=***&seed=2" in done.stdout
        assert "abc123" not in done.stdout


def test_a_file_to_start_from_needs_a_bundle_and_nothing_else(tinysight: Tinysight, tmp_path: Path) -> None:
    done = tinysight("config", "init")
    assert done.returncode == 0, done.stderr
    again = tinysight("config", "init")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is there already" in again.stderr
    checked = tinysight("config", "check", "agent.toml")
    assert checked.stderr.count("\n") == 1
    assert "There is no bundle" in checked.stderr
    commented = (tmp_path / "agent.toml").read_text().replace("\n# ", "\n")
    (tmp_path / "agent.toml").write_text(commented)
    (tmp_path / "my-model.bundle").touch()
    told = tinysight("config", "check", "agent.toml").stderr
    assert "TOML" not in told
    assert "Nobody knows" not in told, "what is commented out is right, too"


def test_the_schema_is_printed(tinysight: Tinysight) -> None:
    committed = Path(__file__).parents[2] / "docs" / "agent.schema.json"
    assert tinysight("config", "schema").stdout == committed.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--config", "agent.toml", "--site", "x", "--threads", "1"),
            "--config and --site, --threads say the same twice.",
        ),
        (("--site", "x"), "A run needs --source, --broker, --device. Give them, or a file with --config."),
        (("--config", "none.toml"), "none.toml cannot be read: No such file or directory."),
    ],
    ids=["both", "neither", "no file"],
)
@pytest.mark.usefixtures("file")
def test_a_run_takes_a_file_or_flags(arguments: tuple[str, ...], said: str, tinysight: Tinysight) -> None:
    done = tinysight("run", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_flags_and_a_file_that_say_the_same_are_the_same(file: Path, belt_bundle: Path) -> None:
    told = from_flags(
        source=["left=synthetic:belt?frames=5", "right=synthetic:belt?frames=5&seed=2"],
        broker="mqtt://127.0.0.1:1",
        site="plant-1",
        device="belt-7",
        bundle=belt_bundle,
        state=file.parent / "state",
    )
    assert told == read_config(file, environ={})


def test_what_an_agent_remembers_of_its_file_lies_where_no_typo_moves_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}:/other")
    one, two = memory_of(tmp_path / "agent.toml"), memory_of(tmp_path / "b" / "agent.toml")
    assert one.parent == tmp_path / "config"
    assert one != two, "one folder for each file"
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    assert memory_of(tmp_path / "agent.toml") == Path("/home/me/state/tinysight/config") / one.name


def test_a_folder_that_cannot_be_written_is_warned_of_and_any_other_fault_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = _hold(tmp_path)
    assert held is not None
    with pytest.raises(ConfigError, match="Another agent runs"):
        _hold(tmp_path)
    os.close(held)

    def fails(number: int) -> Callable[..., int]:  # a disk of that kind cannot be had without rights
        def refuse(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        return refuse

    for number in (errno.EROFS, errno.ENOSPC):
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fails(number))
            assert _hold(tmp_path) is None
        assert os.strerror(number) in caplog.text
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        _hold(tmp_path / "file")
