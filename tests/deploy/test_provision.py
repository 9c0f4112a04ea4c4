"""A machine becomes a device: over a real sshd, in folders of this machine, with a fake of systemctl.

The devices here get a small wheelhouse whose TinySight only says what the real one would; `test_wheelhouse.py` has the
real one. Nothing is done as root of a machine of its own: the words for that are tested by themselves.
"""

import asyncio
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, DeviceError
from tinysight_deploy.brokers import folder as broker_folder
from tinysight_deploy.brokers import pki
from tinysight_deploy.devices.inventory import Device, Inventory
from tinysight_deploy.provisioning import files as scripts
from tinysight_deploy.provisioning import hands
from tinysight_deploy.provisioning import runtime as runtimes
from tinysight_deploy.provisioning.findings import findings
from tinysight_deploy.provisioning.hands import Hands
from tinysight_deploy.provisioning.probe import Facts, read_facts
from tinysight_deploy.provisioning.provision import provision
from tinysight_deploy.provisioning.runtime import Runtime
from tinysight_deploy.provisioning.service import unit_name
from tinysight_deploy.provisioning.texts import agent_toml, broker_section, sources, unit_for
from tinysight_deploy.provisioning.types import Provisioned, Step, Wishes
from tinysight_deploy.remote.answers import failed
from tinysight_deploy.remote.known_hosts import HostKey, KnownHosts
from tinysight_deploy.remote.ssh import Done, connect
from tinysight_deploy.remote.targets import SshTarget
from tinysight_deploy.wheels.wheelhouse import read
from tinysight_edge.config.file import check_config

HERE = Path(__file__).parent
UNIT = HERE.parents[1] / "edge/systemd/tinysight-agent.service"
STEPS = [
    "folders",
    "root of trust",
    "wheels",
    "runtime",
    "switch",
    "key",
    "certificate",
    "agent.toml",
    "unit",
    "service",
    "cleaning up",
    "inventory",
]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load("tiny_wheelhouse")


@pytest.fixture(scope="session")
def houses(once: Any) -> Path:
    """Two small wheelhouses, ``1`` and ``2``."""

    def make(folder: Path) -> None:
        for number in ("1", "2"):
            tiny.make(folder / number, f"9.9.{number}")

    return Path(once("tiny-wheelhouses", make))


@dataclass
class Bench:
    """A workstation and one machine that is to become a device.

    Attributes:
        sshd: of the machine.
        root: the machine's files.
        folder: the workstation's.
        world: its repository, and the keys of that.
        options: of each run.
    """

    sshd: Any
    root: Path
    folder: Path
    world: Any
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[Step] = []
        for name in ("systemctl", "systemctl_start.py"):
            shutil.copy(HERE / "fakes" / name, self.sshd.fakes)

    def has_programs(self) -> None:
        """Have TinySight be there already, as far as provisioning asks; installing takes seconds."""
        venv = self.root / "opt/tinysight/venv"
        (venv / "lib/systemd/system").mkdir(parents=True)
        shutil.copy(UNIT, venv / "lib/systemd/system")
        program = self.root / "opt/tinysight/bin/tinysight"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {venv}/tiny_main.py "$@"\n')
        program.chmod(0o755)
        (venv / "tiny_main.py").write_text(tiny.PROGRAM.replace("@VERSION@", "9.9.0") + "main()\n")
        self.options["wheelhouse"] = None

    @property
    def inventory(self) -> Inventory:
        return Inventory(self.folder / "devices.toml")

    def wishes(self, **changes: Any) -> Wishes:
        given = {
            "target": SshTarget.parse(self.sshd.address(self.root)),
            "site": "plant-1",
            "device": "belt-7",
            "name": "belt-7",
            "repo": self.world.repo,
            "identity": self.sshd.identity,
            "service": True,
            **self.options,
            **changes,
        }
        return Wishes(**given)

    def add(
        self,
        *,
        told: Callable[[Step], None] = lambda _step: None,
        tell: Callable[[str], None] = lambda _line: None,
        may: bool = True,
        **changes: Any,
    ) -> Provisioned:
        """Provision once."""
        self.lines, self.steps = [], []

        def line(text: str) -> None:
            self.lines.append(text)
            tell(text)

        def step(each: Step) -> None:
            self.steps.append(each)
            told(each)

        run = provision(self.wishes(**changes), self.inventory, tell=line, told=step, may=lambda _remote, _facts: may)
        return asyncio.run(run)

    @property
    def known(self) -> HostKey | None:
        """The machine's host key, if it is remembered."""
        return KnownHosts(self.inventory.known_hosts).key(SshTarget.parse(self.sshd.address()).host_name)

    @property
    def states(self) -> dict[str, str]:
        return {each.name: each.state for each in self.steps}

    def tree(self) -> dict[str, tuple[int, str, int]]:
        """All that lies on the machine: mode, content or target, and when it was written."""
        found = {}
        for path in sorted(self.root.rglob("*")) if self.root.exists() else []:
            about = path.lstat()
            what = str(path.readlink()) if path.is_symlink() else ""
            if path.is_file() and not path.is_symlink() and about.st_size < 1 << 16:
                what = path.read_bytes().hex()
            found[str(path.relative_to(self.root))] = (about.st_mode, what, about.st_mtime_ns)
        return found

    @property
    def pid(self) -> int | None:
        path = self.sshd.fakes / "systemd" / "pid"
        return int(path.read_text()) if path.exists() else None

    def calls(self) -> list[str]:
        """What systemctl was asked for, without the questions."""
        log = self.sshd.fakes / "systemd" / "log"
        asked = log.read_text().splitlines() if log.exists() else []
        return [each for each in asked if each.split()[0] not in {"--version", "show", "is-enabled", "is-active"}]

    def stop(self) -> None:
        if self.pid is not None:
            subprocess.run([str(self.sshd.fakes / "systemctl"), "stop", "tinysight-agent"], check=True, timeout=30)


