"""``tinysight rollout`` and ``tinysight fleet``, as a person and as a program call them."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tinysight_contract.errors import ConfigError, FleetError
from tinysight_deploy.cli import _run
from tinysight_deploy.fleet.commands import cli_rollout, following, options
from tinysight_deploy.fleet.commands.cli_common import mirror_file
from tinysight_deploy.fleet.commands.cli_policy import policy_of
from tinysight_deploy.fleet.control.controller import Controller
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_deploy.fleet.server import forms
from tinysight_deploy.fleet.types import Phase, Rollout, parse_stages

Eventually = Callable[[Callable[[], object]], None]
Call = Callable[..., tuple[int, str, str]]
RULES = ("--stages", "1,100%", "--soak", "100ms", "--yes")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], belt_repo: Path) -> Call:
    """Run one command line with a state of its own; status, stdout, stderr with single spaces."""
    monkeypatch.setenv("TINYSIGHT_REPO", str(belt_repo))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    assert Controller.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Controller.__init__.__kwdefaults__, "turn_s", 0.1)  # it waits ten of them after each connect
    for name in ("TINYSIGHT_KEYS", "TINYSIGHT_BROKER", "TINYSIGHT_FLEET", "TINYSIGHT_FLEET_STATE"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: str | Path) -> tuple[int, str, str]:
        try:
            status = _run([str(word) for word in words])
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, re.sub(r" +", " ", said.out), " ".join(said.err.split())

    return call


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """The state that the commands use unless told otherwise."""
    opened = State(tmp_path / "state" / "tinysight" / "fleet" / "fleet.db")
    yield opened
    opened.close()


# --- alone, with the state and a broker -------------------------------------------------------------------------------


def test_start_leads_in_the_foreground_until_the_rollout_is_done(
    run: Call, state: State, serving: Any, mosquitto: Any, belt_bundle: Path
) -> None:
    with serving.Obedient(mosquitto.url, "belt-1") as first, serving.Obedient(mosquitto.url, "belt-2") as second:
        status, out, err = run(
            "rollout", "start", belt_bundle, "--group", "all", *RULES, "--broker", mosquitto.url, "--json"
        )
    assert (status, json.loads(out)["phase"]) == (0, "done"), err
    id_ = json.loads(out)["id"]
    assert f"{id_} has begun" in err
    assert "2 confirmed" in err
    assert len(first.heard) == len(second.heard) == 1
    assert state.path.with_name("fleet.audit.jsonl").exists() if state.path else False

    assert run("rollout", "list")[1].count(id_) == 1
    status, out, _ = run("rollout", "status")
    assert f"{id_} done, stage 1 (100%): belt/belt-1.0.0.bundle for all" in out
    assert re.search(r"> 1 \(100%\) 1 1 0 0 1 0 0", out), "devices, asked, away, going, confirmed, failed, silent, left"
    told = json.loads(run("rollout", "status", id_, "--json")[1])
    assert [each["outcomes"] for each in told["stages"]] == [{"confirmed": 1}, {"confirmed": 1}]


def test_a_canary_that_fails_halts_it_and_why_says_which_gate(
    run: Call, state: State, serving: Any, mosquitto: Any, belt_bundle: Path
) -> None:
    with (
        serving.Obedient(mosquitto.url, "belt-1", fails=True) as one,
        serving.Obedient(mosquitto.url, "belt-2", fails=True) as two,
    ):
        status, _, err = run("rollout", "start", belt_bundle, "--group", "all", *RULES, "--broker", mosquitto.url)
        assert (status, [each.phase for each in state.rollouts()]) == (1, [Phase.HALTED]), err
        assert "halted" in err
        assert sorted([len(one.heard), len(two.heard)]) == [0, 1], "the second stage was never opened"
        canary = one if one.heard else two
        status, out, err = run("rollout", "why", "/".join(canary.place), "--broker", mosquitto.url)
        assert status == 0, err
        assert "failed" in out.splitlines()[0]
        assert "NO" in out, "a mark that needs no colour"
        told = json.loads(run("rollout", "why", "/".join(canary.place), "--broker", mosquitto.url, "--json")[1])
        assert told["outcome"] == "failed"
        assert any(each["ok"] is False and each["value"] for each in told["checks"])
        status, out, _ = run("rollout", "status", "--broker", mosquitto.url)
        assert "halted" in out
        assert "failures" in out, "the gates are shown when devices can be heard"


def test_people_act_on_the_state_alone_and_the_log_says_who(
    run: Call, state: State, serving: Any, mosquitto: Any, belt_bundle: Path
) -> None:
    with serving.Obedient(mosquitto.url, "belt-1", fails=True):
        run("rollout", "start", belt_bundle, "--group", "all", *RULES, "--broker", mosquitto.url)
    id_ = state.rollouts()[0].id
    assert "running" in run("rollout", "resume", id_, "--reason", "found it")[1]
    assert "paused" in run("rollout", "pause", id_)[1]
    status, _, err = run("rollout", "pause", id_)
    assert (status, "paused already" in err) == (2, True)
    assert run("rollout", "approve", id_)[0] == 2
    assert json.loads(run("rollout", "abort", id_, "--reason", "enough", "--json")[1])["rollout"]["phase"] == "aborted"
    status, _, err = run("rollout", "run", "--broker", mosquitto.url)
    assert (status, "No rollout is to be led" in err) == (2, True)
    entries = {each.what: each for each in state.audit()}
    assert entries["resume"].detail["reason"] == "found it"
    assert "@" in entries["abort"].who


@pytest.fixture
def begun(mosquitto: Any, belt_repo: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begin `tinysight rollout …` as a process of its own; all end with the test."""
    environ = {**os.environ, "TINYSIGHT_REPO": str(belt_repo), "XDG_STATE_HOME": str(tmp_path / "state")}
    environ["TINYSIGHT_BROKER"] = mosquitto.url
    made: list[subprocess.Popen[str]] = []

    def begin(*words: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tinysight_deploy", "rollout", *map(str, words)]
        pipe = subprocess.PIPE
        made.append(subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path))
        return made[-1]

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def test_what_is_aborted_is_taken_back_before_the_command_ends(
    run: Call, state: State, serving: Any, mosquitto: Any, begun: Any, belt_bundle: Path, eventually: Eventually
) -> None:
    with serving.Obedient(mosquitto.url, "belt-1", mute=True) as device:
        process = begun("start", belt_bundle, "--group", "all", *RULES)
        eventually(lambda: device.heard)
        status, out, err = run("rollout", "abort", state.rollouts()[0].id)
        assert (status, "takes back what 1 device may still do" in out) == (0, True), (out, err)
        _, err = process.communicate(timeout=40)
        assert (process.returncode, "aborted" in err) == (1, True), err
        eventually(lambda: device.heard[-1].bundle is None)
        status, _, err = run("rollout", "run", "--broker", mosquitto.url)
        assert (status, "No rollout is to be led" in err) == (2, True), "nothing is left to do"


