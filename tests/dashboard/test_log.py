"""What the page keeps of events, without a browser: gaps, doubles, floods, pictures, links, files. Node.js runs it."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

Play = Callable[[str], Any]

FOLLOWED = """
const { Log } = await load("log");
const follow = (steps) => {
const log = new Log();
let now = 1_000_000;
const fresh = [];
for (const step of steps) {
  now += 100;
  if (step === "outage") { log.outage(); continue; }
  if (step === "flood") { log.begin(5000, 0, now); now += 4000; log.begin(0, 0, now); now += 4000; log.begin(0, 0, now); continue; }
  if (step === "lost") { log.begin(1, 20, now); now += 6000; log.begin(0, 0, now); continue; }
  const [boot, numbers, replayed] = step;
  for (const seq of numbers) fresh.push(log.add(event({ boot_id: boot, seq, replayed, id: `o-${boot}-${seq}` }), now));
}
return {
  gaps: log.gaps().map((gap) => [gap.boot, gap.from, gap.to]).sort(), twice: fresh.filter((each) => !each).length, objects: log.seen.length,
};
};
console.log(JSON.stringify(ALL.map(follow)));
"""  # noqa: E501 -- one statement of JavaScript


def live(boot: str, *numbers: int) -> list[object]:
    return [boot, numbers, False]


def late(boot: str, *numbers: int) -> list[object]:
    return [boot, numbers, True]


CASES: list[Any] = [
    pytest.param([live("a", 17, 18, 19)], [], 0, id="what came before the page is no gap"),
    pytest.param([live("a", 1, 2, 5)], [["a", 3, 4]], 0, id="two are missing"),
    pytest.param([live("a", 1, 2, 9), late("a", 3, 4)], [["a", 5, 8]], 0, id="replays fill from the left"),
    pytest.param([live("a", 1, 9), late("a", 5)], [["a", 2, 4], ["a", 6, 8]], 0, id="one in the middle parts it"),
    pytest.param([live("a", 1, 9), late("a", 8)], [["a", 2, 7]], 0, id="one at the end"),
    pytest.param([live("a", 1, 6), late("a", 2, 3, 4, 5), live("a", 7)], [], 0, id="replays fill it"),
    pytest.param(
        [live("a", 1, 6), late("a", 2), live("a", 7), late("a", 3), live("a", 9), late("a", 4, 5)],
        [["a", 8, 8]], 0, id="replays beside live ones",
    ),
    pytest.param([live("a", 1, 2, 2, 1)], [], 2, id="doubles of QoS 1"),
    pytest.param([live("a", 1, 5, 5), late("a", 3, 3)], [["a", 2, 2], ["a", 4, 4]], 2, id="doubles around gaps"),
    pytest.param([live("a", 40), late("a", 12, 13, 12)], [], 1, id="replays of before the page, one twice"),
    pytest.param([late("a", 12, 13), live("a", 40)], [], 0, id="replays before the first live one"),
    pytest.param([live("a", 1, 2), "outage", live("a", 30, 31)], [], 0, id="an outage of the page"),
    pytest.param([live("a", 1, 2), "outage", live("a", 30, 32)], [["a", 31, 31]], 0, id="a gap after an outage"),
    pytest.param([live("a", 1, 5), "outage", live("a", 6)], [], 0, id="what is missing may come in the outage"),
    pytest.param([live("a", 1, 2), "outage", late("a", 9), live("a", 20)], [], 0, id="replays first after it"),
    pytest.param([live("a", 1, 2), "outage", late("a", 2, 3)], [], 1, id="sent again after an outage"),
    pytest.param([live("a", 7, 8), live("b", 1, 2)], [], 0, id="a restart"),
    pytest.param([live("a", 7, 8), live("b", 4)], [["b", 1, 3]], 0, id="a restart whose first events are missing"),
    pytest.param([live("a", 7, 8), live("b", 3), late("b", 1, 2)], [], 0, id="a restart whose first ones are late"),
    pytest.param([live("b", 1), late("a", 90, 91)], [], 0, id="replays of an earlier run"),
    pytest.param([live("a", 7), "outage", live("b", 4)], [], 0, id="a restart during an outage"),
    pytest.param([live("a", 1, 4), "flood", live("a", 90, 91)], [], 0, id="a flood"),
    pytest.param([live("a", 1), "flood", live("a", 90, 92)], [["a", 91, 91]], 0, id="a gap after a flood"),
    pytest.param([live("a", 1), "lost", live("a", 90)], [], 0, id="messages that the page let go"),
]  # fmt: skip


@pytest.fixture(scope="module")
def followed(play: Play) -> dict[str, Any]:
    """What became of each of the cases, by its id; in one process, since one takes long to begin."""
    told = play(f"const ALL = {json.dumps([case.values[0] for case in CASES])};{FOLLOWED}")
    return {case.id: each for case, each in zip(CASES, told, strict=True)}


@pytest.mark.parametrize(("steps", "gaps", "twice"), CASES)
def test_gaps_are_those_that_this_page_could_know_of(
    steps: Any, gaps: Any, twice: int, followed: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    told = followed[request.node.callspec.id]
    assert told["gaps"] == gaps
    assert told["twice"] == twice
    assert told["objects"] == sum(len(step[1]) for step in steps if isinstance(step, list)) - twice


def test_gaps_are_right_whatever_the_order(play: Play) -> None:
    """Against an oracle: of numbers that come shuffled after the first, what is missing is what did not come."""
    told = play("""
