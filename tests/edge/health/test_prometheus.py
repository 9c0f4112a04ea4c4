"""What Prometheus scrapes: the text format, over a real socket, on this machine only."""

import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError
from tinysight_contract.messages import Health, ModelMetrics, OutboxHealth, Percentiles, Verdict, Well, decode
from tinysight_edge.health.meter import AGE_AT_PUBLISH, Totals
from tinysight_edge.health.prometheus import METRICS, Prometheus, Snapshot, exposition
from tinysight_edge.health.verdict import Code, Problem

HEALTH = decode((Path(__file__).parents[2] / "golden/health.json").read_bytes(), Health)
MODEL = decode((Path(__file__).parents[2] / "golden/modelmetrics.json").read_bytes(), ModelMetrics)
CAM = HEALTH.cameras["cam0"]
SNAPSHOT = Snapshot(
    replace(
        HEALTH,
        verdict=Verdict(state=Well.DEGRADED, code="camera.stalled"),
        latency_ms={"inference": Percentiles(p50=12.5, p95=20.0), AGE_AT_PUBLISH: Percentiles(p50=30.0, p95=50.0)},
        cameras={"cam0": replace(CAM, limit_fps=2.5)},
        outbox=OutboxHealth(depth=7, discarded={"update": 2}, last_seq=40),
        temperature_c=61.5,
        throttled=True,
        cpu_percent=150.0,
        memory_mib=64.0,
    ),
    [Problem(Code.CAMERA_STALLED, "yard: stalled.", ("yard",)), Problem(Code.CLOCK_UNSYNCED, "x.")],
    Totals({"cam0": 900}, {"cam0": 450}, {("cam0", "stale"): 440, ("cam0", "governed"): 10}),
    replace(MODEL, drift=0.25, mix=0.5),
)

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
VALUE = r'"(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{NAME}={VALUE},?)*)\}})? (-?[0-9.e+-]+|NaN|[+-]Inf)")


def parse(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """A strict, slow reader of the text format 0.0.4: HELP, TYPE, then that metric's samples, each once."""
    found, kinds, current = {}, dict[str, str](), ""
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            current = line.split(" ")[2]
            assert current not in kinds, f"{current} in two pieces"
        elif line.startswith("# TYPE "):
            _, _, name, kinds[current] = line.split(" ")
            assert name == current
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            name, labels, value = match.groups()
            assert name == current
            pairs = tuple(
                (key, re.sub(r"\\(.)", lambda each: {"n": "\n"}.get(each[1], each[1]), quoted[1:-1]))
                for key, quoted in re.findall(rf"({NAME})=({VALUE})", labels or "")
            )
            assert (name, pairs) not in found
            found[name, pairs] = float(value)
            assert (kinds[name] == "counter") == name.endswith("_total")
    return found


@pytest.fixture
def endpoint() -> Iterator[Prometheus]:
    with Prometheus(0, lambda: SNAPSHOT) as served:
        yield served


def ask(port: int, method: str, path: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def test_a_scrape_gives_every_metric_in_base_units(endpoint: Prometheus) -> None:
    status, headers, body = ask(endpoint.port, "GET", "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = parse(body)
    assert {name for name, _ in found} == set(METRICS)
    assert found["tinysight_frames_total", (("camera", "cam0"),)] == 900
    assert found["tinysight_model_drift", (("of", "scores"),)] == 0.25
    assert found["tinysight_model_drift", (("of", "labels"),)] == 0.5
    of = {name: [value for (each, _), value in found.items() if each == name] for name in METRICS}
    assert of["tinysight_model_frames_total"] == [MODEL.frames]
    assert of["tinysight_model_scores_total"] == MODEL.scores
    assert sorted(of["tinysight_model_labels_total"]) == sorted(MODEL.labels.values())
    assert ("tinysight_model_scores_total", (("from", "0.95"),)) in found
    assert found["tinysight_frames_dropped_total", (("camera", "cam0"), ("cause", "governed"))] == 10
    assert found["tinysight_stage_seconds", (("stage", "inference"), ("percentile", "95"))] == 0.02
    assert found["tinysight_frame_age_at_publish_seconds", (("percentile", "50"),)] == 0.03
    assert found["tinysight_process_cpu_ratio", ()] == 1.5
    assert found["tinysight_process_resident_memory_bytes", ()] == 64 * 2**20
    assert found["tinysight_problem", (("camera", "yard"), ("code", "camera.stalled"))] == 1
    assert [found["tinysight_verdict", (("state", state),)] for state in ("ok", "degraded", "failing")] == [0, 1, 0]


def test_what_the_machine_does_not_offer_is_left_out() -> None:
    bare = replace(HEALTH, temperature_c=None, throttled=None, cameras={}, latency_ms={})
    names = {name for name, _ in parse(exposition(Snapshot(bare)).decode())}
    assert not names & {"tinysight_temperature_celsius", "tinysight_throttled", "tinysight_stage_seconds"}
    assert "tinysight_verdict" in names


@given(st.text(max_size=20), st.sampled_from(["\n", '"', "\\", "\\n", "é"]))
def test_a_label_comes_back_whatever_stands_in_it(cause: str, hard: str) -> None:
    cause += hard
    health = replace(HEALTH, outbox=OutboxHealth(depth=0, discarded={cause: 3}, last_seq=0))
    text = exposition(Snapshot(health)).decode()
    assert parse(text)["tinysight_outbox_discarded_total", (("cause", cause),)] == 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 501), ("DELETE", "/metrics", 501)],
)
def test_nothing_else_is_served(endpoint: Prometheus, method: str, path: str, status: int) -> None:
    assert ask(endpoint.port, method, path)[0] == status


def test_before_the_first_report_it_says_so() -> None:
    with Prometheus(0, lambda: None) as served:
        assert ask(served.port, "GET", "/metrics")[0] == 503


def test_it_listens_on_this_machine_only(endpoint: Prometheus) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", endpoint.port), timeout=5)


def test_a_client_that_says_nothing_is_left_and_the_next_is_served(endpoint: Prometheus) -> None:
    with socket.create_connection(("127.0.0.1", endpoint.port)) as silent:
        silent.sendall(b"GET /met")
        assert ask(endpoint.port, "GET", "/metrics")[0] == 200


def test_a_client_that_vanishes_is_no_event(endpoint: Prometheus, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", endpoint.port)) as hasty:
        hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # end with a reset
        hasty.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert ask(endpoint.port, "GET", "/metrics")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_answered_with_what_to_do(endpoint: Prometheus) -> None:
    with pytest.raises(ConfigError, match="prometheus_port"), Prometheus(endpoint.port, lambda: None):
        pass
