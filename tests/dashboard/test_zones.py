"""Zones and lines drawn on a camera's picture: what the device takes, refuses, and what is kept of what others want.

The browser tests have a real agent, broker and fleet's server; geometry and merging are played by Node.js against the
device's own code.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Locator, Page, expect

from tinysight_contract import topics as t
from tinysight_contract.messages import Desired, Info, Reported, decode
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_edge.config.checks import contradictions
from tinysight_edge.config.compare import read_leaf
from tinysight_edge.config.overlay import merged
from tinysight_edge.config.types import AgentConfig

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "dashboard" / "src"
AT = ("plant-1", "belt-1")
BEGIN = f"""
import {{ registerHooks }} from "node:module";
registerHooks({{ resolve: (name, at, next) => next(/^[.][.]?[/]\\w+$/.test(name) ? name + ".ts" : name, at) }});
const load = (name) => import({json.dumps(SOURCES.as_uri())} + "/" + name + ".ts");
const zones = await load("zones");
"""
YARD = [[0.1, 0.1], [0.4, 0.1], [0.4, 0.9], [0.1, 0.9]]
BELT = f"""\
source = "synthetic:belt?seed=5&fps=10"
[cameras.belt.zones.yard]
polygon = {YARD}
inertia = 2
[cameras.belt.zones.old]
polygon = [[0.5, 0], [0.6, 0], [0.6, 0.2]]
"""
RULE = '[rules.yard]\nzones = ["yard"]\n'

Play = Callable[[str], Any]


# --- geometry and merging, against the device's own code --------------------------------------------------------------


@pytest.fixture(scope="module")
def play(builder: Any) -> Play:
    """Run a module of JavaScript that says one JSON; ``zones`` is there."""
    node = builder.node()
    program = node.folder / "node"
    can = node.run(program, "--print", "Boolean(process.features.typescript)", timeout_s=60).stdout.strip()
    if can != "true":
        pytest.skip("this Node.js does not read TypeScript; the development dependencies bring one that does")

    def run(text: str) -> Any:
        done = node.run(program, "--no-warnings", "--input-type=module", "--eval", BEGIN + text, timeout_s=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def found(polygon: list[list[float]]) -> str:
    """What the device says of a polygon, or nothing."""
    raw = {
        "site": "s", "device": "d", "state": "state", "broker": {"url": "mqtt://127.0.0.1"}, "model": {"bundle": "x"},
        "cameras": {"c": {"source": "0", "zones": {"z": {"polygon": polygon}}}},
    }  # fmt: skip
    return " ".join(str(each) for each in contradictions(msgspec.convert(raw, AgentConfig, dec_hook=read_leaf)))


KINDS = ("the same as the one before", "It has no area", "cross or touch", "It has hardly any area")


def test_polygons_are_refused_by_the_rules_of_the_device(play: Play, tmp_path: Path) -> None:
    chance = random.Random(7)
    grid = [number / 4 for number in range(5)]  # coarse, so that many touch, fold and lie in one line
    polygons = [[[chance.choice(grid), chance.choice(grid)] for _ in range(chance.randint(3, 6))] for _ in range(1500)]
    polygons += [[[chance.random(), chance.random()] for _ in range(chance.randint(3, 6))] for _ in range(500)]
    polygons += [[[0.1, 0.1], [0.1001, 0.1], [0.1, 0.1001]], [[0, 0], [1, 0], [1, 1], [0, 1]]]
    file = tmp_path / "polygons.json"
    file.write_text(json.dumps(polygons))
    said = play(f"""
