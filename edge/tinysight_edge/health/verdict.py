"""One verdict over all that is known of the device, with its reason and its remedy.

In: `Facts`.  Out: the `Problem`s that stand, gravest first, and the `Verdict` of the contract. Pure: no clock, no file.
`RULES` is the table of all codes; docs/health.md is made from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tinysight_contract.messages import CameraState, Verdict, Well
from tinysight_edge.health.machine import Reading

__all__ = ["RULES", "Code", "Facts", "Problem", "Rule", "judge", "verdict"]


class Code(StrEnum):
    """Why a device is not well. Stable: dashboards may depend on them."""

    CAMERAS_NONE = "cameras.none"
    OUTBOX_DISCARDING = "outbox.discarding"
    DISK_FULL = "disk.full"
    CAMERA_FAILED = "camera.failed"
    CAMERA_RECONNECTING = "camera.reconnecting"
    CAMERA_STALLED = "camera.stalled"
    CAMERA_FROZEN = "camera.frozen"
    CAMERA_COVERED = "camera.covered"
    CAMERA_DARK = "camera.dark"
    CONFIG_REFUSED = "config.refused"
    CONFIG_LABELS = "config.labels"
    BROKER_ABSENT = "broker.absent"
    BROKER_REFUSED = "broker.refused"
    OUTBOX_FULL = "outbox.full"
    OUTBOX_FAILING = "outbox.failing"
    OUTBOX_DAMAGED = "outbox.damaged"
    DISK_LOW = "disk.low"
    PICTURES_FAILING = "pictures.failing"
    UPDATE_FAILED = "update.failed"
    MODEL_DRIFTED = "model.drifted"
    MEMORY_HIGH = "memory.high"
    POWER_LOW = "power.low"
    THERMAL_THROTTLED = "thermal.throttled"
    THERMAL_HOT = "thermal.hot"
    GOVERNOR_LIMITING = "governor.limiting"
    INFERENCE_SLOW = "inference.slow"
    CLOCK_UNSYNCED = "clock.unsynced"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a code means: how grave it is, when it stands, what to do."""

    state: Well
    when: str
    mend: str


BROKER_ABSENT_S: Final = 30.0
OUTBOX_FULL_SHARE: Final = 0.8
DISK_FULL_MIB: Final = 32.0
DISK_LOW_MIB: Final = 256.0
MEMORY_FREE_LEAST: Final = 0.08

