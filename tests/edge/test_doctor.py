"""The doctor: every check has a verdict whatever is missing, hangs or crashes, and a fix that can be typed."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from tinysight_contract import topics as t
from tinysight_contract.messages import Desired, State, Status, encode, utc_now
from tinysight_contract.mqtt import Address, Connection
from tinysight_edge.doctor import plan
from tinysight_edge.doctor.camera import _Look, _wrong
from tinysight_edge.doctor.child import CHECKS, check
from tinysight_edge.doctor.machine import cpu
from tinysight_edge.doctor.result import Verdict
from tinysight_edge.doctor.subject import Options, Subject, subject_of

Lines = dict[str, dict[str, Any]]


@pytest.fixture
def doctor(tinysight: Any) -> Callable[..., tuple[int, Lines]]:
    def run(*arguments: str | Path) -> tuple[int, Lines]:
        done = tinysight("doctor", "--json", "--seconds", "0.5", *arguments)
        assert done.stderr == ""
        return done.returncode, {line["check"]: line for line in json.loads(done.stdout)}

    return run


def write_config(folder: Path, broker: str, more: str = "") -> Path:
    path = folder / "agent.toml"
    (folder / "password").write_text("hunter2-secret\n")
    (folder / "password").chmod(0o600)
    path.write_text(
        f"""
