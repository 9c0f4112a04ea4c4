"""What the page knows of devices and how it hears of them, without a browser: Node.js runs it, the broker is played."""

from collections.abc import Callable
from typing import Any

Play = Callable[[str], Any]

FLEET = """
const { Fleet } = await load("fleet");
const fleet = new Fleet();
const say = (tail, value, retained = false, at = Date.now()) =>
  fleet.hear([{ text: `tinysight/v1/plant-1/${tail}`, payload: bytes(value), retained, at }], 0);
const tell = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
"""
LINK = """
const { EventEmitter } = await import("node:events");
const clients = [];
class Client extends EventEmitter {
  constructor(options) { super(); this.options = options; this.asked = []; this.connected = false; clients.push(this); }
  subscribe(filter, options, told) { this.asked.push([filter, told]); }
  unsubscribe() {}
  end() { this.ended = true; this.connected = false; }
  in() { this.connected = true; this.emit("connect"); }
  take(granted = 1) {
    const [filter, told] = this.asked.at(-1);
    if (granted < 128) told(null, [{ qos: granted }], { granted: [granted] });
    else told(new Error("Subscribe error"), [{ qos: 0 }], { granted: [granted] });
    return filter;
  }
  hear(text, value, retain = false) { this.emit("message", text, bytes(value), { retain }); }
}
globalThis.connect = (url, options) => new Client(options);
const { Link } = await load("link");
const told = [];
const link = new Link("ws://broker.example", {
  hear: (batch, lost) => told.push(["batch", batch.length, lost]), begin: () => told.push(["begin"]),
  ask: (filter) => told.push(["ask", filter]), kept: (filters) => told.push(["kept", ...filters]),
});
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const tell = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
const nobody = { username: "", password: "", token: "" };
"""


def test_what_was_taken_back_during_an_outage_is_gone(play: Play) -> None:
    """An alert, a camera and a wish that the broker keeps no more when the page is back."""
    told = play(
        FLEET
        + """
const heard = (tails) => { for (const tail of tails) say(`gate-1/${tail}`, {}, true); };
const filters = ["status", "alert/+", "camera/+/status", "camera/+/counts"].map((tail) => `tinysight/v1/+/+/${tail}`);
const mine = () => { const { alerts, cameras, desired } = fleet.device("plant-1", "gate-1"); return [[...alerts.keys()], [...cameras.keys()], desired !== null]; };
const all = [];
filters.forEach((filter) => fleet.ask(filter));
heard(["status", "alert/hot", "alert/full", "camera/cam0/status", "camera/cam1/status", "desired"]);
fleet.kept(filters);
all.push(mine());
fleet.begin();
filters.forEach((filter) => fleet.ask(filter));
heard(["status", "alert/full", "camera/cam1/status"]);
all.push(mine());
fleet.kept(filters);
all.push(mine());
fleet.ask("tinysight/v1/plant-1/gate-1/desired");
fleet.kept(["tinysight/v1/plant-1/gate-1/desired"]);
all.push(mine());
tell(all);
"""  # noqa: E501 -- a statement of JavaScript
    )
    before = [["hot", "full"], ["cam0", "cam1"], True]
    assert told == [before, before, [["full"], ["cam1"], True], [["full"], ["cam1"], False]]


def test_the_link_tells_when_all_that_is_kept_has_come(play: Play) -> None:
    told = play(
        LINK
        + """
link.watch("a"); link.watch("b"); link.watch("c");
link.open(nobody);
const [client] = clients;
client.in();
client.take(); await pause(200);
client.hear("a", "x", true); client.take(135); await pause(200);
client.take(); await pause(3300);
client.in(); await pause(50);
tell(told.filter(([kind]) => kind !== "batch"));
"""
    )
    assert told == [["begin"], *(["ask", each] for each in "abc"), ["kept", "a", "c"], ["begin"], ["ask", "a"]]


def test_what_is_cleared_leaves_no_ghost(play: Play) -> None:
    """The agent clears a camera's status, then its counts; an operator what the broker keeps of a device."""
    told = play(
        FLEET
        + """
say("gate-1/status", { state: "online" });
for (const tail of ["status", "counts"]) say(`gate-1/camera/cam0/${tail}`, { objects: {} });
for (const tail of ["status", "counts"]) say(`gate-1/camera/cam0/${tail}`, "");
const cameras = [...fleet.device("plant-1", "gate-1").cameras.keys()];
say("gate-1/status", "");
say("gate-2/alert/hot", "");
tell([cameras, [...fleet.devices.keys()]]);
"""
    )
    assert told == [[], []]