@pytest.fixture
def bench(own_sshd: Any, houses: Path, hobby: Any, tmp_path: Path) -> Iterator[Bench]:
    """A machine that is to be given the first small wheelhouse and a certificate."""
    folder = tmp_path / "workstation"
    folder.mkdir()
    broker_folder.configure(folder / "site", broker_folder.Wishes(site="plant-1", hosts=["localhost"]))
    options = {"wheelhouse": houses / "1", "broker_config": folder / "site"}
    made = Bench(own_sshd, tmp_path / "machine", folder, hobby, options)
    yield made
    made.stop()


def test_a_machine_becomes_a_device_once_and_a_second_run_changes_nothing(bench: Bench) -> None:
    first = bench.add()
    assert bench.states == {**dict.fromkeys(STEPS, "changed")}
    assert first.ready
    assert first.claim.tinysight == "9.9.1"
    assert first.claim.host_key.startswith("SHA256:")
    assert first.claim.host_key in bench.lines[0], "the host key is shown when it is met"
    assert bench.calls()[-1].split()[0] in {"start", "restart"}
    assert bench.pid is not None

    etc = bench.root / "etc/tinysight"
    assert stat.S_IMODE((etc / "device.key").stat().st_mode) == 0o600
    certificate = pki.read_certificate(etc / "device.crt")
    key = serialization.load_pem_private_key((etc / "device.key").read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    assert not (bench.folder / "site/devices/belt-7/device.key").exists(), "the key never leaves the device"
    assert first.claim.certificate_sha256 == certificate.fingerprint(hashes.SHA256()).hex()
    trusted = (bench.root / "var/lib/tinysight/store/trust/root.json").read_bytes()
    assert trusted == bench.world.repository().root_bytes()
    assert any("broker to the broker and reload it" in line for line in bench.lines)
    assert bench.known is not None
    assert not (bench.root / "var/cache/tinysight/wheels").exists(), "wheels are not left on a small card"
    entry = bench.inventory.devices()["belt-7"]
    assert (entry.site, entry.device, entry.host_key) == ("plant-1", "belt-7", first.claim.host_key)

    before, pid, calls = bench.tree(), bench.pid, bench.calls()
    second = bench.add()
    assert bench.states == {**dict.fromkeys(STEPS, "ok")}
    assert not second.changed
    assert second.claim == first.claim
    bench.add(check=True)
    assert bench.states == {**dict.fromkeys(STEPS, "ok")}
    assert (bench.tree(), bench.pid, bench.calls()) == (before, pid, calls)
    assert bench.inventory.devices()["belt-7"] == entry


def test_check_says_what_would_be_done_and_does_nothing(bench: Bench) -> None:
    done = bench.add(check=True)
    wanted = dict.fromkeys(STEPS, "would change") | {"cleaning up": "ok", "agent": "skipped"}
    assert bench.states == wanted
    assert done.changed
    assert not done.ready
    assert bench.tree() == {}
    assert bench.calls() == []
    assert bench.inventory.devices() == {}
    assert not (bench.folder / "site/devices/belt-7").exists()
    assert bench.known is None, "whose key it is nobody has agreed to"


def test_nothing_is_changed_when_the_answer_is_no(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="not done"):
        bench.add(may=False)
    assert bench.tree() == {}
    assert bench.known is None
    assert "not remembered" in bench.lines[0]


def test_a_connection_that_is_lost_after_any_step_is_mended_by_the_same_command(bench: Bench) -> None:
    cut: list[str] = []

    def after(step: Step) -> None:
        if step.state == "changed" and step.name not in cut and step.name != "inventory":
            cut.append(step.name)
            bench.sshd.cut()

    for _ in STEPS:
        try:
            done = bench.add(told=after)
            break
        except DeviceError as error:
            refused = str(error)
        assert "lost" in refused or "reached" in refused, refused
    assert done.ready
    assert cut == STEPS[:-1], "each step was the last one that was done before a cut"
    assert bench.pid is not None
    bench.add()
    assert bench.states == {**dict.fromkeys(STEPS, "ok")}


def test_a_connection_that_is_lost_within_a_step_is_mended_by_the_same_command(bench: Bench) -> None:
    def cut_at(beginning: str, after_s: float) -> Callable[[str], None]:
        return lambda line: threading.Timer(after_s, bench.sshd.cut).start() if line.startswith(beginning) else None

    moments = [("wheel 1/", 0.0), ("wheel 2/", 0.01), ("installing", 0.0), ("installing", 0.2)]
    for beginning, after_s in moments:
        with pytest.raises(DeviceError):
            bench.add(tell=cut_at(beginning, after_s))
        assert not (bench.root / "opt/tinysight/venv").exists(), "what is half installed is nobody's to run"
    done = bench.add()
    assert done.ready
    bench.add()
    assert bench.states == {**dict.fromkeys(STEPS, "ok")}


def test_a_new_runtime_replaces_the_old_one_in_one_step_and_the_agent_is_restarted(bench: Bench, houses: Path) -> None:
    old = bench.add().claim.runtime
    pid, opt = bench.pid, bench.root / "opt/tinysight"
    with pytest.raises(DeviceError):
        bench.add(
            wheelhouse=houses / "2",
            tell=lambda line: threading.Timer(0.2, bench.sshd.cut).start() if line.startswith("installing") else None,
        )
    assert (opt / "venv").readlink() == Path(f"runtimes/{old}")
    assert (bench.pid, version(opt)) == (pid, "tinysight 9.9.1")

    with pytest.raises(DeviceError):
        bench.add(wheelhouse=houses / "2", told=lambda step: bench.sshd.cut() if step.name == "switch" else None)
    assert (bench.pid, version(opt)) == (pid, "tinysight 9.9.2"), "what runs is still the old one"

    done = bench.add(wheelhouse=houses / "2")
    assert bench.states["switch"] == "ok"
    assert bench.states["service"] == "changed", "that it has to be restarted is not forgotten"
    assert bench.pid != pid
    assert done.claim.tinysight == "9.9.2"
    assert [each.name for each in (opt / "runtimes").iterdir()] == [done.claim.runtime]


def version(opt: Path) -> str:
    done = subprocess.run([opt / "bin/tinysight", "--version"], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def test_a_wheel_that_was_exchanged_on_the_device_is_not_installed(bench: Bench, houses: Path) -> None:
    bench.add()
    house = read(houses / "2" / tiny.TARGET)
    name = house.wheels[0].file

    async def tampered() -> None:
        from tinysight_deploy.provisioning.provision import look

        known = KnownHosts(bench.inventory.known_hosts)
        async with connect(bench.wishes().target, known, identity=bench.sshd.identity) as remote:
            runtime = Runtime(Hands(remote), houses / "2" / tiny.TARGET, house, await look(remote))
            await runtime.push(await runtime.missing(), lambda _line: None)
            there = bench.root / "var/cache/tinysight/wheels" / name
            good = there.read_bytes()
            there.write_bytes(good.replace(b"9.9.2", b"6.6.6"))
            assert [each.file for each in await runtime.missing()] == [name], "the next run would bring it again"
            with pytest.raises(DeviceError, match=r"(?i)hashes"):
                await runtime.install()
            there.write_bytes(good)
            pip = there.with_name(house.pip.file)
            pip.write_bytes(pip.read_bytes()[:-1] + b"?")
            with pytest.raises(DeviceError, match="installing failed"):
                await runtime.install()
            assert (await runtime.found())[:2] == (False, False)

    asyncio.run(tampered())
    assert version(bench.root / "opt/tinysight") == "tinysight 9.9.1"


def test_a_device_that_believes_another_root_is_left_as_it_is(bench: Bench) -> None:
    bench.has_programs()
    path = bench.root / "var/lib/tinysight/store/trust/root.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"signed": "somebody else"}')
    with pytest.raises(DeviceError, match=r"another root of trust.*--repo"):
        bench.add()
    assert path.read_text() == '{"signed": "somebody else"}'
    assert "agent.toml" not in bench.states
    bench.world.rotate("root")
    roots = bench.world.repository().chain().roots
    assert len(roots) > 1
    path.write_bytes(roots[-1])  # of this repository, as it is now
    bench.add()
    assert bench.states["root of trust"] == "ok"
    assert path.read_bytes() == roots[-1]


def test_a_root_that_nobody_signed_is_given_to_no_device(bench: Bench) -> None:
    (bench.world.repo / "metadata/2.root.json").write_text('{"evil":1}')
    with pytest.raises(ConfigError, match=r"2\.root\.json"):
        bench.add()
    assert bench.tree() == {}
    assert bench.lines == [], "nobody was called"


def test_without_a_root_of_trust_nobody_is_called(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="keys init"):
        bench.add(repo=bench.folder / "none")
    assert bench.tree() == {}


def test_the_users_own_file_is_never_overwritten_and_a_wrong_one_is_told(bench: Bench) -> None:
    bench.has_programs()
    own = bench.folder / "own.toml"
    own.write_text("later = 1\n")
    done = bench.add(config=own)
    path = bench.root / "etc/tinysight/agent.toml"
    assert path.read_text() == "later = 1\n"
    assert not done.ready
    assert bench.pid is None, "an agent that cannot run is not started"
    assert [each.what for each in bench.steps if each.name == "agent"] == ["not started: the store has no bundle"]
    path.write_text("wrong = 1\n")
    with pytest.raises(DeviceError, match=r"agent\.toml is wrong: line 1: site: It is .*Right it") as caught:
        bench.add(config=own)
    assert "\x1b" not in str(caught.value), "nothing of a device reaches the terminal as it is"
    assert path.read_text() == "wrong = 1\n"
    path.write_text("right = 1\n")
    assert bench.add(config=own).ready
    assert path.read_text() == "right = 1\n"


def test_a_device_needs_a_broker_and_programs(bench: Bench) -> None:
    with pytest.raises(DeviceError, match=r"no TinySight yet.*--wheelhouse"):
        bench.add(wheelhouse=None)
    assert bench.tree() == {}, "that is known before the first step"
    bench.add(wheelhouse=None, check=True)
    assert "--wheelhouse" in next(each.what for each in bench.steps if each.name == "runtime")
    assert bench.states["agent.toml"] == "would change", "and what else is to be done is told all the same"
    with pytest.raises(ConfigError, match="two brokers"):
        bench.add(broker="mqtt://localhost")
    with pytest.raises(ConfigError, match=f"no wheels for {tiny.TARGET}"):
        bench.add(wheelhouse=bench.folder)
    bench.has_programs()
    with pytest.raises(ConfigError, match="--broker-config, --broker or --config"):
        bench.add(broker_config=None)


def test_groups_and_tags_stay_until_others_are_given(bench: Bench) -> None:
    bench.has_programs()
    bench.add(groups=("yard",), tags={"lens": "wide"})
    bench.add()
    entry = bench.inventory.devices()["belt-7"]
    assert (entry.groups, entry.tags) == (["yard"], {"lens": "wide"})
    bench.add(groups=("roof",))
    assert bench.inventory.devices()["belt-7"].groups == ["roof"]
    assert bench.inventory.devices()["belt-7"].added_at == entry.added_at


def test_a_lost_key_is_made_anew_and_what_was_signed_for_it_is_revoked(bench: Bench) -> None:
    bench.has_programs()
    bench.add()
    folder, etc = bench.folder / "site", bench.root / "etc/tinysight"
    before = pki.read_certificate(etc / "device.crt")
    (etc / "device.key").unlink()
    bench.add()
    after = pki.read_certificate(etc / "device.crt")
    assert after.public_key() != before.public_key()
    assert pki.identity_of(after) == pki.identity_of(before)
    revoked = x509.load_pem_x509_crl((folder / "broker/revoked.crl").read_bytes())
    assert {each.serial_number for each in revoked} == {before.serial_number}
    (folder / "ca.key").rename(bench.folder / "usb-stick.key")
    bench.add()
    assert bench.states["certificate"] == "ok", "nothing has to be signed, so the authority may be away"
    (etc / "device.key").unlink()
    with pytest.raises(ConfigError, match=r"ca\.key is not here"):
        bench.add()


def test_a_key_that_the_workstation_made_is_replaced_by_the_devices_own(bench: Bench) -> None:
    bench.has_programs()
    folder = bench.folder / "site"
    broker_folder.configure(folder, broker_folder.Wishes(devices=["belt-7"]))
    assert (folder / "devices/belt-7/device.key").exists()
    bench.add()
    assert not (folder / "devices/belt-7/device.key").exists()


def test_a_renewed_certificate_is_for_the_same_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.has_programs()
    bench.add()
    etc = bench.root / "etc/tinysight"
    before = pki.read_certificate(etc / "device.crt")
    with monkeypatch.context() as patched:
        patched.setattr(pki, "ends_soon", lambda _certificate: True)
        broker_folder.configure(bench.folder / "site", broker_folder.Wishes())
    bench.add()
    after = pki.read_certificate(etc / "device.crt")
    assert bench.states["certificate"] == "changed"
    assert after.serial_number != before.serial_number
    assert after.public_key() == before.public_key()


def test_a_device_without_openssl_or_cryptography_cannot_make_a_key(bench: Bench) -> None:
    bench.has_programs()
    fake(bench.sshd.fakes / "openssl", "exit 127")
    with pytest.raises(DeviceError, match=r"no openssl.*--with cryptography"):
        bench.add()


def fake(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param("yes endless", "printed more than 65536 bytes", id="endless"),
        pytest.param("head -c 3000 /dev/urandom", "does not describe itself", id="garbage"),
        pytest.param("printf 'machine=\\033]0;owned\\007\\033[2J\\n'", "does not describe itself", id="ANSI"),
        pytest.param("exit 0", "does not describe itself", id="silence"),
    ],
)
def test_a_hostile_machine_is_refused_on_one_plain_line(bench: Bench, script: str, reason: str) -> None:
    fake(bench.sshd.fakes / "sh", script)
    with pytest.raises(DeviceError, match=reason) as caught:
        bench.add()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert bench.tree() == {}


GOOD = b"""machine=aarch64
user=pi
system=Debian GNU/Linux 12 (bookworm)
model=Raspberry Pi 5 Model B Rev 1.0
serial=10000000abcdef01
machine_id=3d1219c7c4c5404aaa1f6d2a48adfda4
disk_kib=20000000
memory_kib=4000000
time=1000
synced=yes
systemd=252
running=yes
openssl=OpenSSL 3.0.15
root=sudo
python=3 11 2 64 glibc2.36 1 1 0 /usr/bin/python3.11
camera=video0 0 usb HD Camera
camera=video1 1 usb HD Camera
camera=video10 0 platform bcm2835-codec-decode
accelerator=edgetpu
end=yes
"""


def test_what_a_board_says_of_itself_is_read() -> None:
    facts = read_facts(GOOD, 1003.0)
    assert facts.target == "aarch64-py311"
    assert (facts.disk_mib, facts.memory_mib, facts.clock_off_s) == (19531, 3906, -3.0)
    assert (facts.root, facts.serial, facts.accelerators) == ("sudo", "10000000abcdef01", ("edgetpu",))
    assert [each.node for each in facts.cameras] == ["video0", "video10"]
    assert sources(facts) == ["0"]
    assert findings(facts, None, own_root=False, installed=False) == []


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(GOOD.replace(b"end=yes\n", b""), id="cut off"),
        pytest.param(GOOD + b"machine=x86_64\n", id="said twice"),
        pytest.param(GOOD + b"more=1\n", id="unknown line"),
        pytest.param(GOOD + b"camera=video2 0 usb x\n" * 500, id="too many lines"),
        pytest.param(GOOD.replace(b"aarch64", b"$(reboot)"), id="a command"),
        pytest.param(GOOD.replace(b"aarch64", b"a" * 50), id="long machine"),
        pytest.param(GOOD.replace(b"user=pi", b"user=-oProxyCommand"), id="an option"),
        pytest.param(GOOD.replace(b"20000000", b"-1"), id="negative"),
        pytest.param(GOOD.replace(b"20000000", b"9" * 99), id="huge"),
        pytest.param(GOOD.replace(b"Camera", b"\x1b[2J"), id="escape"),
        pytest.param(GOOD.replace(b"root=sudo", b"root=maybe"), id="third kind"),
    ],
)
def test_what_is_not_said_as_the_script_says_it_is_refused(told: bytes) -> None:
    with pytest.raises(DeviceError, match="does not describe itself") as caught:
        read_facts(told, 0.0)
    assert str(caught.value).isprintable()


