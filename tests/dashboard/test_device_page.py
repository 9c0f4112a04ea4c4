"""The page of one device: boxes that move, counts as the device counts, what was seen, what is wrong, orders.

With a real agent, but where something is said that no agent says.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tinysight_contract import topics as t
from tinysight_contract.messages import Alert, Counts, Event, State, Status, decode, encode

AT = ("plant-1", "belt-1")
CAMERA = (*AT, "belt")
GOLDEN = Path(__file__).parents[1] / "golden"
DASHBOARD = Path(__file__).parents[2] / "dashboard"
BOXES = f"""
const {{ marksOf, paint }} = await import({json.dumps((DASHBOARD / "src" / "ui" / "boxes.ts").as_uri())});
const golden = (path) => JSON.parse(readFileSync(`{GOLDEN.as_posix()}/${{path}}.json`, "utf8"));
const [event, frame] = [golden("event"), golden("frame")];
const camera = {{ id: "c", frame: {{ frame, at: 10_000 }}, present: new Map([["a", {{ event, at: 10_000 }}]]) }};
const told = [0, 1900, 2100, 3000, 60_000, 91_000].map((age) => marksOf(camera, 10_000 + age));
const said = [];
const known = {{ measureText: (text) => ({{ width: text.length * 7 }}), fillText: (text) => said.push(text) }};
const to = new Proxy(known, {{ get: (of, name) => of[name] ?? (() => undefined), set: () => true }});
const mark = (label, box) => ({{ label, classId: 3, score: 0.876, box, strength: 1, followed: true }});
paint(to, 1000, 500, [mark("w".repeat(10_000), [0, 0, 0.05, 1]), mark("nut", [0.99, 0, 1, 1])], ["red"], "black");
console.log(JSON.stringify({{
  sources: told.map((each) => each.source), strengths: told.slice(2, 5).map((each) => each.marks[0].strength), said,
}}));
"""
ZONES = """\
source = "synthetic:belt?seed=5&fps=20"
[cameras.belt.zones.left]
polygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[cameras.belt.zones.few]
polygon = [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]
labels = ["3", "7"]
[cameras.belt.lines.across]
start = [0.5, 1]
end = [0.5, 0]
"""
TABLES = """() => {
  const texts = (cells) => [...cells].map((cell) => cell.textContent);
  const rows = (name) => [...document.querySelectorAll(`table.${name} tbody tr`)].map((row) => texts(row.children));
  return {
    at: document.querySelector("table.counts")?.dataset.at,
    heads: texts(document.querySelectorAll("table.counts thead th")),
    counts: rows("counts"),
    crossings: rows("crossings"),
  };
}"""
PAINTED = """() => {
  const canvas = document.querySelector(".stage canvas");
  const { source, seenAt, boxes } = canvas.dataset;
  return source === "frame" ? [seenAt, Number(boxes), canvas.toDataURL()] : null;
}"""

expect.set_options(timeout=20_000)


def show(page: Page, site: str, device: str = "plant-1/belt-1", query: str = "") -> None:
    page.goto(f"{site}/#/device/{device}{query}")
    expect(page.locator("h1")).to_have_text(device)


def overflows(page: Page) -> bool:
    return bool(page.evaluate("() => document.documentElement.scrollWidth > innerWidth"))


def as_told(counts: Counts, heads: list[str]) -> list[list[str]]:
    """The rows that a table with these heads shall have."""
    zones = heads[2:]
    assert zones == list(counts.zones)
    return [
        [label, str(count), *(str(counts.zones[zone].get(label, "–")) for zone in zones)]  # noqa: RUF001
        for label, count in counts.objects.items()
    ]


def test_what_a_camera_sees_moves_and_is_counted_as_the_device_counts(
    page: Page,
    site: str,
    broker: Any,
    make_device: Callable[..., Any],
    make_voice: Callable[[str], Any],
    eventually: Callable[[Callable[[], object]], None],
    complaints: Callable[[Page], list[str]],
) -> None:
    voice = make_voice(broker.url)
    voice.listen(f"{t.ROOT}/#")
    device = make_device(broker.url, cameras={"belt": ZONES})
    page.goto(f"{site}/#/device/plant-1/belt-1")
    canvas = page.locator(".stage canvas")
    expect(canvas).to_have_attribute("data-source", "frame")
    expect(canvas).to_have_attribute("data-boxes", re.compile(r"[1-9]"))
    expect(canvas).to_have_attribute("aria-label", re.compile(r"Camera belt: \d "))
    expect(page.locator(".stage .name")).to_have_text(["few", "left", "across →"])

    seen: dict[str, tuple[int, str]] = {}

    def moves() -> bool:
        if (painted := page.evaluate(PAINTED)) is not None:
            seen[painted[0]] = (painted[1], painted[2])
        return len(seen) >= 5

    eventually(moves)
    assert len({pixels for _, pixels in seen.values()}) >= 4, "the boxes stand still"

    def frames() -> dict[str, int]:
        heard = (payload for topic, payload, _ in list(voice.heard) if t.parse(topic) == t.FrameTopic(*CAMERA))
        return {each["seen_at"]: len(each["detections"]) for each in map(json.loads, heard)}

    eventually(lambda: seen.keys() <= frames().keys())
    assert {at: boxes for at, (boxes, _) in seen.items()}.items() <= frames().items(), "as many boxes as were told of"

    def counted() -> dict[str, Counts]:
        heard = (payload for topic, payload, _ in list(voice.heard) if t.parse(topic) == t.CountsTopic(*CAMERA))
        return {json.loads(payload)["at"]: decode(payload, Counts) for payload in heard if payload}

    compared: set[str] = set()

    def agrees() -> bool:
        table = page.evaluate(TABLES)
        if (counts := counted().get(table["at"])) is None:
            return False
        assert table["counts"] == as_told(counts, table["heads"])
        assert table["crossings"] == [[line, str(way["in"]), str(way["out"])] for line, way in counts.lines.items()]
        compared.add(table["at"])
        return len(compared) >= 4 and counts.lines["across"]["in"] > 0

    eventually(agrees)

    # What was seen: each a link to its event, with its picture when one was sent.
    expect(page.locator(".seen img").first).to_be_visible()
    expect(page.locator(".stage img")).to_have_js_property("naturalWidth", 320)
    links = page.locator(".seen a").evaluate_all("(all) => all.map((each) => each.getAttribute('href'))")
    assert len(links) >= 3
    bars = page.locator(".lanes a").evaluate_all("(all) => all.map((each) => each.getAttribute('href'))")

    def known() -> set[str]:
        heard = (payload for topic, payload, _ in list(voice.heard) if t.parse(topic) == t.EventTopic(*CAMERA))
        return {f"#/event/plant-1/belt-1/belt/{decode(each, Event).id}" for each in heard}

    assert bars
    eventually(lambda: set(links) | set(bars) <= known())
    expect(page.locator("#figures ~ .charts .chart").first).to_contain_text("inference")
    assert complaints(page) == []

    # What is left when it goes.
    device.end()
    expect(page.locator(".device-head")).to_contain_text("Offline")
    expect(page.locator(".camera-state")).to_contain_text("was ")
    eventually(lambda: page.evaluate(TABLES)["at"] == max(counted()))
    table, last = page.evaluate(TABLES), counted()[max(counted())]
    assert table["counts"] == as_told(last, table["heads"])
    page.reload()
    expect(page.locator("main")).to_contain_text("It did not come back since this page was opened")
    eventually(lambda: page.evaluate(TABLES)["counts"] == as_told(last, table["heads"]))


def test_boxes_are_of_frames_while_those_come_then_of_events_and_fade(builder: Any) -> None:
    node = builder.node()
    program = 'import { readFileSync } from "node:fs";\n' + BOXES
    done = node.run(node.folder / "node", "--no-warnings", "--input-type=module", "--eval", program, timeout_s=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sources"] == ["frame", "frame", "events", "events", "events", "none"]
    fresh, still, old = told["strengths"]
    assert (fresh, still) == (1, 1)
    assert 0.35 < old < 0.7
    short, long = told["said"]
    assert short == "nut 88%"
    assert re.fullmatch(r"w+… 88%", long)
    assert len(long) < 16, "as much as there is room for"


def test_what_nobody_knows_and_what_no_device_should_say_stands_there_in_words(
    make_page: Callable[..., Page],
    site: str,
    broker: Any,
    make_voice: Callable[[str], Any],
    complaints: Callable[[Page], list[str]],
) -> None:
    page = make_page(viewport={"width": 360, "height": 740})
    page.goto(f"{site}/#/device/plant-1/nobody")
    expect(page.locator("main")).to_contain_text("Nobody has heard of this device.")
    page.goto(f"{site}/#/device/+/%23")
    expect(page.locator("main")).to_contain_text("An id has 1 to 63")

    voice, now = make_voice(broker.url), datetime.now(UTC)
    long = "<img src=x onerror=alert(1)>" + "\u202e" + "w" * 10_000
    status = Status(state=State.ONLINE, boot_id="b1", reason="", at=now)
    voice.say(t.StatusTopic(*AT), encode(status), retain=True)
    alert = Alert(severity="error", what="No pictures come.", mend="Look at the cable.", since=now, boot_id="b1")
    voice.say(t.AlertTopic(*AT, "camera-stalled"), encode(alert), retain=True)
    info, health, event, counts = (
        json.loads((GOLDEN / f"{name}.json").read_bytes()) for name in ("info", "health", "event", "counts")
    )
    voice.say(t.InfoTopic(*AT), json.dumps({**info, "publishes": [], "software": {long: long}}).encode(), retain=True)
    show(page, site)
    head = page.locator(".device-head")
    expect(head).to_contain_text("Failing")
    expect(head).to_contain_text("No pictures come.")
    expect(page.locator(".device-alerts")).to_contain_text("Look at the cable.")
    expect(page.locator("#figures ~ p")).to_contain_text("a report comes every 30 s")

    voice.say(t.StatusTopic(*AT), b"{}")
    expect(page.locator("main")).to_contain_text(
        "Not all of its messages fit the contract.1 did not, and is not shown."
    )
    late = {**health, "at": (now + timedelta(hours=2)).isoformat(), "temperature_c": None}
    voice.say(t.HealthTopic(*AT), json.dumps(late).encode())
    expect(page.locator("main")).to_contain_text("Its clock is ahead of this page's.It is off by 2 h.")
    where = dict(zip(("site", "device", "camera"), CAMERA, strict=True))
    odd = {**event, **where, "type": "start", "ended_at": None, "label": long, "started_at": now.isoformat()}
    voice.say(t.EventTopic(*CAMERA), json.dumps(odd).encode())
    strange = {**counts, "objects": {long: 3, "__proto__": 4}, "zones": {long: {"__proto__": 1}}, "lines": {}}
    voice.say(t.CountsTopic(*CAMERA), json.dumps(strange).encode())
    page.evaluate("() => location.hash = '#/device/plant-1/belt-1?camera=belt'")
    expect(page.locator(".seen a")).to_have_text(long)
    expect(page.locator("table.counts tbody tr").first.locator("td").first).to_have_text("3")
    expect(page.locator(".stage canvas")).to_have_attribute("data-source", "events")
    expect(page.locator(".stage figcaption")).to_contain_text("[publish] snapshots = true")
    assert not overflows(page), "the page scrolls sideways"
    assert complaints(page) == []


@pytest.fixture
def served(
    module: Callable[[str], ModuleType], playing: Any, tmp_path: Path, broker: Any, belt_repo: Path
) -> Iterator[tuple[Any, int]]:
    """A fleet's server, and the port at which a page may be that asks it."""
    [port] = playing.free_ports(1)
    options = {"origins": [f"http://127.0.0.1:{port}"]}
    with module("deploy/fleet/serving").Served(tmp_path, broker.url, belt_repo, options) as server:
        yield server, port


