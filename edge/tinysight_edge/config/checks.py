"""What types cannot say of a configuration: parts that contradict each other or cannot be.

In: an `AgentConfig` of right types.  Out: `Finding`s, each with the path to its place. Pure: opens no file, reads no
environment, knows no line numbers.
"""

import difflib
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal
from urllib.parse import urlsplit

from tinysight_contract.errors import ConfigError
from tinysight_contract.mqtt import Address
from tinysight_contract.topics import ROOT
from tinysight_edge.config.types import (
    AgentConfig,
    BrokerConfig,
    CameraConfig,
    FleetConfig,
    Point,
    Polygon,
    RuleConfig,
    ScheduleConfig,
)
from tinysight_edge.fleet_server import is_this_machine

__all__ = ["Finding", "Hints", "contradictions", "near", "unknown_labels"]

MIN_AREA: Final = 1e-6
MOST_SOUGHT: Final = 16
"""Names that nobody knows and whose like is sought: each is compared with all that are known."""
LOGIN: Final = "Use username, and password_file or password_env."
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the file that is wrong, or only doubtful.

    Attributes:
        path: names and numbers that lead to it.
        what: one sentence.
        mend: one imperative sentence.
        level: a warning stops nobody.
        line: in the file, from 1; None when it has no place there.
    """

    path: Where
    what: str
    mend: str
    level: Literal["error", "warning"] = "error"
    line: int | None = None

    @property
    def key(self) -> str:
        """The path as text: ``cameras.gate.zones.dock.polygon[2]``."""
        return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).removeprefix(".")


def near(name: str, known: Iterable[str], *, what: str) -> str:
    """The mend for a name that nobody knows."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known are {', '.join(names[:12])}{' and more' * (len(names) > 12)}." if names else f"There is no {what}."


class Hints:
    """`near` for the first few of many names; a file or a desired state may hold thousands."""

    def __init__(self) -> None:
        self._left = MOST_SOUGHT

    def near(self, name: str, known: Iterable[str], *, what: str) -> str:
        """The mend."""
        self._left -= 1
        return near(name, known, what=what) if self._left >= 0 else f"Name a {what} that is known."


def contradictions(config: AgentConfig) -> list[Finding]:
    """Everything that is wrong although each value is of its type."""
    hints = Hints()
    found = [*_model(config), *_broker(config.broker)]
    for id_, camera in config.cameras.items():
        found += _camera(camera, ("cameras", id_))
    for name, rule in config.rules.items():
        found += _rule(rule, config, ("rules", name), hints)
    found += _neighbours(config)
    return [*found, *_fleet(config.fleet)] if config.fleet is not None else found


def unknown_labels(config: AgentConfig, labels: Collection[str]) -> list[Finding]:
    """Labels of zones, lines, rules and neighbours that the model does not know, so that nothing would ever count."""
    hints = Hints()
    named: list[tuple[Where, tuple[str, ...] | None]] = [
        (("cameras", id_, kind, name, "labels"), part.labels)
        for id_, camera in config.cameras.items()
        for kind, parts in (("zones", camera.zones), ("lines", camera.lines))
        for name, part in parts.items()
    ]
    named += [(("rules", name, "labels"), rule.labels) for name, rule in config.rules.items()]
    if config.home_assistant is not None:
        named.append((("home_assistant", "labels"), config.home_assistant.labels))
    return [
        Finding((*where, number), f"The model knows no label {label!r}.", hints.near(label, labels, what="label"))
        for where, wanted in named
        for number, label in enumerate(wanted or ())
        if label not in labels
    ]


def _model(config: AgentConfig) -> Iterator[Finding]:
    if (config.model.store is None) == (config.model.bundle is None):
        given = "neither store nor bundle" if config.model.store is None else "both store and bundle"
        yield Finding(("model",), f"It has {given}.", "Give one of them.")


