"""The wheels of a device, chosen on another machine: really downloaded, really installed, and run there.

The whole way once: the wheelhouse of this machine, a device made of it over a real sshd, its agent with a certificate
of its own at a real Mosquitto.
"""

import asyncio
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinysight_contract.errors import ConfigError
from tinysight_contract.messages import Info, Status, decode
from tinysight_contract.topics import InfoTopic, StatusTopic
from tinysight_deploy.brokers import folder as broker_folder
from tinysight_deploy.devices.inventory import Inventory
from tinysight_deploy.provisioning.bundle import flash_of
from tinysight_deploy.provisioning.provision import provision
from tinysight_deploy.provisioning.types import Provisioned, Wishes
from tinysight_deploy.remote.targets import SshTarget
from tinysight_deploy.wheels.choice import Wanted
from tinysight_deploy.wheels.choice import Wishes as Wheels
from tinysight_deploy.wheels.own import from_installed, own_wheel
from tinysight_deploy.wheels.target import TARGETS, Target, glibc_needed
from tinysight_deploy.wheels.wheelhouse import make, read

HERE = Path(__file__).parent
AS_ROOT = "user root\n" if os.geteuid() == 0 else ""  # else mosquitto gives up rights and cannot read the test's files


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load("tiny_wheelhouse")


