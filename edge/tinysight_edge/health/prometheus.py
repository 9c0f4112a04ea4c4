"""Metrics for Prometheus on 127.0.0.1, when the configuration asks for them.

In: the last `Health`, what stands, and counters since the start.  Out: the text format 0.0.4 at ``GET /metrics``.
Serves one request at a time in one thread, from what is known anyway; nothing is measured for it.

The official ``prometheus_client`` would do, but brings 9 MB of RAM and a thread for each request to write 20 lines.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final, Self

from tinysight_contract.errors import ConfigError
from tinysight_contract.messages import Health, ModelMetrics, Percentiles, Well
from tinysight_contract.metrics import BINS
from tinysight_edge.health.meter import AGE_AT_PUBLISH, Totals
from tinysight_edge.health.verdict import Problem

__all__ = ["METRICS", "Prometheus", "Snapshot", "exposition"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
CLIENT_S: Final = 2.0  # a client that says nothing for so long is left

METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "tinysight_verdict": ("gauge", "1 for how the device does: ok, degraded or failing."),
    "tinysight_problem": ("gauge", "1 for each problem that stands, by code and camera."),
    "tinysight_uptime_seconds": ("gauge", "Since the agent was started."),
    "tinysight_frames_total": ("counter", "Frames that came from the camera."),
    "tinysight_frames_inferred_total": ("counter", "Frames that were inferred."),
    "tinysight_frames_dropped_total": ("counter", "Frames that were passed over, by cause."),
    "tinysight_frame_age_seconds": ("gauge", "Age of a frame when its events were ready, of the last report."),
    "tinysight_frame_age_at_publish_seconds": ("gauge", "Age of a frame when its event was handed to the connection."),
    "tinysight_stage_seconds": ("gauge", "Time that a stage took, of the last report."),
    "tinysight_governor_limit_fps": ("gauge", "What the governor allows a camera that it limits."),
    "tinysight_model_frames_total": ("counter", "Frames of which it was counted what the model that sees found."),
    "tinysight_model_scores_total": ("counter", "What it found in them, by its score: from so much on, to 0.05 more."),
    "tinysight_model_labels_total": ("counter", "What it found in them, by label."),
    "tinysight_model_drift": (
        "gauge",
        "How far the newest scores and labels are from those in its test pictures, 0..1.",
    ),
    "tinysight_process_cpu_ratio": ("gauge", "CPU of this process; 1 is one core."),
    "tinysight_process_resident_memory_bytes": ("gauge", "What this process holds in RAM."),
    "tinysight_temperature_celsius": ("gauge", "Of the processor's hottest zone."),
    "tinysight_throttled": ("gauge", "1 when the processor is slowed because of heat or low voltage."),
    "tinysight_disk_free_bytes": ("gauge", "Free where the agent keeps its state."),
    "tinysight_outbox_events": ("gauge", "Events that wait for the broker."),
    "tinysight_outbox_discarded_total": ("counter", "Events that were given up, by cause."),
}
"""Name to type and help; docs/health.md is made from it."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is served: the last report, the problems that stand now, the counters as they are now, and the model's."""

    health: Health
    problems: list[Problem] = field(default_factory=list)
    totals: Totals = field(default_factory=lambda: Totals({}, {}, {}))
    model: ModelMetrics | None = None


def exposition(snapshot: Snapshot) -> bytes:
    """The text that Prometheus scrapes; a figure that the machine does not offer is left out."""
    lines = []
    samples = _samples(snapshot)
    for name, (kind, about) in METRICS.items():
        own = list(samples.get(name, ()))
        if own:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {value!r}" for labels, value in own]
    return ("\n".join(lines) + "\n").encode()


