"""From the list of devices to one event and back over a broker that was gone: the embedded broker and a real agent."""

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tinysight_contract import topics as t
from tinysight_contract.messages import Counts, decode

expect.set_options(timeout=30_000)

TABLE = """() => {
  const rows = [...document.querySelectorAll("table.counts tbody tr")];
  const cells = rows.map((row) => [...row.children].map((cell) => cell.textContent));
  return [document.querySelector("table.counts")?.dataset.at, Object.fromEntries(cells)];
}"""


def boxes(page: Page) -> str:
    """What is painted over the camera's picture."""
    return str(page.evaluate("document.querySelector('.stage canvas').toDataURL()"))


def counts_that_agree(page: Page, voice: Any) -> set[str]:
    """The time of the counts that the page shows, when the device said just the same; fail when it did not."""
    at, shown = page.evaluate(TABLE)
    for topic, payload, _ in list(voice.heard):
        if topic.endswith("/counts") and json.loads(payload)["at"] == at:
            assert shown == {label: str(count) for label, count in decode(payload, Counts).objects.items()}
            return {at}
    return set()


def test_from_the_list_to_an_event_and_over_a_restart_of_the_broker(
    page: Page,
    guard: Any,
    embedded: Any,
    make_site: Callable[..., str],
    make_page: Callable[..., Page],
    make_device: Callable[..., Any],
    make_voice: Callable[[str], Any],
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    site = make_site(embedded.ws)
    guard.allow("WebSocket connection")  # while the broker is away
    make_device(embedded.url)

    voice = make_voice(embedded.url)
    voice.listen(f"{t.ROOT}/#")

    page.goto(site)
    page.locator(".devices .row").get_by_role("link", name="belt-1").click()
    expect(page.locator("h1")).to_have_text("plant-1/belt-1")
    expect(page.locator(".stage canvas")).to_have_attribute("data-boxes", re.compile(r"[1-9]"))
    first = boxes(page)
    eventually(lambda: boxes(page) != first)
    same = set[str]()

    def agreed() -> bool:
        same.update(counts_that_agree(page, voice))
        return len(same) >= 3

    eventually(agreed)

    embedded.kill()
    expect(page.locator(".link.away")).to_be_visible()
    expect(page.get_by_text("What stands here is what was known before.")).to_be_visible()
    embedded.start()
    expect(page.locator(".link.online")).to_be_visible()
    expect(page.locator(".link.away")).to_have_count(0)
    expect(page.locator(".stage canvas")).to_have_attribute("data-boxes", re.compile(r"[1-9]"))
    again = boxes(page)
    eventually(lambda: boxes(page) != again)

    page.get_by_role("link", name="Events").click()
    page.locator(".events .row a[href*='#/event/']").first.click()
    expect(page.get_by_text("heard by this page", exact=False)).to_be_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    address = page.evaluate("navigator.clipboard.readText()")
    other = make_page()
    other.goto(address)
    expect(other.locator("h1")).to_have_text(page.locator("h1").inner_text())
    expect(other.get_by_text("belt-1").first).to_be_visible()
