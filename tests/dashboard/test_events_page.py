"""The list of events and an event's own page: an agent on the belt, and a voice that says the rest."""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tinysight_contract import topics as t

expect.set_options(timeout=20_000)  # machines that run all tests at once are slow

EVENT = json.loads((Path(__file__).parents[1] / "golden" / "event.json").read_text())
ME = t.EventTopic("plant-1", "belt-7", "cam0")


def event(seq: int, **changes: object) -> dict[str, Any]:
    """The golden event of an object of its own."""
    return {**EVENT, "seq": seq, "id": f"object-{seq}", **changes}


def encoded(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()


def link(told: dict[str, Any], *, path: str = "plant-1/belt-7/cam0/object-1") -> str:
    return f"#/event/{path}?e={base64.urlsafe_b64encode(encoded(told)).decode().rstrip('=')}"


class Reader:
    """A page that hears a voice."""

    def __init__(self, page: Page, site: str, voice: Any) -> None:
        self.page, self.site, self.voice = page, site, voice
        self.rows = page.locator(".events .row")

    def go(self, route: str) -> None:
        self.page.goto(f"{self.site.rstrip('/')}/{route}")

    def begin(self, route: str = "#/events", first: int = 1) -> None:
        """Open it, and say one event until it is heard; that this comes several times is no harm."""
        self.go(route)
        expect(self.page.locator(".link.online")).to_be_visible()
        for _ in range(100):
            self.say(event(first))
            self.page.wait_for_timeout(100)
            if self.rows.count() == 1:
                return
        raise AssertionError("the page heard nothing")

    def say(self, *told: dict[str, Any]) -> None:
        for each in told:
            self.voice.say(t.EventTopic(each["site"], each["device"], each["camera"]), encoded(each))


@pytest.fixture(scope="module")
def hall(playing: Any, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A broker and the page's address, for all tests of this file."""
    assert (built / "index.html").is_file()
    folder = tmp_path_factory.mktemp("hall")
    broker, site = playing.Broker(folder), playing.Site(folder, "site")
    broker.start()
    site.start(broker.ws)
    yield broker, site.address
    site.end()
    broker.end()


@pytest.fixture
def reader(hall: tuple[Any, str], page: Page, guard: Any, make_voice: Callable[[str], Any]) -> Reader:
    broker, site = hall
    guard.may_speak_to(site, broker.ws)
    return Reader(page, site, make_voice(broker.url))


def test_an_object_of_the_belt_has_a_row_a_picture_and_a_link(
    hall: tuple[Any, str], reader: Reader, make_device: Callable[..., Any], make_page: Callable[..., Page]
) -> None:
    page = reader.page
    reader.go("#/events?state=ended&site=plant-1")
    make_device(hall[0].url)
    row = page.locator(".events .row", has=page.locator("img")).first
    expect(row).to_contain_text("plant-1/belt-1")
    expect(row).to_contain_text("left")
    assert page.evaluate("document.querySelector('.events img').naturalWidth") > 100
    row.locator(".c-time a").click()
    expect(page.get_by_text("heard by this page", exact=True)).to_be_visible()
    expect(page.locator(".event-stage img")).to_be_visible()
    expect(page.locator(".event-stage rect.box")).to_have_count(1)
    expect(page.get_by_role("heading", name="From the frame to the event")).to_be_visible()

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    address = page.evaluate("navigator.clipboard.readText()")
    heading = page.get_by_role("heading", level=1).inner_text()

    other = make_page()
    other.goto(address)
    expect(other.get_by_role("heading", level=1)).to_have_text(heading)
    expect(other.get_by_text("As the link tells it; this page has not heard it.")).to_be_visible()
    expect(other.locator(".event-stage img")).to_have_count(0)


def test_gaps_stand_in_the_list_until_replays_fill_them(reader: Reader) -> None:
    page, gaps = reader.page, reader.page.locator(".events .c-gap")
    reader.begin()
    expect(page.get_by_text("no gaps since")).to_be_visible()
    reader.say(event(6), event(6))
    expect(gaps).to_contain_text("plant-1/belt-7: 4 events missing, seq 2\u20135")
    expect(page.get_by_text("1 gap: 4 events missing")).to_be_visible()
    expect(reader.rows).to_have_count(3)
    reader.say(event(3, replayed=True), event(2, replayed=True))
    expect(gaps).to_contain_text("2 events missing, seq 4\u20135")
    expect(page.locator(".events .c-tags", has_text="replayed")).to_have_count(2)
    page.get_by_label("State").select_option("gaps")
    expect(reader.rows).to_have_count(1)
    reader.say(event(4, replayed=True), event(5, replayed=True))
    expect(gaps).to_have_count(0)
    expect(page.get_by_text("no gaps since")).to_be_visible()


def test_an_outage_of_the_page_is_no_gap(
    hall: tuple[Any, str], reader: Reader, guard: Any, make_voice: Callable[[str], Any]
) -> None:
    broker, _ = hall
    guard.allow("WebSocket connection")
    reader.begin()
    broker.kill()
    expect(reader.page.locator(".link.away")).to_be_visible()
    expect(reader.rows).to_have_count(1)
    broker.start()
    expect(reader.page.locator(".link.online")).to_be_visible()
    reader.voice = make_voice(broker.url)
    for _ in range(50):
        reader.say(event(40))
        reader.page.wait_for_timeout(100)
        if reader.rows.count() == 2:
            break
    reader.say(event(42))
    expect(reader.page.locator(".events .c-gap")).to_have_text("gap plant-1/belt-7: 1 event missing, seq 41")


def test_what_is_filtered_stands_in_the_address(reader: Reader, make_page: Callable[..., Page]) -> None:
    page = reader.page
    reader.begin()
    reader.say(
        event(2, label="bottle", best_score=0.4),
        event(3, label="bottle", zones={"now": [], "entered": ["gate"], "dwell_s": {}}),
        event(4, site="plant-2", label="box", type="end", reason="left", crossed=[{"line": "exit", "direction": "in"}]),
    )
    expect(reader.rows).to_have_count(4)
    page.get_by_label("Label").select_option("bottle")
    expect(reader.rows).to_have_count(2)
    page.get_by_label("Score from").fill("0.5")
    expect(reader.rows).to_have_count(1)
    expect(reader.rows).to_contain_text("zones gate")
    assert page.url.endswith("#/events?label=bottle&min=0.5")
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Site").select_option("plant-2")
    expect(reader.rows).to_contain_text("lines exit in")
    for name, value in (("Camera", "cam0"), ("Model", "belt 1.2.0"), ("State", "ended")):
        page.get_by_label(name).select_option(value)
    page.get_by_label("Device").fill("belt")
    expect(reader.rows).to_have_count(1)

    other = Reader(make_page(), reader.site, reader.voice)
    other.go(page.url.partition("/#")[2].join(("#", "")))
    expect(other.page.get_by_label("Site")).to_have_value("plant-2")
    expect(other.page.get_by_label("State")).to_have_value("ended")


def test_a_halted_list_stands_still_and_counts(reader: Reader) -> None:
    page = reader.page
    reader.begin()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused. Nothing came since.")).to_be_visible()
    reader.say(event(2), event(3))
    expect(page.get_by_text("Paused. 2 objects came since.")).to_be_visible()
    expect(reader.rows).to_have_count(1)
    page.get_by_role("button", name="Live").click()
    expect(reader.rows).to_have_count(3)
    assert [row.split("\n")[0] for row in reader.rows.locator(".c-what").all_inner_texts()] == ["7 0.95"] * 3


def test_a_list_that_becomes_short_while_one_is_at_its_end_shows_it(reader: Reader) -> None:
    page = reader.page
    reader.begin()
    reader.say(*(event(seq, label="bottle") for seq in range(2, 10)), *(event(seq) for seq in range(10, 90)))
    expect(page.get_by_text("89 of 89 objects")).to_be_visible()
    page.locator(".events .scroll").evaluate("(list) => list.scrollTo(0, 1e6)")
    expect(page.locator(".events [aria-rowindex='90']")).to_be_visible()
    drawn = "document.querySelectorAll('.events .row').length"
    page.evaluate(f"""() => {{
        window.blank = false;
        const watch = () => {{ window.blank ||= {drawn} === 0; requestAnimationFrame(watch); }};
        new MutationObserver(() => {{ window.blank ||= {drawn} === 0; }}).observe(
            document.querySelector(".events .scroll"), {{ childList: true }});
        watch();
    }}""")
    page.get_by_label("Label").select_option("bottle")
    expect(reader.rows).to_have_count(8)
    assert page.evaluate("window.blank") is False


def test_what_is_shown_is_saved(reader: Reader) -> None:
    page = reader.page
    reader.begin()
    reader.say(event(2, label='=HYPERLINK("x")', score=0.25), event(3, label="other"))
    expect(reader.rows).to_have_count(3)
    page.get_by_label("Label").select_option('=HYPERLINK("x")')
    expect(reader.rows).to_have_count(1)
    saved: dict[str, str] = {}
    for kind in ("csv", "json"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Save {kind.upper()}").click()
        name = waiting.value.suggested_filename
        assert name.startswith("tinysight-events-20")
        assert name.endswith(f"Z.{kind}")
        saved[kind] = Path(waiting.value.path()).read_bytes().decode()
    (row,) = csv.DictReader(io.StringIO(saved["csv"], newline=""), strict=True)
    assert row.items() >= {"label": '\'=HYPERLINK("x")', "score": "0.25", "seq": "2", "site": "plant-1"}.items()
    assert json.loads(saved["json"]) == [event(2, label='=HYPERLINK("x")', score=0.25)]


def test_the_newer_of_link_and_hearing_is_shown(reader: Reader) -> None:
    page = reader.page
    reader.begin()
    reader.go(link(event(1, label="a lie")))
    expect(page.get_by_text("heard by this page", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_contain_text("7 at plant-1/belt-7")
    reader.go(link(event(9, id="object-1", label="later")))
    expect(page.get_by_text("this page has heard an earlier step of it")).to_be_visible()
    reader.say(event(10, id="object-1", label="heard"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("heard at plant-1/belt-7")
    expect(page.get_by_text("The link tells of an earlier step")).to_be_visible()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        pytest.param("#/event/plant-1/belt-7/cam0/object-1", "the link does not carry it", id="nothing in it"),
        pytest.param("#/event/plant-1/belt-7/cam0/object-1?e=~", "it is no base64url", id="no base64url"),
        pytest.param("#/event/plant-1/belt-7/cam0/object-1?e=bm8", "it is no JSON", id="no JSON"),
        pytest.param(link(event(1, score=7)), "/score must be <= 1", id="no event of the contract"),
        pytest.param(link(event(2)), "carries another event than it names", id="another object"),
        pytest.param(link(event(1, site="x")), "carries another event than it names", id="another site"),
        pytest.param(link(event(1, label="x" * 9000)), "longer than 8 KiB", id="too long"),
        pytest.param(link(event(1), path="plant-1/%2B/cam0/object-1"), "names no event", id="a wildcard"),
    ],
)
def test_a_link_that_cannot_be_read_says_so(address: str, said: str, still: Page) -> None:
    still.evaluate("(hash) => { location.hash = hash; }", address)
    expect(still.locator("main")).to_contain_text(said)


@pytest.fixture(scope="module")
def still(hall: tuple[Any, str], browser: Any) -> Iterator[Page]:
    """One page for all that only look at an address."""
    page = browser.new_page()
    page.goto(hall[1])
    yield page
    page.close()


def test_a_flood_is_sampled_and_the_page_says_so(reader: Reader) -> None:
    reader.begin()
    ended = Event()

    def flood() -> None:
        for seq in count(2):
            if seq % 250 == 0 and ended.wait(0.1):  # 2,000 a second; as many as can be sent would bury a busy machine
                return
            reader.voice.say(ME, encoded(event(seq)), qos=0)

    with ThreadPoolExecutor() as pool:
        flooding = pool.submit(flood)
        try:
            expect(reader.page.get_by_text("is shown.", exact=False).first).to_contain_text("events a second: 1 of")
            expect(reader.page.get_by_text("gaps are not looked for")).to_be_visible()
            expect(reader.page.locator(".events .c-gap")).to_have_count(0)
        finally:
            ended.set()
        flooding.result()