def test_orders_are_given_and_the_device_itself_answers(
    page: Page,
    make_site: Callable[..., str],
    broker: Any,
    device: Any,  # noqa: ARG001
    served: tuple[Any, int],
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    server, port = served
    site = make_site(broker.ws, api=server.url, options=("--bind", f"127.0.0.1:{port}"))
    show(page, site)
    expect(page.get_by_role("button", name="Identify")).to_be_disabled()
    page.goto(f"{site}/#/sign-in")
    page.locator("input[name=token]").fill(next(token for role, token in server.tokens.items() if role == "operate"))
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("main")).to_contain_text("Signed in as operate-1 (operate).")
    show(page, site)
    expect(page.locator(".device-head")).to_contain_text("belt-1")

    def order(button: str, verb: str) -> str:
        page.get_by_role("button", name=button, exact=True).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name=verb, exact=True).click()
        expect(dialog.locator(".note")).to_be_visible()
        said = dialog.locator(".note").inner_text()
        dialog.get_by_role("button", name="Close").click()
        return str(said)

    said: list[str] = []

    def identified() -> bool:
        """A device whose clock is not set does nothing in the first seconds after it has connected, and says so."""
        said.append(order("Identify", "Identify"))
        return "IDENTIFY" in said[-1] or "LED" in said[-1] or "It blinks" in said[-1]

    eventually(identified)
    assert all("clock" in each for each in said[:-1])
    assert "320×240" in order("Picture of belt", "Take a picture")  # noqa: RUF001
    expect(page.locator(".stage img")).to_be_visible()
    assert "belt is disabled." in order("Disable belt", "Disable")
    expect(page.locator(".camera-state")).to_contain_text("disabled")
    assert "belt is enabled." in order("Enable belt", "Enable")
    expect(page.locator(".camera-state")).to_contain_text("online")

    told: dict[str, Any] = {"id": "c1", "ack": None, "waited_s": 10.0}
    page.route(
        "**/commands/restart", lambda route: route.fulfill(json=told, headers={"Access-Control-Allow-Origin": site})
    )
    assert "No answer in 10 s" in order("Restart", "Restart")
    told["ack"] = {
        "id": "c1",
        "name": "restart",
        "ok": False,
        "at": "2026-01-01T00:00:00Z",
        "code": "expired",
        "error": "Late.",
    }
    late = order("Restart", "Restart")
    assert "Not done" in late
    assert "too late by the device's clock" in late
