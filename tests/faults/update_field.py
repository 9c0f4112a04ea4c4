"""A device in the field, the repository that it trusts, and the command, as tests of updates use it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tinysight_edge.store import Store
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.installer import Installer
from tinysight_edge.update.selftest import Verdict
from tinysight_edge.update.sources import FolderSource
from tinysight_edge.update.trust import new_trust


@dataclass(frozen=True)
class Field:
    """A device in the field, on which release 1 runs, and the repository that it trusts.

    Attributes:
        shop: the repository.
        root: the device's store.
        make: a good bundle of a release, whose bundles are called as their release.
    """

    shop: Any
    root: Path
    make: Callable[..., bytes]

    @property
    def store(self) -> Store:
        return Store(self.root)

    def command(self, release: int, *options: str, source: str = "") -> list[str]:
        """What installs a release, from the repository's folder or elsewhere."""
        target = f"pets/pets-1.{release}.0.bundle"
        return [
            "store",
            "install",
            target,
            "--from",
            source or str(self.shop.folder),
            "--store",
            str(self.root),
            "--json",
            *options,
        ]

    def copied(self, folder: Path) -> "Field":
        """The same once more."""
        shutil.copytree(self.root, folder / "store")
        shutil.copytree(self.shop.folder, folder / "repository")
        return Field(self.shop.moved(folder / "repository"), folder / "store", self.make)

    def check_runs(self, release: int) -> None:
        """This one runs, and would after the next start; nothing else lies around."""
        state = self.store.state()
        assert state.active is not None
        assert state.active.release == release
        assert self.store.boot().digest == state.active.digest
        found = {path.name for path in (self.root / "bundles").iterdir()}
        assert found - {f"{digest}.{kind}" for digest in state.wanted for kind in ("bundle", "json")} == set()


def new_field(folder: Path, shops: Any, bundle: Path) -> Field:
    """A device that was provisioned, and took in release 1 of a real bundle."""
    made = Field(shops.Shop(folder / "repository"), folder / "store", partial(shops.repacked, bundle))
    made.shop.add(made.make(1), 1)
    new_trust(made.root / "trust", made.shop.root, Disk())
    installer = Installer(made.store)
    installer.install(FolderSource(made.shop.folder), "pets/pets-1.1.0.bundle")
    with mock.patch("tinysight_edge.update.selftest.run_selftest", return_value=Verdict()):
        installer.test()
    made.check_runs(1)
    return made


@dataclass(frozen=True)
class Said:
    """What a command said. Attributes: status: its exit status. lines: those that are JSON. errors: on stderr."""

    status: int
    lines: list[Any]
    errors: str

    @property
    def code(self) -> str | None:
        found: str | None = self.lines[-1]["code"]
        return found


def run_forked(disks: Any, folder: Path, *arguments: str, **replaced: Any) -> Said:
    """The command in a process of its own, in which names of ``update`` may be replaced: ``module__name=value``."""
    from tinysight_deploy.cli import _run

    def child() -> None:
        with ExitStack() as stack, (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            stack.enter_context(mock.patch("sys.stdout", out))
            stack.enter_context(mock.patch("sys.stderr", err))
            for name, what in replaced.items():
                stack.enter_context(mock.patch(f"tinysight_edge.update.{name.replace('__', '.')}", what))
            try:
                status = _run(list(arguments))
            except SystemExit as end:
                status = int(end.code or 0)
        os._exit(status)

    status = disks.in_child(child)
    return Said(status, _json((folder / "out").read_text()), (folder / "err").read_text())


def command_of(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tinysight_deploy", *arguments]


def run_real(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Said:
    """The command as a user runs it, with more in its environment."""
    done = subprocess.run(
        command_of(*arguments),
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Said(done.returncode, _json(done.stdout), done.stderr)


def _json(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