def wheel(folder: Path, name: str, version: str = "1.0", *, more: str = "") -> Path:
    """A wheel with nothing in it; the same bytes each time."""
    folder.mkdir(exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    texts = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as out:
        for file, text in texts.items():
            out.writestr(zipfile.ZipInfo(f"{info}/{file}"), text)
    return path


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world in which TinySight needs one small package, and pip knows one folder and no index."""
    folder = tmp_path / "links"
    wheel(folder, "lens", more="Requires-Dist: tripod; platform_machine == 'armv7l'\n")
    wheel(folder, "tripod")
    wheel(folder, "pip", "99.0")
    needs = "Provides-Extra: edge\nRequires-Dist: lens; extra == 'edge'\n"
    monkeypatch.setattr(
        "tinysight_deploy.wheels.wheelhouse.own_wheel", lambda out: wheel(out, "tinysight", "7.0", more=needs)
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def silent(_line: str) -> None:
    pass


def test_conditions_are_read_for_the_device_and_not_for_the_workstation(alone: Path, tmp_path: Path) -> None:
    assert alone.is_dir()
    house, _ = make(tmp_path / "out", Target.parse("aarch64-py311"), Wheels(), silent)
    assert [each.name for each in house.wheels] == ["lens", "tinysight"]
    house, _ = make(tmp_path / "out", Target.parse("armv7l-py311"), Wheels(), silent)
    assert [each.name for each in house.wheels] == ["lens", "tinysight", "tripod"]
    assert house.pip.version == "99.0"


def test_everything_is_locked_by_digest_and_a_second_run_asks_nobody(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target.parse("aarch64-py313")
    house, fetched = make(tmp_path, target, Wheels(), silent)
    folder = tmp_path / "aarch64-py313"
    assert fetched == house.size_bytes
    lines = (folder / "requirements.txt").read_text().splitlines()[1:]
    digest = hashlib.sha256((alone / "lens-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert lines[0] == f"lens==1.0 --hash=sha256:{digest}"
    assert lines[1].startswith("tinysight[edge]==7.0 --hash=sha256:")
    assert read(folder) == house
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    shutil.rmtree(alone)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert make(tmp_path, target, Wheels(), silent) == (house, 0)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_versions_stay_until_newer_ones_are_asked_for(alone: Path, tmp_path: Path) -> None:
    target = Target.parse("x86_64-py312")
    make(tmp_path, target, Wheels(), silent)
    wheel(alone, "lens", "2.0")
    house, _ = make(tmp_path, target, Wheels(more=["tripod"]), silent)
    assert [(each.name, each.version) for each in house.wheels] == [
        ("lens", "1.0"), ("tinysight", "7.0"), ("tripod", "1.0"),
    ]  # fmt: skip
    house, _ = make(tmp_path, target, Wheels(upgrade=True), silent)
    assert [each.version for each in house.wheels] == ["2.0", "7.0"]
    names = {path.name for path in (tmp_path / str(target) / "wheels").iterdir()}
    assert names == {*(each.file for each in house.wheels), house.pip.file}, "no wheel is left that nobody installs"


def test_a_download_that_was_stopped_goes_on_with_what_is_missing(alone: Path, tmp_path: Path) -> None:
    target = Target.parse("aarch64-py311")
    wheel(alone, "zoom")
    hidden = alone / "zoom-1.0-py3-none-any.whl"

    def stop(line: str) -> None:
        if " 1/" in line:
            hidden.unlink()  # pip has chosen it, and now it is gone

    with pytest.raises((ConfigError, OSError)):
        make(tmp_path, target, Wheels(more=["zoom"]), stop)
    wheels = tmp_path / str(target) / "wheels"
    there = {path.name for path in wheels.iterdir()}
    assert there
    assert not (tmp_path / str(target) / "wheelhouse.json").exists()
    lens = alone / "lens-1.0-py3-none-any.whl"
    (wheels / lens.name).write_bytes(lens.read_bytes()[:50])  # as a kill in the middle of a copy leaves it
    there.discard(lens.name)
    wheel(alone, "zoom")
    lines: list[str] = []
    house, fetched = make(tmp_path, target, Wheels(more=["zoom"]), lines.append)
    assert 0 < fetched < house.size_bytes
    assert sum(line.endswith(", there") for line in lines) == len(there)
    assert read(tmp_path / str(target)) == house
    assert not [path for path in (tmp_path / str(target)).iterdir() if path.name.startswith(".making")]


def test_a_wheel_that_was_changed_is_found_before_it_goes_anywhere(alone: Path, tmp_path: Path) -> None:
    assert alone.is_dir()
    target = Target.parse("aarch64-py311")
    house, _ = make(tmp_path, target, Wheels(), silent)
    path = tmp_path / str(target) / "wheels" / house.wheels[0].file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ConfigError, match=r"lens.*was changed"):
        read(tmp_path / str(target))
    make(tmp_path, target, Wheels(), silent)
    assert read(tmp_path / str(target)) == house


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"wheels": [{"file": "../../x.whl"}]}, id="a path"),
        pytest.param({"schema": 2}, id="a later schema"),
        pytest.param({"target": "vax-py311"}, id="an unknown target"),
        pytest.param({"glibc": "2.x"}, id="no version"),
    ],
)
def test_a_manifest_that_is_none_is_refused(change: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    assert alone.is_dir()
    make(tmp_path, Target.parse("aarch64-py311"), Wheels(), silent)
    path = tmp_path / "aarch64-py311" / "wheelhouse.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match="cannot be understood"):
        read(path.parent)


def test_a_wheel_without_a_wheels_name_is_not_fetched() -> None:
    with pytest.raises(ConfigError, match="is no wheel"):
        _ = Wanted("lens", "1.0", "https://index.example/..%2F..%2Fetc/passwd", "").file


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        pytest.param("aarch64-py31", "Did you mean 'aarch64-py31", id="typo"),
        pytest.param("vax", "Known: ", id="unknown"),
        pytest.param("armv7l-py313", "Raspberry Pi OS 12", id="no TensorFlow Lite"),
    ],
)
def test_an_unknown_target_is_answered(text: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Target.parse(text)
    assert mend in caught.value.mend


@pytest.mark.parametrize("text", TARGETS)
def test_a_target_and_its_text_are_inverses(text: str) -> None:
    assert str(Target.parse(text)) == text


def test_the_c_library_that_wheels_need_is_in_their_names() -> None:
    assert glibc_needed(["a-1-py3-none-any.whl"]) == "2.0"
    assert (
        glibc_needed(["a-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64.whl"])
        == "2.17"
    )
    assert glibc_needed(["a-1-cp311-cp311-manylinux_2_28_x86_64.whl", "b-1-py3-none-any.whl"]) == "2.28"
    assert glibc_needed(["a-1-cp311-cp311-linux_armv7l.whl"]) == "2.0"


def test_for_32_bit_arm_it_is_said_which_wheels_nobody_has(tinysight: Any) -> None:
    """Asks PyPI, whose answer decides what docs/devices.md says."""
    done = tinysight("wheelhouse", "--target", "armv7l-py311", "--out", "wheels")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: No index has wheels for armv7l-py311 of: ")
    names = last.split("of: ")[1].split(". ")[0].split(", ")
    assert (
        {"numpy", "opencv-python-headless"}
        <= set(names)
        <= {"backports-zstd", "msgspec", "numpy", "opencv-python-headless"}
    )
    assert "piwheels" in last
    assert "--find-links" in last


def test_without_the_tool_that_builds_it_no_wheel_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysight_deploy.wheels.own.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"hatchling.*is not installed.*pip install hatchling"):
        own_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_for_devices_is_built_without_node_and_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(command: list[str], *, env: dict[str, str], timeout: float, **_: object) -> None:
        asked.append(env["TINYSIGHT_NO_DASHBOARD"])
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("tinysight_deploy.wheels.own.subprocess.run", run)
    with pytest.raises(ConfigError, match=r"not built within 600 s\. Try it by hand: `.* -m pip wheel "):
        own_wheel(tmp_path)
    assert asked == ["1"]


def test_an_installed_package_gives_the_wheel_that_it_came_from(tmp_path: Path) -> None:
    built = tmp_path / "built"
    built.mkdir()
    original = own_wheel(built)
    install = [
        "install",
        "--quiet",
        "--ignore-installed",
        "--no-deps",
        "--no-compile",
        "--prefix",
        str(tmp_path / "env"),
        str(original),
    ]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True, timeout=120)
    (site,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    (info,) = site.glob("tinysight-*.dist-info")
    again = from_installed(Distribution.at(info), tmp_path)

    def content(path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as whole:
            return {name: whole.read(name) for name in whole.namelist() if not name.endswith("RECORD")}

    assert content(again) == content(original)
    assert again.name == original.name
    digest = hashlib.sha256(again.read_bytes()).hexdigest()
    assert hashlib.sha256(from_installed(Distribution.at(info), tmp_path).read_bytes()).hexdigest() == digest
    changed = site / "tinysight_edge" / "runtime.py"
    changed.write_text(changed.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"runtime\.py is not as it was installed"):
        from_installed(Distribution.at(info), tmp_path)
    changed.unlink()
    with pytest.raises(ConfigError, match=r"runtime\.py is missing"):
        from_installed(Distribution.at(info), tmp_path)


@pytest.fixture
def site(tmp_path: Path, eventually: Callable[..., None]) -> Iterator[Path]:
    """A site's folder, and its Mosquitto, which runs."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto mosquitto-clients")
    folder = tmp_path / "site"
    (folder / "data").mkdir(parents=True)
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
        names = ("port", "people_port", "websocket_port")
        ports = dict(zip(names, (each.getsockname()[1] for each in (one, two, three)), strict=True))
    wishes = broker_folder.Wishes(
        site="plant-1",
        hosts=["localhost"],
        devices=["cam-1"],
        readers=["dashboard"],
        changes={**ports, "data": str(folder / "data")},
    )
    broker_folder.configure(folder, wishes)
    config = folder / "test.conf"
    config.write_text((folder / "broker/mosquitto.conf").read_text() + AS_ROOT)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(config)], stderr=log)

    def listens() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            socket.create_connection(("127.0.0.1", ports["port"]), timeout=0.2).close()
        except OSError:
            return False
        return True

    eventually(listens)
    yield folder
    process.terminate()
    process.wait(10)