site = "plant-1"
device = "belt-7"
state = "state"
[broker]
url = "{broker}"
username = "belt"
password_file = "password"
[model]
bundle = "belt.bundle"
[cameras.belt]
source = "synthetic:belt"
{more}"""
    )
    return path


def test_without_any_word_it_checks_what_it_can_and_says_what_it_could_not(doctor: Any) -> None:
    status, lines = doctor()
    assert list(lines) == [*(name for name in CHECKS if name not in {*plan.ALONE, "fleet"}), *plan.ALONE]
    for name in ("config", "rights", "disk", "model", "broker", "camera"):
        assert lines[name]["verdict"] == "skip"
        assert "Give --" in lines[name]["mend"]
    for name in ("python", "packages", "runtime", "cpu"):
        assert lines[name]["verdict"] == "ok", lines[name]
    assert status == any(line["verdict"] == "fail" for line in lines.values())
    assert all(line["took_ms"] >= 0 and line["what"].endswith(".") for line in lines.values())


def test_a_device_that_is_well_is_told_so_with_figures_and_a_picture_of_each_camera(
    doctor: Any, mosquitto: Any, make_reader: Any, belt_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "belt.bundle").write_bytes(belt_bundle.read_bytes())
    reader = make_reader(mosquitto.url)
    config = write_config(tmp_path, mosquitto.url)
    status, lines = doctor("--config", config, "--pictures", tmp_path / "seen")
    bad = {name: line for name, line in lines.items() if line["verdict"] in {"fail", "skip"}}
    assert bad == {}
    assert status == 0
    assert lines["camera belt"]["figures"]["width"] == 320
    assert 5 < lines["camera belt"]["figures"]["fps"] < 30
    picture = cv2.imread(str(tmp_path / "seen" / "belt.jpg"))
    assert picture is not None
    assert picture.std() > 5
    assert lines["model"]["figures"]["scheme"] == "int8"
    assert lines["model"]["figures"]["p50_ms"] > 0
    assert lines["disk"]["figures"]["fsync_ms"] > 0
    assert lines["broker"]["figures"]["connect_ms"] > 0
    assert reader.heard == [], "a doctor publishes nothing"
    assert not (tmp_path / "state").exists(), "and leaves nothing behind"


def test_an_agent_that_runs_under_this_name_is_seen_and_not_thrown_out(
    doctor: Any, mosquitto: Any, belt_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "belt.bundle").write_bytes(belt_bundle.read_bytes())
    agent = Connection(Address.parse(mosquitto.url), client_id="tinysight_plant-1_belt-7")
    agent.open(timeout_s=5)
    here = t.StatusTopic("plant-1", "belt-7")
    online = Status(state=State.ONLINE, boot_id="b", reason="started", at=utc_now())
    agent.publish(str(here), encode(online), qos=1, retain=True)
    _, lines = doctor("--config", write_config(tmp_path, mosquitto.url))
    assert "online now" in lines["broker"]["what"]
    assert agent.alive
    agent.close()


def test_whatever_is_wrong_is_said_with_its_fix_and_status_one(doctor: Any) -> None:
    sources = ("gate=/dev/video77", "yard=none.mp4", "roof=rtsp://127.0.0.1:1/x")
    status, lines = doctor(
        *(word for source in sources for word in ("--source", source)),
        *("--broker", "mqtt://u:hunter2@127.0.0.1:1", "--bundle", "none.bundle", "--state", "/proc/x"),
    )
    assert status == 1
    for name, said, mend in (
        ("broker", "Connection refused", "tinysight broker"),
        ("camera gate", "cannot be opened", "cable"),
        ("camera yard", "Unknown source", "video"),
        ("camera roof", "nothing listens", "port"),
        ("model", "There is no bundle", "path"),
        ("disk", "cannot be written", "chown"),
    ):
        assert lines[name]["verdict"] == "fail"
        assert said in lines[name]["what"]
        assert mend in lines[name]["mend"]
    assert "hunter2" not in json.dumps(lines)
    assert len(lines) == len(CHECKS) - 1 + 2, "all other checks went on"


def test_a_configuration_that_cannot_be_read_does_not_stop_the_checks_that_need_none(doctor: Any) -> None:
    status, lines = doctor("--config", "none.toml", "--store", "none", "--broker", "http://x")
    assert status == 1
    assert lines["config"]["verdict"] == "fail"
    assert "cannot be read" in lines["config"]["what"]
    assert "no bundle installed" in lines["model"]["what"]
    assert "mqtt://host:1883" in lines["broker"]["mend"]
    assert lines["python"]["verdict"] == "ok"
    assert len(lines) == len(CHECKS) - 1


def test_a_broker_that_refuses_us_is_told_without_the_password(
    doctor: Any, make_mosquitto: Any, tmp_path: Path
) -> None:
    (tmp_path / "passwords").touch()
    broker = make_mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    status, lines = doctor("--broker", broker.url.replace("//", "//belt:hunter2-secret@"))
    assert status == 1
    assert "refuses the connection" in lines["broker"]["what"]
    assert "user name" in lines["broker"]["mend"]
    assert "hunter2" not in json.dumps(lines)


def test_a_camera_of_a_folder_of_dark_pictures_is_called_dark(doctor: Any, tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    cv2.imwrite(str(tmp_path / "night" / "a.png"), np.full((48, 64, 3), 2, np.uint8))
    status, lines = doctor("--source", f"gate={tmp_path / 'night'}")
    assert lines["camera gate"]["verdict"] == "warn"
    assert "dark" in lines["camera gate"]["what"]
    assert status == any(line["verdict"] == "fail" for line in lines.values())


NOISE = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
HALF_DARK = np.vstack([np.zeros((56, 64, 3), np.uint8), NOISE[:8]])
UPPER = np.arange(64)[:, None].repeat(64, 1) < 56


def look(last: Any, *, hidden: Any = None, differed: bool = True) -> _Look:
    return _Look(last, hidden, 10, 1.0, differed)


def test_the_fleets_server_is_asked_what_the_agent_would_ask(
    module: Callable[[str], ModuleType], belt_bundle: Path, tmp_path: Path
) -> None:
    faulty = module("edge/update/faulty")
    path = "v1/devices/plant-1/belt-7/desired"
    server = faulty.Server({path: encode(Desired(revision=3))})
    try:
        (tmp_path / "belt.bundle").write_bytes(belt_bundle.read_bytes())
        (tmp_path / "token").write_text("t0ken")
        (tmp_path / "token").chmod(0o600)
        more = f'[fleet]\nurl = "{server.url}"\ntoken_file = "token"\n'
        subject = subject_of(Options(config=str(write_config(tmp_path, "mqtt://127.0.0.1:1", more))))
        assert "fleet" in plan.names_of(subject)
        assert set(subject.secrets()) == {"hunter2-secret", "t0ken"}
        found = check("fleet", subject)
        assert (found.verdict, found.figures["revision"]) == (Verdict.OK, 3)
        assert server.asked[0].headers["authorization"] == "Bearer t0ken"
        server.always[path] = faulty.Fault(status=204, body=b"")
        assert "nothing is desired of plant-1/belt-7" in check("fleet", subject).what
        server.always[path] = faulty.Fault(status=401)
        found = check("fleet", subject)
        assert (found.verdict, "`tinysight fleet token`" in found.mend) == (Verdict.FAIL, True)
        (tmp_path / "token").unlink()
        assert "cannot be read" in check("fleet", subject).what
    finally:
        server.close()
    assert check("fleet", subject_of(Options())).verdict is Verdict.SKIP


@pytest.mark.parametrize(
    ("seen", "live", "said"),
    [
        pytest.param(look(NOISE), True, None, id="well"),
        pytest.param(look(NOISE, differed=False), True, "frozen", id="frozen"),
        pytest.param(look(NOISE, differed=False), False, None, id="a file may show the same"),
        pytest.param(look(np.full((64, 64, 3), 120, np.uint8)), True, "shows nothing", id="covered"),
        pytest.param(look(np.full((64, 64, 3), 3, np.uint8)), True, "dark", id="dark"),
        pytest.param(look(HALF_DARK, hidden=UPPER), True, None, id="what is hidden is not judged"),
        pytest.param(look(HALF_DARK * 0, hidden=UPPER | True), True, "hide all", id="all is hidden"),
    ],
)
def test_what_may_be_wrong_with_a_picture(seen: _Look, live: bool, said: str | None) -> None:
    found = _wrong(seen, live=live)
    assert found is None if said is None else found is not None and said in found[0]


def test_the_picture_that_is_saved_is_the_one_that_the_agent_sees(
    doctor: Any, belt_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "belt.bundle").write_bytes(belt_bundle.read_bytes())
    (tmp_path / "view").mkdir()
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 200  # the left half
    cv2.imwrite(str(tmp_path / "view" / "a.png"), image)
    whole = "[[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]"
    more = f"""rotate = 90