def test_a_refusal_that_may_pass_is_tried_again(play: Play) -> None:
    told = play(
        LINK
        + """
const refuse = (code) => {
  link.open(nobody);
  const client = clients.at(-1);
  client.emit("error", Object.assign(new Error("Connection refused: x"), { code }));
  client.emit("close");
  return [link.state.value.kind, link.state.value.why, client.ended === true, client.options.reconnectOnConnackError];
};
tell([refuse(136), refuse(5)]);
"""
    )
    assert told == [
        ["away", "The broker says: Connection refused: x.", False, True],
        ["refused", "The broker does not let this user in.", True, True],
    ]


def test_only_what_the_broker_refuses_is_denied(play: Play) -> None:
    told = play(
        LINK
        + """
const undo = link.watch("a");
link.open(nobody);
const [client] = clients, all = [];
client.in();
client.asked[0][1](new Error("Connection closed"), [{ qos: 0 }], undefined);
all.push(link.denied.value);
for (let n = 0; n < 2; n += 1) { client.in(); client.take(135); all.push(link.denied.value); }
undo();
all.push(link.denied.value);
link.watch("may be", 0, true);
client.in();
client.take(135);
tell([...all, link.denied.value]);
"""
    )
    assert told == [[], ["a"], ["a"], [], []]


def test_messages_are_handed_on_although_timers_are_late(play: Play) -> None:
    """A tab in the background runs its timers once a minute; what came is stamped with when it came."""
    told = play(
        LINK
        + """
link.open(nobody);
const [client] = clients;
client.in();
globalThis.setTimeout = () => 1;
let now = 1_000_000;
Date.now = () => now;
const batches = [];
link.hearer.hear = (batch) => batches.push(batch.map(({ at }) => at - 1_000_000));
for (let n = 0; n < 6; n += 1, now += 90) client.hear("a", "x");
tell(batches);
"""
    )
    assert told == [[0, 90, 180, 270]]


def test_what_is_kept_is_asked_for_again_after_messages_were_lost(play: Play) -> None:
    told = play(
        LINK
        + """
link.watch("a");
link.open(nobody);
const [client] = clients;
client.in();
client.take();
for (let n = 0; n < 20_010; n += 1) client.hear("a", "x");
await pause(3500);
tell(told.filter(([kind, , lost]) => kind !== "batch" || lost > 0).map(([kind]) => kind));
"""
    )
    assert told == ["begin", "ask", "batch", "ask"]


def test_pictures_are_let_go_of(play: Play) -> None:
    """Those of cameras that are taken away, and the oldest when many cameras have one."""
    told = play(
        FLEET
        + """
const alive = new Set();
let urls = 0;
URL.createObjectURL = () => { alive.add(`blob:${urls += 1}`); return `blob:${urls}`; };
URL.revokeObjectURL = (url) => alive.delete(url);
const jpeg = { text: "", payload: new Uint8Array([255, 216, 255, 224, 0, 0]), retained: false, at: 1 };
const picture = (tail) => fleet.hear([{ ...jpeg, text: `tinysight/v1/plant-1/${tail}` }], 0);
for (let n = 0; n < 500; n += 1) {
  picture(`gate-1/camera/cam0/snapshot/o-${n}`); say("gate-1/camera/cam0/status", ""); }
const most = alive.size;
for (let n = 0; n < 1200; n += 1) picture(`gate-${n % 40}/camera/cam${Math.floor(n / 40)}/snapshot/o-${n}`);
const newest = fleet.device("plant-1", "gate-39").cameras.get("cam29").picture.url;
const oldest = fleet.device("plant-1", "gate-0").cameras.get("cam0").picture;
tell([most, alive.size, alive.has(newest), oldest]);
"""
    )
    assert told == [300, 1000, True, None]