RULES: Final[Mapping[Code, Rule]] = {
    Code.CAMERAS_NONE: Rule(
        Well.FAILING, "no camera delivers pictures", "Check the cameras, their power and the network between."
    ),
    Code.OUTBOX_DISCARDING: Rule(
        Well.FAILING, "events were given up since the last report", "Bring the broker back; what was given up is gone."
    ),
    Code.DISK_FULL: Rule(
        Well.FAILING,
        f"less than {DISK_FULL_MIB:.0f} MiB are free where the state lies",
        "Free some space; lower `keep` of snapshots and examples.",
    ),
    Code.CAMERA_FAILED: Rule(
        Well.DEGRADED,
        "a camera cannot be opened, or its file has broken",
        "Check its `source` in agent.toml and the file; what cannot be opened is tried again.",
    ),
    Code.CAMERA_RECONNECTING: Rule(
        Well.DEGRADED, "a camera is gone and tried again", "Check its power, cable, address and password."
    ),
    Code.CAMERA_STALLED: Rule(
        Well.DEGRADED, "a camera is connected and delivers nothing", "Restart the camera; check the network's load."
    ),
    Code.CAMERA_FROZEN: Rule(
        Well.DEGRADED, "a camera repeats one picture", "Restart the camera; look for an encoder that hangs."
    ),
    Code.CAMERA_COVERED: Rule(
        Well.DEGRADED, "a camera's picture shows no detail", "Clean the lens, or take away what is before it."
    ),
    Code.CAMERA_DARK: Rule(Well.DEGRADED, "a camera's picture is dark", "Switch a light on, or take the lens cap off."),
    Code.CONFIG_REFUSED: Rule(
        Well.DEGRADED,
        "a changed agent.toml was refused or taken back; the last good one goes on",
        "Correct it; try it with `tinysight config check`.",
    ),
    Code.CONFIG_LABELS: Rule(
        Well.DEGRADED,
        "a zone, line or rule names a label that the model does not know, so it takes nothing for it; the rest goes on",
        "Name labels of this model, or flash one that knows them; `tinysight config check` says which.",
    ),
    Code.BROKER_ABSENT: Rule(
        Well.DEGRADED,
        f"the broker is away for {BROKER_ABSENT_S:.0f} s or more; events wait on disk",
        "Check the network, the broker and its certificate.",
    ),
    Code.BROKER_REFUSED: Rule(
        Well.DEGRADED,
        "the broker refuses the login, the client id or the protocol, or another client has come with the same id; "
        "it is asked again each half minute, events wait on disk",
        "Mend what it says: login and access rules, or give each device an id of its own.",
    ),
    Code.OUTBOX_FULL: Rule(
        Well.DEGRADED,
        f"the outbox is {OUTBOX_FULL_SHARE:.0%} full or more",
        "Bring the broker back before events are given up.",
    ),
    Code.OUTBOX_FAILING: Rule(
        Well.DEGRADED,
        "events cannot be written to disk; they are told, and wait in memory, 10,000 at most",
        "Free some space on the disk of the state folder and check its rights.",
    ),
    Code.OUTBOX_DAMAGED: Rule(
        Well.DEGRADED,
        "the outbox's file was damaged since this start; it is set aside, and what could be read of it goes on",
        "Check the disk and the power supply; delete `outbox.damaged-*.db` of the state folder once nobody needs it.",
    ),
    Code.DISK_LOW: Rule(
        Well.DEGRADED,
        f"less than {DISK_LOW_MIB:.0f} MiB are free where the state lies",
        "Free some space; lower `keep` of snapshots and examples.",
    ),
    Code.PICTURES_FAILING: Rule(
        Well.DEGRADED,
        "snapshots or hard examples cannot be written; seeing and telling go on",
        "Free some space on the disk of the state folder and check its rights.",
    ),
    Code.UPDATE_FAILED: Rule(
        Well.DEGRADED,
        "a new bundle was not taken, or was taken back, and the one before runs; or what is active cannot run, or the "
        "store cannot be written. It stands until another one is confirmed, or that is mended",
        "Do what it says; `tinysight store show` and `reported` say more, docs/updates.md explains each code.",
    ),
    Code.MODEL_DRIFTED: Rule(
        Well.DEGRADED,
        "the model's scores are further than `health.max_drift` from those in its test pictures, so it may see worse "
        "than it was proved to",
        "Look at the camera's view and light and at the hard examples; train again with them if that is how it looks.",
    ),
    Code.MEMORY_HIGH: Rule(
        Well.DEGRADED,
        f"less than {MEMORY_FREE_LEAST:.0%} of the machine's memory can still be had",
        "Stop other programs, or take fewer cameras or smaller pictures.",
    ),
    Code.POWER_LOW: Rule(
        Well.DEGRADED,
        "the supply voltage is too low, so the processor is slowed",
        "Use a stronger power supply and cable.",
    ),
    Code.THERMAL_THROTTLED: Rule(
        Well.DEGRADED, "the processor is slowed because of heat", "Cool it: heat sink, fan, shade, a larger case."
    ),
    Code.THERMAL_HOT: Rule(
        Well.DEGRADED, "the processor is at `governor.max_temperature_c` or above", "Cool it: heat sink, fan, shade."
    ),
    Code.GOVERNOR_LIMITING: Rule(
        Well.DEGRADED,
        "the governor infers fewer pictures than come",
        "Lower `max_fps` to what is needed, take a smaller model, or cool the device.",
    ),
    Code.INFERENCE_SLOW: Rule(
        Well.DEGRADED,
        "frames are older than `governor.max_frame_age` (p95) when their events are ready",
        "Take a smaller or int8 model, more threads or an accelerator; see `latency_ms`.",
    ),
    Code.CLOCK_UNSYNCED: Rule(
        Well.DEGRADED, "the kernel does not believe its clock to be right", "Check NTP: `timedatectl timesync-status`."
    ),
}
"""Gravest first."""