def _broker(broker: BrokerConfig) -> Iterator[Finding]:
    yield from _login(broker, broker.url, ("broker",), "url")
    try:
        Address.parse(broker.url)
    except ConfigError as error:
        yield Finding(("broker", "url"), error.what, error.mend)


def _fleet(fleet: FleetConfig) -> Iterator[Finding]:
    """A token is sent to it, so nobody on the way may read along."""
    where, mend = ("fleet", "url"), "Write an address such as https://fleet.example.com."
    if "@" in fleet.url:
        yield Finding(where, "The address holds a login.", "Use token_file.")
        return
    try:
        url = urlsplit(fleet.url)
        good = url.scheme in {"http", "https"} and bool(url.hostname) and not url.query and not url.fragment
        good = good and url.port != 0 and fleet.url.isascii() and fleet.url.isprintable()
        good = good and not set(fleet.url) & {" ", "\\"}
    except ValueError:
        good = False
    if not good:
        yield Finding(where, "This is no address of the fleet's server.", mend)
    elif url.scheme == "http" and not is_this_machine(url.hostname or ""):
        yield Finding(where, "What is said there could be read on the way.", "Use https://, with ca_file if need be.")


def _login(part: BrokerConfig | CameraConfig, url: str, where: Where, key: str) -> Iterator[Finding]:
    """Of a camera or the broker. A user name alone is allowed: some take a token for it."""
    if part.password_file is not None and part.password_env is not None:
        yield Finding((*where, "password_env"), "There are two passwords.", "Give password_file or password_env.")
    if part.username is None and (part.password_file is not None or part.password_env is not None):
        name = "password_file" if part.password_file is not None else "password_env"
        yield Finding((*where, name), "A password needs a user.", "Give username as well.")
    if "://" not in url:
        return
    if "@" in url:  # wherever it is: a password may hold a slash
        yield Finding((*where, key), "The address holds a login.", f"{LOGIN} In a path, write %40 for @.")
        return
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        yield Finding((*where, key), "This is no address.", "Write scheme://host:port/path.")


def _camera(camera: CameraConfig, where: Where) -> Iterator[Finding]:
    if not camera.source.strip():
        yield Finding((*where, "source"), "It is empty.", "Name where pictures come from.")
    yield from _login(camera, camera.source, where, "source")
    if camera.username is not None and "://" not in camera.source:
        yield Finding((*where, "username"), "Only an address has a login.", "Take it out.")
    if camera.crop is not None and not (camera.crop[0] < camera.crop[2] and camera.crop[1] < camera.crop[3]):
        yield Finding((*where, "crop"), "It has no area.", "Write x1, y1, x2, y2 with x1 < x2 and y1 < y2.")
    for number, polygon in enumerate(camera.privacy):
        yield from _polygon(polygon, (*where, "privacy", number))
    for name, zone in camera.zones.items():
        yield from _polygon(zone.polygon, (*where, "zones", name, "polygon"))
    for name, line in camera.lines.items():
        if line.start == line.end:
            yield Finding((*where, "lines", name), "It ends where it starts.", "Give it two different ends.")


def _polygon(polygon: Polygon, where: Where) -> Iterator[Finding]:
    count = len(polygon)
    for number, point in enumerate(polygon):
        if point == polygon[number - 1]:
            yield Finding(
                (*where, number),
                "This corner is the same as the one before.",
                "Take it out; a polygon closes by itself.",
            )
            return
    if all(_turn(polygon[0], polygon[1], corner) == 0 for corner in polygon):
        yield Finding(where, "It has no area.", "Give it corners that are not in one line.")
        return
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True)) / 2
    edges = [(polygon[number], polygon[(number + 1) % count]) for number in range(count)]
    for (i, one), (j, other) in combinations(enumerate(edges), 2):
        if _meet(one, other) if (j - i) not in {1, count - 1} else _folds(one, other):
            yield Finding(where, f"Its edges {i} and {j} cross or touch.", "Name its corners in the order around it.")
            return
    if abs(area) < MIN_AREA:
        yield Finding(where, "It has hardly any area.", "Make it larger.")


