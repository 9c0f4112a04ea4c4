"""A real browser, the page as it is served, and what it shows: brokers, devices, crowds.

`page` fails its test when the page says an error, breaks its policy, or speaks to anybody but its server, the broker
and the fleet's server. Browsers are of one test file each: while Playwright's loop runs, `asyncio.run` cannot.
"""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Playwright, sync_playwright

from tinysight_contract.bundle import Bundle, pack_bundle
from tinysight_deploy.repo.repository import Repository

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
    "--disable-dev-shm-usage", "--disable-extensions", "--disable-gpu", "--disable-sync", "--no-first-run",
    "--no-sandbox",
]  # fmt: skip


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    """``dashboard/build.py``."""
    name = "tinysight_dashboard_build"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "dashboard" / "build.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def built(builder: Any) -> Path:
    """The folder of the page, built from what the sources say now; test processes wait for each other."""
    builder.build()
    static: Path = builder.STATIC
    return static


@pytest.fixture(scope="session")
def playing(module: Callable[[str], ModuleType]) -> ModuleType:
    """``playing.py``: brokers, devices, crowds, the page's server."""
    return module("dashboard/playing")


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Playwright's loop; it ends with the test file."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Debian's Chromium, with an empty profile."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    running = playwright.chromium.launch(executable_path=program, args=FLAGS)
    yield running
    running.close()


class Guard:
    """Notes what a page must not do.

    Attributes:
        origins: whom pages may speak to; servers and brokers of `make_site` are among them.
        found: what they did, in words.
    """

    def __init__(self) -> None:
        self.origins: set[str] = set()
        self.found: list[str] = []
        self._allowed: list[re.Pattern[str]] = []

    def may_speak_to(self, *urls: str | None) -> None:
        self.origins |= {_origin(url) for url in urls if url is not None}

    def allow(self, pattern: str) -> None:
        """Errors of the console that are meant: ``guard.allow("WebSocket connection")`` where the broker goes away."""
        self._allowed.append(re.compile(pattern))

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._note(f"page error: {error}"))
        page.on("request", lambda request: self._request(request.url))
        page.on("websocket", lambda web: self._request(web.url))
        page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._note(f"console {message.type}: {message.text} ({message.location.get('url', '')})")

    def _request(self, url: str) -> None:
        if urlsplit(url).scheme not in {"blob", "data"} and _origin(url) not in self.origins:
            self._note(f"request elsewhere: {url}")

    def _dialog(self, dialog: Dialog) -> None:
        self._note(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, what: str) -> None:
        self.found.append(what)

    def check(self) -> None:
        """Fail for what was not allowed."""
        bad = [each for each in self.found if not any(pattern.search(each) for pattern in self._allowed)]
        assert not bad, "the page did what it must not: " + "\n".join(dict.fromkeys(bad))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@pytest.fixture
def guard() -> Iterator[Guard]:
    """What pages of this test must not do; it is checked when they are closed."""
    watching = Guard()
    yield watching
    watching.check()


@pytest.fixture
def running() -> Iterator[Callable[[Any], Any]]:
    """Have a process end with the test, and its log shown if that fails."""
    made: list[Any] = []

    def keep(process: Any) -> Any:
        made.append(process)
        return process

    yield keep
    for process in reversed(made):
        process.end()
        sys.stdout.write(f"--- {process.name}\n{process.log[-3000:]}")


@pytest.fixture
def make_page(
    browser: Browser,
    running: object,  # noqa: ARG001 -- pages are closed before their brokers end
    guard: Guard,
) -> Iterator[Callable[..., Page]]:
    """Open a page with a profile of its own; options are those of Playwright's ``new_context``."""
    with ExitStack() as ending:

        def make(**options: Any) -> Page:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options})
            ending.callback(context.close)
            context.set_default_timeout(20_000)
            context.add_init_script(
                "addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective + "
                "' ' + e.blockedURI));"
            )
            page = context.new_page()
            guard.watch(page)
            return page

        yield make