const { Gaps } = await load("gaps");
let state = 7;
const random = (below) => (state = (state * 48271) % 2147483647) % below;
const wrong = [];
for (let round = 0; round < 300; round += 1) {
  const gaps = new Gaps(), heard = new Set([1]);
  gaps.add(event({ seq: 1 }), 0);
  for (let n = 0; n < 60; n += 1) {
    const seq = 1 + random(80);
    const fresh = gaps.add(event({ seq, replayed: seq < Math.max(...heard) }), n);
    if (fresh === heard.has(seq)) wrong.push([round, seq]);
    heard.add(seq);
  }
  const missing = gaps.list().reduce((sum, gap) => sum + gap.to - gap.from + 1, 0);
  if (missing !== Math.max(...heard) - heard.size) wrong.push([round, missing]);
}
console.log(JSON.stringify(wrong));
""")
    assert told == []


def test_a_device_that_floods_with_runs_makes_no_gap_of_another(play: Play) -> None:
    told = play("""
const { Gaps } = await load("gaps");
const gaps = new Gaps();
gaps.add(event({ seq: 5000 }), 0);
for (let n = 0; n < 41_000; n += 1) gaps.add(event({ device: "evil", boot_id: `b${n}`, seq: 1 }), 1);
for (let n = 0; n < 9; n += 1) gaps.add(event({ boot_id: `b${n}`, seq: 7, replayed: true }), 1);
const before = gaps.list();
gaps.add(event({ seq: 5001 }), 2);
const same = gaps.list() === before;
gaps.add(event({ seq: 5003 }), 3);
console.log(JSON.stringify([before.length, same, gaps.list().map(({ from, to }) => [from, to])]));
""")
    assert told == [0, True, [[5002, 5002]]]


def test_what_is_kept_is_bounded(play: Play) -> None:
    told = play("""
const { Log, MOST } = await load("log");
const log = new Log();
for (let n = 1; n <= 7000; n += 1) log.add(event({ seq: 2 * n, id: `o-${n}`, label: `label ${n}` }), n);
const { Gaps } = await load("gaps");
const gaps = new Gaps();
for (let n = 1; n <= 41_000; n += 1) gaps.add(event({ boot_id: `b${n}`, replayed: true }), n);
console.log(JSON.stringify({
  seen: log.seen.length <= MOST + 500, first: log.seen[0].event.id, keys: log.byKey.size === log.seen.length,
  labels: log.facets.of("label").length, gaps: log.gaps().length,
  runs: gaps.devices.get("plant-1/belt-7").runs.size, objects: log.objects,
}));
""")
    told["first"] = int(told["first"].removeprefix("o-"))
    assert told.pop("first") >= 7000 - 5500
    assert told == {"seen": True, "keys": True, "labels": 200, "gaps": 199, "runs": 4, "objects": 7000}


def test_a_flood_is_sampled_and_ends_by_itself(play: Play) -> None:
    told = play("""
const { Log } = await load("log");
const log = new Log();
let now = 0, read = 0;
const rates = [];
for (let tenth = 0; tenth < 80; tenth += 1) {
  const many = tenth < 50 ? 200 : 0;
  log.begin(many, 0, (now += 100));
  for (let n = 0; n < many; n += 1) if (log.wants()) read += 1;
  rates.push(log.sampling);
}
console.log(JSON.stringify({ read, flooded: rates[40], after: rates.at(-1), came: log.came }));
""")
    assert told["came"] == 10_000
    assert told["flooded"] == 5
    assert 1500 < told["read"] < 4500
    assert told["after"] == 1


def test_what_a_tab_in_the_background_hands_on_late_is_no_flood(play: Play) -> None:
    told = play("""