def test_a_python_with_a_path_that_is_no_path_is_none() -> None:
    facts = read_facts(GOOD.replace(b"/usr/bin/python3.11", b"/usr/bin/python3;reboot"), 0.0)
    assert facts.python == ""


def board(**lines: str) -> Facts:
    text = GOOD.decode()
    for name, value in lines.items():
        text = "".join(
            f"{name}={value}\n" if line.startswith(f"{name}=") else line for line in text.splitlines(keepends=True)
        )
    return read_facts(text.encode(), 1000.0)


@pytest.mark.parametrize(
    ("lines", "what", "mend"),
    [
        pytest.param({"machine": "armv6l"}, "no runtime for armv6l", "Raspberry Pi 2", id="Pi Zero"),
        pytest.param({"machine": "riscv64"}, "no runtime for riscv64", "64-bit ARM", id="other machine"),
        pytest.param({"python": "3 9 2 64 glibc2.31 1 1 0 /usr/bin/python3"}, "only Python 3.9.2", "OS 12", id="old"),
        pytest.param({"python": ""}, "no Python", "python3.11", id="none"),
        pytest.param({"python": "3 12 1 64 - 1 1 0 /usr/bin/python3"}, "not glibc", "Debian", id="musl"),
        pytest.param(
            {"python": "3 13 5 32 glibc2.41 1 1 0 /usr/bin/python3"},
            "32-bit ARM and Python 3.13.5",
            "64-bit",
            id="32 bits",
        ),
        pytest.param(
            {"python": "3 11 2 64 glibc2.36 0 1 0 /usr/bin/python3"}, "environments", "python3-venv", id="venv"
        ),
        pytest.param({"disk_kib": "204800"}, "200 MiB are free", "Make room", id="disk"),
        pytest.param({"python": "3 11 2 64 glibc2.17 1 1 0 /usr/bin/python3"}, "need glibc 2.28", "later", id="glibc"),
        pytest.param(
            {"python": "3 12 2 64 glibc2.39 1 1 0 /usr/bin/python3"}, "is for aarch64-py311", "py312", id="other"
        ),
        pytest.param({"root": "no"}, "may not become root", "sudo", id="rights"),
    ],
)
def test_a_machine_that_cannot_become_a_device_is_refused_with_a_mend(
    lines: dict[str, str], what: str, mend: str, houses: Path
) -> None:
    house = replace(read(houses / "1" / tiny.TARGET), target="aarch64-py311", glibc="2.28")
    worst = findings(board(**lines), house, own_root=False, installed=False)[0]
    assert worst.level == "error"
    assert what in worst.what
    assert mend in worst.mend


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        pytest.param({"time": "5000"}, "4000 s ahead", id="clock ahead"),
        pytest.param({"time": "0"}, "1000 s behind", id="clock behind"),
        pytest.param({"synced": "no"}, "not set by the network", id="clock alone"),
        pytest.param({"memory_kib": "200000"}, "195 MiB of memory", id="memory"),
        pytest.param({"running": ""}, "systemd does not run", id="no systemd"),
        pytest.param({"systemd": "247"}, "systemd is 247", id="old systemd"),
    ],
)
def test_what_works_and_not_well_is_told(lines: dict[str, str], what: str) -> None:
    (found,) = findings(board(**lines), None, own_root=False, installed=False)
    assert found.level == "warning"
    assert what in found.what