@pytest.fixture
def page(make_page: Callable[..., Page]) -> Page:
    """An empty page of 1280 by 800."""
    return make_page()


@pytest.fixture
def make_site(
    playing: Any, built: Path, guard: Guard, tmp_path: Path, running: Callable[[Any], Any]
) -> Callable[..., str]:
    """Serve the page for a broker, and a fleet's server: ``make_site(broker.ws, api=url)``; its address."""
    assert (built / "index.html").is_file()
    count = iter(range(100))

    def make(broker: str, *, api: str | None = None, options: tuple[str, ...] = ()) -> str:
        site = running(playing.Site(tmp_path, f"site-{next(count)}"))
        site.start(broker, api=api, options=options)
        guard.may_speak_to(site.address, broker.partition("?")[0], api)
        return str(site.address)

    return make


@pytest.fixture
def site(make_site: Callable[..., str], broker: Any) -> str:
    """The page's address, for `broker`."""
    return make_site(broker.ws)


@pytest.fixture
def make_broker(playing: Any, tmp_path: Path, running: Callable[[Any], Any]) -> Callable[..., Any]:
    """Start a Mosquitto: ``make_broker(users={"anna": ("secret", "readwrite"), "ben": ("word", "read")})``."""

    def make(users: dict[str, tuple[str, str]] | None = None, extra: str = "") -> Any:
        broker = running(playing.Broker(tmp_path, users, extra))
        broker.start()
        return broker

    return make


@pytest.fixture
def broker(make_broker: Callable[..., Any]) -> Any:
    """A Mosquitto that lets everybody in: `url`, `ws`; `end`, `kill` and `start` again."""
    return make_broker()


@pytest.fixture
def embedded(playing: Any, tmp_path: Path, running: Callable[[Any], Any]) -> Any:
    """``tinysight broker``: `url`, `ws`; `end`, `kill` and `start` again."""
    broker = running(playing.Embedded(tmp_path))
    broker.start()
    return broker


@pytest.fixture
def make_device(playing: Any, tmp_path: Path, belt_bundle: Path, running: Callable[[Any], Any]) -> Callable[..., Any]:
    """Start an agent on the belt: ``make_device(broker.url, device="belt-2")``."""

    def make(
        broker: str,
        *,
        site: str = "plant-1",
        device: str = "belt-1",
        cameras: dict[str, str] | None = None,
        more: str = "",
        bundle: Path = belt_bundle,
    ) -> Any:
        seen = cameras or {"belt": 'source = "synthetic:belt?seed=5&fps=10"'}
        agent = running(playing.Device(tmp_path, bundle, broker, site=site, device=device, cameras=seen, more=more))
        agent.start()
        return agent

    return make


@pytest.fixture
def device(make_device: Callable[..., Any], broker: Any) -> Any:
    """The agent plant-1/belt-1 with the camera ``belt``, at `broker`."""
    return make_device(broker.url)


@pytest.fixture
def simulated(playing: Any, tmp_path: Path, running: Callable[[Any], Any]) -> Callable[..., Any]:
    """Start a crowd at a broker: ``simulated(broker.url, 100, cameras=2)``."""
    count = iter(range(100))

    def make(broker: str, devices: int, **options: Any) -> Any:
        crowd = running(playing.Crowd(tmp_path, f"crowd-{next(count)}"))
        crowd.start(broker, devices, **options)
        return crowd

    return make


@pytest.fixture
def make_voice(playing: Any) -> Iterator[Callable[[str], Any]]:
    """Connect a client that publishes what the test wants, and hears: ``make_voice(broker.url).say(topic, bytes)``."""
    made: list[Any] = []

    def make(url: str) -> Any:
        made.append(playing.Voice(url))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def shop(once: Any, belt_repo: Path, belt_bundle: Path) -> Path:
    """A folder: ``repo`` with belt 1.0.0 and 1.2.0, ``keys``, the first ``root.json``."""

    def make(folder: Path) -> None:
        for name in ("repo", "keys"):
            shutil.copytree(belt_repo.parent / name, folder / name)
        old, path = Bundle.open(belt_bundle), folder / "new.bundle"
        files = {name: old.read(name) for name in old.manifest.files}
        path.write_bytes(pack_bundle(replace(old.manifest, version="1.2.0", release=2), files))
        repository = Repository(folder / "repo", folder / "keys")
        repository.add(path)
        (folder / "root.json").write_bytes(repository.root_bytes())

    return Path(once("dashboard-repo", make))