def _turn(a: Point, b: Point, c: Point) -> float:
    """Above zero when a → b → c turns one way, below the other, zero in a line."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _on(a: Point, b: Point, c: Point) -> bool:
    """Whether c, in a line with a and b, lies between them."""
    return min(a[0], b[0]) <= c[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= c[1] <= max(a[1], b[1])


def _meet(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """Whether two edges share a point. Source: Cormen et al., Introduction to Algorithms, 33.1."""
    (a, b), (c, d) = one, other
    if max(a[0], b[0]) < min(c[0], d[0]) or max(c[0], d[0]) < min(a[0], b[0]):
        return False
    turns = _turn(c, d, a), _turn(c, d, b), _turn(a, b, c), _turn(a, b, d)
    signs = [math.copysign(1, turn) if turn else 0 for turn in turns]
    if signs[0] * signs[1] < 0 and signs[2] * signs[3] < 0:
        return True
    lines = ((c, d, a), (c, d, b), (a, b, c), (a, b, d))
    return any(sign == 0 and _on(*each) for sign, each in zip(signs, lines, strict=True))


def _folds(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """Whether two edges with a common corner lie upon each other."""
    corner = next(point for point in one if point in other)
    a, b = (next(point for point in edge if point != corner) for edge in (one, other))
    towards = (a[0] - corner[0]) * (b[0] - corner[0]) + (a[1] - corner[1]) * (b[1] - corner[1])
    return _turn(corner, a, b) == 0 and towards > 0


def _rule(rule: RuleConfig, config: AgentConfig, where: Where, hints: Hints) -> Iterator[Finding]:
    cameras = {id_: config.cameras[id_] for id_ in rule.cameras or config.cameras if id_ in config.cameras}
    zones = {name for camera in cameras.values() for name in camera.zones}
    lines = {name for camera in cameras.values() for name in camera.lines}
    for key, wanted, known in (
        ("cameras", rule.cameras, set(config.cameras)),
        ("zones", rule.zones, zones),
        ("lines", rule.lines, lines),
    ):
        of = " of its cameras" if key != "cameras" and rule.cameras else ""
        for number, name in enumerate(wanted or ()):
            if name not in known and (cameras or key == "cameras"):
                what = key.removesuffix("s")
                yield Finding((*where, key, number), f"No {what} {name!r}{of}.", hints.near(name, known, what=what))
    if rule.schedule is not None:
        yield from _schedule(rule.schedule, (*where, "schedule"))


def _schedule(schedule: ScheduleConfig, where: Where) -> Iterator[Finding]:
    if not schedule.days:
        yield Finding((*where, "days"), "It names no day.", "Name some, or leave it out for all.")
    if schedule.start == schedule.end:
        yield Finding((*where, "end"), "It ends when it starts.", "Leave both out for the whole day.")


def _neighbours(config: AgentConfig) -> Iterator[Finding]:
    """Their topics must not be ours; in Frigate's, zones and cameras share a level."""
    prefixes = []
    if config.home_assistant is not None:
        prefixes.append((("home_assistant", "discovery_prefix"), config.home_assistant.discovery_prefix))
    if config.frigate is not None:
        prefixes.append((("frigate", "prefix"), config.frigate.prefix))
        for id_, camera in config.cameras.items():
            for zone in camera.zones.keys() & config.cameras.keys():
                what = "Frigate's topics cannot tell it from the camera of that name."
                yield Finding(("cameras", id_, "zones", zone), what, "Rename it, or take [frigate] out.")
    for where, prefix in prefixes:
        if prefix.split("/")[0] == ROOT.split("/")[0]:
            yield Finding(where, "These are TinySight's own topics.", "Take another one.")