def test_a_device_is_made_of_a_real_wheelhouse_and_heard_at_a_real_broker(
    own_sshd: Any,
    once: Any,
    site: Path,
    tmp_path: Path,
    repository: Any,
    make_reader: Any,
    eventually: Callable[..., None],
) -> None:
    """With its first bundle, a file that was made for it, and no camera.

    There is no openssl on the device, so its key is made with the package that the wheelhouse brings.
    """
    wishes = Wheels(more=["cryptography"])
    wheels = once("wheelhouse", lambda folder: make(folder, Target.parse(tiny.TARGET), wishes, silent))
    house = read(wheels / tiny.TARGET)
    assert not {"tensorflow", "keras", "torch"} & {each.name for each in house.wheels}
    for name in ("systemctl", "systemctl_start.py"):
        shutil.copy(HERE / "fakes" / name, own_sshd.fakes)
    no_openssl = own_sshd.fakes / "openssl"
    no_openssl.write_text("#!/bin/sh\nexit 127\n")
    no_openssl.chmod(0o755)
    machine = tmp_path / "machine"
    inventory = Inventory(tmp_path / "devices.toml")
    asked = Wishes(
        target=SshTarget.parse(own_sshd.address(machine)),
        site="plant-1",
        device="cam-1",
        name="cam-1",
        repo=repository.folder,
        wheelhouse=wheels,
        broker_config=site,
        identity=own_sshd.identity,
        service=True,
    )
    keys = repository.folder.parent / "keys"
    flash = flash_of(asked, "belt@1.1.0", inventory, keys=keys, passphrase=None, tell=silent)

    def add() -> Provisioned:
        run = provision(
            asked,
            inventory,
            tell=silent,
            told=lambda _step: None,
            may=lambda _remote, _facts: True,
            flash=flash,
        )
        return asyncio.run(run)

    lines = (site / "people/dashboard.txt").read_text().splitlines()
    address = next(line.split()[1] for line in lines if line.startswith("tcp"))
    reader = make_reader(address.replace("ca=ca.crt", f"ca={site / 'ca.crt'}"))
    try:
        done = add()
        assert done.ready
        assert done.claim.tinysight == house.version
        eventually(lambda: [decode(each, Status).state for each in reader.of(StatusTopic)][-1:] == ["online"])
        info = decode(reader.of(InfoTopic)[-1], Info)
        assert (info.bundle.name, info.bundle.version) == ("belt", "1.1.0")
        again = add()
        assert not again.changed
    finally:
        subprocess.run([str(own_sshd.fakes / "systemctl"), "stop", "tinysight-agent"], check=True, timeout=60)
    eventually(lambda: [decode(each, Status).state for each in reader.of(StatusTopic)][-1:] == ["offline"])
