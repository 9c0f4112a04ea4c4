"""The fleet's API as others see it: who may, what it says and refuses. Real sockets, a real broker and database."""

import contextlib
import hashlib
import itertools
import json
import logging
import re
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema
import msgspec
import numpy as np
import pytest

from tinysight_contract import topics as t
from tinysight_contract.errors import ConfigError, FleetError
from tinysight_contract.messages import Desired, FrameSize, ModelRef, encode
from tinysight_deploy import serving as bounds
from tinysight_deploy.fleet.commands.cli_fleet import _origin
from tinysight_deploy.fleet.keeping.tokens import Role, Token
from tinysight_deploy.fleet.server import app, client, forms, taking
from tinysight_deploy.fleet.server.api import SPECS
from tinysight_deploy.fleet.server.auth import MOST_ADDRESSES, MOST_FAILURES, Attempts, bearer, may
from tinysight_deploy.fleet.server.taking import MAX_BODY_BYTES
from tinysight_deploy.fleet.types import Phase, Policy, parse_stages
from tinysight_deploy.serving import Bind
from tinysight_edge.pictures.examples import Example
from tinysight_edge.pictures.jpeg import write_jpeg

Eventually = Callable[[Callable[[], object]], None]


@pytest.fixture(scope="session")
def belt(belt_repo: Path) -> str:
    """The release's target."""
    return next(
        f"{path.parent.name}/{path.name.partition('.')[2]}" for path in (belt_repo / "targets").glob("*/*.bundle")
    )


def policy(stages: str = "1,100%", **rules: Any) -> Policy:
    return Policy(stages=parse_stages(stages), **{"soak_s": 0.2, "deadline_s": 30.0, **rules})


def begin(bundle: str, stages: str = "1,100%", group: str = "all", **rules: Any) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(forms.Begin(bundle=bundle, group=group, policy=policy(stages, **rules)))
    return built


WRONG_STAGES: tuple[list[dict[str, Any]], ...] = (
    [{"count": 1}],
    [{"share": 0.5}],
    [{}, {"share": 1.0}],
    [{"count": 1, "share": 0.5}, {"share": 1.0}],
    [{"share": 0.5}, {"count": 3}, {"share": 1.0}],
    [{"count": 0}, {"share": 1.0}],
    [],
    [{"share": n / 100} for n in range(1, 100)],
)


def with_stages(form: dict[str, Any], stages: list[dict[str, Any]]) -> dict[str, Any]:
    return {**form, "policy": {**form["policy"], "stages": stages}}


# --- a rollout from its beginning to its end --------------------------------------------------------------------------


def test_a_rollout_is_shown_begun_watched_and_told_of(
    served: Any, serving: Any, mosquitto: Any, belt: str, eventually: Eventually
) -> None:
    with (
        serving.Obedient(mosquitto.url, "belt-1"),
        serving.Obedient(mosquitto.url, "belt-2") as second,
        served.client(Role.OPERATE) as http,
    ):
        eventually(lambda: http.get("/healthz").json() == {"ok": True, "leads": True, "connected": True, "well": True})
        eventually(lambda: [each["active"] for each in http.get("/v1/devices").json()["items"]] == [serving.BEFORE] * 2)
        told = http.post("/v1/rollouts/preview", json=begin(belt)).json()
        assert (told["devices"], told["online"], told["have_it"]) == (2, 2, 0)
        assert [(each["stage"], each["devices"]) for each in told["stages"]] == [("1", 1), ("100%", 1)]
        assert told["bytes_at_most"] == 2 * told["size_bytes"] > 0
        assert http.get("/v1/rollouts").json() == {"items": [], "next": None}, "a preview begins nothing"

        begun = http.post("/v1/rollouts", json=begin(belt))
        assert begun.status_code == 201
        id_ = begun.json()["id"]
        assert begun.json()["begun_by"] == "operate-1"
        eventually(lambda: http.get(f"/v1/rollouts/{id_}").json()["rollout"]["phase"] == "done")

        view = http.get(f"/v1/rollouts/{id_}").json()
        assert [each["outcomes"] for each in view["stages"]] == [{"confirmed": 1}, {"confirmed": 1}]
        members = http.get(f"/v1/rollouts/{id_}/devices", params={"most": 1}).json()
        assert [each["device"] for each in members["items"]] == ["belt-1"]
        rest = http.get(f"/v1/rollouts/{id_}/devices", params={"most": 1, "after": members["next"]}).json()
        assert [(each["device"], each["outcome"]) for each in rest["items"]] == [("belt-2", "confirmed")]
        assert rest["next"] is None
        failed = http.get(f"/v1/rollouts/{id_}/devices", params={"outcome": "failed"}).json()
        assert failed["items"] == []
        why = http.get(f"/v1/rollouts/{id_}/why/plant-1/belt-2").json()
        assert why["outcome"] == "confirmed"
        assert len(why["checks"]) > 3
        wanted = http.get("/v1/devices/plant-1/belt-2/desired")
        assert wanted.content == encode(second.heard[-1])
        what = [each["what"] for each in http.get("/v1/audit").json()["items"]]
        assert what.count("begin") == 1
        assert "ask" in what


