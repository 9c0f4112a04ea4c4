"""What it takes to bring a model to devices over SSH: seconds and bytes, the difference against the whole.

    python benchmarks/flash.py        3 minutes; more the first time, for the models of delta.py and the wheels
    python benchmarks/flash.py --bundles FOLDER        with NAME.bundle, NAME-head.bundle and NAME-all.bundle
    python benchmarks/flash.py --wheelhouse FOLDER        what `tinysight wheelhouse` has made

The devices are folders of one sshd on this machine: their processes share the cores with the workstation's. The first
one is made by `tinysight device add` from a wheelhouse, with a runtime of its own; the others are stand-ins, whose
`tinysight` is this workstation's, since twenty runtimes are 6 GiB. ``first_s`` is making the first one (``added_s``: up
to the end of `device add`) and its first flash, its self-test included; ``again_s`` the same flash once more, which
changes nothing. A ratio is all bytes that were moved (what is signed, too) by the bundle's, of all models the worse:
after training the head alone, and all weights. Of ``many`` devices the fine-tuned releases are brought beside an agent
that runs, which tests them later: what is measured there is the transport.
Needs openssh-server. Prints one JSON line last.
"""

import argparse
import importlib.util
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rig import kept, say
from steps import tinysight, where

from tinysight_edge.store import Store

MODELS: Final = ("detector", "classifier")
KINDS: Final = ("head", "all")
MANY: Final = 20


def _of_the_tests(name: str) -> ModuleType:
    """A file of tests/deploy."""
    path = Path(__file__).parent.parent / "tests" / "deploy" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


sshds: Final = _of_the_tests("sshd")


class Yard:
    """A repository, devices, and the commands that bring one to the others."""

    def __init__(self, folder: Path, sshd: Any, count: int) -> None:  # noqa: ANN401 -- of a module that is found at run time
        self.folder, self.sshd, self.count = folder, sshd, count
        self.prefixes = [folder / f"device-{number}" for number in range(count)]
        tinysight("keys", "init", *self.repo(), cwd=folder)

    def repo(self, name: str = "repo") -> tuple[str, ...]:
        """Options that name the repository."""
        return ("--repo", str(self.folder / name), "--keys", str(self.folder / "keys"))

    def login(self, repo: str = "repo") -> tuple[str | Path, ...]:
        """Options of what talks to devices."""
        mine = ("--identity", self.sshd.identity, "--inventory", self.folder / "devices.toml")
        return (*mine, *self.repo(repo))

    def release(self, bundle: Path) -> None:
        """Sign a bundle."""
        tinysight("release", "add", bundle, *self.repo(), cwd=self.folder)

    def add(self, prefix: Path, wheels: Path) -> None:
        """Make a folder a device, as a machine is made one; no systemd starts its agent."""
        name, settings = prefix.name, ("--site", "bench", "--broker", "mqtt://127.0.0.1", "--wheelhouse", wheels)
        address = self.sshd.address(prefix)
        tinysight("device", "add", address, "--device", name, *settings, *self.login(), "--yes", cwd=self.folder)

    def stand_in(self, prefix: Path) -> None:
        """Make a folder a device: the programs of this workstation, and whom it trusts."""
        sshds.install_program(prefix)
        trust = self.store(prefix).trust
        trust.mkdir(parents=True)
        shutil.copy(self.folder / "keys" / "root.json", trust / "root.json")

    @staticmethod
    def store(prefix: Path) -> Store:
        """Of a device."""
        return Store(prefix / "var/lib/tinysight/store")

    def flash(self, bundle: Path, prefixes: list[Path], *, repo: str = "repo") -> dict[str, Any]:
        """Flash devices; seconds, bytes, and how it ended."""
        to = [f"--to={self.sshd.address(prefix)}" for prefix in prefixes]
        begun_s = time.perf_counter()
        told = tinysight("flash", bundle, *to, *self.login(repo), "--wait", "0", cwd=self.folder)
        devices = told["devices"]
        return {
            "s": round(time.perf_counter() - begun_s, 2),
            "bytes": sum(each["moved_bytes"] for each in devices),
            "ended": sorted({each["outcome"] for each in devices}),
            "transfer": sorted({each["transfer"] for each in devices}),
        }

    @contextmanager
    def agents(self, prefixes: list[Path]) -> Iterator[None]:
        """Agents run on the devices, as far as anybody can tell."""
        with ExitStack() as stack:
            for prefix in prefixes:
                stack.enter_context(self.store(prefix).run())
            yield


