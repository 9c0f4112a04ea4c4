"""The page in a browser while a thousand devices tell it of 500 events a second: how fast, how smooth, how large.

    python benchmarks/dashboard.py               ten minutes
    python benchmarks/dashboard.py --minutes 2

Debian's Chromium, headless and without a GPU, opens what `tinysight dashboard` serves; the devices are those of
`tinysight simulate`, with a camera each; Mosquitto brings them together over WebSockets. All share the machine.

``first_paint_ms`` is from the begin of the navigation until a dozen devices stand in the list and are drawn, which
fills the window: then it is of use. It is the median of five loads, while all of the traffic runs.
``long_task_p95_ms`` is of all tasks of the page's main thread in half a minute that took a millisecond or more (shorter
ones are many, and would only make the figure better); ``longest_task_ms`` and how many took more than 50 ms stand
beside it.
``scripting_core`` is the share of a core that JavaScript took over the whole time, ``main_core`` that and layout, style
and painting. ``heap_growth_mb`` is the heap at the end, collected, less what it was after a tenth of the time (two
minutes at most), when the list of objects is full. ``js_gzip_kib`` is all JavaScript that the page loads, by gzip.

Needs mosquitto and chromium. Prints one JSON line last.
"""

import argparse
import gzip
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright
from rig import broker, program, say
from steps import where

import tinysight_deploy.dashboard

CONFIG: Final = ("max_queued_messages 10000", "max_connections -1", "sys_interval 1", "persistence false")
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
EVENTS_OF_A_DEVICE: Final = 4.85
"""Events a second at rate 1, as the recording that is simulated has it."""
LOADS: Final = 5
TRACE_S: Final = 30.0
TRACED: Final = ("disabled-by-default-devtools.timeline", "devtools.timeline", "__metadata")
LIST_ROWS: Final = ".devices .row"
WATCH: Final = """
new MutationObserver((_, watch) => {
  if (window.seenAt || document.querySelectorAll('.devices .row').length < 12) return;
  watch.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.seenAt = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""


@contextmanager
def running(*command: str, wait_for: str = "") -> Iterator[str]:
    """A process for as long as this lasts; the first line that it says with that in it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = ""
        while wait_for and wait_for not in line:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise SystemExit(f"{' '.join(command[:4])} ended.")
        yield line
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    """One that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def tinysight(*arguments: str) -> tuple[str, ...]:
    """One of our commands."""
    return (sys.executable, "-m", "tinysight_deploy", *arguments)


def first_paint_ms(browser: Browser, url: str) -> float:
    """One load, in a profile of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(url)
    page.locator(LIST_ROWS).nth(11).wait_for(timeout=60_000)
    while not (took := page.evaluate("window.seenAt || 0")):
        page.wait_for_timeout(20)
    context.close()
    return float(took)


def metrics(client: CDPSession) -> dict[str, float]:
    """What the browser knows of the page: seconds of tasks and scripts, bytes of the heap."""
    return {each["name"]: float(each["value"]) for each in client.send("Performance.getMetrics")["metrics"]}


def heap_mb(client: CDPSession) -> float:
    """What is in use once all that can go has gone."""
    for _ in range(2):
        client.send("HeapProfiler.collectGarbage")
    return metrics(client)["JSHeapUsedSize"] / 1e6


def tasks_ms(browser: Browser, page: Page) -> list[float]:
    """How long each task of the page's main thread takes for half a minute."""
    browser.start_tracing(page=page, categories=list(TRACED))
    page.wait_for_timeout(TRACE_S * 1000)
    events: list[dict[str, Any]] = json.loads(browser.stop_tracing())["traceEvents"]
    main = {
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"].get("name") == "CrRendererMain"
    }
    scripted = {(each["pid"], each["tid"]) for each in events if each["name"] == "FunctionCall"} & main
    return [
        each["dur"] / 1000
        for each in events
        if each["name"] == "RunTask" and (each["pid"], each["tid"]) in scripted and "dur" in each
    ]


def js_gzip_kib() -> float:
    """All JavaScript of the page."""
    static = Path(tinysight_deploy.dashboard.__file__).parent / "static"
    return sum(len(gzip.compress(path.read_bytes(), 9)) for path in static.rglob("*.js")) / 1024


def measure(url: str, *, minutes: float) -> dict[str, Any]:
    """All figures but the size."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=list(FLAGS))
        paints = [first_paint_ms(browser, url) for _ in range(LOADS)]
        say(f"first useful paint: {', '.join(f'{each:.0f}' for each in paints)} ms")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        page.locator(LIST_ROWS).nth(11).wait_for(timeout=60_000)
        client = page.context.new_cdp_session(page)
        client.send("Performance.enable")
        begun_s, before = time.monotonic(), metrics(client)
        settle_s = min(120.0, minutes * 6)
        page.wait_for_timeout(settle_s * 1000)
        heaps, rates = [heap_mb(client)], list[float]()
        tasks = sorted(each for each in tasks_ms(browser, page) if each >= 1.0)
        while not rates or time.monotonic() - begun_s < minutes * 60:
            page.wait_for_timeout(min(60_000, minutes * 6000))
            heaps.append(heap_mb(client))
            rates.append(float((page.text_content(".rate") or "0").split()[0].replace(",", "")))
            say(f"{time.monotonic() - begun_s:4.0f} s: heap {heaps[-1]:.1f} MB")
        after, took_s = metrics(client), time.monotonic() - begun_s
        every = page.get_by_role("button", name=re.compile(r"^All [\d,]+$")).inner_text()
        browser.close()
    return {
        "devices": int(every.split()[-1].replace(",", "")),
        "events_per_s": round(statistics.median(rates)),
        "minutes": round(took_s / 60, 1),
        "first_paint_ms": round(statistics.median(paints)),
        "first_paint_worst_ms": round(max(paints)),
        "long_task_p95_ms": round(tasks[int(len(tasks) * 0.95)], 1) if tasks else 0.0,
        "longest_task_ms": round(tasks[-1], 1) if tasks else 0.0,
        "tasks_over_50_ms": sum(each > 50 for each in tasks),
        "tasks": len(tasks),
        "scripting_core": round((after["ScriptDuration"] - before["ScriptDuration"]) / took_s, 3),
        "main_core": round((after["TaskDuration"] - before["TaskDuration"]) / took_s, 3),
        "heap_mb": round(heaps[-1], 1),
        "heap_growth_mb": round(heaps[-1] - heaps[0], 1),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="The dashboard in a browser.")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--events", type=float, default=500.0, help="a second, of all")
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    rate = given.events / given.devices / EVENTS_OF_A_DEVICE
    websocket = free_port()
    with broker(*CONFIG, f"listener {websocket} 127.0.0.1", "protocol websockets") as mqtt:
        devices = ("--devices", str(given.devices), "--rate", f"{rate:.4f}")
        with (
            running(*tinysight("simulate", "--broker", mqtt, *devices, "--quiet")),
            running(
                *tinysight("dashboard", "--broker", f"ws://127.0.0.1:{websocket}", "--bind", "127.0.0.1:0", "--json"),
                wait_for="http",
            ) as said,
        ):
            time.sleep(15)  # until all have said who they are
            figures = measure(json.loads(said)["address"], minutes=given.minutes)
    print(json.dumps({"where": where(), **figures, "js_gzip_kib": round(js_gzip_kib(), 1)}))


if __name__ == "__main__":
    main()
