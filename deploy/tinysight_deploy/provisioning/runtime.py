"""TinySight's programs on a device: a new folder for each wheelhouse, put in place by renaming one link.

::

    opt/tinysight/runtimes/<digest>/   an environment; whole when it holds .complete
    opt/tinysight/venv                 → the one that runs
    opt/tinysight/bin/tinysight        → ../venv/bin/tinysight

A connection that is lost, or a power cut, leaves the old runtime where it was and at most a folder that nobody runs.
Wheels come by SFTP into a folder of whoever logs in, and are installed by the digests that the workstation sends
along with the command, so what was exchanged on the way or on the device is not installed.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from tinysight_contract.errors import DeviceError
from tinysight_deploy.provisioning.hands import Hands
from tinysight_deploy.provisioning.probe import Facts
from tinysight_deploy.remote.targets import AGENT_USER, plain
from tinysight_deploy.wheels.wheelhouse import Wheel, Wheelhouse

__all__ = ["Runtime"]

_INSTALL_S: Final = 1800.0
_WAIT_S: Final = 40
_BUSY: Final = 75
_SHORT: Final = 16

_CURRENT: Final = r"""
[ -e "$1/runtimes/$2/.complete" ] && echo complete || echo missing
readlink "$1/venv" || echo none; readlink "$1/bin/tinysight" || echo none
for each in "$1"/runtimes/*; do [ -d "$each" ] && echo "${each##*/}"; done; true
"""
_SUMS: Final = (
    r'cd "$1" 2>/dev/null || exit 0; for each in *.whl; do [ -f "$each" ] && sha256sum -- "$each"; done; true'
)
_ALONE: Final = r"""
exec 9<"$1"; flock -w "$wait_s" 9 || exit 75
"""
"""A lost connection leaves what it began running: that has the folder to itself until its last process ends."""
_INSTALL: Final = r"""
set -eu; umask 022
opt=$1 new="$1/runtimes/$2" wheels=$3 python=$4 pip=$5 pip_sum=$6 system=$7 user=$8
[ -d "$wheels" ] && wheels=$(cd "$wheels" && pwd)
[ -e "$new/.complete" ] && exit 0
rm -rf "$new"; mkdir -p "$opt/runtimes" "$opt/bin"
printf '%s  %s\n' "$pip_sum" "$wheels/$pip" | sha256sum -c --quiet - >&2
"$python" -I -m venv --without-pip $system "$new"
[ -z "$user" ] || runuser -u "$user" -- "$new/bin/python" -I -c '' ||
  { echo "$user may not run $python: have the system's python3 come first on the PATH" >&2; exit 1; }
cat > "$new/requirements.txt"
"$new/bin/python" -I "$wheels/$pip/pip" --isolated install --quiet --no-input --disable-pip-version-check \
  --no-cache-dir --ignore-installed --no-index --no-deps --only-binary=:all: --require-hashes --find-links "$wheels" \
  -r "$new/requirements.txt" >&2
"$new/bin/tinysight" --version
"$new/bin/python" -I -c 'import cv2, numpy, tinysight_edge.cli, tinysight_edge.interpreter, tinysight_edge.runtime'
sync -f "$new" 2>/dev/null || sync
touch "$new/.complete"; sync "$new/.complete" "$new" 2>/dev/null || sync
"""
_SWITCH: Final = r"""
set -eu
[ -e "$1/runtimes/$2/.complete" ]
mkdir -p "$1/bin"
ln -sfn "runtimes/$2" "$1/venv.new"; mv -fT "$1/venv.new" "$1/venv"
ln -sfn ../venv/bin/tinysight "$1/bin/tinysight.new"; mv -fT "$1/bin/tinysight.new" "$1/bin/tinysight"
sync "$1" "$1/bin" 2>/dev/null || sync
"""
_WHEELS: Final = '[ -e "$1" ] && echo wheels; true'
_RUNS: Final = r"""
runs() { printf '%s/\n' "$1" | grep -qsF -f - /proc/[0-9]*/cmdline /proc/[0-9]*/maps; }
"""
"""Whether a process was started from a folder, or has a library of it; grep's own line does not name it."""
_IDLE: Final = (
    _RUNS
    + r"""
for each in "$1"/runtimes/*; do
  [ ! -d "$each" ] || [ "${each##*/}" = "$2" ] || runs "$each" || echo old
done
"""
)
_REMOVE: Final = (
    _RUNS
    + r"""
set -eu
for each in "$1"/runtimes/*; do
  [ "${each##*/}" = "$2" ] || runs "$each" || rm -rf "$each"
done
"""
)