def test_a_rollout_that_was_left_is_gone_on_with(
    state: State, serving: Any, mosquitto: Any, begun: Any, belt_bundle: Path, eventually: Eventually
) -> None:
    with serving.Obedient(mosquitto.url, "belt-1") as device:
        rules = ("--stages", "1,100%", "--soak", "0s", "--hold", "1", "--yes")
        process = begun("start", belt_bundle, "--group", "site:plant-1", *rules)
        eventually(lambda: any("approv" in each.reason for each in state.rollouts()))
        assert device.heard == []
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, "Traceback" in err) == (1, False), err
        id_ = state.rollouts()[0].id
        assert state.rollout(id_).phase is Phase.RUNNING
        process = begun("approve", id_)
        assert process.communicate(timeout=20)[0] == f"{id_} is running now.\n"
        process = begun("run", "--json")
        out, err = process.communicate(timeout=40)
        assert ([each["phase"] for each in json.loads(out)], process.returncode) == (["done"], 0), err
        assert len(device.heard) == 1, "a wish is not sent twice"


def test_what_was_brought_is_taken_back_by_the_old_content_under_a_higher_number(
    run: Call, state: State, serving: Any, mosquitto: Any, hobby: Any, bundle: Callable[..., Path]
) -> None:
    repository = hobby.repository()
    (old, _), (new, _) = repository.add(bundle(1)), repository.add(bundle(2))
    where = ("--broker", mosquitto.url, "--repo", hobby.repo)
    with serving.Obedient(mosquitto.url, "belt-1") as device, serving.Obedient(mosquitto.url, "belt-2", site="plant-2"):
        assert run("rollout", "start", bundle(2), "--group", "site:plant-1", *RULES, *where)[0] == 0
        id_ = state.rollouts()[0].id
        back = ("rollout", "abort", id_, "--revert", old.release.target, "--reason", "worse", *where)
        status, _, err = run(*back)
        assert (status, "--release 3 or higher" in err) == (2, True), err
        repository.add(bundle(1), number=3)
        status, out, err = run(*back)
        assert (status, "has begun and takes it back" in out) == (0, True), err
        assert run("rollout", "run", *where)[0] == 0
        assert [each.target for each in device.heard] == [new.release.target, old.release.target]
        taken = state.rollouts()[-1]
        assert (taken.reverts, taken.phase, len(state.wishes(taken.id))) == (id_, Phase.DONE, 1), "and nobody else"
        assert f"takes back {id_}" in run("rollout", "status", taken.id)[1]