@pytest.fixture
def fleet(
    tmp_path: Path, broker: Any, shop: Path, serving: Any, playing: Any, simulated: Callable[..., Any]
) -> Iterator[Any]:
    """A fleet's server that leads four devices on belt 1.0.0; `port` is where its page has to be."""
    (port,) = playing.free_ports(1)
    active = min(each.release.target for each in Repository(shop / "repo", shop / "keys").releases())
    simulated(
        broker.url, 4, site="plant-1", prefix="belt", cameras=0, repository=shop / "repo", root=shop / "root.json",
        active=active, update_seconds=1,
    )  # fmt: skip
    origins = (f"http://127.0.0.1:{port}",)
    with serving.Served(tmp_path, broker.url, shop / "repo", options={"origins": origins}) as served:
        serving.eventually(lambda: len(served.controller.facts) == 4)
        served.port = port
        yield served


NODE_BEGIN = """
import { registerHooks } from "node:module";
import { readFileSync } from "node:fs";
globalThis.window = globalThis;
globalThis.requestAnimationFrame = () => 0;
const source = (text) => ({ url: "data:text/javascript," + encodeURIComponent(text), shortCircuit: true });
const kinds = ["status", "info", "health", "model", "cameraStatus", "counts", "event", "frame", "alert", "desired", "reported", "ack"];
const STUBS = {
  "virtual:checks": "const f = () => true; export { " + kinds.map((kind) => `f as ${kind}`).join(", ") + " };",
  "preact/hooks": "export const useEffect = 0, useState = 0;",
  mqtt: "export default { connect: (...all) => globalThis.connect(...all) };",
};
const resolve = (name, at, next) => (STUBS[name] ? source(STUBS[name]) : next(/^[.][.]?[/][\\w/]+$/.test(name) ? name + ".ts" : name, at));
registerHooks({ resolve });
const load = (name) => import(`${SOURCES}/${name}.ts`);
const example = (name) => JSON.parse(readFileSync(`${GOLDEN}/${name}.json`, "utf8"));
const golden = example("event");
const event = (changes) => ({ ...golden, ...changes });
const bytes = (value) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
"""  # noqa: E501 -- statements of JavaScript


@pytest.fixture(scope="module")
def play(builder: Any) -> Callable[[str], Any]:
    """Run a module of JavaScript that says one JSON; `load`, `event`, `example`, `bytes` and `golden` are there."""
    node = builder.node()
    program = node.folder / "node"
    can = node.run(program, "--print", "Boolean(process.features.typescript)", timeout_s=60).stdout.strip()
    if can != "true":
        pytest.skip("this Node.js does not read TypeScript; the development dependencies bring one that does")
    places = {"SOURCES": (ROOT / "dashboard" / "src").as_uri(), "GOLDEN": str(ROOT / "tests" / "golden")}
    begin = "".join(f"const {name} = {json.dumps(value)};" for name, value in places.items()) + NODE_BEGIN

    def run(text: str) -> Any:
        done = node.run(program, "--no-warnings", "--input-type=module", "--eval", begin + text, timeout_s=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def complaints(
    built: Path,  # noqa: ARG001 -- which installs it
) -> Callable[[Page], list[str]]:
    """What axe finds that is wrong for people who cannot see, or not well; of any weight."""
    axe = (ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js").read_text()

    def find(page: Page) -> list[str]:
        if not page.evaluate("() => 'axe' in window"):
            page.evaluate(axe)
        found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")["violations"]
        return [
            f"{page.url}: {each['impact']} {each['id']}: {node['html'][:200]}"
            for each in found
            for node in each["nodes"]
        ]

    return find
