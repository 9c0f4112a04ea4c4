"""What an agent is told to do: the types of ``agent.toml``, and nothing else.

Frozen, checked at birth, unknown keys refused. Points and polygons are in 0..1 of the frame as the agent sees it: after
rotating, flipping and cropping. `file` reads the file, `reload` decides on changes.
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from tinysight_contract.scalars import Id
from tinysight_edge.units import Seconds, Size

__all__ = [
    "AgentConfig",
    "BrokerConfig",
    "CameraConfig",
    "ExamplesConfig",
    "FleetConfig",
    "FrigateConfig",
    "GovernorConfig",
    "HealthConfig",
    "HomeAssistantConfig",
    "LineConfig",
    "ModelConfig",
    "MotionConfig",
    "OutboxConfig",
    "Point",
    "Polygon",
    "PublishConfig",
    "RuleConfig",
    "ScheduleConfig",
    "SnapshotsConfig",
    "TilesConfig",
    "UpdateConfig",
    "ZoneConfig",
]

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Point = tuple[Share, Share]
Polygon = Annotated[tuple[Point, ...], Meta(min_length=3, max_length=64)]
Secret = Path | None


def _within(least: str, most: str) -> Meta:
    """Limits of a time or a size; msgspec knows none for types of our own, `file` keeps them."""
    return Meta(extra={"least": least, "most": most})


Wait = Annotated[Seconds, _within("100ms", "1h")]
Span = Annotated[Seconds, _within("1s", "1d")]
Ring = Annotated[Size, _within("1MiB", "1000GB")]
Names = Annotated[tuple[str, ...], Meta(min_length=1)]


class BrokerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where events go. A password comes from a file or from the environment.

    Attributes:
        url: ``mqtt://host[:port]``; also mqtts, ws, wss.
        username: at the broker.
        password_file: a file with the password and nothing else.
        password_env: or the name of an environment variable that holds it.
        ca_file: certificates to trust instead of the machine's, with mqtts and wss. There is no way to trust none.
        cert_file: the device's own certificate, for a broker that asks for one.
        key_file: its private key.
        keep_alive: a broker that acknowledges nothing for so long, or is silent for twice as long, is gone.
        start_offline: begin although the broker is away; events wait on disk.
    """

    url: str
    username: str | None = None
    password_file: Secret = None
    password_env: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keep_alive: Annotated[Seconds, _within("2s", "1h")] = Seconds(20.0)
    start_offline: bool = True


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What sees: one of ``store`` and ``bundle``.

    Attributes:
        store: a device store; what is active in it runs.
        bundle: a bundle file.
        scheme: the variant to run; without it, or of a store's bundle that has none of this name, the fastest that
            passes its self-test here.
        threads: of the interpreter.
        engine: ``auto`` takes the fastest that works here.
    """

    store: Path | None = None
    bundle: Path | None = None
    scheme: str | None = None
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    engine: Literal["auto", "interpreter", "compiled-model", "edgetpu"] = "auto"


class MotionConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Infer only when something moves.

    Attributes:
        heartbeat: infer at least so often although nothing moves.
        min_area: the share of the frame that must change to count as motion.
    """

    heartbeat: Wait = Seconds(5.0)
    min_area: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.001


class TilesConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Infer on parts of the frame, for objects that are small in it.

    Attributes:
        columns: how many beside each other.
        rows: how many below each other.
        overlap: of neighbours, as a share of a tile.
        whole: infer on the whole frame as well, for objects that are larger than a tile.
    """

    columns: Annotated[int, Meta(ge=1, le=8)] = 2
    rows: Annotated[int, Meta(ge=1, le=8)] = 2
    overlap: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.2
    whole: bool = True


class ZoneConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the frame; an object is in it when the middle of its box's lower edge is.

    Attributes:
        polygon: its corners.
        labels: what counts in it; without them everything.
        inertia: so many frames in a row decide that an object has entered or left.
    """

    polygon: Polygon
    labels: Names | None = None
    inertia: Annotated[int, Meta(ge=1, le=100)] = 3


class LineConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line to cross: from its left side to its right, seen from ``start`` to ``end``, is ``in``, back is ``out``.

    Attributes:
        start: one end.
        end: the other.
        labels: what counts; without them everything.
    """

    start: Point
    end: Point
    labels: Names | None = None


class CameraConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One camera, and what its pictures mean.

    Attributes:
        source: a camera's number, ``rtsp://``, ``http://`` (MJPEG), ``picamera2``, a file, a folder, synthetic.
        username: at the camera.
        password_file: a file with the password and nothing else.
        password_env: or the name of an environment variable that holds it.
        transport: of RTSP.
        rotate: degrees, clockwise, before anything else.
        flip: after rotating.
        crop: x1, y1, x2, y2 in 0..1 of the rotated and flipped picture; the rest is never seen.
        privacy: polygons that are blacked before anything sees the picture.
        max_fps: pictures above this rate are passed over.
        realtime: play a file at its own pace, as if live.
        open_timeout: a source that has not opened by then is tried again.
        read_timeout: a live source that delivers nothing for so long is stalled and opened again.
        frozen_after: the same picture for so long means frozen.
        motion: infer only when something moves.
        tiles: infer on parts of the frame.
        zones: by id.
        lines: by id.
    """

    source: str
    username: str | None = None
    password_file: Secret = None
    password_env: str | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    rotate: Literal[0, 90, 180, 270] = 0
    flip: Literal["none", "horizontal", "vertical"] = "none"
    crop: tuple[Share, Share, Share, Share] | None = None
    privacy: tuple[Polygon, ...] = ()
    max_fps: Annotated[float, Meta(ge=0.1, le=1000.0)] | None = None
    realtime: bool = False
    open_timeout: Wait = Seconds(10.0)
    read_timeout: Wait = Seconds(5.0)
    frozen_after: Span = Seconds(10.0)
    motion: MotionConfig | None = None
    tiles: TilesConfig | None = None
    zones: dict[Id, ZoneConfig] = {}
    lines: dict[Id, LineConfig] = {}


class ScheduleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a rule holds, in the device's local time. An ``end`` before its ``start`` is on the next day.

    Attributes:
        days: on which it begins.
        start: ``HH:MM``.
        end: ``HH:MM``; 24:00 is the end of the day.
    """

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = (
        "mon", "tue", "wed", "thu", "fri", "sat", "sun",
    )  # fmt: skip
    start: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9](?![\s\S])")] = "00:00"
    end: Annotated[str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)(?![\s\S])")] = "24:00"


class RuleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes an event. Without any rule everything does; with some, an object needs one that it fulfils.

    Attributes:
        cameras: any of these; without them all.
        labels: any of these; without them all.
        zones: in any of these; without them anywhere.
        lines: has crossed any of these.
        min_dwell: in the zone, or in the picture when no zone is named.
        min_score: of the median.
        schedule: when it holds; without it always.
    """

    cameras: Annotated[tuple[Id, ...], Meta(min_length=1)] | None = None
    labels: Names | None = None
    zones: Annotated[tuple[Id, ...], Meta(min_length=1)] | None = None
    lines: Annotated[tuple[Id, ...], Meta(min_length=1)] | None = None
    min_dwell: Annotated[Seconds, _within("0s", "1d")] = Seconds(0.0)
    min_score: Share = 0.0
    schedule: ScheduleConfig | None = None


class SnapshotsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The best picture of each event, drawn and clean, in a ring on disk.

    Attributes:
        keep: no more than so much; the oldest go first.
        quality: of the JPEG.
    """

    keep: Ring = Size(512 * 2**20)
    quality: Annotated[int, Meta(ge=1, le=100)] = 85


class ExamplesConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pictures that the model finds hard, for the next training.

    Attributes:
        keep: no more than so much; the oldest go first.
        per_hour: no more than so many, over all cameras.
    """

    keep: Ring = Size(256 * 2**20)
    per_hour: Annotated[int, Meta(ge=1, le=3600)] = 60


class GovernorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to infer less.

    Attributes:
        max_frame_age: the 95th percentile of a frame's age when its events are ready.
        max_temperature_c: of the processor.
    """

    max_frame_age: Wait = Seconds(0.5)
    max_temperature_c: Annotated[float, Meta(ge=30.0, le=120.0)] = 80.0


class OutboxConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events that wait for the broker, on disk. When there are too many, the oldest updates go first.

    Attributes:
        max_events: no more than so many.
        max_size: of their payloads; the file takes some more.
        max_age: what was seen longer ago is given up, unless the clock was not sure of the time.
        sync_every: a power cut loses what is newer and not yet sent, a kill does not; a shorter time wears an SD card.
    """

    max_events: Annotated[int, Meta(ge=100, le=500_000)] = 100_000
    max_size: Ring = Size(256 * 2**20)
    max_age: Annotated[Seconds, _within("1min", "3650d")] | None = None
    sync_every: Annotated[Seconds, _within("50ms", "1min")] = Seconds(0.25)


class HealthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the device tells how it does.

    Attributes:
        every: between two health messages.
        prometheus_port: serve metrics on 127.0.0.1.
    """

    every: Span = Seconds(30.0)
    prometheus_port: Annotated[int, Meta(ge=1, le=65535)] | None = None


class PublishConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is published beside events, counts and states.

    Attributes:
        frames: the detections of every frame, of each camera at most so many a second; without it none.
        snapshots: pictures: of each event the best, at its end, when snapshots are kept; and of who sends ``snapshot``.
    """

    frames: Annotated[float, Meta(gt=0.0, le=1000.0)] | None = None
    snapshots: bool = False


class HomeAssistantConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Let Home Assistant find the device. Without this table it is told nothing.

    Attributes:
        discovery_prefix: as in Home Assistant's MQTT settings.
        labels: those that get sensors of their own; without them all, of a model with up to 16.
    """

    discovery_prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*(?![\s\S])")] = "homeassistant"
    labels: Names | None = None


class FrigateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tell what is seen as Frigate does, too. Without this table nothing is.

    Attributes:
        prefix: of its topics; another for each device, since Frigate's topics name none.
    """

    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}(?![\s\S])")] = "frigate"


class UpdateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a new bundle is tested and tried, and where it is fetched from. Without this table all of it holds as well.

    Attributes:
        repository: what `desired` asks for is fetched from here: a folder, or an ``http(s)://`` address; without it
            nothing is.
        ca_file: certificates to trust instead of the machine's, with https.
        trial: so long a new model sees the real cameras before it is confirmed; up to five minutes longer, until it was
            run often enough to judge its speed.
        shadow: before that, for as long, it is compared on every so-many-th frame with the one that sees; 0 is never.
        min_agreement: which share of what both see has to be the same then; fewer than ten objects decide nothing.
        max_slowdown: how many times the time of the one before a run may take (p95); up to 20 ms are always allowed.
        memory: what its self-test may take.
    """

    repository: Annotated[str, Meta(min_length=1)] | None = None
    ca_file: Path | None = None
    trial: Span = Seconds(60.0)
    shadow: Annotated[int, Meta(ge=0, le=10_000)] = 0
    min_agreement: Share = 0.9
    max_slowdown: Annotated[float, Meta(ge=1.0, le=100.0)] = 2.0
    memory: Annotated[Size, _within("32MiB", "64GiB")] = Size(2**30)


class FleetConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet's server: it is asked for what is desired while the broker is away. Without this table nobody is.

    Attributes:
        url: ``https://host[:port][/path]``, of `tinysight fleet serve`; also http, to this machine itself alone.
        token_file: a file with the device's token there and nothing else.
        ca_file: certificates to trust instead of the machine's. There is no way to trust none.
        upload: send the pictures that `examples` keeps, no more than so much a day; without it none leaves the device.
    """

    url: str
    token_file: Secret = None
    ca_file: Path | None = None
    upload: Annotated[Size, _within("1MiB", "1TiB")] | None = None


class AgentConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agent.

    Attributes:
        site: the site's id.
        device: the device's id, unique within the site.
        state: the folder for what must survive a restart.
        broker: where events go.
        model: what sees.
        cameras: by id.
        rules: by name; what becomes an event.
        snapshots: keep the best picture of each event.
        examples: keep what the model finds hard.
        publish: what is published beside events.
        outbox: events that wait for the broker.
        governor: when to infer less.
        health: how the device tells how it does.
        home_assistant: let Home Assistant find the device.
        frigate: tell what is seen as Frigate does, too.
        update: how a new bundle is tested and tried.
        fleet: the fleet's server, beside the broker.
        trial: a change that leaves a camera without pictures for so long is taken back.
    """

    site: Id
    device: Id
    state: Path
    broker: BrokerConfig
    model: ModelConfig
    cameras: Annotated[dict[Id, CameraConfig], Meta(min_length=1, max_length=64)]
    rules: dict[Id, RuleConfig] = {}
    snapshots: SnapshotsConfig | None = None
    examples: ExamplesConfig | None = None
    publish: PublishConfig = PublishConfig()
    outbox: OutboxConfig = OutboxConfig()
    governor: GovernorConfig = GovernorConfig()
    health: HealthConfig = HealthConfig()
    home_assistant: HomeAssistantConfig | None = None
    frigate: FrigateConfig | None = None
    update: UpdateConfig = UpdateConfig()
    fleet: FleetConfig | None = None
    trial: Span = Seconds(30.0)