def test_groups_and_names_of_the_inventory_are_understood(
    run: Call, serving: Any, mosquitto: Any, tmp_path: Path
) -> None:
    book = tmp_path / "devices.toml"
    book.write_text(
        "".join(
            f'[devices.{name}]\naddress = "ssh://pi@{name}.example"\nsite = "plant-1"\ndevice = "belt-{number}"\n'
            f'groups = ["{group}"]\n'
            for number, (name, group) in enumerate((("gate", "yard"), ("door", "house")), 1)
        )
    )
    where = ("--broker", mosquitto.url, "--inventory", book)
    with serving.Obedient(mosquitto.url, "belt-1") as gate, serving.Obedient(mosquitto.url, "belt-2") as door:
        assert run("rollout", "start", "belt@1.0.0", "--group", "yard", *RULES, *where)[0] == 0
        assert (len(gate.heard), len(door.heard)) == (1, 0)
        assert "plant-1/belt-1 in belt-" in run("rollout", "why", "gate", *where)[1]
        told = json.loads(run("rollout", "why", "door", *where, "--json")[1])
        assert (told["outcome"], told["checks"][0]["name"], told["checks"][0]["ok"]) == ("held", "member", False)
        assert "no device 'shed'" in run("rollout", "why", "shed", *where)[2]


def test_a_plan_is_made_on_what_was_recorded(run: Call, serving: Any, mosquitto: Any, tmp_path: Path) -> None:
    tape = tmp_path / "recorded.jsonl"
    with serving.Obedient(mosquitto.url, "belt-1"), serving.Obedient(mosquitto.url, "belt-2"):
        assert run("watch", "--broker", mosquitto.url, "--record", tape, "--seconds", "1", "--json")[0] == 0
    words = ("rollout", "plan", "belt@1.0.0", "--on", tape, "--stages", "1,100%", "--soak", "30m")
    status, out, err = run(*words)
    assert status == 0, err
    assert "2 devices, 2 online" in out
    assert "It would be done after 1 h" in out
    told = json.loads(run(*words, "--json", "--hold", "100%")[1])
    assert [(each["size"], len(each["devices"]), each["approval"]) for each in told["stages"]] == [
        ("1", 1, False),
        ("100%", 1, True),
    ]