def _samples(snapshot: Snapshot) -> dict[str, Iterable[tuple[Labels, float]]]:
    health, totals = snapshot.health, snapshot.totals
    cameras = sorted(health.cameras.items())
    stages = {stage: took for stage, took in health.latency_ms.items() if stage != AGE_AT_PUBLISH}
    published = health.latency_ms.get(AGE_AT_PUBLISH)
    return {
        "tinysight_verdict": [((("state", state),), float(health.verdict.state is state)) for state in Well],
        "tinysight_problem": [
            ((("camera", camera), ("code", problem.code)), 1.0)
            for problem in snapshot.problems
            for camera in problem.subjects or ("",)
        ],
        "tinysight_uptime_seconds": [((), health.uptime_s)],
        "tinysight_frames_total": _counted(totals.frames),
        "tinysight_frames_inferred_total": _counted(totals.inferred),
        "tinysight_frames_dropped_total": [
            ((("camera", camera), ("cause", cause)), float(count))
            for (camera, cause), count in sorted(totals.dropped.items())
        ],
        "tinysight_frame_age_seconds": [
            sample for camera, each in cameras for sample in _both((("camera", camera),), each.frame_age_ms)
        ],
        "tinysight_frame_age_at_publish_seconds": _both((), published) if published else [],
        "tinysight_stage_seconds": [
            sample for stage, took in sorted(stages.items()) for sample in _both((("stage", stage),), took)
        ],
        "tinysight_governor_limit_fps": [
            ((("camera", camera),), each.limit_fps) for camera, each in cameras if each.limit_fps is not None
        ],
        **(_of_model(snapshot.model) if snapshot.model is not None else {}),
        "tinysight_process_cpu_ratio": [((), round(health.cpu_percent / 100, 4))],
        "tinysight_process_resident_memory_bytes": [((), health.memory_mib * 2**20)],
        "tinysight_temperature_celsius": [] if health.temperature_c is None else [((), health.temperature_c)],
        "tinysight_throttled": [] if health.throttled is None else [((), float(health.throttled))],
        "tinysight_disk_free_bytes": [((), health.disk_free_mib * 2**20)],
        "tinysight_outbox_events": [((), float(health.outbox.depth))],
        "tinysight_outbox_discarded_total": [
            ((("cause", cause),), float(count)) for cause, count in sorted(health.outbox.discarded.items())
        ],
    }


def _of_model(model: ModelMetrics) -> dict[str, Iterable[tuple[Labels, float]]]:
    drift = [("scores", model.drift), ("labels", model.mix)]
    named = (("name", model.name), ("version", model.version))
    return {
        "tinysight_model_frames_total": [(named, float(model.frames))],
        "tinysight_model_scores_total": [
            ((("from", f"{place / BINS:.2f}"),), float(count)) for place, count in enumerate(model.scores)
        ],
        "tinysight_model_labels_total": [
            ((("label", label),), float(count)) for label, count in sorted(model.labels.items())
        ],
        "tinysight_model_drift": [((("of", name),), value) for name, value in drift if value is not None],
    }


def _counted(by_camera: dict[str, int]) -> list[tuple[Labels, float]]:
    return [((("camera", camera),), float(count)) for camera, count in sorted(by_camera.items())]


def _both(labels: Labels, took: Percentiles) -> list[tuple[Labels, float]]:
    return [((*labels, ("percentile", name)), ms / 1e3) for name, ms in (("50", took.p50), ("95", took.p95))]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    quoted = (f'{name}="{_escape(value)}"' for name, value in labels)
    return "{" + ",".join(quoted) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Prometheus:
    """The endpoint, from ``with`` to the end of its block.

    Args:
        port: on 127.0.0.1; 0 takes any.
        snapshot: called for each request; None while there is nothing to tell.

    Raises:
        ConfigError: at ``with``; the port is taken.
    """

    def __init__(self, port: int, snapshot: Callable[[], Snapshot | None]) -> None:
        self._port, self._snapshot = port, snapshot

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def __enter__(self) -> Self:
        try:
            self._server = _Server(("127.0.0.1", self._port), _handler(self._snapshot))
        except OSError as error:
            raise ConfigError(
                f"Port {self._port} of 127.0.0.1 cannot be served: {error.strerror}.",
                mend="Set `health.prometheus_port` to a free one.",
            ) from error
        self._port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="prometheus", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(CLIENT_S)


class _Server(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no event."""


def _handler(snapshot: Callable[[], Snapshot | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_S

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404, explain="Only /metrics is served.")
                return
            known = snapshot()
            if known is None:
                self.send_error(503, explain="Nothing was measured yet.")
                return
            body = exposition(known)
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name in http.server
            """A scrape is no event."""

    return Handler