def measure(folder: Path, bundles: Path, wheels: Path, model: str, count: int) -> dict[str, Any]:
    """One model, one and many devices."""
    with sshds.running_sshd(folder / "sshd") as sshd:
        (sshd.fakes / "systemctl").write_text("#!/bin/sh\nexit 1\n")  # no unit of a device's reaches this machine's
        (sshd.fakes / "systemctl").chmod(0o755)
        yard = Yard(folder, sshd, count)
        base = bundles / f"{model}.bundle"
        yard.release(base)
        one = yard.prefixes[:1]
        begun_s = time.perf_counter()
        yard.add(one[0], wheels)
        found: dict[str, Any] = {"bundle_bytes": base.stat().st_size}
        found["added_s"] = round(time.perf_counter() - begun_s, 2)
        found["first"] = yard.flash(base, one)
        found["first"]["s"] = round(time.perf_counter() - begun_s, 2)
        found["again"] = yard.flash(base, one)
        for prefix in yard.prefixes[1:]:
            yard.stand_in(prefix)
        found["many_first"] = yard.flash(base, yard.prefixes)
        found["many_again"] = yard.flash(base, yard.prefixes)
        for kind in KINDS:
            bundle = bundles / f"{model}-{kind}.bundle"
            yard.release(bundle)
            with yard.agents(yard.prefixes):
                found[kind] = yard.flash(bundle, one)
                found[kind]["ratio"] = round(found[kind]["bytes"] / bundle.stat().st_size, 4)
                found[f"many_{kind}"] = yard.flash(bundle, yard.prefixes)
                whole = without_deltas(yard, bundle, one)
            found[f"{kind}_full"] = {**whole, "ratio": round(whole["bytes"] / bundle.stat().st_size, 4)}
            say(f"{model}-{kind}: {found[kind]}, full: {found[f'{kind}_full']}")
    return found


def without_deltas(yard: Yard, bundle: Path, one: list[Path]) -> dict[str, Any]:
    """The same from a repository that has lost its differences, to a device that is as the first one was."""
    shutil.rmtree(yard.folder / "plain", ignore_errors=True)
    shutil.copytree(yard.folder / "repo", yard.folder / "plain")
    shutil.rmtree(yard.folder / "plain" / "deltas")
    twin = yard.folder / f"twin-{bundle.stem}"
    store = yard.store(twin)
    yard.stand_in(twin)
    shutil.copytree(yard.store(one[0]).root, store.root, dirs_exist_ok=True)
    with store.alone():
        store.save(type(store.state())(active=store.state().active))
        store.sweep(store.state())
    with yard.agents([twin]):
        return yard.flash(bundle, [twin], repo="plain")


def wheels_here() -> Path:
    """A wheelhouse for this machine: downloaded once, and with the TinySight of now."""
    target = f"{platform.machine()}-py{sys.version_info.major}{sys.version_info.minor}"

    def make(folder: Path) -> None:
        tinysight("wheelhouse", "--target", target, "--out", folder, cwd=folder.parent)

    wheels = kept("wheels", [target], make)
    make(wheels)
    return wheels


def make_bundles(folder: Path) -> None:
    """Train and convert, as delta.py does."""
    from delta import EPOCHS, FLAGS, HEADS, SHARE_OF_RATE, convert, make_runs  # noqa: PLC0415 -- brings TensorFlow

    runs = kept("fine-tuned", [list(FLAGS.items()), HEADS, EPOCHS, SHARE_OF_RATE], make_runs)
    folder.mkdir()
    for model in MODELS:
        for release, run in enumerate((model, *(f"{model}-{kind}" for kind in KINDS)), start=1):
            convert(runs, run, release, folder)


def main() -> None:
    """Measure each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, help="a folder with the bundles instead of training them")
    parser.add_argument("--wheelhouse", type=Path, help="a wheelhouse for this machine instead of downloading one")
    parser.add_argument("--many", type=int, default=MANY)
    options = parser.parse_args()
    bundles = (options.bundles or kept("flash", [MODELS, KINDS], make_bundles)).resolve()
    wheels = (options.wheelhouse or wheels_here()).resolve()
    found = {}
    for model in MODELS:
        with tempfile.TemporaryDirectory(prefix="tinysight-flash-") as name:
            found[model] = measure(Path(name), bundles, wheels, model, options.many)
    told = {
        "first_s": max(each["first"]["s"] for each in found.values()),
        "added_s": max(each["added_s"] for each in found.values()),
        "again_s": max(each["again"]["s"] for each in found.values()),
        "head_only_ratio": max(each["head"]["ratio"] for each in found.values()),
        "all_weights_ratio": max(each["all"]["ratio"] for each in found.values()),
        "many": options.many,
        "many_first_s": max(each["many_first"]["s"] for each in found.values()),
        "many_again_s": max(each["many_again"]["s"] for each in found.values()),
        "many_head_s": max(each["many_head"]["s"] for each in found.values()),
        "many_head_bytes": max(each["many_head"]["bytes"] for each in found.values()),
    }
    print(json.dumps({**told, "models": found, "where": where()}))


if __name__ == "__main__":
    main()