def test_people_pause_approve_resume_and_abort_with_a_reason_that_is_kept(
    served: Any, serving: Any, mosquitto: Any, belt: str, eventually: Eventually
) -> None:
    with serving.Obedient(mosquitto.url, "belt-1"), served.client(Role.OPERATE) as http:
        eventually(lambda: http.get("/v1/devices").json()["items"])
        id_ = http.post("/v1/rollouts", json=begin(belt, "1,100%", hold=(0,))).json()["id"]

        def act(what: str, **form: Any) -> httpx.Response:
            answer: httpx.Response = http.post(f"/v1/rollouts/{id_}/{what}", json=form)
            return answer

        assert act("pause", reason="lunch").json()["rollout"]["phase"] == "paused"
        assert act("pause").status_code == 409, "it is paused already"
        assert http.post(f"/v1/rollouts/{id_}/resume").json()["rollout"]["phase"] == "running", "a body is not needed"
        assert act("pause", revert=belt).status_code == 422
        assert act("approve").json()["rollout"]["approved"] == 0
        assert act("approve").status_code == 409
        refused = act("abort", revert=belt).json()
        assert "--release" in refused["mend"], "a device goes back by a higher number only"
        assert act("abort", reason="no").json()["rollout"]["phase"] == "aborted"
        assert act("resume").status_code == 409
        entries = {each["what"]: each for each in http.get("/v1/audit").json()["items"]}
        assert entries["pause"]["detail"]["reason"] == "lunch"
        assert entries["abort"]["who"] == "operate-1"


def test_what_cannot_be_begun_is_refused_with_what_to_do(
    served: Any, serving: Any, mosquitto: Any, belt: str, tmp_path: Path, eventually: Eventually
) -> None:
    with served.client(Role.OPERATE) as http:
        eventually(lambda: http.get("/healthz").json()["connected"])
        empty = http.post("/v1/rollouts", json=begin(belt))
        assert empty.status_code == 409, "no device was heard of"
        with serving.Obedient(mosquitto.url, "belt-1"):
            eventually(lambda: http.get("/v1/devices").json()["items"])
            file = tmp_path / "here.bundle"
            file.write_bytes(b"x")
            for body in (
                begin("belt@9.9.9"),
                begin(str(file)),
                begin("../../etc/passwd"),
                begin(belt, group="nobody"),
                begin(belt, group="site:../x"),
                begin(belt, hold=(7,)),
                *(with_stages(begin(belt), stages) for stages in WRONG_STAGES),
            ):
                answer = http.post("/v1/rollouts", json=body)
                assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), body
                assert answer.json()["mend"]
                assert str(file) not in answer.text or "no release" in answer.json()["detail"]
        assert http.get("/v1/rollouts").json()["items"] == []


def test_a_device_gets_what_is_wanted_of_it_and_nothing_twice(
    served: Any, serving: Any, mosquitto: Any, eventually: Eventually
) -> None:
    wanted = Desired(revision=7, bundle="b" * 64, target="belt/belt-2.0.0.bundle", config={"fps": 5})
    path = "/v1/devices/plant-1/belt-1/desired"
    with serving.Obedient(mosquitto.url, "belt-1") as device, served.client(Role.DEVICE) as http:
        eventually(lambda: http.get(path).status_code == 204)
        device.say(t.DesiredTopic("plant-1", "belt-1"), wanted)
        eventually(lambda: http.get(path).status_code == 200)
        first = http.get(path)
        assert first.content == encode(wanted)
        tag = first.headers["etag"]
        again = http.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
        assert http.head(path).headers["etag"] == tag
        assert http.get("/v1/devices/plant-1/belt-2/desired").status_code == 403, "of another device"
        mosquitto.kill()
        eventually(lambda: not http.get("/healthz").json()["connected"])
        assert http.get(path).content == encode(wanted), "the broker is down: this is what it is for"
    with served.client(Role.READ) as http:
        gone = http.get("/v1/devices/plant-1/belt-9/desired")
        assert (gone.status_code, gone.headers["retry-after"]) == (503, "30"), "nobody knows"


