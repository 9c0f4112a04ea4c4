"""Environments of their own for packages that cannot live beside ours: another NumPy, another OpenCV.

In: a name and the whole list of pinned packages.  Out: the Python of a venv below the user's cache, made once.
Nothing is resolved: what is not in the list is not installed. Use it by ``python -m`` or a script of yours; the
programs in its ``bin`` name the folder that it was built in.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConversionError

__all__ = ["environment"]

TIMEOUT_S: Final = 900.0
PINNED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!_]+( --hash=sha256:[0-9a-f]{64})*")


def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The environment with exactly these packages; made if it is not there yet, which needs the network.

    Args:
        name: says what it is for; part of the folder's name.
        requirements: every package, ``package==1.2.3``, with `` --hash=sha256:…`` behind each or behind none.

    Returns:
        Its Python.

    Raises:
        ConversionError: a package is not pinned, cannot be had as a wheel, or the cache is not writable.
    """
    for line in requirements:
        if PINNED.fullmatch(line) is None:
            raise ConversionError(f"{line!r} names no exact version.", mend="Write it as package==1.2.3.")
    python_version = f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join((python_version, platform.machine(), *requirements)).encode()).hexdigest()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "tinysight" / "environments" / f"{name}-{digest[:16]}"
    python = folder / "bin" / "python"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_name(f".{folder.name}.lock")):
            if not python.exists():
                shutil.rmtree(folder, ignore_errors=True)  # its base Python is gone
                _build(folder, requirements)
    except (OSError, subprocess.SubprocessError) as error:
        raise ConversionError(
            f"The environment {name} cannot be made: {error}.", mend=f"Check the network and {folder.parent}."
        ) from error
    return python


def _build(folder: Path, requirements: tuple[str, ...]) -> None:
    """Beside its place, and moved there when it is whole."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        venv.create(part, symlinks=True, with_pip=True)
        listed = part / "requirements.txt"
        listed.write_text("".join(f"{line}\n" for line in requirements))
        command = [str(part / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check", "--requirement", str(listed)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] or [
                f"status {done.returncode}"
            ]
            why = said[-1].removeprefix("ERROR: ").rstrip(".")
            raise ConversionError(
                f"The environment {folder.name} cannot be made: {why}.", mend="Check the network, then try again."
            )
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process builds the same; the lock ends with the process, however it ends."""
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
