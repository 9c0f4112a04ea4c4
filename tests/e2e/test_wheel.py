"""The built wheel in environments of its own: the device's extras run the device, and bring no TensorFlow."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract.messages import Info, decode
from tinysight_contract.topics import InfoTopic

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def install(wheel: Path, folder: Path, extra: str) -> Path:
    """A new environment with only the wheel and one extra; its folder of programs."""
    venv.create(folder)
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet"]
    command += ["--disable-pip-version-check", "--no-compile"]  # what is imported is compiled when it is
    done = subprocess.run([*command, f"{wheel}[{extra}]"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


OLD_PYTHON = pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime has no wheel above Python 3.11")


@pytest.mark.parametrize(
    ("extra", "runtime"),
    [
        pytest.param("edge", "litert", id="edge"),
        pytest.param("edge-tflite", "tflite-runtime", marks=OLD_PYTHON, id="edge-tflite"),
    ],
)
def test_the_devices_install_runs_the_device_and_holds_no_tensorflow(
    extra: str,
    runtime: str,
    wheel: Path,
    tmp_path: Path,
    mosquitto: Any,
    make_reader: Any,
    belt_repo: Path,
    eventually: Any,
) -> None:
    programs = install(wheel, tmp_path / "env", extra)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    names = {path.name.lower().split("-")[0] for path in site.iterdir()}
    assert not names & {"tensorflow", "keras", "sklearn", "scikit_learn", "scipy", "matplotlib", "torch"}
    reader = make_reader(mosquitto.url)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def tinysight(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(programs / "tinysight"), *arguments],
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )

    assert tinysight("store", "trust", str(belt_repo.parent / "keys/root.json"), "--store", "device").returncode == 0
    installed = tinysight("store", "install", "belt/belt-1.0.0.bundle", "--from", str(belt_repo), "--store", "device")
    assert installed.returncode == 0, installed.stdout
    assert "confirmed" in installed.stdout
    who = ("--site", "s", "--device", "d", "--broker", mosquitto.url)
    done = tinysight("run", "--store", "device", "--source", "synthetic:belt?seed=5&fps=60&frames=240", *who, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["events_sent"] >= 6
    assert result["events_waiting"] == 0
    eventually(lambda: len(reader.events()) == result["events_sent"])
    assert decode(reader.of(InfoTopic)[0], Info).runtime["name"] == runtime
    missing = tinysight("train", "x", "--out", "y")
    assert missing.returncode == 2
    assert "tinysight[train]" in missing.stderr or "There is no data set" in missing.stderr
    demo = tinysight("demo")
    assert demo.returncode == 2
    assert "tinysight[all]" in demo.stderr
