"""An environment is built once, by one process, and is whole or not there."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tinysight_contract.errors import ConversionError
from tinysight_converters.environments import environment

SIX = "six==1.17.0"
HASHED = f"{SIX} --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tinysight" / "environments"


def shown(python: Path, code: str) -> str:
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_two_who_ask_at_once_get_the_same_and_half_made_ones_are_not_used(cache: Path) -> None:
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: environment("six", (HASHED,)), range(2))
    assert first == second
    assert shown(first, "import six; print(six.__version__)") == "1.17.0"
    assert shown(first, "import importlib.util; print(importlib.util.find_spec('numpy'))") == "None"

    folder = first.parent.parent
    built = (folder / "pyvenv.cfg").stat().st_mtime_ns
    assert environment("six", (HASHED,)) == first
    assert (folder / "pyvenv.cfg").stat().st_mtime_ns == built, "it was not built again"

    folder.rename(folder.with_name(f".{folder.name}.part"))
    (folder.with_name(f".{folder.name}.part") / "pyvenv.cfg").write_text("half of it")
    assert shown(environment("six", (HASHED,)), "import six; print(six.__version__)") == "1.17.0"
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == [folder.name]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("six==99.0", "No matching distribution found for six==99.0", id="no such version"),
        pytest.param(HASHED[:-4] + "0000", "DO NOT MATCH THE HASHES", id="another hash"),
    ],
)
def test_what_cannot_be_installed_leaves_nothing(line: str, said: str, cache: Path) -> None:
    with pytest.raises(ConversionError, match=f"cannot be made: .*{said}"):
        environment("none", (line,))
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.parametrize("line", ["six", "six>=1", "six==1.17.0; print", "-e .", "six==1\n--index-url=x", ""])
def test_only_exact_versions_are_taken(line: str, cache: Path) -> None:
    with pytest.raises(ConversionError, match="no exact version"):
        environment("x", (line,))
    assert not cache.exists()


def test_a_cache_that_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConversionError, match="cannot be made"):
        environment("x", (SIX,))
