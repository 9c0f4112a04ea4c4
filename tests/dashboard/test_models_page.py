"""The page of models and those of rollouts: real brokers, simulated devices that update, a real fleet's server."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route, WebSocket, expect

from tinysight_contract import topics as t
from tinysight_deploy.fleet.keeping.tokens import Role

GOLDEN = Path(__file__).parents[1] / "golden"
INFO, METRICS, STATUS = (
    json.loads((GOLDEN / f"{name}.json").read_text()) for name in ("info", "modelmetrics", "status")
)
MARKUP = "<img src=x onerror=alert(1)>"
ANY = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
WOULD = {
    "target": "belt/belt-1.2.0.bundle", "bundle": "ab" * 32, "size_bytes": 5, "group": "all", "devices": 4, "online": 4,
    "have_it": 0, "bytes_at_most": 20, "stages": [{"stage": "100%", "devices": 4}],
}  # fmt: skip


def sign_in(page: Page, address: str, token: str) -> None:
    page.goto(f"{address}#/sign-in")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("Signed in as")).to_be_visible()


def eventually_in(page: Page, true: Callable[[], bool]) -> None:
    """Wait until something is true, while the page goes on."""
    for _ in range(400):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not become true")


def confirm(page: Page, verb: str, says: str, *, reason: str = "") -> None:
    """Do what the dialog asks for, and wait for what the server says then."""
    dialog = page.get_by_role("dialog")
    if reason:
        dialog.get_by_label("Reason, for the audit log").fill(reason)
    dialog.get_by_role("button", name=verb, exact=True).click()
    expect(dialog.get_by_text("Done", exact=True)).to_be_visible(timeout=20_000)
    expect(dialog).to_contain_text(says)
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)


def test_a_bundle_shows_its_devices_what_they_find_and_how_far_they_drift(
    page: Page, site: str, broker: Any, make_voice: Callable[[str], Any]
) -> None:
    voice = make_voice(broker.url)

    def tell(device: str, drift: float | None, labels: dict[str, int], scores: list[int], **bundle: object) -> None:
        info = {**INFO, "bundle": {**INFO["bundle"], "digest": "ab" * 32, **bundle}}
        model = {**METRICS, "bundle": info["bundle"]["digest"], "drift": drift, "labels": labels, "scores": scores}
        for topic, told in (
            (t.StatusTopic("plant-1", device), {**STATUS, "state": "online"}),
            (t.InfoTopic("plant-1", device), info),
            (t.ModelTopic("plant-1", device), model),
        ):
            voice.say(topic, json.dumps(told).encode(), retain=True)

    high, low = [0] * 19 + [60], [0, 30] + [0] * 18
    tell("near", 0.05, {"bolt": 60}, high)
    tell("far", 0.81, {MARKUP: 20, "__proto__": 10}, low)
    tell("mute", None, {}, [0] * 20, digest="cd" * 32, version="9.9.9", name="other")
    trial = {"target": "p/belt-2.0.0.bundle", "state": "trial", "at": STATUS["at"]}
    reported = {"revision": 3, "at": STATUS["at"], "bundle": "ab" * 32, "state": "trial", "update": trial}
    voice.say(t.ReportedTopic("plant-1", "near"), json.dumps(reported).encode(), retain=True)

    sent: list[bytes] = []

    def overhear(web: WebSocket) -> None:
        web.on("framesent", lambda frame: sent.append(frame if isinstance(frame, bytes) else frame.encode()))

    page.on("websocket", overhear)
    page.goto(f"{site}#/models")
    row = page.get_by_role("row").filter(has_text=INFO["bundle"]["name"]).filter(has_text="abababab")
    expect(row).to_contain_text("2")
    expect(row).to_contain_text("1 drifts")
    updates = page.get_by_role("region", name="Updates that are not confirmed")
    expect(updates).to_contain_text("1 on trial")
    expect(updates).to_contain_text("plant-1/near")
    expect(page.get_by_text("this page knows none")).to_be_visible()  # it was served without a fleet's server

    row.get_by_role("link").click()
    expect(page).to_have_url(re.compile(rf"bundle={'ab' * 32}"))
    detail = page.locator("section.bundle")
    expect(detail).to_contain_text("90 findings in 600 frames of 2 of 2 devices. Half are at 0.95 or above")
    expect(detail).to_contain_text("33 % are below 0.5")
    expect(detail.locator(".mix li")).to_have_text(
        [re.compile("bolt.*60.*67 %"), re.compile("<img.*20"), re.compile("__proto__.*10")]
    )
    assert detail.locator("svg.bars rect:has(title)").count() == 20
    devices = detail.locator(".drift .row")
    expect(devices.nth(0)).to_contain_text("plant-1/far")
    expect(devices.nth(0)).to_contain_text("0.81 ▲ drifts")
    expect(devices.nth(1)).to_contain_text("plant-1/near")

    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="Models")).to_have_count(0)
    topics = (b"+/+/model", b"+/+/reported")  # asked for once, and ended once
    eventually_in(page, lambda: [b"".join(sent).count(topic) for topic in topics] == [2, 2])


def test_the_server_is_asked_again_after_errors_and_not_while_nobody_looks(
    page: Page, make_site: Callable[..., str], broker: Any, guard: Any
) -> None:
    api, asked, told = "http://127.0.0.1:9", [], [503, 200, 200]
    site = make_site(broker.ws, api=api)
    me = {"name": "ben", "role": "read", "may": ["read"], "site": None, "device": None}
    page.route(f"{api}/v1/me", lambda route: route.fulfill(json=me, headers={"Access-Control-Allow-Origin": "*"}))

    def answer(route: Route) -> None:
        asked.append(route.request.headers["authorization"])
        body: dict[str, Any] = {"items": [], "next": None, "detail": "The database is away.", "mend": "Wait for it."}
        status = told.pop(0) if told else 200
        route.fulfill(json=body, status=status, headers={"Access-Control-Allow-Origin": "*"})

    page.route(f"{api}/v1/rollouts?*", answer)
    guard.allow("status of 503")
    page.add_init_script("sessionStorage.setItem('tinysight.session', JSON.stringify({token: 'of-ben'}))")
    page.clock.install()
    page.goto(f"{site}#/models")
    expect(page.get_by_text("The database is away. Wait for it. It is asked again in 6 s.")).to_be_visible()
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)
    page.clock.run_for(3000)
    assert asked == ["Bearer of-ben"]
    page.clock.resume()
    page.clock.run_for(3000)
    expect(page.get_by_text("There was none yet.")).to_be_visible()

    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.unseen, configurable: true})")
    page.evaluate("window.unseen = true")
    page.clock.run_for(60_000)
    seen = len(asked)
    page.clock.run_for(60_000)
    assert len(asked) == seen
    page.evaluate("window.unseen = false; document.dispatchEvent(new Event('visibilitychange'))")
    eventually_in(page, lambda: len(asked) == seen + 1)


def test_who_the_token_is_of_is_asked_until_the_server_says_it(
    page: Page, make_site: Callable[..., str], broker: Any, guard: Any
) -> None:
    api = "http://127.0.0.1:9"
    site = make_site(broker.ws, api=api)
    me = {"name": "ben", "role": "operate", "may": ["read", "operate"], "site": None, "device": None}
    away = [True]

    def answer(route: Route) -> None:
        if route.request.headers.get("authorization") != "Bearer of-ben":
            route.fulfill(json={"detail": "No such token."}, status=401, headers=ANY)
        elif away and away.pop():
            route.abort("connectionrefused")
        else:
            route.fulfill(json=me, headers=ANY)

    page.route(f"{api}/v1/me", answer)
    guard.allow("CONNECTION_REFUSED|status of 401")
    page.add_init_script("sessionStorage.setItem('tinysight.session', JSON.stringify({token: 'of-ben'}))")
    page.goto(f"{site}#/sign-in")
    expect(page.get_by_text("The fleet's server does not say who you are.")).to_be_visible()
    expect(page.get_by_text("The token is not taken.")).to_have_count(0)
    expect(page.get_by_text("Signed in as ben (operate).")).to_be_visible(timeout=20_000)

    held: list[Route] = []
    page.route(f"{api}/v1/releases", lambda route: route.fulfill(json={"items": []}, headers=ANY))
    page.route(f"{api}/v1/rollouts/preview", lambda route: held.append(route))  # noqa: PLW0108 -- playwright marks what it is given
    page.goto(f"{site}#/rollout/new")
    page.get_by_label("Release").fill("belt@1.2.0")
    page.get_by_role("button", name="Show what would happen").click()
    eventually_in(page, lambda: bool(held))
    page.get_by_label("Release").fill("belt@1.3.0")  # before the server has said what would happen
    held[0].fulfill(json=WOULD, headers=ANY)
    expect(page.get_by_role("button", name="Show what would happen")).to_be_enabled()
    page.get_by_role("button", name="Show what would happen").click()
    eventually_in(page, lambda: len(held) == 2)
    expect(page.get_by_role("region", name="What would happen")).to_have_count(0)
    held[1].fulfill(json={**WOULD, "target": "belt/belt-1.3.0.bundle"}, headers=ANY)
    expect(page.get_by_role("region", name="What would happen")).to_contain_text("belt-1.3.0")

    page.goto(f"{site}#/sign-in")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("The token is not taken.")).to_be_visible()


def test_a_rollout_is_looked_at_and_led_to_its_end(
    fleet: Any, broker: Any, make_site: Callable[..., str], make_page: Callable[..., Page], guard: Any
) -> None:
    address = make_site(broker.ws, api=fleet.url, options=("--bind", f"127.0.0.1:{fleet.port}"))

    looks = make_page()
    sign_in(looks, address, fleet.tokens[Role.READ])
    looks.goto(f"{address}#/models")
    start = looks.get_by_role("button", name="Start a rollout")
    expect(start).to_be_disabled()
    expect(looks.get_by_text("Your token may only look: acting needs one of role operate.")).to_be_visible()
    expect(looks.get_by_text("There was none yet.")).to_be_visible()

    leads = make_page()
    sign_in(leads, address, fleet.tokens[Role.OPERATE])
    guard.allow("status of 422|CONNECTION_RESET")
    id_ = begin_from(leads, address, fleet)
    looks.goto(f"{address}#/rollout/{id_}")
    expect(looks.get_by_role("button", name="Pause")).to_be_disabled()
    expect(looks.locator(".steps li")).to_contain_text(["1 of 1 asked", "waits for approval"])
    lead_to_its_end(leads, fleet, id_)
    what_is_told_of_it(leads)

    leads.goto(f"{address}#/models")
    expect(leads.locator(".rollouts tbody tr")).to_contain_text(["4 confirmed of 4"])
    expect(leads.locator(".bundles tbody tr")).to_contain_text(["belt 1.2.0"])


def begin_from(leads: Page, address: str, fleet: Any) -> str:
    """Begin a rollout by the form, with two mistakes on the way; its id."""
    leads.goto(f"{address}#/models")
    leads.get_by_role("button", name="Start a rollout").click()
    field = leads.locator("form")
    for name, text in {"bundle": "belt@9.0.0", "stages": "1,100%", "soak": "5x", "hold": "100%"}.items():
        field.locator(f"[name={name}]").fill(text)
    look = leads.get_by_role("button", name="Show what would happen")
    look.click()
    expect(leads.get_by_text("“5x” is no time.")).to_be_visible()
    field.locator("[name=soak]").fill("200ms")
    look.click()
    expect(leads.get_by_text("belt@9.0.0 is no release of the repository")).to_be_visible()
    field.locator("[name=bundle]").fill("belt@1.2.0")
    look.click()
    would = leads.get_by_role("region", name="What would happen")
    expect(would).to_contain_text("4 in all")
    expect(would).to_contain_text("After approval: 100%, about 3 more devices")
    assert fleet.state.rollouts() == []

    leads.get_by_role("button", name="Begin it").click()
    confirm(leads, "Begin", "1 device was asked")
    (rollout,) = fleet.state.rollouts()
    expect(leads.get_by_role("heading", name=rollout.id)).to_be_visible()
    return str(rollout.id)


def lead_to_its_end(leads: Page, fleet: Any, id_: str) -> None:
    leads.get_by_role("button", name="Pause").click()
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append(route.request.url)
        if len(lost) > 3:
            route.continue_()
        else:
            route.abort("connectionreset")

    leads.route(f"**/v1/rollouts/{id_}", lose)  # what is taken stays taken when the server is not reached meanwhile
    confirm(leads, "Pause", f"{id_} is paused", reason="a look at the belt")
    expect(leads.locator(".reason")).to_have_text("a look at the belt")
    leads.unroute(f"**/v1/rollouts/{id_}", lose)
    assert len(lost) > 3
    assert fleet.state.rollout(id_).phase == "paused"
    leads.get_by_role("button", name="Resume").click()
    confirm(leads, "Resume", f"{id_} is running")
    leads.get_by_role("button", name="Approve stage 1").click()
    confirm(leads, "Approve", f"{id_} is ")
    expect(leads.locator("h1 + .mood")).to_have_text("✓ Done", timeout=20_000)
    expect(leads.locator(".reason")).to_have_text("4 of 4 confirmed.")
    expect(leads.locator(".steps li")).to_contain_text(["1 confirmed", "3 confirmed"])


def what_is_told_of_it(leads: Page) -> None:
    log = leads.get_by_role("table", name="Audit log of this rollout")
    expect(log.locator(".row").filter(has_text="a look at the belt")).to_contain_text("operate-1")
    expect(log).to_contain_text("belt/belt-1.2.0.bundle to all")
    leads.get_by_role("table", name="Devices of this rollout").get_by_role("link", name="plant-1/belt-0001").click()
    gates = leads.get_by_role("table", name="What decides about this device")
    golden = gates.get_by_role("row").filter(has=leads.get_by_role("rowheader", name="golden"))
    expect(golden).to_contain_text("✓ Yes")
    expect(golden).to_contain_text("at most")
    expect(gates.get_by_role("row").last).to_contain_text("confirmed")
