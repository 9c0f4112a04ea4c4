"""TinySight's own wheel, wherever this TinySight runs from.

In: nothing.  Out: one wheel in a folder. From a checkout it is built; from an installed package it is put together
again from the files that its RECORD names, each compared with the digest there: who changed an installed file by hand
does not carry that to a thousand devices. The same files give the same bytes.
"""

import base64
import csv
import hashlib
import io
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final

import tinysight_deploy
from tinysight_contract.errors import ConfigError

__all__ = ["checkout", "from_installed", "own_wheel"]

NAME: Final = "tinysight"
OF_THE_INSTALLER: Final = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"}
BUILD_S: Final = 600.0
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
MODE: Final = 0o100644 << 16


def own_wheel(folder: Path) -> Path:
    """Make the wheel of the TinySight that runs here.

    Raises:
        ConfigError: it cannot be built, or an installed file is not as it was installed.
        OSError: a file cannot be read or written.
    """
    root = checkout()
    if root is not None:
        return _built(root, folder)
    try:
        return from_installed(distribution(NAME), folder)
    except PackageNotFoundError as error:
        raise ConfigError(
            "TinySight runs here from neither an installed package nor a checkout.",
            mend="Install it with `pip install 'tinysight[deploy]'`.",
        ) from error


def checkout() -> Path | None:
    """The folder of the sources, if this runs from them."""
    root = Path(tinysight_deploy.__file__).parents[2]
    try:
        with (root / "pyproject.toml").open("rb") as source:
            return root if tomllib.load(source).get("project", {}).get("name") == NAME else None
    except (OSError, tomllib.TOMLDecodeError):
        return None


def _built(root: Path, folder: Path) -> Path:
    if find_spec("hatchling") is None:  # pip would fetch whichever is the newest today, and run it
        raise ConfigError(
            "TinySight runs here from a checkout, and hatchling, which builds its wheel, is not installed.",
            mend="Install it: `python -m pip install hatchling`, or install TinySight as a package.",
        )
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(root),
    ]
    env = {**os.environ, "TINYSIGHT_NO_DASHBOARD": "1"}  # a device shows no page: it is not built for it
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=env, timeout=BUILD_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"The wheel of {root} was not built within {BUILD_S:.0f} s.",
            mend=f"Try it by hand: `{shlex.join(command)}`.",
        ) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(
            f"The wheel of {root} was not built: {last[:300]}.",
            mend="Look at that. If there is no pip: `python -m ensurepip`.",
        )
    return next(iter(sorted(folder.glob(f"{NAME}-*.whl"))))


def from_installed(installed: Distribution, folder: Path) -> Path:
    """Put the wheel together again.

    Raises:
        ConfigError: a file is missing or changed.
        OSError: a file cannot be read or written.
    """
    stem = f"{NAME}-{installed.version}"
    path = folder / f"{stem}-py3-none-any.whl"
    rows: list[tuple[str, str, int]] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in sorted(_files(installed, stem)):
            _add(out, name, data)
            rows.append((name, _digest(data), len(data)))
        record = f"{stem}.dist-info/RECORD"
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        _add(out, record, text.getvalue().encode())
    return path


def _files(installed: Distribution, stem: str) -> Iterator[tuple[str, bytes]]:
    """Every file under its name in the wheel. What lies outside of the packages is data, or a program made anew."""
    prefix = Path(os.path.normpath(str(installed.locate_file("")))).parents[2]  # of lib/python3.11/site-packages
    for each in installed.files or ():
        pure = PurePosixPath(*each.parts)
        if pure.suffix == ".pyc" or (pure.parent.name.endswith(".dist-info") and pure.name in OF_THE_INSTALLER):
            continue
        where = Path(os.path.normpath(str(installed.locate_file(each))))
        if ".." in pure.parts:
            outside = where.relative_to(prefix)
            if outside.parts[0] == "bin":  # the program follows from the entry points
                continue
            pure = PurePosixPath(f"{stem}.data", "data", *outside.parts)
        try:
            data = where.read_bytes()
        except FileNotFoundError as error:
            raise _changed(where, "is missing") from error
        if each.hash is not None and f"{each.hash.mode}={each.hash.value}" != _digest(data):
            raise _changed(where, "is not as it was installed")
        yield str(pure), data


def _changed(path: Path, how: str) -> ConfigError:
    return ConfigError(
        f"{path} {how}.", mend="Install TinySight again: `pip install --force-reinstall --no-deps tinysight`."
    )


def _add(out: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.external_attr, entry.compress_type = MODE, zipfile.ZIP_DEFLATED
    out.writestr(entry, data)


def _digest(data: bytes) -> str:
    """As RECORD writes it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