def test_a_32_bit_system_on_a_64_bit_kernel_is_a_32_bit_device() -> None:
    facts = board(python="3 11 2 32 glibc2.36 1 1 0 /usr/bin/python3.11")
    assert facts.target == "armv7l-py311"
    assert findings(facts, None, own_root=False, installed=False) == []


def test_of_a_request_only_the_public_key_is_believed(tmp_path: Path) -> None:
    authority = pki.Authority.found(tmp_path, "plant-1")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gate-1_0123456789abcdef")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("broker.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM)
    authority.sign_request(pem, tmp_path / "device.crt", site="plant-1", name="belt-7", identity="belt-7_tail")
    certificate = pki.read_certificate(tmp_path / "device.crt")
    assert pki.identity_of(certificate) == "belt-7_tail"
    assert certificate.public_key() == key.public_key()
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def requests() -> dict[str, bytes]:
    name = x509.Name([])
    good = x509.CertificateSigningRequestBuilder().subject_name(name)
    ours = good.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    der = bytearray(ours.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    other = good.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    large = good.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256())
    pem = serialization.Encoding.PEM
    return {
        "forged": forged,
        "another curve": other.public_bytes(pem),
        "RSA": large.public_bytes(pem),
        "nothing": b"",
        "garbage": os.urandom(500),
        "too large": ours.public_bytes(pem) + b"\n" * (1 << 15),
    }