def test_nothing_begins_before_it_was_shown_and_somebody_said_yes(
    run: Call, state: State, serving: Any, mosquitto: Any, belt_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("rollout", "start", "belt@1.0.0", "--group", "all", "--broker", mosquitto.url)
    size = belt_bundle.stat().st_size
    with serving.Obedient(mosquitto.url, "belt-1") as device:
        status, _, err = run(*words, "--hold", "25%,100%")
        assert (status, "Give --yes" in err) == (2, True)
        for told in (
            "belt/belt-1.0.0.bundle", f"{size:,} bytes at most", "1 in all: 1 online, 0 have it already",
            "1 (about 1), then 5% (about 0)", "for approval before 25%, 100%", "watched for 30 min", "600 a minute",
        ):  # fmt: skip
            assert told in err, told
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.confirm", _no)
        assert run(*words)[0] == 1
        assert device.heard == []
    assert state.rollouts() == []


def _no(*_: object, **__: object) -> None:
    import typer

    raise typer.Abort


def test_what_cannot_be_is_said_with_what_to_do(run: Call, mosquitto: Any, tmp_path: Path) -> None:
    broker = ("--broker", mosquitto.url)
    for words, said in (
        (("start", "belt@1.0.0", "--group", "all"), "--broker"),
        (("start", "belt@9.9.9", "--group", "all", *broker), "is no release"),
        (("start", "belt@1.0.0", "--group", "all", "--yes", *broker), "Nothing was heard"),
        (("start", "belt@1.0.0", "--group", "yard", *broker), "no group"),
        (("start", "belt@1.0.0", "--group", "all", "--soak", "30", *broker), "with its unit"),
        (("start", "belt@1.0.0", "--group", "all", "--window", "25:00-26:00", *broker), "cannot be so"),
        (("start", "belt@1.0.0", "--group", "all", "--hold", "7%", *broker), "there is no stage 7%"),
        (("status",), "no fleet state"),
        (("list",), "no fleet state"),
        (("pause", "nobody"), "no fleet state"),
        (("why", "belt-1", *broker), "SITE/DEVICE"),
        (("why", "plant-1/belt-1"), "--broker"),
        (("why", "plant-1/Belt", *broker), "not a valid id"),
        (("run",), "--broker"),
        (("list", "--fleet", "http://fleet.example.com"), "No token"),
        (("list", "--fleet", "https://127.0.0.1:1", "--token-file", str(tmp_path / "none")), "none"),
    ):
        status, _, err = run("rollout", *words)
        assert (status, said in err) == (2, True), (words, err)
    folder = tmp_path / "state" / "tinysight" / "fleet"
    for words in (("rollout", "list"), ("rollout", "why", "plant-1/belt-1", *broker), ("audit", "verify")):
        assert run(*words)[0] == 2
    assert run("rollout", "run", *broker)[0] == 2
    assert list(folder.glob("*.db")) == [], "what only looks makes no state"
    run("fleet", "token", "add", "anna", "--role", "read")
    assert run("rollout", "list")[1].startswith("There are no rollouts.")
    assert "There are no rollouts" in run("rollout", "status")[2]
    assert "no rollout" in run("rollout", "status", "nobody")[2]
    assert "no rollout" in run("rollout", "status", "../x")[2]


class Paged:
    """Rollouts that are asked for in pages, as a server gives them."""

    def __init__(self, phases: list[Phase], make_rollout: Callable[..., Rollout]) -> None:
        self.asked = 0
        self.all = [make_rollout(f"belt-{number}", phase=phase) for number, phase in enumerate(phases)]

    def rollouts(self, *, after: str = "", most: int) -> forms.RolloutRows:
        self.asked += 1
        first = [each.id for each in self.all].index(after) + 1 if after else 0
        more = first + most < len(self.all)
        return forms.RolloutRows(
            items=self.all[first : first + most], next=self.all[first + most - 1].id if more else None
        )


def test_the_rollout_that_goes_on_is_found_page_by_page(make_rollout: Callable[..., Rollout]) -> None:
    late = Paged([Phase.DONE] * 45 + [Phase.HALTED] + [Phase.DONE] * 100, make_rollout)
    assert (cli_rollout._newest(late), late.asked) == ("belt-45", 3)  # type: ignore[arg-type]  # no more is needed
    assert cli_rollout._newest(Paged([Phase.DONE] * 45, make_rollout)) == "belt-0"  # type: ignore[arg-type]
    assert len(list(cli_rollout._all(Paged([Phase.DONE] * 45, make_rollout), most=20))) == 45  # type: ignore[arg-type]


def test_a_look_that_fails_is_shown_and_another_is_taken(
    make_rollout: Callable[..., Rollout], capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[forms.View | Exception] = [
        forms.View(rollout=make_rollout(), stages=[]),
        FleetError("The server does not answer.", mend="Check the network."),
        forms.View(rollout=make_rollout(phase=Phase.DONE), stages=[]),
    ]

    def look() -> forms.View:
        found = looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    following.show(look, live=True, every_s=0.0)
    assert (looks, "done" in capsys.readouterr().out) == ([], True)
    looks += [forms.View(rollout=make_rollout(), stages=[]), ConfigError("There is no rollout.", mend="See list.")]
    with pytest.raises(ConfigError):
        following.show(look, live=True, every_s=0.0)


def test_each_state_has_a_copy_of_its_log_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one, two = (mirror_file(State(tmp_path / name)) for name in ("fleet.db", "other.db"))
    assert (one, two) == (tmp_path / "fleet.audit.jsonl", tmp_path / "other.audit.jsonl")
    far = [mirror_file(State(f"postgresql://me:{word}@db.example.com/{name}")) for name in "xy" for word in "12"]
    assert len(set(far)) == 2, "of each database, whatever the password"
    assert {each.parent for each in far} == {tmp_path / "tinysight" / "fleet"}


def test_a_server_begins_while_its_database_is_gone(
    mosquitto: Any, belt_repo: Path, tmp_path: Path, eventually: Eventually
) -> None:
    folder = tmp_path / "mount"
    folder.write_text("not there yet")
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "tinysight_deploy", "fleet", "serve", "--broker", mosquitto.url, "--json"]
    command += ["--bind", "127.0.0.1:0", "--repo", str(belt_repo), "--state", str(folder / "fleet.db")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        headers = {"Authorization": "Bearer ts_some_token"}
        assert httpx.get(f"{address}/v1/rollouts", headers=headers, timeout=20).status_code == 503
        folder.unlink()
        eventually(lambda: httpx.get(f"{address}/healthz", timeout=20).json()["leads"])
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, "It is waited for" in err) == (0, True), err


# --- with a server ----------------------------------------------------------------------------------------------------


def test_a_server_is_asked_by_the_same_commands(
    run: Call, serving: Any, mosquitto: Any, belt_repo: Path, belt_bundle: Path, tmp_path: Path, eventually: Eventually
) -> None:
    with (
        serving.Served(tmp_path, mosquitto.url, belt_repo) as server,
        serving.Obedient(mosquitto.url, "belt-1"),
        server.client(Role.READ) as http,
    ):
        eventually(lambda: http.get("/v1/devices").json()["items"])
        file = tmp_path / "operate.token"
        file.write_text(server.tokens[Role.OPERATE] + "\n")
        fleet = ("--fleet", server.url, "--token-file", file)
        status, out, err = run("rollout", "start", belt_bundle, "--group", "all", *RULES, *fleet, "--json")
        assert status == 0, err
        id_ = json.loads(out)["id"]
        eventually(lambda: json.loads(run("rollout", "status", *fleet, "--json")[1])["rollout"]["phase"] == "done")
        assert f"{id_} done" in run("rollout", "status", id_, *fleet)[1]
        assert "confirmed" in run("rollout", "why", "plant-1/belt-1", "--rollout", id_, *fleet)[1]
        assert id_ in run("rollout", "list", *fleet)[1]
        status, _, err = run("rollout", "abort", id_, *fleet)
        assert (status, "is done already" in err) == (2, True)
        file.write_text(server.tokens[Role.READ])
        status, _, err = run("rollout", "pause", id_, *fleet)
        assert (status, "has the role read" in err) == (2, True)
        file.write_text("ts_nobody_has_this")
        assert "not known here" in run("rollout", "list", *fleet)[2]


def test_a_server_runs_as_a_process_says_where_and_ends_when_told(
    run: Call, mosquitto: Any, belt_repo: Path, tmp_path: Path
) -> None:
    token = json.loads(run("fleet", "token", "add", "anna", "--role", "read", "--json")[1])["token"]
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "tinysight_deploy", "fleet", "serve", "--broker", mosquitto.url, "--json"]
    command += ["--bind", "127.0.0.1:0", "--repo", str(belt_repo)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{address}/v1/rollouts", headers=headers, timeout=20).json()["items"] == []
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in err) == (0, False), err