import {{ readFileSync }} from "node:fs";
console.log(JSON.stringify(JSON.parse(readFileSync({json.dumps(str(file))})).map(zones.polygonFault)));
""")
    counts = dict.fromkeys(("", *KINDS), 0)
    for polygon, page in zip(polygons, said, strict=True):
        device = found(polygon)
        kinds = [next((kind for kind in KINDS if kind in text), text) for text in (page, device)]
        assert kinds[0] == kinds[1], f"{polygon}: the page says {page!r}, the device {device!r}"
        counts[kinds[0]] += 1
    assert all(counts.values()), f"each is tried: {counts}"


FILE: dict[str, dict[str, Any]] = {
    "yard": {"polygon": [[0, 0], [1, 0], [1, 1]], "inertia": 7, "labels": ["1", "2"]},
    "gate": {"polygon": [[0, 0], [0.5, 0], [0.5, 1]]},
}
RECT = [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]]
MERGES: list[Any] = [
    pytest.param(None, "now[1].points = RECT;", {"yard": {**FILE["yard"], "polygon": RECT}, "gate": FILE["gate"]},
                 id="a zone of the file keeps what the page does not know"),
    pytest.param(None, "now[1].labels = null;",
                 {"yard": {"polygon": FILE["yard"]["polygon"], "inertia": 7}, "gate": FILE["gate"]},
                 id="all labels count again"),
    pytest.param({"yard": {"labels": None}}, "now[1].points = RECT;",
                 {"yard": {"polygon": RECT, "inertia": 7}, "gate": FILE["gate"]}, id="and go on counting"),
    pytest.param(None, "now.splice(0, 1);", {"yard": FILE["yard"]}, id="a zone of the file is taken out"),
    pytest.param({"door": {"polygon": RECT, "inertia": 4}}, "now = now.filter((each) => each.name !== 'door');", FILE,
                 id="a zone of the old wish is taken out"),
    pytest.param({"door": {"polygon": RECT, "inertia": 4}}, "now.find((each) => each.name === 'door').name = 'hall';",
                 {**FILE, "hall": {"polygon": RECT, "inertia": 4}}, id="another name, and all else as it was"),
    pytest.param({"gate": None}, "now.push({uid: 99, kind: 'zone', name: 'gate', points: RECT, labels: ['3']});",
                 {**FILE, "gate": {"polygon": RECT, "labels": ["3"]}}, id="back again after it was taken out"),
    pytest.param(None, "", FILE, id="nothing"),
]  # fmt: skip


CAMERAS = {"cam": {"source": "0", "zones": FILE, "lines": {"l": {"start": [0, 0], "end": [1, 1]}}}}


def wish(old: dict[str, Any] | None) -> dict[str, Any]:
    """What is wanted before: of other things, too."""
    desired: dict[str, Any] = {"rules": {"night": {"min_score": 0.5}}, "cameras": {"other": {"max_fps": 5}}}
    if old is not None:
        desired["cameras"]["cam"] = {"zones": old, "max_fps": 9}
    return desired


FATES: list[Any] = [
    pytest.param(None, "sent", id="nothing was said"),
    pytest.param({"revision": 6, "state": "applied", "applied": 6}, "sent", id="that is of the one before"),
    pytest.param({"revision": 7, "state": "waiting", "applied": 6}, "waiting", id="not taken yet"),
    pytest.param({"revision": 7, "state": "trial", "applied": 7}, "trial", id="on trial"),
    pytest.param({"revision": 7, "state": "applied", "applied": 7}, "holds", id="applied"),
    pytest.param({"revision": 7, "state": "none", "applied": None}, "holds", id="nothing is wanted any more"),
    pytest.param({"revision": 7, "state": "refused", "applied": 6}, "refused", id="refused"),
    pytest.param({"revision": 7, "state": "refused", "applied": 7}, "holds", id="the bundle alone is refused"),
    pytest.param({"revision": 7, "state": "waiting", "applied": 7}, "holds", id="the bundle alone waits"),
    pytest.param({"revision": 7, "state": "rolled-back", "applied": None}, "rolled-back", id="taken back"),
    pytest.param({"revision": 8, "state": "applied", "applied": 8}, "passed", id="somebody wants something newer"),
]


@pytest.fixture(scope="module")
def played(play: Play) -> Any:
    """What the page makes of each of `MERGES`, and an arrow; one run of Node.js."""
    steps = []
    for old, change, _ in (each.values for each in MERGES):
        holds = merged({"cameras": CAMERAS}, wish(old))["cameras"]["cam"]
        steps.append(
            f"(() => {{ const base = zones.shapesOf({json.dumps(holds)}); let now = base.map((each) => ({{...each}}));"
            f'{change} return zones.mergedConfig({json.dumps(wish(old))}, "cam", base, now); }})()'
        )
    said = [each.values[0] for each in FATES]
    arrow = "zones.arrowOf([[0.2, 0.5], [0.8, 0.5]], {width: 200, height: 100}, 0.1)"
    return play(
        f"const RECT = {json.dumps(RECT)};\n"
        f"console.log(JSON.stringify({{ merges: [{', '.join(steps)}], arrow: {arrow}, "
        f"fates: {json.dumps(said)}.map((each) => zones.fateOf(each, 7)) }}));"
    )


@pytest.mark.parametrize(
    ("number", "old", "wanted"),
    [pytest.param(n, each.values[0], each.values[2], id=each.id) for n, each in enumerate(MERGES)],
)
def test_a_change_lies_over_the_file_as_it_was_drawn(
    played: Any, number: int, old: dict[str, Any] | None, wanted: dict[str, Any]
) -> None:
    config = played["merges"][number]
    after = merged({"cameras": CAMERAS}, config)["cameras"]["cam"]
    assert after["zones"] == wanted
    assert after["lines"] == CAMERAS["cam"]["lines"]
    assert after.get("max_fps") == (9 if old is not None else None)
    before = wish(old)
    assert config["rules"] == before["rules"]
    assert config["cameras"]["other"] == before["cameras"]["other"]


def test_in_is_to_the_right_of_a_line_and_the_arrow_stands_straight(played: Any) -> None:
    arrow = played["arrow"]
    assert arrow["from"] == [0.5, 0.5]
    assert arrow["tip"] == pytest.approx([0.5, 0.7]), "y points down: right of the way to the right is below"


@pytest.mark.parametrize(
    ("number", "fate"), [pytest.param(n, each.values[1], id=each.id) for n, each in enumerate(FATES)]
)
def test_what_became_of_a_change_is_read_from_what_the_device_reports(played: Any, number: int, fate: str) -> None:
    assert played["fates"][number] == fate


@pytest.mark.parametrize(
    "applied", [pytest.param(None, id="its file holds"), pytest.param(6, id="an earlier one holds")]
)
def test_what_the_device_did_not_take_is_not_wanted_again(play: Play, applied: int | None) -> None:
    told = play(f"""