@pytest.mark.parametrize("kind", list(requests()))
def test_a_request_that_is_none_is_refused(kind: str, tmp_path: Path) -> None:
    authority = pki.Authority.found(tmp_path, "plant-1")
    with pytest.raises(ConfigError, match="request"):
        authority.sign_request(requests()[kind], tmp_path / "x.crt", site="s", name="d", identity="d_1")
    assert not (tmp_path / "x.crt").exists()


def test_what_is_the_agents_is_touched_by_the_agent_alone() -> None:
    """Root that writes into a folder of another user writes where that one's links lead."""
    asked: list[list[str]] = []

    class Machine:
        target = SshTarget.parse("ssh://root@gate")

        async def run(self, command: list[str], **_how: Any) -> Done:
            asked.append(command)
            return Done(0, b"-" if scripts._USER in command else b"", b"")

    async def steps() -> None:
        wishes = Wishes(target=Machine.target, site="s", device="d", name="d", repo=Path())
        files = scripts.Files(Hands(Machine()), wishes, board(), (b"root", [b"root"]))  # type: ignore[arg-type]  # enough of one
        for name, check, do in files.first():
            if name == "user":
                await check()
                continue
            await do()
            if name == "root of trust":
                await check()
                assert not any("head -c" in " ".join(each) for each in asked), "without a user there is no root yet"

    asyncio.run(steps())
    theirs = [each for each in asked if any("var/lib/tinysight/store" in word for word in each)]
    assert theirs
    assert [each for each in theirs if each[:4] != ["runuser", "-u", "tinysight", "--"]] == []


