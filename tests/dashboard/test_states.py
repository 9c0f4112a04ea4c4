"""States that are easily forgotten: nobody there, nobody let in, long gone, another version, a wrong clock, malice."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

expect.set_options(timeout=20_000)  # machines that run all tests at once are slow

GOLDEN = Path(__file__).parents[1] / "golden"
EVENT, STATUS, HEALTH, INFO, ALERT, COUNTS = (
    json.loads((GOLDEN / f"{name}.json").read_text())
    for name in ("event", "status", "health", "info", "alert", "counts")
)
ME = "tinysight/v1/plant-1/belt-7"
SCRIPT = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"


def at(ago: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) - ago).isoformat().replace("+00:00", "Z")


def encoded(told: object) -> bytes:
    return json.dumps(told).encode()


def present(voice: Any, device: str = "belt-7") -> None:
    """Have a device that does well."""
    voice.say(f"tinysight/v1/plant-1/{device}/status", encoded({**STATUS, "state": "online"}), retain=True)


def shows(page: Page, text: str) -> None:
    expect(page.locator("main")).to_contain_text(text)


def test_a_page_without_a_broker_heals_when_there_is_one(
    make_broker: Callable[..., Any], make_site: Callable[..., str], make_voice: Any, page: Page, guard: Any
) -> None:
    guard.allow("WebSocket connection")
    broker = make_broker()
    broker.end()
    page.goto(make_site(broker.ws))
    expect(page.get_by_role("alert")).to_have_text("The broker does not answer.")  # without a figure that ticks
    shows(page, "Tried again every two seconds")
    shows(page, f"Look whether the broker runs and takes WebSockets at {broker.ws}")
    expect(page.locator(".link")).to_contain_text("No broker")
    broker.start()
    expect(page.locator(".link")).to_contain_text("Live")
    expect(page.get_by_role("heading", name="No devices yet")).to_be_visible()
    shows(page, "tinysight simulate --broker mqtt://127.0.0.1")
    present(make_voice(broker.url))
    expect(page.locator(".devices .row")).to_contain_text("plant-1/belt-7")


def test_who_is_not_let_in_can_mend_it_and_a_reader_sees_all(
    make_broker: Callable[..., Any], make_site: Callable[..., str], make_voice: Any, page: Page
) -> None:
    secret = "correct horse"  # noqa: S105 -- of this test alone
    broker = make_broker(users={"anna": ("all", "readwrite"), "ben": (secret, "read")})
    present(make_voice(broker.url_of("anna")))
    page.goto(make_site(broker.ws))
    shows(page, "The broker does not let this user in.")
    page.get_by_label("User").fill("ben")
    page.get_by_label("Password").fill("wrong")
    page.evaluate("window.form = document.querySelector('main form')")
    with page.expect_websocket() as web:
        page.get_by_role("button", name="Connect").click()
    if not web.value.is_closed():
        web.value.wait_for_event("close")
    expect(page.locator(".link")).to_contain_text("Not let in")
    assert page.evaluate("window.form.isConnected"), "the form stays while another user is tried"
    expect(page.get_by_role("alert")).to_contain_text("The broker does not let this user in.")
    page.get_by_label("Password").fill(secret)
    page.get_by_role("button", name="Connect").click()
    expect(page.locator(".devices .row")).to_contain_text("plant-1/belt-7")
    expect(page.locator(".who")).to_have_text("ben")
    expect(page.get_by_text("may not read everything")).to_have_count(0)
    kept = page.evaluate("[location.href, document.cookie, JSON.stringify(localStorage), document.body.innerHTML]")
    assert kept[1:3] == ["", "{}"]
    assert not any(word in each for each in kept for word in (secret, "correct%20horse", "wrong"))
    page.reload()
    expect(page.locator(".devices .row")).to_contain_text("plant-1/belt-7")
    page.goto(page.url.split("#", maxsplit=1)[0] + "#/sign-in")
    page.get_by_role("button", name="Sign out").click()
    shows(page, "The broker does not let this user in.")
    assert page.evaluate("sessionStorage.length") == 0


def test_what_is_gone_foreign_or_late_is_said(site: str, broker: Any, make_voice: Any, page: Page) -> None:
    voice, gone = make_voice(broker.url), at(timedelta(days=3, hours=2))
    voice.say(f"{ME}/status", encoded({**STATUS, "state": "offline", "reason": "", "at": gone}), retain=True)
    voice.say(f"{ME}/health", encoded({**HEALTH, "at": gone}), retain=True)
    voice.say("tinysight/v2/plant-1/newer/info", b"\x00 not json", retain=True)
    page.goto(site)
    row = page.locator(".devices .row")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Offline")
    expect(row).to_contain_text("Never came back: nothing heard for 3 days, since")
    shows(page, "A device speaks another version of the contract.")
    shows(page, "plant-1/newer (v2)")
    expect(page.get_by_text("clock is off")).to_have_count(0)  # what the broker kept is old, and no wrong clock
    present(voice, "belt-8")
    voice.say("tinysight/v1/plant-1/belt-8/health", encoded({**HEALTH, "at": at(timedelta(minutes=-10))}))
    shows(page, "A clock is off.")
    shows(page, "by up to 10 min")


def test_alerts_stand_first_and_columns_sort(site: str, broker: Any, make_voice: Any, page: Page) -> None:
    voice = make_voice(broker.url)
    for number, place in enumerate(["a", "b", "a", "c", "b"]):
        mine = f"tinysight/v1/{place}/d-{number}"
        voice.say(f"{mine}/status", encoded({**STATUS, "state": "online"}), retain=True)
        health = {**HEALTH, "at": at(), "cameras": {"cam0": {**next(iter(HEALTH["cameras"].values())), "fps": number}}}
        voice.say(f"{mine}/health", encoded({**health, "verdict": {"state": "ok"}}), retain=True)
        alert = {**ALERT, "severity": "error" if number == 3 else "warning", "since": at(timedelta(hours=number))}
        voice.say(f"{mine}/alert/hot", encoded(alert), retain=True)
    page.goto(site)
    alerts = page.locator(".standing li")
    expect(alerts).to_have_count(3)
    expect(alerts.first).to_contain_text("c/d-3")
    expect(alerts.first).to_contain_text("since 3 h")
    page.get_by_role("button", name="2 more").click()
    expect(alerts).to_have_count(5)
    names = page.locator(".devices .c-name")
    expect(names).to_have_text(["c/d-3", "a/d-0", "a/d-2", "b/d-1", "b/d-4"])  # the failing one, then by name
    head = page.get_by_role("columnheader", name="fps")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    expect(names).to_have_text(["a/d-0", "b/d-1", "a/d-2", "c/d-3", "b/d-4"])
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    expect(names.first).to_have_text("b/d-4")
    page.get_by_role("button", name="b", exact=True).click()
    expect(names).to_have_text(["b/d-4", "b/d-1"])
    shows(page, "2 devices · 2 cameras · 5 fps")
    assert page.url.endswith("#/?sort=-fps&site=b")


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


RTL = "\u202e\u2067gnp.exe\u0000\ufeff"
HOSTILE_EVENTS = [
    encoded({**EVENT, "label": SCRIPT, "zones": {"now": [SCRIPT], "entered": [SCRIPT, "__proto__"], "dwell_s": {}}}),
    encoded({**EVENT, "id": "x-1", "label": "__proto__", "model": {**EVENT["model"], "name": SCRIPT, "version": RTL}}),
    encoded({**EVENT, "id": "x-2", "label": RTL, "rules": ["constructor", SCRIPT]}),
    encoded({**EVENT, "id": "x-3", "label": "w" * 20_000, "reason": "r" * 9000}),
    encoded({**EVENT, "id": SCRIPT}),
    encoded({**EVENT, "id": "x-4", "started_at": SCRIPT, "seen_at": "99999-99-99", "ended_at": ""}),
    encoded({**EVENT, "id": "x-5", "frame": {"width": 1, "height": 10**300}, "seq": 2**60, "box": [1, 1, 0, 0]}),
    encoded({**EVENT, "site": "plant-2"}),
    encoded(EVENT).replace(b'"score": 0.9375', b'"score": NaN'),
    encoded(EVENT).replace(b'"score": 0.9375', b'"score": 1e999'),
    b'{"__proto__": {"ok": true, "label": "p"}, "constructor": {"prototype": {"hacked": 1}}}',
    encoded({**EVENT, "id": "x-6"})[:-1] + b', "__proto__": {"polluted": 1}}',
    encoded({**EVENT, "id": "x-7"})[:-1] + b', "deep": ' + nested(16_000).encode() + b"}",
    nested(30_000).encode(),
    encoded({**EVENT, "label": "m" * 10**6}),
    b"\xff\xfe\x00", b"null", b"[]", b"0", b'"' + b"\\u0000" * 100 + b'"',
]  # fmt: skip
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.hacked=1'><script>window.hacked=1</script></svg>"


def hostile(voice: Any) -> None:
    """Say all that a device under somebody else's hands could."""
    voice.say(f"{ME}/status", encoded({**STATUS, "state": "online", "reason": SCRIPT}), retain=True)
    info = {**INFO, "software": {SCRIPT: SCRIPT, "__proto__": "x"}, "bundle": {**INFO["bundle"], "name": SCRIPT}}
    voice.say(f"{ME}/info", encoded(info), retain=True)
    verdict = {"state": "failing", "code": "x", "what": SCRIPT + "w" * 9000, "mend": RTL}
    health = {**HEALTH, "at": at(), "verdict": verdict, "cameras": {}}
    voice.say(
        f"{ME}/health", encoded(health)[:-1] + b', "latency_ms": {"__proto__": {"p50": 1, "p95": 2}}}', retain=True
    )
    alert = {**ALERT, "what": SCRIPT, "mend": f"javascript:{SCRIPT}", "since": SCRIPT}
    voice.say(f"{ME}/alert/constructor", encoded(alert), retain=True)
    voice.say(f"{ME}/alert/big", b"[" * 10**6, retain=True)
    voice.say(
        f"{ME}/camera/constructor/counts", encoded({**COUNTS, "objects": {"__proto__": 1, SCRIPT: 2}}), retain=True
    )
    for payload in HOSTILE_EVENTS:
        voice.say(f"{ME}/camera/cam0/event", payload)
    for of in ("x-1", "x-2", "x-3"):
        for picture in (SVG, b"\xff\xd8\xff" + SVG, b"\xff\xd8\xff\xe0" + b"\x00" * 5000, b"GIF89a" + SVG, b"\xff\xd8"):
            voice.say(f"{ME}/camera/cam0/snapshot/{of}", picture, qos=0)
    voice.say("tinysight/v9/<b>x/<img src=x>/info", SCRIPT.encode(), retain=True)
    voice.say(f"{ME}/camera/{'c' * 200}/event", encoded(EVENT))