Object.assign(globalThis, {{ addEventListener: () => {{}}, requestAnimationFrame: () => {{}} }});
const {{ beginDraft }} = await load("zone_draft");
const {{ beginAtFile, load: read, save, untaken }} = await load("zone_saving");
const put = [];
const api = {{
  get: async () => ({{ revision: 7, config: {{ rules: {{ bad: {{}} }} }} }}),
  ask: async (method, path, body) => (put.push(body), {{ revision: 8 }}),
}};
const reported = {{ revision: 7, state: "refused", applied: {json.dumps(applied)} }};
const info = {{ cameras: {json.dumps(CAMERAS)} }};
const device = {{ key: "a/b", site: "a", device: "b", status: null, reported, info }};
const draft = beginDraft(device, "cam");
await read(api, device, draft);
const found = untaken(device, draft);
beginAtFile(device, draft);
const after = untaken(device, draft);
draft.remove(draft.now.find((each) => each.name === "gate").uid);
await save(api, device, draft);
console.log(JSON.stringify({{ found, after, put }}));
""")
    assert told["found"] == {"revision": 7, "applied": applied}
    assert told["after"] is None
    (put,) = told["put"]
    assert put["based_on"] == 7
    yard = {"polygon": FILE["yard"]["polygon"], "labels": FILE["yard"]["labels"]}
    zones = {"gate": None} if applied is None else {"gate": None, "yard": yard}  # the file may have another yard
    assert put["config"]["cameras"]["cam"]["zones"] == zones
    assert "rules" not in put["config"]


# --- in a browser -----------------------------------------------------------------------------------------------------


expect.set_options(timeout=20_000)


class Plant:
    """The page of an agent on the belt, its fleet's server, and what the broker says of it."""

    def __init__(self, page: Page, served: Any, voice: Any, address: str) -> None:
        self.page, self.served, self.voice, self.address = page, served, voice, address
        self.dialog, self.editor = page.get_by_role("dialog"), page.locator(".zone-edit")

    def newest(self, topic: t.Topic, kind: Any) -> Any:
        said = [payload for name, payload, _ in list(self.voice.heard) if name == str(topic) and payload]
        return decode(said[-1], kind) if said else None

    @property
    def info(self) -> Info | None:
        return self.newest(t.InfoTopic(*AT), Info)  # type: ignore[no-any-return]

    @property
    def reported(self) -> Reported | None:
        return self.newest(t.ReportedTopic(*AT), Reported)  # type: ignore[no-any-return]

    @property
    def desired(self) -> Desired | None:
        return self.newest(t.DesiredTopic(*AT), Desired)  # type: ignore[no-any-return]

    def button(self, name: str, within: Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("button", name=name, exact=True)

    def edit(self) -> None:
        self.page.goto(f"{self.address}/#/device/{AT[0]}/{AT[1]}")
        self.button("Edit zones and lines").click()
        expect(self.button("Draw a zone")).to_be_visible()

    def click(self, x: float, y: float, *, double: bool = False) -> None:
        ground = self.page.locator(".zones .ground")
        ground.scroll_into_view_if_needed()
        box = ground.bounding_box()
        assert box is not None
        act = self.page.mouse.dblclick if double else self.page.mouse.click
        act(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def save(self, *changes: str) -> None:
        self.button("Save…").click()
        for each in changes:
            expect(self.dialog).to_contain_text(each)
        self.button("Save", self.dialog).click()

    def close(self, says: str, *, title: str = "Done") -> None:
        expect(self.dialog.get_by_text(title, exact=True)).to_be_visible(timeout=30_000)
        expect(self.dialog).to_contain_text(says)
        self.button("Close", self.dialog).click()
        expect(self.dialog).to_have_count(0)


@pytest.fixture
def plant(
    page: Page, broker: Any, make_device: Callable[..., Any], make_site: Callable[..., str], belt_repo: Path,
    make_voice: Callable[[str], Any], playing: Any, serving: Any, tmp_path: Path,
) -> Iterator[Plant]:  # fmt: skip
    (port,) = playing.free_ports(1)
    make_device(broker.url, cameras={"belt": BELT}, more=RULE)
    options = {"origins": (f"http://127.0.0.1:{port}",)}
    with serving.Served(tmp_path, broker.url, belt_repo, options=options) as served:
        address = make_site(broker.ws, api=served.url, options=("--bind", f"127.0.0.1:{port}"))
        voice = make_voice(broker.url)
        voice.listen(*(f"{t.ROOT}/{AT[0]}/{AT[1]}/{name}" for name in ("info", "reported", "desired")))
        page.goto(f"{address}/#/sign-in")
        page.get_by_label("Token").fill(served.tokens[Role.OPERATE])
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_text("Signed in as")).to_be_visible()
        yield Plant(page, served, voice, address)


def drawn(plant: Plant) -> None:
    """A zone with the pointer and by numbers, a line, and one that is taken out."""
    page = plant.page
    plant.button("Draw a zone").click()
    for corner in ((0.6, 0.4), (0.9, 0.4), (0.2, 0.2)):
        plant.click(*corner)
    page.keyboard.press("Escape")  # the last one was wrong
    plant.click(0.9, 0.8)
    plant.click(0.6, 0.8, double=True)
    name = page.get_by_label("Name", exact=True)
    name.fill("exit")
    page.get_by_label("Only these").check()
    expect(plant.editor.locator(".zone-wrong")).to_contain_text("Choose labels")
    page.get_by_label("Labels").get_by_label("7").check()

    page.get_by_label("Corner 3, y").fill("0.2")  # its edges cross now
    expect(plant.editor.locator(".zone-wrong")).to_contain_text("cross or touch")
    expect(plant.button("Save…")).to_be_disabled()
    page.get_by_label("Corner 3, y").fill("0.8")
    expect(plant.editor.locator(".zone-wrong")).to_have_text("")

    plant.button("Draw a line").click()
    plant.click(0.5, 0.9)
    plant.click(0.5, 0.3)
    plant.button("Turn round").click()
    plant.editor.get_by_role("button", name="old").click()
    plant.button("Delete the zone").click()


def test_a_zone_is_drawn_saved_and_holds(
    plant: Plant,
    guard: Any,
    eventually: Callable[[Callable[[], object]], None],
    complaints: Callable[[Page], list[str]],
) -> None:
    page = plant.page
    guard.allow("409")  # as the browser's console tells it; the page says what it means
    plant.edit()
    expect(plant.editor.locator(".zone-list li")).to_have_count(2)

    drawn(plant)
    assert complaints(page) == []

    plant.save("Zone exit: new, 4 corners; counts only 7", "Zone old: taken out", "Line line-1: new")
    plant.close("holds")
    reported, info, desired = plant.reported, plant.info, plant.desired
    assert reported is not None
    assert info is not None
    assert desired is not None
    assert reported.applied == reported.revision == desired.revision == 1
    camera = info.cameras["belt"]
    assert sorted(camera.zones) == ["exit", "yard"]
    assert camera.zones["exit"].labels == ["7"]
    corners = [value for point in camera.zones["exit"].polygon for value in point]
    assert corners == pytest.approx([0.6, 0.4, 0.9, 0.4, 0.9, 0.8, 0.6, 0.8], abs=0.02)
    assert camera.lines["line-1"].start == pytest.approx((0.5, 0.3), abs=0.02)
    assert camera.lines["line-1"].end == pytest.approx((0.5, 0.9), abs=0.02)
    expect(plant.editor.get_by_text("Revision 1 holds.")).to_be_visible()
    expect(plant.button("Save…")).to_be_disabled()

    overtaken(plant, eventually)


def overtaken(plant: Plant, eventually: Callable[[Callable[[], object]], None]) -> None:
    """Somebody else changes what is wanted meanwhile: nothing is written until it was read, and nothing is lost."""
    desired = plant.desired
    assert desired is not None
    with plant.served.client(Role.OPERATE) as http:
        other = {**(desired.config or {}), "rules": {"fast": {"min_score": 0.5}}}
        answer = http.put("/v1/devices/plant-1/belt-1/config", json={"config": other, "based_on": 1})
        assert answer.json() == {"revision": 2}
    plant.editor.get_by_role("button", name="line-1").click()
    plant.button("Delete the line").click()
    plant.save("Line line-1: taken out")
    plant.close("Nothing was written", title="Not done")
    plant.button("Load again").click()
    plant.save("Line line-1: taken out")
    expect(plant.dialog.get_by_text("Revision 3")).to_be_visible()
    plant.button("Close", plant.dialog).click()  # it goes on without the dialog
    eventually(lambda: plant.desired is not None and plant.desired.revision == 3)
    wanted = plant.desired
    assert wanted is not None
    assert wanted.config is not None
    assert wanted.config["rules"] == other["rules"]
    assert wanted.config["cameras"]["belt"]["lines"] == {"line-1": None}
    plant.button("Close", plant.editor).click()
    expect(plant.button("Edit zones and lines")).to_be_visible()


def by_keyboard(plant: Plant) -> None:
    """What takes the place of a button that was pressed has the focus: nobody begins anew at the top of the page."""
    expect(plant.page).to_have_title("plant-1/belt-1 · Overview · TinySight")
    for pressed, then in (
        ("Draw a zone", "Put one in the middle"), ("Stop drawing", "Draw a zone"), ("Close", "Edit zones and lines"),
        ("Edit zones and lines", "Draw a zone"),
    ):  # fmt: skip
        plant.button(pressed).press("Enter")
        expect(plant.button(then)).to_be_focused()


def test_what_the_device_refuses_is_told_and_taken_back_and_who_only_looks_changes_nothing(
    plant: Plant, eventually: Callable[[Callable[[], object]], None]
) -> None:
    page = plant.page
    plant.edit()
    by_keyboard(plant)
    plant.editor.get_by_role("button", name="yard").click()
    plant.button("Delete the zone").click()  # a rule of the device's file needs it
    page.locator(".bar").get_by_role("link", name="Events").click()
    expect(page.get_by_role("heading", name="Events")).to_be_focused()
    page.go_back()
    expect(plant.editor.locator(".zone-list li")).to_have_count(1)  # what was not saved is still there
    plant.save("Zone yard: taken out")
    plant.close("No zone 'yard'", title="Not done")
    expect(plant.editor.get_by_text("The device has refused revision 1.")).to_be_visible()
    reported = plant.reported
    assert reported is not None
    assert (reported.revision, reported.applied, reported.state.value) == (1, None, "refused")
    info = plant.info
    assert info is not None
    assert "yard" in info.cameras["belt"].zones
    desired = plant.desired
    assert desired is not None
    assert desired.config is not None, "it is still wanted"

    plant.button("Take back").click()
    plant.button("Take back", plant.dialog).click()
    expect(plant.dialog.get_by_text("Taking back (revision 2)")).to_be_visible()
    plant.button("Close", plant.dialog).click()  # the device takes one every 10 s
    expect(plant.editor.get_by_text("Taking back (revision 2)")).to_be_visible()
    eventually(lambda: plant.desired is not None and plant.desired.revision == 2)
    desired = plant.desired
    assert desired is not None
    assert desired.config is None, "nothing but the device's own file"

    plant.button("Close", plant.editor).click()
    expect(plant.editor.get_by_text("What you changed is not saved.")).to_be_visible()
    plant.button("Go on editing").click()
    plant.button("Undo").click()
    expect(plant.editor.locator(".zone-list li")).to_have_count(2)
    expect(plant.editor.get_by_text("Nothing is changed.")).to_be_visible()
    plant.button("Close", plant.editor).click()
    expect(plant.button("Edit zones and lines")).to_be_visible()

    page.goto(f"{plant.address}/#/sign-in")
    page.get_by_label("Token").fill(plant.served.tokens[Role.READ])
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("Signed in as read-1")).to_be_visible()
    page.goto(f"{plant.address}/#/device/{AT[0]}/{AT[1]}")
    expect(plant.button("Edit zones and lines")).to_be_disabled()
    expect(page.get_by_text("Your token may only look: acting needs one of role operate.")).to_have_count(2)
    expect(page.locator(".shapes polygon")).to_have_count(2)