def run_script(script: str, *words: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["sh", "-c", script, "sh", *words], input=given, capture_output=True, check=False, timeout=30)


def test_a_link_is_neither_written_through_nor_taken_for_a_folder(tmp_path: Path) -> None:
    secret, store = tmp_path / "shadow", tmp_path / "store"
    secret.write_text("root:x")
    secret.chmod(0o600)
    store.mkdir()
    for name in ("root.json", "root.json.part"):
        (store / name).symlink_to(secret)
    digest = hashlib.sha256(b"{}").hexdigest()
    assert run_script(hands._WRITE, str(store / "root.json"), digest, "640", "", given=b"{}").returncode == 0
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("root:x", 0o600)
    assert (store / "root.json").read_bytes() == b"{}"
    assert not (store / "root.json").is_symlink()
    assert run_script(hands._WRITE, str(store / "root.json"), digest, "640", "", given=b"{").returncode == 45
    assert sorted(each.name for each in store.iterdir()) == ["root.json", "root.json.part"], "no part is left"

    link, target = tmp_path / "link", tmp_path / "etc"
    target.mkdir(mode=0o700)
    link.symlink_to(target)
    done = run_script(hands._FOLDER, str(link), "755", "")
    assert done.returncode == 46
    assert b"a link" in done.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    target.chmod(0o2755)
    assert run_script(hands._FOLDER, str(target), "755", "").returncode == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o755, "also without the bit that it had from its parent"
    assert run_script(hands._OWN, str(link), "600", "").returncode == 46
    whose = "65534:65534" if os.geteuid() == 0 else ""
    assert run_script(hands._OWN, str(secret), "640", whose).returncode == 0
    about = secret.stat()
    assert stat.S_IMODE(about.st_mode) == 0o640
    assert about.st_uid == (65534 if whose else os.geteuid())