def test_tokens_are_made_listed_and_removed(run: Call) -> None:
    status, out, err = run("fleet", "token", "add", "anna", "--role", "admin")
    assert (status, out.startswith("ts_"), "not shown again" in err) == (0, True, True)
    assert run("fleet", "token", "add", "belt-7", "--role", "device", "--device", "plant-1/belt-7")[0] == 0
    _, out, _ = run("fleet", "token", "list")
    assert "anna admin" in out
    assert "belt-7 device plant-1/belt-7" in out
    assert "ts_" not in run("fleet", "token", "list", "--json")[1], "it is not kept"
    assert run("fleet", "token", "remove", "anna")[0] == 0
    for words in (
        ("add", "belt-7", "--role", "read"),
        ("add", "x", "--role", "king"),
        ("add", "x", "--role", "device"),
        ("add", "x", "--role", "read", "--device", "plant-1/belt-7"),
        ("add", "x", "--role", "device", "--device", "belt-7"),
        ("add", "x", "--role", "device", "--device", "plant-1/Belt"),
        ("add", "a b", "--role", "read"),
        ("remove", "anna"),
    ):
        status, _, err = run("fleet", "token", *words)
        assert (status, err.startswith("error: ")) == (2, True), (words, err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--bind", "0.0.0.0:0"), "--behind-proxy"),
        (("--bind", "nowhere"), "--bind"),
        (("--cert", "x.pem"), "both --cert and --key"),
        (("--origin", "https://dash.example.com/path"), "no origin"),
        (("--origin", "*"), "no origin"),
        (("--origin", "https://h:port"), "no origin"),
        (("--origin", "https://anna@dash.example.com"), "no origin"),
        (("--broker", "http://x"), "mqtt"),
    ],
)
def test_a_server_that_would_be_open_or_broken_does_not_begin(
    run: Call, mosquitto: Any, words: tuple[str, ...], said: str
) -> None:
    status, _, err = run("fleet", "serve", "--broker", mosquitto.url, "--bind", "127.0.0.1:0", *words)
    assert (status, said in err) == (2, True), err