_OF_CAMERA: Final[Mapping[CameraState, Code]] = {
    CameraState.RECONNECTING: Code.CAMERA_RECONNECTING,
    CameraState.STALLED: Code.CAMERA_STALLED,
    CameraState.FROZEN: Code.CAMERA_FROZEN,
    CameraState.COVERED: Code.CAMERA_COVERED,
    CameraState.DARK: Code.CAMERA_DARK,
}
_AWAY: Final = (CameraState.RECONNECTING, CameraState.STALLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the verdict is made of.

    Attributes:
        cameras: each camera's state; a disabled one is no problem by itself: it may be a file that ended.
        machine: the last reading.
        max_temperature_c: from the configuration.
        age_p95_ms: per camera, of the last report.
        max_age_ms: from the configuration.
        limits_fps: what the governor allows each camera that it limits.
        limit_reason: why, in words.
        outbox_share: how full the outbox is, 0..1.
        discarded: events given up since the report before.
        broker_away_s: since when there is no connection; None when there is one.
        said: problems that another part has found itself, such as a refused configuration.
    """

    cameras: Mapping[str, CameraState] = field(default_factory=dict)
    machine: Reading = field(default_factory=Reading)
    max_temperature_c: float = 80.0
    age_p95_ms: Mapping[str, float] = field(default_factory=dict)
    max_age_ms: float = 500.0
    limits_fps: Mapping[str, float] = field(default_factory=dict)
    limit_reason: str = ""
    outbox_share: float = 0.0
    discarded: int = 0
    broker_away_s: float | None = None
    said: Mapping[Code, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        code: which.
        what: a sentence with figures.
        subjects: the cameras it is about; empty when it is about the device.
    """

    code: Code
    what: str
    subjects: tuple[str, ...] = ()

    @property
    def rule(self) -> Rule:
        """How grave it is and what to do."""
        return RULES[self.code]


def judge(facts: Facts) -> list[Problem]:
    """All that is wrong, gravest first; one problem of each code."""
    found = [*_of_cameras(facts), *_of_delivery(facts), *_of_machine(facts), *_of_speed(facts)]
    found += [Problem(code, what) for code, what in facts.said.items()]
    gravity = {code: i for i, code in enumerate(RULES)}
    return sorted(found, key=lambda problem: gravity[problem.code])


def verdict(problems: list[Problem]) -> Verdict:
    """How the device does: the first of what `judge` found, and how many there are besides."""
    if not problems:
        return Verdict(state=Well.OK)
    worst = problems[0]
    besides = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return Verdict(state=worst.rule.state, code=worst.code, what=worst.what + besides, mend=worst.rule.mend)


def _of_cameras(facts: Facts) -> list[Problem]:
    wanted = {camera: state for camera, state in facts.cameras.items() if state is not CameraState.DISABLED}
    found = []
    if (wanted or Code.CAMERA_FAILED in facts.said) and all(state in _AWAY for state in wanted.values()):
        found.append(Problem(Code.CAMERAS_NONE, "No camera delivers pictures."))
    for state, code in _OF_CAMERA.items():
        if those := tuple(sorted(camera for camera in wanted if wanted[camera] is state)):
            found.append(Problem(code, f"{', '.join(those)}: {state}.", those))
    return found


def _of_delivery(facts: Facts) -> list[Problem]:
    found = []
    if facts.discarded > 0:
        found.append(Problem(Code.OUTBOX_DISCARDING, f"{facts.discarded} events were given up since the last report."))
    if facts.outbox_share >= OUTBOX_FULL_SHARE:
        found.append(Problem(Code.OUTBOX_FULL, f"The outbox is {facts.outbox_share:.0%} full."))
    if facts.broker_away_s is not None and facts.broker_away_s >= BROKER_ABSENT_S:
        found.append(Problem(Code.BROKER_ABSENT, f"The broker is away for {facts.broker_away_s:.0f} s."))
    return found


def _of_machine(facts: Facts) -> list[Problem]:
    machine, found = facts.machine, []
    if machine.disk_free_mib < DISK_LOW_MIB:
        code = Code.DISK_FULL if machine.disk_free_mib < DISK_FULL_MIB else Code.DISK_LOW
        found.append(Problem(code, f"{machine.disk_free_mib:.0f} MiB of disk are free."))
    if machine.memory_free is not None and machine.memory_free < MEMORY_FREE_LEAST:
        held = f"this process holds {machine.memory_mib:.0f} MiB"
        found.append(Problem(Code.MEMORY_HIGH, f"{machine.memory_free:.0%} of the memory is left; {held}."))
    slowed, degrees = machine.slowed or frozenset(), machine.temperature_c
    at = "" if degrees is None else f" at {degrees:.0f} °C"
    if "undervoltage" in slowed:
        found.append(Problem(Code.POWER_LOW, "The supply voltage is too low."))
    if "heat" in slowed:
        found.append(Problem(Code.THERMAL_THROTTLED, f"The processor is slowed because of heat{at}."))
    if degrees is not None and degrees >= facts.max_temperature_c:
        found.append(Problem(Code.THERMAL_HOT, f"The processor is{at}, {facts.max_temperature_c:.0f} are allowed."))
    if machine.clock_synced is False:
        found.append(Problem(Code.CLOCK_UNSYNCED, "The clock is not synchronized."))
    return found


def _of_speed(facts: Facts) -> list[Problem]:
    found = []
    if limited := tuple(sorted(facts.limits_fps)):
        allowed = ", ".join(f"{camera} {facts.limits_fps[camera]:.1f} fps" for camera in limited)
        found.append(Problem(Code.GOVERNOR_LIMITING, f"Limited because of {facts.limit_reason}: {allowed}.", limited))
    if slow := tuple(sorted(camera for camera, age in facts.age_p95_ms.items() if age > facts.max_age_ms)):
        ages = ", ".join(f"{camera} {facts.age_p95_ms[camera]:.0f} ms" for camera in slow)
        found.append(
            Problem(Code.INFERENCE_SLOW, f"Frames are too old: {ages}, {facts.max_age_ms:.0f} are allowed.", slow)
        )
    return found
