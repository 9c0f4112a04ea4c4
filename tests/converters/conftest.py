"""What the tests of foreign models share: a folder to work in, and the command."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinysight_deploy.cli import main

Bring = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def _warm_children(warm_children: None) -> None:
    """What a test converts in its own process."""


@pytest.fixture
def at_hand(tmp_path: Path) -> Path:
    """A folder with labels and anchors, where the commands run."""
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "anchors.json").write_text(
        '{"strides": [16, 32], "min_scale": 0.2, "max_scale": 0.9, "aspect_ratios": [1.0, 2.0, 0.5]}'
    )
    return tmp_path


@pytest.fixture
def bring(at_hand: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Bring:
    """``tinysight bundle import`` in this process, to be quick: status, stdout, stderr."""
    monkeypatch.chdir(at_hand)

    def run(
        model: Path, *flags: str | Path, labels: str | None = "labels.txt", quiet: bool = True
    ) -> tuple[int, str, str]:
        given = (*(("--labels", labels) if labels else ()), *(("--quiet",) if quiet else ()), *flags)
        given = ("--name", "theirs", "--out", "x.bundle", "--json", *given)
        monkeypatch.setattr(sys, "argv", ["tinysight", "bundle", "import", str(model), *map(str, given)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run
