"""Every page, light and dark, wide and narrow: nothing wrong for people who see little, nothing that sticks out.

With ``--regen`` the pictures in ``docs/pictures`` are taken again: each page as four, on one sheet.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tinysight_deploy.fleet.keeping.tokens import Role

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 860}
CAMERA = """\
source = "synthetic:belt?seed=5&fps=10"
[cameras.belt.zones.scale]
polygon = [[0.3, 0.15], [0.62, 0.15], [0.62, 0.9], [0.3, 0.9]]
[cameras.belt.lines.exit]
start = [0.8, 1]
end = [0.8, 0]
"""
POLICY = {"stages": [{"count": 1}, {"share": 0.5}, {"share": 1.0}], "soak_s": 3600.0, "max_failures": 0.02}
GAP_PX = 12

expect.set_options(timeout=30_000)


def sheet(name: str, shots: list[Path]) -> None:
    """Light and dark, wide and narrow, on one picture."""
    pictures = [Image.open(shot).convert("RGB") for shot in shots]
    wide = pictures[0].width + pictures[1].width + GAP_PX
    whole = Image.new("RGB", (wide, pictures[0].height + pictures[2].height + GAP_PX), "#8a9794")
    for number, picture in enumerate(pictures):
        whole.paste(picture, ((pictures[0].width + GAP_PX) * (number % 2), (WIDE["height"] + GAP_PX) * (number // 2)))
    small = whole.resize((wide * 5 // 8, whole.height * 5 // 8), Image.Resampling.LANCZOS)
    small.save(PICTURES / f"dashboard-{name}.webp", quality=80, method=6)


def begin_rollout(fleet: Any) -> str:
    """A rollout that stays in its first stage; its id."""
    asked = {"bundle": "belt@1.2.0", "group": "site:plant-1", "policy": POLICY}
    bearer = {"Authorization": f"Bearer {fleet.tokens[Role.OPERATE]}"}
    answer = httpx.post(f"{fleet.url}/v1/rollouts", json=asked, headers=bearer)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_every_page_is_fit_for_all(
    request: pytest.FixtureRequest,
    make_page: Callable[..., Page],
    make_site: Callable[..., str],
    make_device: Callable[..., Any],
    simulated: Callable[..., Any],
    broker: Any,
    fleet: Any,
    tmp_path: Path,
    complaints: Callable[[Page], list[str]],
) -> None:
    regen = bool(request.config.getoption("--regen"))
    make_device(broker.url, site="plant-2", cameras={"belt": CAMERA})
    simulated(broker.url, 12, site="yard")
    address = make_site(broker.ws, api=fleet.url, options=("--bind", f"127.0.0.1:{fleet.port}"))
    rollout = begin_rollout(fleet)
    looks = [("light", WIDE), ("dark", NARROW)]
    pages = [make_page(color_scheme=scheme, viewport=size) for scheme, size in looks]
    pages[0].goto(f"{address}#/sign-in")
    pages[1].goto(f"{address}#/sign-in")
    for page in pages:
        page.get_by_label("Token").fill(fleet.tokens[Role.OPERATE])
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_text("Signed in as")).to_be_visible()

    shown = {
        "overview": ("", ".devices .row >> nth=10"),
        "events": ("events", ".events .row >> nth=5"),
        "device": ("device/plant-2/belt-1", ".stage canvas[data-source=frame]"),
        "event": ("", ""),
        "models": ("models", ".bundles tbody tr >> nth=0"),
        "rollout": (f"rollout/{rollout}", ".steps li >> nth=2"),
        "why": (f"rollout/{rollout}/plant-1/belt-0001", "table >> nth=0"),
        "begin": ("rollout/new", "form"),
        "sign-in": ("sign-in", "form"),
        "zones": ("device/plant-2/belt-1", ".stage canvas[data-source=frame]"),
    }
    wrong: list[str] = []
    for name, (route, there) in shown.items():
        shots = []
        for number, page in enumerate(pages):
            if name == "event":
                page.goto(f"{address}#/events?site=plant-2")
                page.locator(".events .row a[href*='#/event/']").first.click()
                expect(page).to_have_url(re.compile("#/event/"))
                expect(page.locator("h1")).to_be_visible()
            else:
                page.goto(f"{address}#/{route}")
                page.locator(there).first.wait_for()
            if name == "zones":
                page.get_by_role("button", name="Edit zones and lines").click()
            wrong += complaints(page)
            if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
                wrong.append(f"{name} is wider than {page.viewport_size}")
            if regen:
                page.wait_for_timeout(1500)
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    page.wait_for_timeout(300)
                    shots.append(tmp_path / f"{name}-{scheme}-{number}.png")
                    page.screenshot(path=shots[-1])
                page.emulate_media(color_scheme=looks[number][0])  # type: ignore[arg-type]
        if regen:
            sheet(name, [shots[0], shots[2], shots[1], shots[3]])
    assert not wrong, "\n".join(wrong)
