"""Single devices over the fleet's API: who asks, orders and their answers, configurations that overtake nobody.

A real server, broker and database; devices that do as told, and once a real agent.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tinysight_contract import topics as t
from tinysight_contract.errors import BrokerError, StateGone
from tinysight_contract.messages import Desired, encode
from tinysight_deploy.fleet.control import commanding, configuring
from tinysight_deploy.fleet.control.commanding import COMMANDS
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_deploy.fleet.server import forms
from tinysight_deploy.fleet.server.auth import MOST_FAILURES
from tinysight_deploy.fleet.types import Policy, parse_stages
from tinysight_edge.orders.actions import ACTIONS

Eventually = Callable[[Callable[[], object]], None]
AT = "/v1/devices/plant-1/belt-1"
FAST = {"health": {"every": "5s"}}
SLOW = {"health": {"every": "60s"}}


@pytest.fixture
def device(served: Any, serving: Any, mosquitto: Any, eventually: Eventually) -> Iterator[Any]:
    """One that does as told, and that the server knows."""
    with serving.Obedient(mosquitto.url, "belt-1") as each, served.client(Role.READ) as http:
        eventually(lambda: known(http))
        yield each


def known(http: httpx.Client) -> bool:
    told = http.get("/v1/devices").json()["items"]
    return bool(told) and http.get("/healthz").json()["leads"]


def order(http: httpx.Client, name: str = "identify", at: str = AT, **form: Any) -> httpx.Response:
    return http.post(f"{at}/commands/{name}", json=form)


def put(http: httpx.Client, config: Any, based_on: int, at: str = AT) -> httpx.Response:
    return http.put(f"{at}/config", json={"config": config, "based_on": based_on})


def wanted(http: httpx.Client) -> Desired | None:
    answer = http.get(f"{AT}/desired")
    return msgspec.json.decode(answer.content, type=Desired) if answer.status_code == 200 else None


def entries(http: httpx.Client, what: str) -> list[dict[str, Any]]:
    return [each for each in http.get("/v1/audit", params={"most": 1000}).json()["items"] if each["what"] == what]


def begin(http: httpx.Client, stages: str = "100%", **rules: Any) -> str:
    release = http.get("/v1/releases").json()["items"][0]
    rules = {"soak_s": 0.0, "deadline_s": 30.0, **rules}
    form = forms.Begin(
        bundle=f"{release['name']}@{release['version']}", group="all",
        policy=Policy(stages=parse_stages(stages), **rules),
    )  # fmt: skip
    answer = http.post("/v1/rollouts", json=msgspec.to_builtins(form))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def is_done(http: httpx.Client, id_: str) -> bool:
    return bool(http.get(f"/v1/rollouts/{id_}").json()["rollout"]["phase"] == "done")


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_whoever_has_a_token_hears_whose_it_is_and_what_it_lets_do(served: Any) -> None:
    ladder = {Role.READ: ["read"], Role.OPERATE: ["read", "operate"], Role.ADMIN: ["read", "operate", "admin"]}
    for role, may in ladder.items():
        with served.client(role) as http:
            told = {"name": f"{role}-1", "role": role.value, "may": may, "site": None, "device": None}
            assert http.get("/v1/me").json() == told
    with served.client(Role.DEVICE) as http:
        own = {"name": "belt-1-1", "role": "device", "may": [], "site": "plant-1", "device": "belt-1"}
        assert http.get("/v1/me").json() == own


def test_whoever_tries_tokens_is_told_to_wait(served: Any) -> None:
    with served.client(None) as http:
        said = [http.get("/v1/me")]
        said += [http.get("/v1/me", headers={"Authorization": f"Bearer ts_wrong_{n:03}"}) for n in range(14)]
        statuses = [each.status_code for each in said]
        assert statuses == [401] * (1 + MOST_FAILURES) + [429] * (14 - MOST_FAILURES), "without one it costs nothing"
        assert all(0 < int(each.headers["retry-after"]) <= 61 for each in said if each.status_code == 429)
        assert all(each.json()["mend"] for each in said)
        right = http.get("/v1/me", headers={"Authorization": f"Bearer {served.tokens[Role.READ]}"})
        assert right.status_code == 429, "who guesses does not hear when it is right"


def test_a_page_elsewhere_may_ask_before_it_orders(
    serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path
) -> None:
    page, evil = "https://dash.example.com", "https://evil.example.com"
    with (
        serving.Served(tmp_path, mosquitto.url, belt_repo, {"origins": [page]}) as server,
        server.client(None) as http,
    ):
        for method, path in (("PUT", f"{AT}/config"), ("POST", f"{AT}/commands/identify"), ("GET", "/v1/me")):
            asked = {
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization, content-type",
            }
            good = http.options(path, headers={"Origin": page, **asked})
            assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, page)
            assert method in good.headers["access-control-allow-methods"]
            allowed = good.headers["access-control-allow-headers"].lower()
            assert "authorization" in allowed
            assert "content-type" in allowed
            assert "access-control-allow-origin" not in http.options(path, headers={"Origin": evil, **asked}).headers
        refused = http.get("/v1/me", headers={"Origin": page})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, page), "it can read why"
        assert "Retry-After" in refused.headers["access-control-expose-headers"]


def test_what_may_be_rolled_out_is_listed(served: Any) -> None:
    with served.client(Role.READ) as http:
        (release,) = http.get("/v1/releases").json()["items"]
        assert (release["name"], release["target"].rpartition(".")[2]) == ("belt", "bundle")


def test_releases_that_cannot_be_read_are_said_and_waited_for(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> list[Any]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(served.repository, "releases", away)
    form = {"bundle": "belt@1.0.0", "group": "all", "policy": {"stages": [{"share": 1.0}]}}
    with served.client(Role.OPERATE) as http:
        for told in (http.get("/v1/releases"), http.post("/v1/rollouts/preview", json=form)):
            assert (told.status_code, told.headers["retry-after"]) == (503, "5"), told.text
            assert f"in {served.repository.folder} cannot be read: Permission denied." in told.json()["detail"]


# --- orders -----------------------------------------------------------------------------------------------------------


def test_the_server_knows_the_commands_that_a_device_knows() -> None:
    assert set(COMMANDS) == ACTIONS.keys()


def test_an_order_is_written_down_sent_once_and_answered_by_the_device(served: Any, device: Any) -> None:
    with served.client(Role.OPERATE) as http:
        told = [order(http, args={"seconds": 3}, seconds=5), order(http, "reload")]
        assert [each.status_code for each in told] == [200, 200]
        (first_name, first), (second_name, second) = device.orders
        assert (first_name, first.args, second_name, second.args) == ("identify", {"seconds": 3}, "reload", {})
        assert [each.json()["id"] for each in told] == [first.id, second.id]
        assert first.id != second.id
        ack = told[0].json()["ack"]
        assert (ack["id"], ack["ok"], ack["code"], ack["result"]) == (first.id, True, "ok", {"did": "identify"})
        assert 0 <= told[0].json()["waited_s"] < 5
        entry, _ = entries(http, "command")
        assert entry["who"] == "operate-1"
        said = {"site": "plant-1", "device": "belt-1", "command": "identify", "args": {"seconds": 3}}
        assert entry["detail"] == {**said, "id": first.id, "seconds": 5.0}
        assert http.post(f"{AT}/commands/reload").status_code == 200, "a body is not needed"


def test_what_the_device_refuses_is_its_answer_and_no_error(served: Any, device: Any, eventually: Eventually) -> None:
    device.mute = True
    with served.client(Role.OPERATE) as http, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(order, http, "restart")
        eventually(lambda: device.orders)
        ((name, sent),) = device.orders
        for wrong in ("other", sent.id[::-1]):
            device.answer(name, wrong)
        device.answer(name, sent.id, ok=False, error="Not now.", code="refused")
        device.answer(name, sent.id)
        told = waits.result(20)
        assert told.status_code == 200
        assert (told.json()["ack"]["ok"], told.json()["ack"]["error"]) == (False, "Not now.")


def test_a_device_that_does_not_answer_is_not_waited_for_longer_than_was_asked(served: Any, device: Any) -> None:
    device.mute = True
    with served.client(Role.OPERATE) as http:
        told = order(http, seconds=1)
        assert (told.status_code, told.json()["ack"]) == (200, None)
        assert told.json()["waited_s"] >= 1.0
    ((_, sent),) = device.orders
    assert len(served.controller._orders) == 0
    device.answer("identify", sent.id)  # nobody waits: it is passed over


NO_ORDERS: tuple[tuple[str, dict[str, Any], int, str], ...] = (
    (f"{AT}/commands/format-disk", {}, 404, "camera-enable"),
    (f"{AT}/commands/Reload", {}, 404, "a-z"),
    (f"{AT}/commands/%2b", {}, 404, "a-z"),
    ("/v1/devices/plant-1/belt-9/commands/reload", {}, 404, "watch"),
    ("/v1/devices/%23/belt-1/commands/reload", {}, 404, "a-z"),
    (f"{AT}/commands/reload", {"args": {"x": "y" * 16_400}}, 422, "Send less"),
    (f"{AT}/commands/reload", {"args": [1]}, 422, "openapi"),
    (f"{AT}/commands/reload", {"seconds": 0.5}, 422, "openapi"),
    (f"{AT}/commands/reload", {"seconds": 61}, 422, "openapi"),
    (f"{AT}/commands/reload", {"second": 5}, 422, "openapi"),
)


def test_what_is_no_order_is_refused_with_what_to_do(served: Any, device: Any) -> None:
    with served.client(Role.OPERATE) as http:
        for path, form, status, says in NO_ORDERS:
            told = http.post(path, json=form)
            assert (told.status_code, says in told.json()["mend"]) == (status, True), (path, told.text)
        assert entries(http, "command") == []
    assert device.orders == []


def test_those_who_only_read_give_no_orders_and_no_configurations(served: Any, device: Any) -> None:
    for role in (Role.READ, Role.DEVICE):
        with served.client(role) as http:
            assert [order(http).status_code, put(http, FAST, 0).status_code] == [403, 403]
            assert "operate" in order(http).json()["mend"]
    assert (device.orders, device.heard) == ([], [])


def test_so_many_orders_wait_and_the_next_is_told_to_come_again(
    served: Any, device: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commanding, "MOST_WAITING", 2)
    device.mute = True
    with served.client(Role.OPERATE) as http, ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(order, http, seconds=20) for _ in range(2)]
        eventually(lambda: len(device.orders) == 2)
        refused = order(http)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        for name, sent in list(device.orders):
            device.answer(name, sent.id)
        assert all(each.result(20).json()["ack"]["ok"] for each in waits)
        device.mute = False
        assert order(http).status_code == 200


def test_an_order_that_may_have_gone_out_is_not_said_to_be_sent_again(
    served: Any, monkeypatch: pytest.MonkeyPatch, device: Any
) -> None:
    async def publish(*_: Any, **__: Any) -> None:
        raise BrokerError("The broker has not taken it.", mend="Look.")

    with served.client(Role.OPERATE) as http:
        monkeypatch.setattr(type(served.controller._orders.client), "publish", publish)
        told = order(http)
        assert (told.status_code, "before you send it again" in told.json()["mend"]) == (503, True), told.text
        assert "retry-after" not in told.headers
    assert device.orders == []


def test_nothing_is_sent_that_is_not_in_the_audit_log(
    served: Any, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    def gone(*_: Any, **__: Any) -> None:
        heard.append(len(device.orders) + len(device.heard))
        raise StateGone("The database is gone.", mend="Wait.")

    monkeypatch.setattr(served.state, "note", gone)
    with served.client(Role.OPERATE) as http:
        assert order(http).status_code == 503
        assert put(http, FAST, 0).status_code == 503
    assert (heard, device.orders, device.heard) == ([0, 0], [], [])


def test_without_a_broker_and_from_a_server_that_follows_nothing_is_sent(
    served: Any, serving: Any, device: Any, mosquitto: Any, belt_repo: Path, tmp_path: Path, eventually: Eventually
) -> None:
    follower = serving.Served(tmp_path, mosquitto.url, belt_repo, name="2")
    with follower, follower.client(Role.OPERATE) as second, served.client(Role.OPERATE) as first:
        eventually(lambda: second.get("/healthz").json()["connected"])
        for told in (order(second), put(second, FAST, 0)):
            assert (told.status_code, "leads" in told.json()["mend"], told.headers["retry-after"]) == (503, True, "5")
        mosquitto.kill()
        eventually(lambda: not first.get("/healthz").json()["connected"])
        for told in (order(first), put(first, FAST, 0)):
            assert (told.status_code, bool(told.json()["mend"])) == (503, True)
    assert (device.orders, device.heard) == ([], [])


# --- configurations ---------------------------------------------------------------------------------------------------


def test_a_configuration_follows_what_was_seen_and_nothing_else(
    served: Any, device: Any, eventually: Eventually
) -> None:
    with served.client(Role.OPERATE) as http:
        assert put(http, FAST, 0).json() == {"revision": 1}
        assert wanted(http) == Desired(revision=1, config=FAST)
        eventually(lambda: device.heard == [Desired(revision=1, config=FAST)])
        late = put(http, SLOW, 0)
        assert (late.status_code, late.json()["revision"]) == (409, 1), "somebody else was quicker"
        assert "Read" in late.json()["mend"]
        assert put(http, SLOW, 7).json()["revision"] == 1
        eventually(lambda: http.get("/v1/devices").json()["items"][0]["revision"] == 1)
        assert put(http, SLOW, 1).json() == {"revision": 2}
        assert put(http, None, 2).json() == {"revision": 3}
        assert wanted(http) == Desired(revision=3)
        first = entries(http, "configure")[0]
        assert first["who"] == "operate-1"
        assert first["detail"] == {"site": "plant-1", "device": "belt-1", "revision": 1, "config": FAST, "based_on": 0}


def test_the_revision_is_above_all_that_is_known(served: Any, device: Any, eventually: Eventually) -> None:
    with served.client(Role.OPERATE) as http:
        device.report(41)
        eventually(lambda: http.get("/v1/devices").json()["items"][0]["revision"] == 41)
        assert put(http, FAST, 0).json() == {"revision": 42}, "the broker has lost what was wanted; the device has not"
        device.say(t.DesiredTopic("plant-1", "belt-1"), Desired(revision=1 << 52))
        eventually(lambda: (now := wanted(http)) is not None and now.revision == 1 << 52)
        made_up = put(http, FAST, 1 << 52)
        assert (made_up.status_code, "Clear" in made_up.json()["mend"]) == (409, True)


NO_CONFIGURATIONS: tuple[tuple[dict[str, Any], int], ...] = (
    ({"based_on": 0}, 422),
    ({"config": {}}, 422),
    ({"config": [], "based_on": 0}, 422),
    ({"config": {}, "based_on": -1}, 422),
    ({"config": {"x": "y" * (32 << 10)}, "based_on": 0}, 422),
    ({"config": {"x": "y" * (64 << 10)}, "based_on": 0}, 413),
    ({"config": {}, "based_on": 0, "bundle": "ab" * 32}, 422),
)


def test_what_is_no_configuration_is_refused(served: Any, device: Any) -> None:
    with served.client(Role.OPERATE) as http:
        for form, status in NO_CONFIGURATIONS:
            told = http.put(f"{AT}/config", json=form)
            assert (told.status_code, bool(told.json()["mend"])) == (status, True), told.text[:200]
        assert put(http, FAST, 0, "/v1/devices/plant-1/belt-9").status_code == 404
        assert entries(http, "configure") == []
    assert device.heard == []


@pytest.mark.usefixtures("device")
def test_rollouts_and_configurations_keep_what_the_other_has_said(served: Any, eventually: Eventually) -> None:
    with served.client(Role.OPERATE) as http:
        assert put(http, FAST, 0).status_code == 200
        id_ = begin(http)
        eventually(lambda: is_done(http, id_))
        asked = wanted(http)
        assert asked is not None
        assert (asked.revision, asked.rollout, asked.config) == (2, id_, FAST)
        assert put(http, SLOW, 2).json() == {"revision": 3}
        assert wanted(http) == msgspec.structs.replace(asked, revision=3, config=SLOW)
        eventually(lambda: http.get("/v1/devices").json()["items"][0]["revision"] == 3)
        assert http.get(f"/v1/rollouts/{id_}/why/plant-1/belt-1").json()["outcome"] == "confirmed"


def test_a_device_that_is_on_its_way_in_a_rollout_is_left_alone(
    served: Any, device: Any, eventually: Eventually
) -> None:
    device.mute = True
    with served.client(Role.OPERATE) as http:
        id_ = begin(http)
        eventually(lambda: (now := wanted(http)) is not None and now.rollout == id_)
        busy = put(http, FAST, 1)
        assert (busy.status_code, id_ in busy.json()["detail"], "abort" in busy.json()["mend"]) == (409, True, True)
        assert http.post(f"/v1/rollouts/{id_}/abort", json={}).status_code == 200
        eventually(lambda: (now := wanted(http)) is not None and now.rollout is None)
        eventually(lambda: put(http, FAST, wanted(http).revision).status_code == 200)  # type: ignore[union-attr]  # just seen
        last = wanted(http)
        assert last is not None
        assert (last.bundle, last.config) == (None, FAST), "what was aborted does not come back"


def test_of_many_who_have_seen_the_same_one_is_heard(served: Any, device: Any) -> None:
    def ask(number: int) -> tuple[int, int]:
        with served.client(Role.OPERATE) as http:
            told = put(http, {"health": {"every": f"{number}s"}}, 0)
            return told.status_code, told.json()["revision"]

    with ThreadPoolExecutor(8) as pool:
        said = Counter(pool.map(ask, range(5, 13)))
    assert said == {(200, 1): 1, (409, 1): 7}
    assert len(device.heard) == 1


def test_no_two_wishes_have_the_same_revision_however_they_meet(
    served: Any, device: Any, eventually: Eventually
) -> None:
    """One edits again and again while rollouts begin and end."""
    over = threading.Event()
    done: list[tuple[int, Any]] = []

    def edit() -> None:
        with served.client(Role.OPERATE) as http:
            for number in itertools.count():
                if over.is_set():
                    return
                now, config = wanted(http), {"health": {"every": f"{5 + number}s"}}
                told = put(http, config, 0 if now is None else now.revision)
                if told.status_code == 200:
                    done.append((told.json()["revision"], config))

    with served.client(Role.OPERATE) as http, ThreadPoolExecutor(1) as pool:
        edits = pool.submit(edit)
        try:
            rollouts: list[str] = []
            for number in range(1, 5):
                rollouts.append(begin(http))
                eventually(lambda: is_done(http, rollouts[-1]))
                eventually(lambda number=number: len(done) >= number)  # type: ignore[misc]  # it has a default
        finally:
            over.set()
        edits.result(20)
        by_revision: dict[int, set[bytes]] = {}
        for each in device.heard:
            by_revision.setdefault(each.revision, set()).add(encode(each))
        assert {revision: said for revision, said in by_revision.items() if len(said) > 1} == {}
        configs = {each.revision: each.config for each in device.heard}
        assert all(configs[revision] == config for revision, config in done if revision in configs)
        last = wanted(http)
        assert last is not None
        assert (last.config, last.rollout) == (done[-1][1], rollouts[-1]), "neither took from the other"


@pytest.mark.usefixtures("device")
def test_a_broker_that_does_not_show_it_is_not_waited_for(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "SHOWN_WITHIN_S", 0.5)
    monkeypatch.setattr(configuring, "shown", lambda *_: False)
    monkeypatch.setattr(served.controller._hearing, "refresh", set)
    with served.client(Role.OPERATE) as http:
        told = put(http, FAST, 0)
        assert (told.status_code, "does not show" in told.json()["detail"]) == (503, True), told.text
        assert "retry-after" not in told.headers, "it was sent: look first"
    assert len(served.controller._configs) == 0


def test_nothing_is_written_before_all_that_the_broker_keeps_is_known(
    served: Any, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuring, "SHOWN_WITHIN_S", 0.5)
    monkeypatch.setattr(served.controller, "_patience_s", 3600.0)
    with served.client(Role.OPERATE) as http:
        told = put(http, FAST, 0)
        assert (told.status_code, "was not sent" in told.json()["detail"]) == (503, True)
        assert told.headers["retry-after"] == "5"
        assert entries(http, "configure") == []
    assert device.heard == []


# --- a real agent -----------------------------------------------------------------------------------------------------

AGENT = """\
site = "plant-1"
device = "belt-1"
state = "state"
trial = "1s"
[broker]
url = "{url}"
[model]
bundle = "{bundle}"
[cameras.gate]
source = "synthetic:belt?fps=10"
"""


def test_a_real_agent_does_what_is_ordered_and_takes_what_is_wanted(
    served: Any, mosquitto: Any, belt_bundle: Path, tmp_path: Path, eventually: Eventually
) -> None:
    (tmp_path / "agent.toml").write_text(AGENT.format(url=mosquitto.url, bundle=belt_bundle))
    command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(tmp_path / "agent.toml")]
    home = {"XDG_STATE_HOME": str(tmp_path / "home")}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("wb"))
        agent = subprocess.Popen(command, env={**os.environ, **home}, stdout=log, stderr=log)
        stack.callback(agent.wait, 30)
        stack.callback(agent.kill)
        http = stack.enter_context(served.client(Role.OPERATE))
        eventually(lambda: known(http))
        eventually(lambda: (order(http, "log-level", args={"level": "info"}).json().get("ack") or {}).get("ok"))
        off = order(http, "camera-enable", args={"camera": "gate", "enabled": False}).json()["ack"]
        assert (off["code"], off["result"]) == ("ok", {"camera": "gate", "enabled": False})
        none = order(http, "camera-enable", args={"camera": "roof", "enabled": True}).json()["ack"]
        assert (none["ok"], none["code"], "roof" in none["error"]) == (False, "refused", True)
        assert order(http, "camera-enable", args={"camera": "gate", "enabled": True}).json()["ack"]["ok"]

        def says(revision: int, state: str) -> Callable[[], bool]:
            return lambda: (
                [(each["revision"], each["state"]) for each in http.get("/v1/devices").json()["items"]]
                == [(revision, state)]
            )

        zones = {"cameras": {"gate": {"zones": {"yard": {"polygon": [[0, 0], [1, 0], [1, 1]]}}}}}
        assert put(http, zones, 0).json() == {"revision": 1}
        eventually(lambda: [each["state"] for each in http.get("/v1/devices").json()["items"]] == ["applied"])
