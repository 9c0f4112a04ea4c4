"""Which wheels a device needs, and how they come: pip's resolver and downloader, told of another machine.

In: TinySight's own wheel, a `Target`.  Out: the `Wanted` wheels with the digest that the index names, and their files.
Each wheel is fetched by a run of its own, so that what has come is kept when the next one fails.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname
from zipfile import ZipFile

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import sha256_of
from tinysight_deploy.wheels.target import Target

__all__ = ["Pip", "Wanted", "Wishes", "canonical"]

DOWNLOAD_S: Final = 1800
EDGE: Final = re.compile(r"extra == ['\"]edge['\"]")
NO_INDEX_HAS_IT: Final = "No matching distribution"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What one run asks for.

    Attributes:
        more: requirements beside TinySight's.
        find_links: folders with wheels that no index has.
        indexes: addresses of indexes beside PyPI.
        upgrade: take the newest versions, also where a wheelhouse is there already.
    """

    more: Sequence[str] = ()
    find_links: Sequence[Path] = ()
    indexes: Sequence[str] = ()
    upgrade: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A wheel that is needed.

    Attributes:
        name: of the package, as indexes write it.
        version: of the package.
        url: where it is.
        sha256: of the file as the index says; empty when it does not.
    """

    name: str
    version: str
    url: str
    sha256: str

    @property
    def file(self) -> str:
        """The wheel's name.

        Raises:
            ConfigError: the address has none.
        """
        name = unquote(urlsplit(self.url).path.rpartition("/")[2])
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,200}\.whl", name) is None:
            raise ConfigError(f"An index names {name[:80]!r}, which is no wheel.", mend="Leave that index out.")
        return name


class Pip:
    """pip as it would be on the target."""

    def __init__(self, target: Target, wishes: Wishes, scratch: Path) -> None:
        links = [word for each in wishes.find_links for word in ("--find-links", str(each.absolute()))]
        indexes = [word for each in wishes.indexes for word in ("--extra-index-url", each)]
        self._options = ["--quiet", "--no-input", "--only-binary=:all:", *target.pip_options(), *links, *indexes]
        self._target, self._wishes, self._scratch = target, wishes, scratch

    def choose(self, own: Path, kept: Sequence[str]) -> list[Wanted]:
        """All wheels that TinySight's own one needs on a device, itself and pip among them.

        Args:
            own: TinySight's wheel.
            kept: ``name==version`` of what was chosen before; each is kept if that is possible for all.

        Raises:
            ConfigError: there is no way, or no wheel for this target.
        """
        report = self._scratch / "report.json"
        asked = [*self._dry(), "--report", str(report), f"{own.absolute()}[edge]", "pip", *self._wishes.more]
        if kept:
            constraint = self._scratch / "kept.txt"
            constraint.write_text("".join(f"{each}\n" for each in kept))
            if self._run([*asked, "--constraint", str(constraint)])[0] == 0:
                return _reported(report)
        status, said = self._run(asked)
        if status != 0:
            raise self._why_not(said, own)
        return _reported(report)

    def fetch(self, wanted: Wanted) -> Path:
        """Bring one wheel into the scratch folder.

        Raises:
            ConfigError: it does not come, or is not what the index named.
        """
        file, folder = wanted.file, self._scratch / "came"
        folder.mkdir(exist_ok=True)
        came = folder / file
        url = wanted.url.partition("#")[0]
        if url.startswith("file://"):
            copyfile(url2pathname(urlsplit(url).path), came)
        else:
            locked = f"{url}#sha256={wanted.sha256}" if wanted.sha256 else url
            status, said = self._run(["download", "--no-deps", *self._options, "-d", str(folder), locked])
            if status != 0 or not came.is_file():
                raise ConfigError(
                    f"{file} was not downloaded: {_complaint(said)}.",
                    mend="Check the network and the disk, and run it again; what has come is kept.",
                )
        if wanted.sha256 and sha256_of(came) != wanted.sha256:
            raise ConfigError(
                f"{file} is not what its index names.",
                mend="Run it again; if it stays so, somebody changes it on the way.",
            )
        return came

    def _dry(self) -> list[str]:
        return ["install", "--dry-run", "--ignore-installed", "--target", str(self._scratch / "none"), *self._options]

    def _run(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Its status, and what it complained of."""
        there = [self._target.machine, self._target.python]
        command = [sys.executable, "-P", "-m", "tinysight_deploy.wheels.pip", *there, *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(
                "pip did not end within half an hour.",
                mend="Check the network, and run it again; what has come is kept.",
            ) from error
        return done.returncode, done.stderr

    def _why_not(self, said: str, own: Path) -> ConfigError:
        """What to tell when there is no way: above all which wheels are not to be had."""
        if "No module named" in said:
            return ConfigError("There is no pip here.", mend="Get it: `python -m ensurepip` or `uv pip install pip`.")
        if "cannot be told of another machine" in said:
            return ConfigError("This pip is of an unknown kind.", mend="Get another: `pip install 'pip>=23.2'`.")
        missing = self._missing(own) if NO_INDEX_HAS_IT in said else []
        if not missing:
            mend = "Check the network, --with and --extra-index, and run it again."
            return ConfigError(f"pip found no way: {_complaint(said)}.", mend=mend)
        mend = "Build them on such a device with `pip wheel`, and give that folder with --find-links."
        if self._target.machine == "armv7l":
            mend = f"For a Raspberry Pi give piwheels' index with --extra-index. Or else: {mend}"
        return ConfigError(f"No index has wheels for {self._target} of: {', '.join(missing)}.", mend=mend)

    def _missing(self, own: Path) -> list[str]:
        """Of what is required directly, the packages that have no wheel for the target."""
        gone = [
            each
            for each in [*_required(own), *self._wishes.more]
            if NO_INDEX_HAS_IT in self._run([*self._dry(), "--no-deps", each])[1]
        ]
        return sorted({re.split(r"[^A-Za-z0-9._-]", each, maxsplit=1)[0] for each in gone})


def canonical(name: str) -> str:
    """A package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _reported(path: Path) -> list[Wanted]:
    """What pip would install."""
    found = []
    for each in json.loads(path.read_bytes())["install"]:
        about, where = each["metadata"], each["download_info"]
        digest = where.get("archive_info", {}).get("hashes", {}).get("sha256", "")
        found.append(Wanted(canonical(about["name"]), about["version"], where["url"], digest))
    return found


def _required(own: Path) -> list[str]:
    """What the device's part of TinySight requires, as requirements of their own."""
    with ZipFile(own) as wheel:
        metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        lines = wheel.read(metadata).decode().partition("\n\n")[0].splitlines()
    asked = [each.removeprefix("Requires-Dist: ") for each in lines if each.startswith("Requires-Dist: ")]
    mine = [each for each in asked if "extra ==" not in each or EDGE.search(each)]
    return [EDGE.sub("python_version > '3'", each) for each in mine]


def _complaint(said: str) -> str:
    """The last word of pip, on one line."""
    lines = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    last = (lines or said.strip().splitlines() or ["it gave no reason"])[-1]
    return "".join(each for each in last if each.isprintable())[:300].rstrip(".")