# --- how rules are written --------------------------------------------------------------------------------------------


def test_rules_are_read_as_people_write_them() -> None:
    given = {
        "stages": "1,5%,25%,100%", "soak": "30m", "max_failures": "2%", "min_confirmed": "95%",
        "max_latency_regression": "20%", "max_agreement_drop": "2pt", "max_drift": 0.3, "deadline": "1h",
        "rate": 600, "at_once": 1000, "window": "01:00-05:00", "hold": "100%, 25%",
    }  # fmt: skip
    policy = policy_of(**given)  # type: ignore[arg-type]
    assert (policy.soak_s, policy.deadline_s, policy.hold) == (1800, 3600, (2, 3))
    assert (policy.max_failures, policy.min_confirmed) == (0.02, 0.95)
    assert (policy.max_latency_regression, policy.max_agreement_drop) == (0.2, 0.02)
    none = policy_of(**{**given, "max_latency_regression": "none", "max_agreement_drop": "none"})  # type: ignore[arg-type]
    assert (none.max_latency_regression, none.max_agreement_drop) == (None, None)
    for name, text in (
        ("soak", "31d"), ("soak", "soon"), ("soak", "-1s"), ("deadline", "0s"), ("max_failures", "2"),
        ("max_failures", "101%"), ("max_failures", "\u0662%"), ("max_agreement_drop", "2%"), ("window", "1-5"),
        ("stages", "5%"), ("rate", 0),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            policy_of(**{**given, name: text})  # type: ignore[arg-type]


def test_times_are_told_in_two_units() -> None:
    told = {0: "0 s", 59.6: "1 min", 61: "1 min 1 s", 3600: "1 h", 90061: "1 d 1 h", 86401: "1 d"}
    assert {seconds: options.told_duration(seconds) for seconds in told} == told
    assert options.holds("", parse_stages("1,100%")) == ()