class Runtime:
    """One wheelhouse on one device."""

    def __init__(self, hands: Hands, folder: Path, house: Wheelhouse, facts: Facts) -> None:
        self._hands, self._folder, self._house, self._facts = hands, folder, house, facts
        self._opt = hands.path("opt/tinysight")
        self.name = hashlib.sha256((house.requirements() + house.pip.sha256).encode()).hexdigest()[:_SHORT]
        target = hands.target
        at_home = PurePosixPath(".cache/tinysight/wheels")
        self._wheels = (
            target.prefix / "var/cache/tinysight/wheels" if target.own_root or target.user == "root" else at_home
        )

    async def found(self) -> tuple[bool, bool, list[str]]:
        """Whether this runtime is there and whole, whether it is the one that runs, and which others are there.

        Raises:
            DeviceError: the device does not say.
        """
        told = await self._hands.must("looking for runtimes", ["sh", "-c", _CURRENT, "sh", str(self._opt), self.name])
        lines = told.decode("utf-8", "replace").splitlines()
        if len(lines) < 3:
            raise DeviceError(
                f"{self._hands.target} does not say what runs there.", mend="Look at /opt/tinysight there."
            )
        whole = lines[0] == "complete"
        runs = lines[1] == f"runtimes/{self.name}" and lines[2] == "../venv/bin/tinysight"
        return whole, runs, [each for each in lines[3:] if each != self.name]

    async def missing(self) -> list[Wheel]:
        """Which wheels are not there yet.

        Raises:
            DeviceError: the device does not say.
        """
        done = await self._hands.remote.run(["sh", "-c", _SUMS, "sh", str(self._wheels)], timeout_s=300)
        there = {tuple(line.split(maxsplit=1)) for line in done.out.decode("utf-8", "replace").splitlines()}
        return [each for each in (*self._house.wheels, self._house.pip) if (each.sha256, each.file) not in there]

    async def push(self, missing: list[Wheel], tell: Callable[[str], None]) -> int:
        """Bring wheels there, going on with what has come before; how many bytes were moved.

        Raises:
            DeviceError: the connection was lost, or the device's disk refuses them.
            OSError: a wheel cannot be read here.
        """
        made = await self._hands.remote.run(["mkdir", "-p", "-m", "700", "--", str(self._wheels)])
        if made.status != 0:
            raise DeviceError(
                f"{self._hands.target}: no folder for wheels: {plain(made.err)}.",
                mend="Check rights and free space there.",
            )
        moved = 0
        for number, each in enumerate(missing, start=1):
            tell(f"wheel {number}/{len(missing)} {each.file} {each.size_bytes / 2**20:.1f} MiB")
            moved += await self._hands.remote.push(self._folder / "wheels" / each.file, str(self._wheels / each.file))
        return moved

    async def install(self) -> None:
        """Make the environment, in a folder of its own, of the very files that the wheelhouse names.

        Raises:
            DeviceError: a wheel is not what it should be, or pip failed; what ran before still does.
        """
        system = "--system-site-packages" if self._facts.picamera else ""
        pip = self._house.pip
        words = [str(self._opt), self.name, str(self._wheels), self._facts.python, pip.file, pip.sha256, system]
        words.append("" if self._hands.target.own_root else AGENT_USER)
        given = self._house.requirements().encode()
        await self._alone("installing", _INSTALL, words, given=given, timeout_s=_INSTALL_S)

    async def switch(self) -> None:
        """Have it be what runs from the next start on.

        Raises:
            DeviceError: it is not whole, or the device's disk refuses.
        """
        await self._alone("switching runtimes", _SWITCH, [str(self._opt), self.name], timeout_s=120)

    async def _alone(self, what: str, script: str, words: list[str], *, given: bytes = b"", timeout_s: float) -> None:
        """Run a script that has ``opt/tinysight`` to itself.

        Raises:
            DeviceError: another has it, or it did not go well.
        """
        command = ["sh", "-c", f"set -eu; wait_s={_WAIT_S}{_ALONE}{script}", "sh", *words]
        done = await self._hands.ask(command, given=given, timeout_s=timeout_s)
        if done.status == _BUSY:
            raise DeviceError(
                f"{self._hands.target}: TinySight is still being installed there, by an earlier run or another.",
                mend="Wait some minutes, and run the same again.",
            )
        self._hands.good(what, done)

    async def useless(self) -> str:
        """What is left that nobody needs; an old runtime that still runs is needed.

        Raises:
            DeviceError: the device does not say.
        """
        _, runs, old = await self.found()
        if old:
            told = await self._hands.must("looking", ["sh", "-c", _IDLE, "sh", str(self._opt), self.name])
            old = told.decode("ascii", "replace").split()
        wheels = await self._hands.remote.run(["sh", "-c", _WHEELS, "sh", str(self._wheels)])
        left = [f"{len(old)} old runtimes"] if old else []
        return " and ".join([*left, *(["wheels"] if wheels.out.strip() else [])]) if runs else ""

    async def clean(self) -> None:
        """Remove the other runtimes, and the wheels.

        Raises:
            DeviceError: the device refuses.
        """
        await self._alone("removing old runtimes", _REMOVE, [str(self._opt), self.name], timeout_s=300)
        await self._hands.remote.run(["rm", "-rf", "--", str(self._wheels)])