[cameras.turned]
source = "{tmp_path / "view"}"
rotate = 90
[cameras.hidden]
source = "{tmp_path / "view"}"
privacy = {whole}
"""
    config = write_config(tmp_path, "mqtt://127.0.0.1:1", more)
    _, lines = doctor("--config", config, "--pictures", tmp_path / "seen")
    assert lines["camera hidden"]["verdict"] == "warn", lines
    hidden, turned = (cv2.imread(str(tmp_path / "seen" / f"{name}.jpg")) for name in ("hidden", "turned"))
    assert hidden is not None
    assert hidden.mean() == 0
    assert "hide all" in lines["camera hidden"]["what"]
    assert turned is not None
    assert turned.shape == (64, 48, 3)
    assert turned[:28].mean() > 190, "the left half is above after a turn to the right"
    assert turned[36:].mean() < 10
    figures = lines["camera turned"]["figures"]
    assert (figures["width"], figures["height"]) == (48, 64)


SHUT = """
import os, pwd, sys
from pathlib import Path
from types import ModuleType
from tinysight_edge.doctor import places  # while it may still be read
from tinysight_edge.doctor.child import check
from tinysight_edge.doctor.subject import Options, Subject
subject = Subject(options=Options(), state=Path(sys.argv[1]))
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for name in ("disk", "rights"):
    print(check(name, subject))
"""


def test_a_state_folder_behind_a_closed_door_is_said_with_the_command_that_opens_it() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o711)
        door = Path(folder, "door")
        (door / "inner").mkdir(parents=True)
        door.chmod(0o600)
        command = [sys.executable, "-c", SHUT, str(door / "inner" / "state")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        door.chmod(0o700)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert f"may not enter {door}." in line
        assert f"sudo chmod o+x {door}" in line
        assert "fail" in line


PI_4 = "processor : 0\nFeatures : fp asimd evtstrm crc32 cpuid\nHardware : BCM2835\nModel : Raspberry Pi 4 Model B\n"
PI_5 = "processor : 0\nFeatures : fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n"
SERVER = "model\t\t: 17\nmodel name\t: Some Xeon\nflags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni\n"
ATOM = "model name\t: Atom\nflags\t\t: fpu sse2 ssse3\n"


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "verdict", "said"),
    [
        pytest.param(PI_4, "aarch64", "ok", "NEON; without dotprod", id="Pi 4"),
        pytest.param(PI_5, "aarch64", "ok", "NEON, dotprod, fp16.", id="Pi 5"),
        pytest.param(SERVER, "x86_64", "ok", "Some Xeon", id="server"),
        pytest.param(ATOM, "x86_64", "warn", "no vector units", id="old Atom"),
        pytest.param("", "riscv64", "warn", "riscv64", id="says nothing"),
    ],
)
def test_what_a_processor_can_do(cpuinfo: str, machine: str, verdict: str, said: str) -> None:
    found = cpu(Subject(options=Options()), cpuinfo=cpuinfo, machine=machine)
    assert found.verdict == verdict
    assert said in found.what


def program(path: Path, *lines: str) -> str:
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_check_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path / "hangs", "exec sleep 30"))
    begun_s = time.monotonic()
    found = plan._child("camera gate", b"{}", 0.3)
    assert time.monotonic() - begun_s < 25
    assert found.verdict is Verdict.FAIL
    assert "did not end" in found.what
    assert "power" in found.mend


@pytest.mark.parametrize(
    ("line", "said", "mend"),
    [
        pytest.param("kill -ILL $$", "SIGILL", "another processor", id="built for another processor"),
        pytest.param("kill -SEGV $$", "SIGSEGV", "--force-reinstall", id="crashed"),
        pytest.param("exit 7", "status 7", "--force-reinstall", id="ended"),
    ],
)
def test_a_check_that_crashes_is_a_finding(
    line: str, said: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path / "dies", "cat > /dev/null", line))
    found = plan._child("runtime", b"{}", 10)
    assert found.verdict is Verdict.FAIL
    assert said in found.what
    assert mend in found.mend


def test_what_a_check_says_never_holds_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaks(_subject: Subject) -> None:
        raise ValueError("cannot open rtsp://user:top-secret@10.0.0.1")

    monkeypatch.setattr("tinysight_edge.doctor.machine.memory", leaks)
    subject = subject_of(Options(sources={"gate": "rtsp://user:top-secret@10.0.0.1"}))
    found = check("memory", subject)
    assert found.verdict is Verdict.FAIL
    assert "rtsp://user:***@10.0.0.1" in found.what
    assert "report" in found.mend.lower()


def test_people_read_aligned_lines_with_the_fix_below(tinysight: Any) -> None:
    done = tinysight("doctor", "--broker", "mqtt://127.0.0.1:1")
    assert done.returncode == 1
    assert os.environ.get("NO_COLOR") or "\x1b" not in done.stdout, "no colours in a pipe"
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("fail broker"))
    assert lines[at + 1].strip().startswith("→ Check the address")
    assert "fail" in lines[-1]
