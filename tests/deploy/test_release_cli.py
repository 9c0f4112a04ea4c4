"""The commands, as a person and as a program call them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinysight_deploy.cli import _run

World = Any  # see conftest
MakeBundle = Callable[..., Path]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run one command line against a repository of its own; status, stdout, stderr with single spaces."""
    monkeypatch.setenv("TINYSIGHT_REPO", str(tmp_path / "repo"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("TINYSIGHT_KEYS", raising=False)

    def call(*words: str | Path) -> tuple[int, str, str]:
        try:
            status = _run([str(word) for word in words])
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, re.sub(r" +", " ", said.out), " ".join(said.err.split())

    return call


def test_from_nothing_to_a_signed_release_and_its_end(run: Any, bundle: MakeBundle, tmp_path: Path) -> None:
    status, out, err = run("keys", "init")
    assert status == 0
    assert "root 10 years, the rest 365 days" in err
    assert f"keys {tmp_path / 'keys'}" in out
    status, out, _ = run(
        *("release", "add", bundle(1), "--arch", "aarch64", "--arch", "armv7l"),
        *("--min-memory", "1GiB", "--min-tinysight", "0.1", "--json"),
    )
    added = json.loads(out)
    assert status == 0
    assert added["added"] is True
    assert added["target"] == "pets/pets-1.0.1.bundle"
    assert added["requires"] == {
        "arch": ["aarch64", "armv7l"], "min_memory_mib": 1024, "accelerator": "", "min_tinysight": "0.1.0"
    }  # fmt: skip
    status, out, err = run("release", "add", bundle(1))
    assert (status, err) == (0, "pets/pets-1.0.1.bundle is already a release; nothing changes.")
    assert run("release", "add", bundle(2))[0] == 0
    status, out, _ = run("release", "list")
    first, second = [line.split() for line in out.splitlines()[1:]]
    assert (first[0], first[1], first[5]) == ("pets/pets-1.0.2.bundle", "2", "1")
    assert " ".join(second[6:]) == "aarch64 or armv7l, 1024 MiB, TinySight 0.1.0"
    listed = json.loads(run("release", "list", "--json")[1])
    assert [each["release"] for each in listed] == [2, 1]
    assert json.loads(run("release", "show", "pets@1.0.2", "--json")[1]) == listed[0]
    assert re.search(rf"from {listed[1]['digest'][:12]} [\d,]+ bytes \(\d+%\)", run("release", "show", "pets@1.0.2")[1])
    status, out, err = run("release", "retire", "pets@1.0.1", "--json")
    assert json.loads(out) == {"retired": "pets/pets-1.0.1.bundle", "file": "kept"}
    assert "Its file stays" in err
    status, out, err = run("release", "retire", "pets@1.0.1")
    assert status == 2
    assert "is no release of" in err
    status, out, _ = run("release", "refresh", "--json")
    assert json.loads(out)["signed"] == "snapshot, timestamp"


def test_a_fleets_keys_are_shown_replaced_and_revoked(run: Any, bundle: MakeBundle, tmp_path: Path) -> None:
    status, out, err = run("keys", "init", "--fleet", "--roots", "3", "--threshold", "2")
    assert status == 0
    assert "timestamp 7" in err
    assert "`tinysight release refresh` run daily" in err
    run("release", "add", bundle(1))
    root = next((tmp_path / "keys").glob("root-*.pem"))
    root.rename(tmp_path / root.name)
    rows = {row["role"]: row for row in json.loads(run("keys", "show", "--json")[1])}
    assert set(rows) == {"root", "targets", "pets", "snapshot", "timestamp"}
    assert (rows["root"]["threshold"], len(rows["root"]["keys"])) == (2, 3)
    assert [key["file"] for key in rows["root"]["keys"] if not key["here"]] == [root.name]
    status, out, err = run("keys", "show")
    assert "root 2 of 3" in out
    assert f"{root.name} no" in out
    assert not err, "all hold for long enough"
    status, out, err = run("keys", "rotate", "online", "--json")
    assert re.fullmatch(r"online-\w+ → online-\w+", json.loads(out)["replaced"])
    assert "Destroy" in err
    status, out, err = run("keys", "revoke", root.name)
    assert status == 0
    assert re.search(rf"{root.stem} → root-\w+", out)
    status, out, err = run("keys", "revoke", root.stem)
    assert (status, err) == (0, f"{root.stem} was replaced before; nothing changes.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("release", "list"), "There is no repository in"),
        (("keys", "show"), "There is no repository in"),
        (("repo", "serve"), "There is no repository in"),
        (("release", "add", "gone.bundle"), "There is no bundle gone.bundle"),
        (("release", "add", "x", "--min-memory", "much"), "Write it as 512MiB"),
        (("release", "add", "x", "--accelerator", "gpu"), "There is no accelerator 'gpu'"),
        (("release", "add", "x", "--arch", "Raspberry Pi"), "as `uname -m` does"),
        (("release", "add", "x", "--min-tinysight", "new"), "--min-tinysight as 0.1"),
        (("keys", "init", "--fleet", "--roots", "1"), "2 of 1 root keys cannot be"),
        (("keys", "init", "--passphrase-file", "gone"), "gone: No such file"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(run: Any, words: tuple[str, ...], said: str) -> None:
    status, out, err = run(*words)
    assert status == 2
    assert said in err
    assert err.count("error: ") == 1
    assert out == ""


def test_the_keys_may_lie_elsewhere(run: Any, bundle: MakeBundle, tmp_path: Path) -> None:
    assert run("keys", "init", "--keys", tmp_path / "stick")[0] == 0
    status, _, err = run("release", "add", bundle())
    assert status == 2
    assert str(tmp_path / "keys" / "hobby-") in err
    assert run("release", "add", bundle(), "--keys", tmp_path / "stick")[0] == 0


def test_as_a_program_it_says_nothing_but_its_line(
    tmp_path: Path, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    def called(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tinysight_deploy", *words, "--repo", str(tmp_path / "repo")]
        return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)

    called("keys", "init")
    done = called("release", "add", str(bundle()), "--project", "a-name-as-long-as-some-are", "--json")
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["release"] == 1
    assert done.stderr == ""
    _, row = called("release", "list").stdout.splitlines()
    assert row.startswith("a-name-as-long-as-some-are/pets-1.0.1.bundle  ")
    assert row.endswith("nothing special")