def test_a_hostile_device_scripts_nothing_and_breaks_nothing(
    site: str, broker: Any, make_voice: Any, page: Page
) -> None:
    voice, rows = make_voice(broker.url), page.locator(".events .row")
    page.goto(site.rstrip("/") + "/#/events")
    for _ in range(100):
        voice.say(f"{ME}/camera/cam0/event", encoded({**EVENT, "boot_id": "first", "id": "first"}))
        page.wait_for_timeout(100)
        if rows.count():
            break
    for route in ("events", "", "device/plant-1/belt-7", "event/plant-1/belt-7/cam0/x-2", "models"):
        page.evaluate("(route) => { location.hash = `#/${route}`; }", route)
        page.wait_for_timeout(100)
        hostile(voice)
        page.wait_for_timeout(400)
        found = "[window.hacked, {}.polluted, {}.ok, document.querySelectorAll('script').length]"
        assert page.evaluate(found) == [None, None, None, 1], route
        assert page.locator("main img[src=x], main img[onerror], main svg[onload]").count() == 0
        assert page.evaluate("document.querySelector('main').scrollWidth <= innerWidth"), route
    present(voice, "good")
    page.evaluate("location.hash = '#/'")
    expect(page.locator(".devices .row", has_text="plant-1/good")).to_be_visible()
    page.evaluate("location.hash = '#/events'")
    voice.say(
        f"{ME}/camera/cam0/event", encoded({**EVENT, "seq": 1, "boot_id": "last", "id": "last", "label": "still alive"})
    )
    expect(rows.first).to_contain_text("still alive")
    for kind in ("CSV", "JSON"):
        with page.expect_download():
            page.get_by_role("button", name=f"Save {kind}").click()
    assert page.evaluate("window.hacked") is None


def test_a_page_that_comes_back_from_the_cache_hears_again_and_what_was_cleared_is_gone(
    site: str, broker: Any, make_voice: Any, page: Page
) -> None:
    voice = make_voice(broker.url)
    present(voice)
    voice.say(f"{ME}/alert/kept", encoded(ALERT), retain=True)
    voice.say(f"{ME}/alert/over", encoded(ALERT), retain=True)
    page.goto(site)
    expect(page.locator(".standing li")).to_have_count(2)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    voice.say(f"{ME}/alert/over", b"", retain=True)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(page.locator(".standing li")).to_have_count(1)
    expect(page.locator(".standing li")).to_contain_text("kept")
    present(voice, "belt-8")
    expect(page.locator(".devices .row")).to_have_count(2)