def test_what_was_pushed_can_be_read_whatever_umask_the_device_has(sshd_module: Any, tmp_path: Path) -> None:
    local, there = tmp_path / "wheel", tmp_path / "there"
    local.write_bytes(b"x" * 100)

    async def push(target: SshTarget, identity: Path) -> None:
        async with connect(target, KnownHosts(tmp_path / "known_hosts"), identity=identity) as remote:
            await remote.push(local, str(there))

    with sshd_module.running_sshd(tmp_path / "strict", sftp="internal-sftp -u 077") as strict:
        asyncio.run(push(SshTarget.parse(strict.address()), strict.identity))
    assert there.read_bytes() == local.read_bytes()
    assert stat.S_IMODE(there.stat().st_mode) == 0o644


def test_the_host_key_of_the_inventory_is_what_it_has_to_be(bench: Bench) -> None:
    bench.has_programs()
    bench.add()
    entry = bench.inventory.devices()["belt-7"]
    bench.inventory.known_hosts.unlink()
    bench.sshd.new_host_key()
    with pytest.raises(DeviceError, match=r"its host key is .*forget-key"):
        bench.add()
    assert bench.inventory.devices()["belt-7"] == entry
    assert bench.known is None


def test_a_second_machine_takes_the_first_ones_place_only_when_told_to(bench: Bench) -> None:
    bench.has_programs()
    other = replace(bench_device(bench), address="ssh://pi@elsewhere", host_key="SHA256:" + "a" * 43)
    bench.inventory.put("gate", other)
    with pytest.raises(ConfigError, match=r"plant-1/belt-7 already, as gate at ssh://pi@elsewhere.*--replace"):
        bench.add()
    with pytest.raises(ConfigError, match="already"):
        bench.add(name="gate", device="belt-8")
    assert bench.inventory.devices() == {"gate": other}
    bench.add(replace=True)
    assert list(bench.inventory.devices()) == ["belt-7"]


def bench_device(bench: Bench) -> Device:
    return Device(address=bench.sshd.address(bench.root), site="plant-1", device="belt-7")