# --- who may ----------------------------------------------------------------------------------------------------------

RANKS = {None: 0, Role.DEVICE: 0, Role.READ: 1, Role.OPERATE: 2, Role.ADMIN: 3}


def test_each_route_lets_in_those_who_may_and_nobody_else(served: Any) -> None:
    """Every route and every role. What is let in may fail for other reasons: there are no rollouts."""
    for spec, (role, rank) in itertools.product(SPECS, RANKS.items()):
        path = spec.path.format(
            rollout="belt-1-0000", site="plant-1", device="belt-1", digest="ab" * 32, name="identify"
        )
        with served.client(role) as http:
            body: dict[str, Any] = {"json": {}} if spec.body is not None else {}
            status = http.request(spec.method, path, **body).status_code
            if spec.role is None:
                assert status == 200, (path, role)
            elif role is None:
                assert status == 401, (path, role)
            elif spec.role is Role.DEVICE:
                sends = spec.method == "PATCH"  # which a device alone may
                assert (status == 403) == (sends and role is not Role.DEVICE), (path, role, status)
            else:
                assert (status == 403) == (rank < RANKS[spec.role]), (path, role, status)
            assert status < 500 or status == 503
            assert role is None or status != 401
    assert served.state.rollouts() == []


def test_only_what_looks_like_a_token_is_looked_up() -> None:
    assert bearer("Bearer ts_abcdefgh") == bearer("bearer  ts_abcdefgh ") == "ts_abcdefgh"
    wrong = (None, "", "Bearer", "Basic dXNlcjpwdw==", "Bearer a b", "Bearer ä" * 9, "Bearer " + "x" * 300)
    assert {bearer(each) for each in wrong} == {None}


def test_a_device_may_what_is_its_own_and_no_more() -> None:
    own = Token(name="x", role=Role.DEVICE, site="plant-1", device="belt-1")
    assert may(own, Role.DEVICE, site="plant-1", device="belt-1")
    assert not may(own, Role.DEVICE, site="plant-2", device="belt-1")
    assert not may(own, Role.DEVICE)
    assert not may(own, Role.READ, site="plant-1", device="belt-1")


def test_a_token_that_is_removed_lets_in_nobody_from_then_on(served: Any) -> None:
    with served.client(Role.READ) as http:
        assert http.get("/v1/rollouts").status_code == 200
        served.state.drop_token("read-1")
        refused = http.get("/v1/rollouts")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="tinysight"')


def test_wrong_tokens_are_answered_so_often_and_a_good_one_goes_on(served: Any) -> None:
    with served.client(Role.READ) as good, served.client(None) as bad:
        assert good.get("/v1/rollouts").status_code == 200
        said = [
            bad.get("/v1/rollouts", headers={"Authorization": f"Bearer ts_wrong_{n:03}"}).status_code for n in range(15)
        ]
        assert said == [401] * MOST_FAILURES + [429] * (15 - MOST_FAILURES)
        assert good.get("/v1/rollouts").status_code == 200, "it was good lately, from whatever address"
        late = bad.get("/v1/rollouts", headers={"Authorization": "Bearer ts_wrong_099"})
        assert int(late.headers["retry-after"]) > 0
        assert bad.get("/healthz").status_code == 200