const { Log } = await load("log");
const log = new Log();
log.begin(1, 0, 1_000_000);
log.begin(1200, 0, 1_060_000, 1_000_100);
console.log(JSON.stringify(log.sampling));
""")
    assert told == 1


def test_the_newest_of_an_object_stands_whatever_the_order(play: Play) -> None:
    told = play("""
const { Log } = await load("log");
const log = new Log();
const say = (changes) => log.add(event({ id: "o", ...changes }), 1);
const said = [];
const note = () => said.push(log.byKey.get("plant-1/belt-7/cam0/o").event.type);
say({ seq: 9, type: "end" }); note();
say({ seq: 4, type: "update", replayed: true }); note();
say({ seq: 1, type: "end", boot_id: "next" }); note();
say({ seq: 8, type: "update", replayed: true }); note();
console.log(JSON.stringify({ said, boot: log.seen[0].event.boot_id, objects: log.seen.length }));
""")
    assert told == {"said": ["end"] * 4, "boot": "next", "objects": 1}


def test_a_picture_finds_its_object_before_and_after(play: Play) -> None:
    told = play("""
const { Log } = await load("log");
const log = new Log();
const of = (id) => log.byKey.get(`plant-1/belt-7/cam0/${id}`).picture;
log.picture("plant-1/belt-7/cam0/early", "blob:1");
log.add(event({ id: "early", seq: 1 }), 1);
log.add(event({ id: "late", seq: 2 }), 1);
log.picture("plant-1/belt-7/cam0/late", "blob:2");
const first = [of("early"), of("late")];
log.picture("plant-1/belt-7/cam0/late", "blob:3");
log.unpicture("blob:2");
log.unpicture("blob:1");
console.log(JSON.stringify([...first, of("early"), of("late")]));
""")
    assert told == ["blob:1", "blob:2", "", "blob:3"]


def test_a_link_carries_an_event(play: Play) -> None:
    told = play("""
const { pack, unpack, MOST_CHARS } = await load("permalink");
const there = (changes) => JSON.parse(new TextDecoder().decode(unpack(pack(event(changes)))));
const odd = "é \\u202e 🥝 <img src=x onerror=alert(1)>";
const { crossed, rules, reason, ...slim } = golden;
console.log(JSON.stringify({
  label: there({ label: odd }).label === odd,
  same: JSON.stringify(there({})) === JSON.stringify(Object.fromEntries(Object.keys(golden).filter((key) => key in slim).map((key) => [key, golden[key]]))),
  kept: there({ rules: ["r"], reason: "left" }),
  plain: /^[A-Za-z0-9_-]+$/.test(pack(event({ label: odd }))),
  long: pack(event({ label: "x".repeat(MOST_CHARS) })),
  bad: ["", "a b", "é", "=", "a", "x".repeat(MOST_CHARS + 1)].map(unpack),
}));
""")  # noqa: E501 -- one statement of JavaScript
    assert told.pop("kept").items() >= {"rules": ["r"], "reason": "left"}.items()
    assert told == {"label": True, "same": True, "plain": True, "long": None, "bad": [None] * 6}


def test_a_table_is_quoted_and_harmless(play: Play) -> None:
    labels = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", 'a "b", c', "two\nlines", "plain", "ä;b", ""]
    told = play(f"""
const {{ csvOf, jsonOf, fileName }} = await load("export");
const events = {json.dumps(labels)}.map((label) => event({{ label, score: 0.5, zones: {{ now: [], entered: ["-a", "b"] }} }}));
console.log(JSON.stringify({{
  csv: csvOf(events), json: jsonOf(events), none: jsonOf([]), name: fileName("csv", new Date("2026-11-25T12:30:15.250Z")),
}}));
""")  # noqa: E501 -- one statement of JavaScript
    rows = list(csv.DictReader(io.StringIO(told["csv"], newline=""), strict=True))
    tamed = ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", *labels[6:]]
    assert [row["label"] for row in rows] == tamed
    assert {row["score"] for row in rows} == {"0.5"}
    assert {row["zones_entered"] for row in rows} == {"'-a | b"}
    assert rows[0].items() >= {"ended_at": "", "replayed": "false", "seq": "17", "reason": ""}.items()
    assert told["csv"].startswith("site,device,camera,id,type,label,")
    assert told["csv"].endswith("\r\n")
    assert [each["label"] for each in json.loads(told["json"])] == labels
    assert json.loads(told["none"]) == []
    assert told["name"] == "tinysight-events-20261125T123015Z.csv"
