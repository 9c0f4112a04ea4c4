"""Payloads are values with an inverse, fit their committed schemas, and their golden examples do not drift."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract import messages as m
from tinysight_contract.errors import ContractError
from tinysight_contract.schemas import load

AT = datetime(2026, 11, 25, 12, 30, 15, 250000, UTC)
BOOT, DIGEST = "5f0c9a1b2c3d4e5f", "ab" * 32

EVENT = m.Event(
    id="19a1b2c3d4e-0a1b2c3d",
    type=m.EventType.START,
    boot_id=BOOT,
    seq=17,
    site="plant-1",
    device="belt-7",
    camera="cam0",
    model=m.ModelRef(name="belt", version="1.2.0", digest=DIGEST),
    label="7",
    class_id=7,
    score=0.9375,
    best_score=0.9531,
    box=(0.25, 0.125, 0.5, 0.4375),
    frame=m.FrameSize(width=320, height=240),
    zones=m.Zones(now=[], entered=[]),
    track=m.Track(age_s=0.133, stationary=False),
    started_at=AT - timedelta(seconds=0.133),
    seen_at=AT,
    ended_at=None,
    clock_synced=True,
    replayed=False,
    latency_ms=m.LatencyMs(wait=0.2, preprocess=0.1, inference=0.9, decode=0.1, track=0.1, total=1.4),
)

EXAMPLES: dict[str, msgspec.Struct] = {
    "status": m.Status(state=m.State.ONLINE, boot_id=BOOT, reason="started", at=AT),
    "info": m.Info(
        boot_id=BOOT,
        started_at=AT,
        software={"tinysight": "0.1.0", "python": "3.11.7", "os": "Linux"},
        runtime={"name": "litert", "version": "2.3.0", "file": "int8.tflite"},
        hardware={"model": "Raspberry Pi 5", "machine": "aarch64", "cpus": 4, "memory_mib": 8063},
        cameras={
            "cam0": m.CameraInfo(
                source="synthetic:belt",
                width=320,
                height=240,
                fps=15.0,
                zones={"dock": m.ZoneShape(polygon=[(0.5, 0.25), (1.0, 0.25), (1.0, 0.75)], labels=["7"])},
                lines={"gate": m.LineShape(start=(0.5, 0.0), end=(0.5, 1.0))},
            )
        },
        bundle=m.BundleRef(
            name="belt", version="1.2.0", release=12, digest=DIGEST, task="detect", scheme="int8", labels=["0", "1"]
        ),
        publishes=["snapshot"],
    ),
    "health": m.Health(
        at=AT,
        boot_id=BOOT,
        uptime_s=61.5,
        cameras={
            "cam0": m.CameraHealth(
                fps=15.0,
                fps_in=15.03,
                frames=450,
                inferred=449,
                dropped={"stale": 1},
                frame_age_ms=m.Percentiles(p50=1.4, p95=2.1),
            )
        },
        latency_ms={"inference": m.Percentiles(p50=0.9, p95=1.1)},
        cpu_percent=7.5,
        memory_mib=98.0,
        temperature_c=None,
        disk_free_mib=10240.0,
        outbox=m.OutboxHealth(depth=0, discarded={}, last_seq=17),
        broker=m.BrokerHealth(sessions=2, ended={"connection lost": 1}, refused={}),
    ),
    "modelmetrics": m.ModelMetrics(
        at=AT,
        boot_id=BOOT,
        bundle=DIGEST,
        name="belt",
        version="1.2.0",
        since=AT,
        frames=300,
        scores=[0] * 12 + [4, 9, 20, 31, 40, 60, 70, 66],
        labels={"0": 120, "7": 180},
        inference_ms=m.Percentiles(p50=0.9, p95=1.1),
        drift=0.0625,
        mix=0.125,
    ),
    "camerastatus": m.CameraStatus(state=m.CameraState.ONLINE, since=AT, reason="the source delivers", boot_id=BOOT),
    "counts": m.Counts(at=AT, boot_id=BOOT, objects={"0": 0, "7": 2}, zones={}, lines={}),
    "event": EVENT,
    "frame": m.Frame(
        boot_id=BOOT,
        frame=EVENT.frame,
        seen_at=AT,
        model=EVENT.model,
        detections=[m.Detection(label="7", class_id=7, score=0.9375, box=EVENT.box, track_id=EVENT.id)],
    ),
    "alert": m.Alert(severity="error", what="The disk is full.", mend="Free some space.", since=AT, boot_id=BOOT),
    "desired": m.Desired(
        revision=3,
        rollout="belt-7",
        window="22:00-04:30",
        config={"cameras": {"cam0": {"max_fps": 5.0, "zones": {"yard": None}}}},
    ),
    "reported": m.Reported(
        revision=3,
        at=AT,
        bundle=DIGEST,
        state=m.DesiredState.REFUSED,
        reason="cameras.cam0.source: This is not changed from outside. Change it in the device's own file.",
        refused={"cameras.cam0.source": "This is not changed from outside. Change it in the device's own file."},
        applied=2,
        config_digest="cd" * 32,
        restart=["broker"],
        boot_id=BOOT,
    ),
    "command": m.Command(id="c1", expires_at=AT + timedelta(minutes=1), args={"camera": "cam0"}),
    "ack": m.Ack(id="c1", name="snapshot", ok=True, at=AT, result={"bytes": 20480}),
}

unit = st.floats(0, 1)
names = st.text(min_size=1, max_size=20)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- hypothesis adds the zone


@st.composite
def any_event(draw: st.DrawFn) -> m.Event:
    kind = draw(st.sampled_from(m.EventType))
    xs, ys = sorted((draw(unit), draw(unit))), sorted((draw(unit), draw(unit)))
    return msgspec.structs.replace(
        EVENT,
        type=kind,
        ended_at=draw(times) if kind is m.EventType.END else None,
        box=(xs[0], ys[0], xs[1], ys[1]),
        label=draw(names),
        score=draw(unit),
        seq=draw(st.integers(1, 2**53)),
        started_at=draw(times),
        zones=m.Zones(now=draw(st.lists(names, max_size=3)), entered=draw(st.lists(names, max_size=3))),
        clock_synced=draw(st.sampled_from([True, False, None])),
    )


@given(any_event())
def test_an_event_survives_the_round_trip(event: m.Event) -> None:
    assert m.decode(m.encode(event), m.Event) == event


@given(any_event())
def test_every_event_fits_its_schema(event: m.Event) -> None:
    jsonschema.validate(msgspec.json.decode(m.encode(event)), load("event"))


points = st.tuples(unit, unit)
labels = st.none() | st.lists(names, max_size=3)
ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@given(
    st.dictionaries(
        ids, st.builds(m.ZoneShape, polygon=st.lists(points, min_size=3, max_size=6), labels=labels), max_size=2
    ),
    st.dictionaries(ids, st.builds(m.LineShape, start=points, end=points, labels=labels), max_size=2),
)
def test_shapes_survive_the_round_trip_to_the_last_bit_and_fit_their_schema(
    zones: dict[str, m.ZoneShape], lines: dict[str, m.LineShape]
) -> None:
    info = EXAMPLES["info"]
    assert isinstance(info, m.Info)
    camera = msgspec.structs.replace(info.cameras["cam0"], zones=zones, lines=lines)
    info = msgspec.structs.replace(info, cameras={"cam0": camera})
    assert m.decode(m.encode(info), m.Info) == info
    jsonschema.validate(msgspec.json.decode(m.encode(info)), load("info"))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({"polygon": [[0, 0], [1, 1]]}, id="two corners"),
        pytest.param({"polygon": [[0, 0]] * 65}, id="too many corners"),
        pytest.param({"polygon": [[0, 0], [1, 1], [0, 1.5]]}, id="outside of the frame"),
        pytest.param({"polygon": [[0, 0], [1, 1], [0, 1, 1]]}, id="three numbers"),
    ],
)
def test_a_shape_that_cannot_be_drawn_is_refused(shape: dict[str, Any]) -> None:
    info = msgspec.json.decode(m.encode(EXAMPLES["info"]))
    info["cameras"]["cam0"]["zones"] = {"dock": shape}
    with pytest.raises(ContractError):
        m.decode(msgspec.json.encode(info), m.Info)


def test_info_of_an_agent_that_tells_no_shapes_is_read() -> None:
    info = msgspec.json.decode(m.encode(EXAMPLES["info"]))
    del info["publishes"], info["cameras"]["cam0"]["zones"], info["cameras"]["cam0"]["lines"]
    read = m.decode(msgspec.json.encode(info), m.Info)
    assert (read.publishes, read.cameras["cam0"].zones, read.cameras["cam0"].lines) == ([], {}, {})


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_each_payload_is_golden_fits_its_schema_and_comes_back(
    name: str, golden: Callable[[str, bytes], None]
) -> None:
    message = EXAMPLES[name]
    golden(f"{name}.json", msgspec.json.format(m.encode(message), indent=1) + b"\n")
    jsonschema.validate(msgspec.json.decode(m.encode(message)), load(name), format_checker=jsonschema.FormatChecker())
    assert m.decode(m.encode(message), type(message)) == message


def test_every_payload_has_an_example() -> None:
    assert {type(message) for message in EXAMPLES.values()} == set(m.PAYLOADS.values())


def changed(**fields: Any) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(m.encode(EVENT)), **fields})


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"[]", id="another type"),
        pytest.param(changed(score=1.5), id="score above one"),
        pytest.param(changed(seq=0), id="seq below one"),
        pytest.param(changed(box=[0, 0, 1]), id="box of three"),
        pytest.param(changed(box=[0.9, 0, 0.1, 1]), id="corners swapped"),
        pytest.param(changed(seen_at="2026-11-25T12:00:00"), id="time without a zone"),
        pytest.param(changed(type="end"), id="end without its time"),
        pytest.param(changed(device="Belt 7"), id="not an id"),
        pytest.param(b" " * (m.MAX_PAYLOAD_BYTES + 1), id="too large"),
    ],
)
def test_a_payload_that_breaks_the_contract_is_refused(payload: bytes) -> None:
    with pytest.raises(ContractError):
        m.decode(payload, m.Event)


def test_a_field_from_the_future_is_ignored() -> None:
    assert m.decode(changed(mood="good"), m.Event) == EVENT