def test_the_tables_of_attempts_are_bounded_and_forget() -> None:
    now_s = 0.0
    attempts = Attempts(lambda: now_s)
    for n in range(MOST_ADDRESSES + 100):
        attempts.failed(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", "x")
        attempts.succeeded(f"token-{n}")
    assert len(attempts._failed) == len(attempts._good) == MOST_ADDRESSES
    for n in range(MOST_FAILURES):
        attempts.failed(f"2001:db8::{n:x}", "wrong")
    assert attempts.wait_s("2001:db8::ffff", "any") > 0, "one machine has all addresses of a /64"
    assert attempts.wait_s("2001:db8:0:1::1", "any") == 0
    assert attempts.wait_s("2001:db8::1", "token-4000") == 0, "it was good lately"
    now_s = 61.0
    assert attempts.wait_s("2001:db8::1", "any") == 0


# --- hostile requests -------------------------------------------------------------------------------------------------


def test_bodies_are_capped_before_they_are_read_and_read_strictly(served: Any, belt: str) -> None:
    with served.client(Role.ADMIN) as http:

        def post(content: Any, kind: str = "application/json", path: str = "/v1/rollouts") -> int:
            answer = http.post(path, content=content, headers={"Content-Type": kind})
            assert answer.json()["mend"]
            return int(answer.status_code)

        good = json.dumps(begin(belt))
        assert post(b"x" * (MAX_BODY_BYTES + 1)) == 413
        assert post(iter([b"x" * MAX_BODY_BYTES, b"x"])) == 413, "without a length"
        assert post(b'{"bundle": ' + b"[" * (MAX_BODY_BYTES - 99)) in {400, 422}
        assert post(b"\xff\xfe") == 400
        assert post(b"") == 400
        assert post(good, "text/plain") == 415
        assert post(good.replace('"group"', '"grop"')) == 422
        assert post(good[:-1] + ', "more": 1}') == 422
        assert post(good.replace('"soak_s": 0.2', '"soak_s": 1e999')) in {400, 422}
        assert post(good.replace('"soak_s": 0.2', '"soak_s": NaN')) == 400
        assert post(good.replace('"soak_s": 0.2', '"soak_s": -1')) == 422
        assert post(json.dumps({"reason": "x" * 501}), path="/v1/rollouts/belt-1/pause") == 422
        assert http.request("GET", "/v1/rollouts", content=b"x").status_code == 400, "no body is taken here"
        assert http.get("/v1/rollouts").status_code == 200


def _raw(url: str, request: bytes) -> bytes:
    """The answer to these bytes, until the server closes."""
    host, port = urlsplit(url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(request)
        return b"".join(iter(lambda: raw.recv(65536), b""))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/rollouts/nobody", 404),
        ("/v1/rollouts/..%2f..%2fetc%2fpasswd", 404),
        ("/v1/rollouts/%2e%2e", 404),
        ("/v1/rollouts/a%00b", 404),
        ("/v1/rollouts/" + "a" * 64, 404),
        ("/v1/rollouts/Belt", 404),
        ("/v1/rollouts/", 404),
        ("//v1/rollouts", 404),
        ("/v1/./rollouts", 404),
        ("/v1/devices/plant-1/%23/desired", 404),
        ("/v1/devices/+/+/desired", 404),
        ("/v1/rollouts/nobody/why/plant-1/belt-1", 404),
        ("/v1/rollouts/nobody/delete", 404),
        ("/v1/rollouts?most=0", 422),
        ("/v1/rollouts?most=1001", 422),
        ("/v1/rollouts?most=1&most=2", 422),
        ("/v1/rollouts?most=%D9%A1", 422),
        ("/v1/rollouts?other=1", 422),
        ("/v1/rollouts?after=nobody", 404),
        ("/v1/devices?after=" + "x" * 200, 422),
        ("/v1/audit?after=-1", 422),
        ("/v1/audit?after=99999999999999999999", 422),
        ("/", 404),
        ("/metrics", 404),
    ],
)
def test_path_tricks_and_odd_questions_find_nothing(served: Any, path: str, status: int) -> None:
    token = served.tokens[Role.ADMIN]
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    answer = _raw(served.url, request.encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, answer
    assert json.loads(body)["mend"]
    assert b"application/problem+json" in head


def test_the_audit_comes_in_pages_of_bounded_size(served: Any) -> None:
    for number in range(45):
        served.state.note("anna", "note", {"text": "x" * 200_000, "number": number})
    told: list[int] = []
    after: int | None = 0
    pages = 0
    with served.client(Role.READ) as http:
        while after is not None:
            page = http.get("/v1/audit", params={"after": after, "most": 30})
            assert len(page.content) < 6 << 20
            assert 0 < len(page.json()["items"]) <= 30
            told += [each["seq"] for each in page.json()["items"]]
            after, pages = page.json()["next"], pages + 1
    assert told == sorted(set(told))
    assert (len(told) >= 45, pages >= 3) == (True, True)


def test_other_methods_are_refused_and_every_answer_has_its_headers(served: Any) -> None:
    with served.client(Role.ADMIN) as http:
        for answer in (
            http.put("/v1/rollouts", content=b""),
            http.delete("/v1/rollouts"),
            http.options(
                "/v1/rollouts", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
            ),
            http.get("/v1/rollouts", headers={"Origin": "https://evil.example"}),
            http.get("/healthz"),
        ):
            assert "access-control-allow-origin" not in answer.headers, "no page elsewhere may read it"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers
        refused = http.delete("/v1/rollouts")
        assert (refused.status_code, "not with this method" in refused.json()["detail"]) == (405, True)


def test_heads_are_bounded_and_do_not_wait_for_ever(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "HEAD_S", 0.2)
    host, port = urlsplit(served.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert slow.recv(100) == b"", "it is cut off"
    with socket.create_connection((host, int(port)), timeout=20) as large:
        large.sendall(b"GET /healthz HTTP/1.1\r\nX-Large: " + b"x" * (64 << 10))
        assert large.recv(100).startswith(b"HTTP/1.1 400")
    with httpx.Client(base_url=served.url, timeout=20) as http:
        assert http.get("/healthz").status_code == 200


def test_a_body_that_was_answered_is_not_waited_for(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "HEAD_S", 0.2)
    host, port = urlsplit(served.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(b"POST /v1/rollouts HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
        assert slow.recv(4096).startswith(b"HTTP/1.1 401 ")
        slow.sendall(b"{")
        assert b"".join(iter(lambda: slow.recv(4096), b"")).count(b"HTTP/1.1") == 0, "it is cut off"


@pytest.mark.parametrize("behind_proxy", [True, False])
def test_connections_are_bounded_whether_they_ask_or_not(
    serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path, monkeypatch: pytest.MonkeyPatch, behind_proxy: bool
) -> None:
    monkeypatch.setattr(bounds, "MAX_CONNECTIONS", 8)
    most = 8 if behind_proxy else 2
    with (
        serving.Served(tmp_path, mosquitto.url, belt_repo, run={"behind_proxy": behind_proxy}) as server,
        contextlib.ExitStack() as stack,
    ):
        where = urlsplit(server.url)
        idle = [
            stack.enter_context(socket.create_connection((where.hostname, where.port), timeout=20))
            for _ in range(most + 2)
        ]
        for refused in idle[most:]:
            with contextlib.suppress(ConnectionResetError):
                assert refused.recv(1) == b""
        idle[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert idle[0].recv(100).startswith(b"HTTP/1.1 200 "), "those that are there are answered"


def test_tls_that_does_not_begin_is_not_waited_for(
    serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "HANDSHAKE_S", 0.2)
    tls = {"cert": pki / "broker.crt", "key": pki / "broker.key"}
    with serving.Served(tmp_path, mosquitto.url, belt_repo, {"secure": True}, tls) as server:
        where = urlsplit(server.url)
        with (
            socket.create_connection((where.hostname, where.port), timeout=20) as mute,
            contextlib.suppress(ConnectionResetError),
        ):
            assert mute.recv(1) == b""


def test_a_controller_that_fails_as_nobody_foresaw_leads_again(
    served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    monkeypatch.setattr(app, "AGAIN_S", 0.05)
    with served.client(None) as http:
        eventually(lambda: http.get("/healthz").json()["leads"])
        real = served.controller._books.open
        failed: list[float] = []

        def fail(now_s: float) -> bool:
            if not failed:
                failed.append(now_s)
                raise RuntimeError("nobody foresaw this")
            return bool(real(now_s))

        monkeypatch.setattr(served.controller._books, "open", fail)
        eventually(lambda: failed)
        eventually(lambda: http.get("/healthz").json() == {"ok": True, "leads": True, "connected": True, "well": True})
    assert "nobody foresaw this" in caplog.text, "with its traceback"


def test_a_body_is_not_waited_for_for_ever(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "BODY_S", 0.2)
    token = served.tokens[Role.ADMIN]
    head = f"POST /v1/rollouts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    head += "Content-Length: 9\r\n\r\n"
    assert _raw(served.url, head.encode() + b"{").startswith(b"HTTP/1.1 408 ")
    many = head.replace("Length: 9", "Length: 999999999999999999999").encode()
    assert _raw(served.url, many).partition(b" ")[2][:3] in {b"400", b"413"}
    twice = head.replace("Content-Length: 9", "Content-Length: 9\r\nTransfer-Encoding: chunked").encode()
    assert b"HTTP/1.1 5" not in _raw(served.url, twice + b"0\r\n\r\n")


def test_a_server_leaves_the_handlers_of_its_process_alone(
    serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path
) -> None:
    class Watched(logging.Handler):
        over = False

        def close(self) -> None:
            self.over = True
            super().close()

    handler = Watched()
    with serving.Served(tmp_path, mosquitto.url, belt_repo):
        assert not handler.over, "one that closes stderr would close that of whoever runs the server"


def test_what_nobody_foresaw_is_told_as_a_fault_of_the_server(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(served.state, "lines", fail)
    with served.client(Role.READ) as http:
        answer = http.get("/v1/audit")
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert "secret" not in answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert http.get("/healthz").status_code == 200


def test_behind_a_proxy_attempts_are_counted_by_who_asks_it(
    serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path
) -> None:
    for run, said in ({"behind_proxy": True}, [401, 429, 401]), ({}, [401, 429, 429]):
        folder = tmp_path / str(len(run))
        folder.mkdir()
        with serving.Served(folder, mosquitto.url, belt_repo, run=run) as server, server.client(None) as http:

            def ask(address: str, http: httpx.Client = http) -> int:
                headers = {"Authorization": "Bearer ts_wrong_token", "X-Forwarded-For": address}
                return http.get("/v1/rollouts", headers=headers).status_code

            first = [ask("198.51.100.1") for _ in range(MOST_FAILURES)]
            assert [first[-1], ask("198.51.100.1"), ask("198.51.100.2")] == said


def test_of_two_servers_on_one_state_one_leads_both_answer_and_the_other_goes_on(
    serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path, belt: str, state_url: str, eventually: Eventually
) -> None:
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(serving.Obedient(mosquitto.url, "belt-1"))

        def server(name: str) -> Any:
            return stack.enter_context(
                serving.Served(tmp_path, mosquitto.url, belt_repo, state_url=state_url, name=name)
            )

        first = server("1")
        one = stack.enter_context(first.client(Role.OPERATE))
        eventually(lambda: one.get("/healthz").json()["leads"])
        two = stack.enter_context(server("2").client(Role.OPERATE))
        eventually(lambda: two.get("/v1/devices").json()["items"])
        assert not two.get("/healthz").json()["leads"]
        id_ = two.post("/v1/rollouts", json=begin(belt, hold=(1,))).json()["id"]
        eventually(lambda: "approve" in one.get(f"/v1/rollouts/{id_}").json()["rollout"]["reason"])
        follower = two.get(f"/v1/rollouts/{id_}").json()
        assert [each["name"] for each in follower["checks"]] == [
            each["name"] for each in one.get(f"/v1/rollouts/{id_}").json()["checks"]
        ]
        first.stop()
        eventually(lambda: two.get("/healthz").json()["leads"])
        assert two.post(f"/v1/rollouts/{id_}/approve", json={}).status_code == 200
        eventually(lambda: two.get(f"/v1/rollouts/{id_}").json()["rollout"]["phase"] == "done")
        assert len(device.heard) == 1, "it is asked once, whoever leads"


def test_a_page_of_a_given_origin_may_ask(serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path) -> None:
    options = {"origins": ["https://dash.example.com"]}
    with serving.Served(tmp_path, mosquitto.url, belt_repo, options) as server, server.client(Role.READ) as http:
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        good = http.options("/v1/rollouts", headers={"Origin": "https://dash.example.com", **asked})
        assert good.headers["access-control-allow-origin"] == "https://dash.example.com"
        assert "access-control-allow-credentials" not in good.headers
        evil = http.options("/v1/rollouts", headers={"Origin": "https://evil.example", **asked})
        assert "access-control-allow-origin" not in evil.headers


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://dash.example.com", "https://dash.example.com"), ("HTTPS://Dash.Example.COM:443", "https://dash.example.com"),
        ("http://dash.example.com:80", "http://dash.example.com"), ("http://[::1]:8400", "http://[::1]:8400"),
        ("http://dash.example.com:443", "http://dash.example.com:443"),
    ],
)  # fmt: skip
def test_an_origin_is_taken_as_browsers_send_it(written: str, sent: str) -> None:
    assert _origin(written) == sent


def test_a_database_that_is_gone_is_said_and_waited_for(served: Any, eventually: Eventually) -> None:
    path = served.folder / "fleet.db"
    with served.client(Role.READ) as http:
        assert http.get("/v1/rollouts").status_code == 200
        away = path.rename(path.with_name("away.db"))
        gone = http.get("/v1/rollouts")
        assert (gone.status_code, gone.headers["content-type"]) == (503, "application/problem+json")
        away.rename(path)
        eventually(lambda: http.get("/v1/rollouts").status_code == 200)


# --- TLS, and where it listens ----------------------------------------------------------------------------------------


def test_the_command_lines_client_talks_tls_to_a_server_with_an_authority_of_its_own(
    serving: Any, tmp_path: Path, mosquitto: Any, belt_repo: Path, pki: Path
) -> None:
    tls = {"cert": pki / "broker.crt", "key": pki / "broker.key"}
    with serving.Served(tmp_path, mosquitto.url, belt_repo, {"secure": True}, tls) as server:
        token = server.tokens[Role.READ]
        with client.Remote(server.url, token, ca=pki / "ca.crt") as remote:
            assert remote.rollouts().items == []
            with pytest.raises(ConfigError, match="no rollout"):
                remote.view("nobody")
            with pytest.raises(FleetError, match="has the role read"):
                remote.act("nobody", "pause", forms.Act())
        with client.Remote(server.url, token) as remote, pytest.raises(FleetError, match="--ca"):
            remote.rollouts()
        trust = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        with httpx.Client(base_url=server.url, verify=trust) as http:
            assert http.get("/healthz").headers["strict-transport-security"]


def test_a_token_does_not_go_to_a_proxy_in_plain_text(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        with client.Remote(served.url, served.tokens[Role.READ]) as remote:
            assert remote.rollouts().items == []
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):
            proxy.accept()


@pytest.mark.parametrize(
    "url",
    ["http://fleet.example.com", "ftp://127.0.0.1", "https://", "https://a:b@x.example", "https://x.example/?q", "x"],
)
def test_a_token_is_not_sent_in_plain_text_nor_to_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError):
        client.Remote(url, "ts_token")


@pytest.mark.parametrize(
    "text", ["", ":", "8440", "127.0.0.1", "127.0.0.1:", "127.0.0.1:66000", "::1:8440", "x:-1", "x:\u0661"]
)
def test_an_address_to_listen_on_is_read_strictly(text: str) -> None:
    with pytest.raises(ConfigError, match="--bind"):
        Bind.parse(text)


def test_tokens_do_not_cross_a_network_in_plain_text() -> None:
    for text in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        Bind.parse(text).refuse_plain(tls=False, behind_proxy=False)
    for text in ("0.0.0.0:1", "[::]:1", "192.0.2.1:1", "fleet.example.com:1"):
        bind = Bind.parse(text)
        with pytest.raises(ConfigError, match="--behind-proxy"):
            bind.refuse_plain(tls=False, behind_proxy=False)
        bind.refuse_plain(tls=True, behind_proxy=False)
        bind.refuse_plain(tls=False, behind_proxy=True)


def test_a_certificate_that_cannot_be_used_is_said(tmp_path: Path, pki: Path) -> None:
    with pytest.raises(ConfigError, match="both --cert and --key"):
        bounds.tls(pki / "broker.crt", None)
    with pytest.raises(ConfigError, match="cannot be used"):
        bounds.tls(pki / "broker.crt", pki / "ca.key")
    with pytest.raises(ConfigError, match="cannot be used"):
        bounds.tls(tmp_path / "none.crt", pki / "broker.key")


# --- the OpenAPI document ---------------------------------------------------------------------------------------------


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": document["components"]}


def test_the_document_tells_every_route_and_the_servers_answers_fit_it(
    served: Any, serving: Any, mosquitto: Any, belt: str, eventually: Eventually
) -> None:
    with serving.Obedient(mosquitto.url, "belt-1") as device, served.client(Role.ADMIN) as http:
        document = http.get("/openapi.json").json()
        assert document["openapi"] == "3.1.0"
        told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
        served_routes = {
            (method, route.path)
            for route in _routes(served.app)
            for method in route.methods - ({"HEAD"} if "GET" in route.methods else set())
        }
        assert told == served_routes == {(spec.method, spec.path) for spec in SPECS}
        jsonschema.Draft202012Validator.check_schema({"$defs": document["components"]["schemas"]})
        names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
        assert len(names) == len(set(names))

        device.say(t.DesiredTopic("plant-1", "belt-1"), Desired(revision=1))
        eventually(lambda: http.get("/v1/devices/plant-1/belt-1/desired").status_code == 200)
        id_ = http.post("/v1/rollouts", json=begin(belt)).json()["id"]
        eventually(lambda: http.get(f"/v1/rollouts/{id_}").json()["rollout"]["phase"] == "done")
        other = http.post("/v1/rollouts", json=begin(belt)).json()["id"]
        for spec in SPECS:
            operation = document["paths"][spec.path][spec.method.lower()]
            parts = {"rollout": other if spec.method == "POST" else id_, "site": "plant-1", "device": "belt-1"}
            parts |= {"digest": "ab" * 32, "name": "identify"}
            path = spec.path.format(**parts)
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            body = {}
            if content:
                fits(document, content["schema"], content["example"])
                body = {"json": begin(belt) if "bundle" in content["example"] else content["example"]}
            for each in operation.get("parameters", ()):
                assert each["in"] != "path" or re.fullmatch(each["schema"]["pattern"], parts[each["name"]]), each
            for headers in ({}, {"Authorization": "Bearer ts_wrong_token"}):
                answer = http.request(spec.method, path, headers=headers, **body)
                assert str(answer.status_code) in operation["responses"], (spec, answer.text)
                response = operation["responses"][str(answer.status_code)]
                if "content" in response and spec.method != "HEAD":
                    kind = answer.headers["content-type"].partition(";")[0]
                    fits(document, response["content"][kind]["schema"], answer.json())
        assert served.state.rollout(id_).phase is Phase.DONE


def test_examples_and_documents_that_are_known_are_told_as_they_are(
    served: Any, serving: Any, mosquitto: Any, example: tuple[bytes, str], eventually: Eventually
) -> None:
    raw, digest = example
    path, template = f"/v1/examples/plant-1/belt-1/{digest}", "/v1/examples/{site}/{device}/{digest}"
    with (
        serving.Obedient(mosquitto.url, "belt-1") as device,
        served.client(Role.DEVICE) as own,
        served.client(Role.ADMIN) as http,
    ):
        paths = http.get("/openapi.json").json()["paths"]

        def ask(method: str, path: str, told: str, who: httpx.Client = http, **options: Any) -> int:
            """Ask, and see that status, headers and the kind of answer are told."""
            operation = paths[told][method.lower()]
            headers = [each for each in operation.get("parameters", ()) if each["in"] == "header"]
            given = options.get("headers", {}).keys()
            assert {each["name"] for each in headers if each["required"]} <= given <= {each["name"] for each in headers}
            answer = who.request(method, path, **options)
            response = operation["responses"][str(answer.status_code)]
            for name, header in response.get("headers", {}).items():
                assert name in answer.headers or not header["required"], (method, name)
            for name in ("ETag", "Upload-Offset", "Upload-Length"):
                assert name not in answer.headers or name in response["headers"], (method, name)
            assert bool(answer.content) == ("content" in response), (method, answer.status_code)
            if answer.content:
                assert answer.headers["content-type"].partition(";")[0] in response["content"]
            return int(answer.status_code)

        def send(at: int, piece: bytes) -> int:
            headers = {"Upload-Offset": str(at), "Upload-Length": str(len(raw))}
            return ask("PATCH", path, template, own, headers=headers, content=piece)

        assert ask("HEAD", path, template, own) == 404
        assert [send(0, raw[:100]), send(0, raw[:50]), send(100, raw[100:])] == [204, 409, 204]
        assert [ask("HEAD", path, template), ask("GET", path, template)] == [200, 200]
        assert ask("GET", "/v1/examples?group=nobody", "/v1/examples") == 422
        assert [ask("DELETE", path, template), ask("GET", path, template)] == [204, 404]
        assert ask("GET", "/v1/examples?most=0&odd=1", "/v1/examples") == 422
        assert ask("GET", "/v1/rollouts?after=nobody", "/v1/rollouts") == 404
        assert ask("GET", "/healthz?odd=1", "/healthz") == 422
        assert ask("GET", "/v1/audit", "/v1/audit", content=b"x") == 400

        device.say(t.DesiredTopic("plant-1", "belt-1"), Desired(revision=1))
        wanted, template = "/v1/devices/plant-1/belt-1/desired", "/v1/devices/{site}/{device}/desired"
        eventually(lambda: ask("GET", wanted, template) == 200)
        tag = http.get(wanted).headers["etag"]
        assert ask("GET", wanted, template, headers={"If-None-Match": tag}) == 304
        for name in ("pause", "resume", "approve", "abort"):
            assert not paths[f"/v1/rollouts/{{rollout}}/{name}"]["post"]["requestBody"]["required"]


@pytest.fixture
def example() -> tuple[bytes, str]:
    """A picture that a device sends, and its SHA-256."""
    model = ModelRef(name="belt", version="1.0.0", digest="d" * 64)
    said = Example(
        site="plant-1", device="belt-1", camera="gate", captured_at=datetime(2026, 11, 26, 12, tzinfo=UTC),
        reason="margin", frame=FrameSize(width=64, height=48), model=model, task="detect", detections=[],
    )  # fmt: skip
    raw = write_jpeg(np.zeros((48, 64, 3), np.uint8), said, quality=90)
    return raw, hashlib.sha256(raw).hexdigest()


def fits(document: dict[str, Any], schema: dict[str, Any], told: Any) -> None:
    jsonschema.Draft202012Validator(resolved(document, schema)).validate(told)


def _routes(app_: Any) -> list[Any]:
    return list(app_.routes)