def test_counts_are_summed_as_they_come_and_absurd_ones_refused(play: Play) -> None:
    told = play(
        FLEET
        + """
const { lineOf } = await load("pages/overview_view");
const count = (camera, objects) => say(`gate-1/camera/${camera}/counts`, objects && { objects });
const device = () => fleet.device("plant-1", "gate-1"), sum = () => lineOf(device(), 0).objects;
const all = [];
say("gate-1/camera/cam0/status", {});
count("cam0", { box: 2, can: 3 }); count("cam1", { box: 4 }); all.push(sum());
count("cam1", Object.fromEntries(Array.from({ length: 10_001 }, (_, n) => [`l${n}`, 1]))); all.push(sum());
count("cam0", ""); all.push(sum());
tell([...all, device().broken]);
"""
    )
    assert told == [9, 9, 4, {"count": 1, "why": "counts of 10001 labels"}]


def test_a_trend_is_bounded_and_begins_anew_when_a_clock_was_set(play: Play) -> None:
    told = play("""
const { Trend } = await load("trend");
const trend = new Trend(), health = example("health");
const stages = (n) => Object.fromEntries(Array.from({ length: 20 }, (_, at) => [`s${n}-${at}`, { p50: 1, p95: 1 }]));
const add = (n, latency_ms) => trend.add({ ...health, at: new Date(1.7e12 + n * 30_000).toISOString(), latency_ms });
const all = [];
for (let n = 0; n < 100; n += 1) add(n, stages(n));
all.push(trend.columns.size);
for (let n = 100; n < 400; n += 1) add(n, {});
all.push(trend.at.length, trend.columns.get("cpu").length, trend.columns.has("latency.s0-0"));
add(399, {}); all.push(trend.at.length);
add(300, {}); all.push(trend.at.length, trend.columns.get("cpu").length);
console.log(JSON.stringify(all));
""")
    assert told == [160, 240, 240, False, 240, 1, 1]


def test_a_device_is_heard_when_it_speaks_itself(play: Play) -> None:
    told = play(
        FLEET
        + """
const heard = () => fleet.device("plant-1", "gate-1").heardAt;
say("gate-1/status", { state: "online" }, true, 5); const all = [heard()];
say("gate-1/status", { state: "offline" }, false, 6); all.push(heard());
say("gate-1/desired", {}, false, 7); all.push(heard());
say("gate-1/status", { state: "online" }, false, 8); all.push(heard());
tell(all);
"""
    )
    assert told == [0, 0, 0, 8]


def test_objects_whose_end_was_not_heard_go(play: Play) -> None:
    """After two and a half minutes, with the device's next report or the page's next session."""
    told = play(
        FLEET
        + """
const present = () => fleet.device("plant-1", "belt-7").cameras.get("cam0").present.size;
const start = (id, ago) => say("belt-7/camera/cam0/event", event({ id, seq: Number(id.slice(2)), type: "start" }), false, Date.now() - ago);
start("o-1", 170_000); start("o-2", 160_000);
const all = [present()];
say("belt-7/health", example("health")); all.push(present());
start("o-3", 155_000); all.push(present());
fleet.begin(); all.push(present());
tell(all);
"""  # noqa: E501 -- statements of JavaScript
    )
    assert told == [2, 0, 1, 0]


def test_topics_that_are_none_are_not_kept(play: Play) -> None:
    told = play(
        FLEET
        + """
const long = "x".repeat(60_000);
for (const text of [`v1/${long}/a/status`, `v1/A/b/status`, `v9/${long}/b/info`, `v9/a/b/info`]) {
  fleet.hear([{ text: `tinysight/${text}`, payload: bytes({}), retained: true, at: 1 }], 0);
}
say("gate-1/status", {});
tell([fleet.topics.size, [...fleet.foreign.keys()].map((key) => key.length)]);
"""
    )
    assert told == [1, [64, 3]]


def test_a_flood_that_ends_in_silence_ends(play: Play) -> None:
    told = play(
        FLEET
        + """
const at = Date.now(), each = { text: "tinysight/v1/plant-1/belt-7/camera/cam0/event", payload: bytes("{"), retained: false, at };
fleet.hear(Array.from({ length: 5000 }, () => each), 0);
const before = fleet.log.sampling;
setTimeout(() => tell([before, fleet.log.sampling]), 3400);
"""  # noqa: E501 -- a statement of JavaScript
    )
    assert told == [10, 1]