def test_what_still_installs_there_is_not_disturbed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_WAIT_S", 0)
    opt = bench.root / "opt/tinysight"
    opt.mkdir(parents=True)
    handle = os.open(opt, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(DeviceError, match="still being installed there"):
            bench.add()
    finally:
        os.close(handle)
    assert not (opt / "runtimes").exists()


def test_a_runtime_that_still_runs_is_not_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "runtimes/old", tmp_path / "runtimes/new"
    for each in (old, new):
        (each / "bin").mkdir(parents=True)
    shutil.copy("/bin/sleep", old / "bin/python")
    with subprocess.Popen([old / "bin/python", "60"]) as process:
        assert run_script(runtimes._IDLE, str(tmp_path), "new").stdout == b""
        assert run_script(runtimes._REMOVE, str(tmp_path), "new").returncode == 0
        assert old.exists()
        process.kill()
    assert run_script(runtimes._IDLE, str(tmp_path), "new").stdout == b"old\n"
    assert run_script(runtimes._REMOVE, str(tmp_path), "new").returncode == 0
    assert [each.name for each in (tmp_path / "runtimes").iterdir()] == ["new"]


def test_below_a_path_systemd_is_asked_only_when_told_to(bench: Bench) -> None:
    bench.has_programs()
    done = bench.add(service=False)
    assert done.ready
    assert bench.states["service"] == "skipped"
    assert bench.calls() == []
    name = unit_name(bench.wishes().target)
    assert (bench.root / "etc/systemd/system" / name).exists()
    assert name not in {UNIT.name, unit_name(SshTarget.parse("ssh://root@gate/srv/other"))}
    assert unit_name(SshTarget.parse("ssh://root@gate")) == UNIT.name


def test_an_answer_without_an_end_is_no_traceback(bench: Bench) -> None:
    bench.has_programs()
    program = bench.root / "opt/tinysight/bin/tinysight"
    fake(
        program,
        'case "$1" in --version) echo tinysight 9.9.0;; *) head -c 100000 /dev/zero | tr "\\0" "["; exit 1;; esac',
    )
    assert not bench.add(service=False).ready


def test_who_has_no_tinysight_is_not_told_about_sudo() -> None:
    target = SshTarget.parse("ssh://pi@gate")
    for said in (
        b"sudo: /opt/tinysight/bin/tinysight: command not found",
        b"sh: 1: /opt/tinysight/bin/tinysight: not found",
    ):
        assert "device add" in failed(target, 1, said).mend
    assert "sudo" in failed(target, 1, b"sudo: a password is required").mend


def test_of_many_who_let_devices_in_at_once_none_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "site"
    broker_folder.configure(out, broker_folder.Wishes(site="plant-1", hosts=["localhost"]))
    script = "import sys; from pathlib import Path; from tinysight_deploy.brokers.folder import *; "
    script += "[configure(Path(sys.argv[1]), Wishes(devices=[f'{sys.argv[2]}-{n}'])) for n in range(2)]"
    names = ("a", "b", "c")
    running = [subprocess.Popen([sys.executable, "-c", script, str(out), name]) for name in names]
    assert [each.wait(60) for each in running] == [0] * len(names)
    setup = broker_folder.load(out / "setup.json")
    assert setup is not None
    assert sorted(setup.devices) == sorted(f"{name}-{n}" for name in names for n in range(2))


def test_the_unit_of_a_folder_has_its_paths_and_no_user() -> None:
    own = SshTarget.parse("ssh://root@gate")
    assert unit_for(own, UNIT.read_bytes()) == UNIT.read_bytes()
    text = unit_for(SshTarget.parse("ssh://me@gate/srv/cam"), UNIT.read_bytes()).decode()
    assert "ExecStart=/srv/cam/opt/tinysight/bin/tinysight run --config /srv/cam/etc/tinysight/agent.toml" in text
    assert "User=" not in text
    assert "StateDirectory=" not in text
    assert "ReadWritePaths=/srv/cam/var/lib/tinysight" in text
    with pytest.raises(DeviceError, match="no unit of TinySight's"):
        unit_for(own, b"[Service]\nExecStart=/bin/evil\n")


def test_the_file_that_is_made_is_one_that_the_agent_accepts(tmp_path: Path) -> None:
    facts = board()
    target = SshTarget.parse(f"ssh://pi@gate{tmp_path}")
    (tmp_path / "var/lib/tinysight/store").mkdir(parents=True)
    text = agent_toml(
        target, site="plant-1", device="belt-7", broker=broker_section("mqtts://[::1]:8883", ca=True), facts=facts
    )
    path = tmp_path / "agent.toml"
    path.write_text(text)
    pki.Authority.found(tmp_path, "plant-1")
    checked = check_config(path, environ={})
    assert checked.config is not None, checked.findings
    assert checked.config.model.store == tmp_path / "var/lib/tinysight/store"
    with pytest.raises(ConfigError, match="no address of a broker"):
        broker_section('mqtt://x"\nevil = 1', ca=False)


def test_the_user_is_made_once_and_joins_the_groups_that_there_are(tmp_path: Path) -> None:
    """The script for machines of their own, with fakes of what changes the list of users."""
    users = tmp_path / "users"
    fake(
        tmp_path / "getent", f'case "$1 $2" in "passwd tinysight") [ -e {users} ];; "group video") ;; *) exit 2;; esac'
    )
    fake(tmp_path / "id", f"[ -e {users} ] && cat {users} && echo")
    fake(tmp_path / "useradd", f'echo "useradd $*" >> {tmp_path}/log; printf tinysight > {users}')
    fake(tmp_path / "usermod", f'echo "usermod $*" >> {tmp_path}/log; printf " $2" >> {users}')

    def run(script: str) -> str:
        done = subprocess.run(
            ["sh", "-c", script, "sh", "tinysight", "video", "render"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(scripts._USER).split("\n")[:2] == ["-", "video "]
    run(scripts._ADD_USER)
    assert run(scripts._USER).split("\n")[:2] == ["tinysight video", "video "]
    run(scripts._ADD_USER)
    calls = (tmp_path / "log").read_text().splitlines()
    assert [each.split()[0] for each in calls] == ["useradd", "usermod", "usermod"]
    assert "--system" in calls[0]
    assert "nologin" in calls[0]


def test_the_command_asks_before_it_changes_anything_and_says_all_to_programs(bench: Bench, tinysight: Any) -> None:
    bench.has_programs()
    folder, address = bench.folder, bench.sshd.address(bench.root).removeprefix("ssh://")
    words = ["device", "add", address, "--site", "plant-1", "--device", "belt-7", "--tag", "lens=wide"]
    words += ["--broker", "mqtt://localhost", "--repo", str(bench.world.repo)]
    words += ["--inventory", str(folder / "devices.toml"), "--identity", str(bench.sshd.identity)]
    before = bench.tree()
    done = tinysight(*words)
    assert done.returncode == 2
    assert "Nobody can be asked here" in done.stderr
    assert bench.tree() == before
    done = tinysight(*words, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["changed"]
    assert told["claim"]["tinysight"] == "9.9.0"
    assert {"name": "runtime", "state": "ok", "what": ""} in told["steps"]
    assert bench.inventory.devices()["belt-7"].tags == {"lens": "wide"}
    assert tinysight("device", "add", "gate", "--site", "s", "--device", "d").returncode == 2
