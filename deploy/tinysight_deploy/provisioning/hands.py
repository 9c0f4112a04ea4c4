"""What a provisioner does on a device, each act small, checked there, and safe to repeat.

In: a connection.  Out: files, folders and commands on the device, done as root where that is a user of its own, and
below the agent's folder as the agent's user: root that follows somebody else's link does what that one likes. Nothing
is a shell's text but the scripts below; paths and names are their arguments. What the device answers is bounded.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from tinysight_contract.errors import DeviceError
from tinysight_deploy.remote.ssh import Done, Remote
from tinysight_deploy.remote.targets import AGENT_USER, SshTarget, elevate, plain

__all__ = ["ROOT", "SECRET", "SETTING", "SETTINGS", "STATE", "STATE_FILE", "Hands", "Owner"]

_MOST_FILE_BYTES: Final = 1 << 20
_GONE: Final = 44

_READ: Final = r'[ -e "$1" ] || exit 44; head -c "$2" "$1"'
_WRITE: Final = r"""
set -eu; umask 077; part=$(mktemp "$1.XXXXXXXX")
trap 'rm -f "$part"' EXIT
cat > "$part"
[ "$(sha256sum < "$part" | cut -c1-64)" = "$2" ] || { echo 'it came incomplete' >&2; exit 45; }
chmod "$3" "$part"; [ -z "$4" ] || chown -h "$4" "$part"
sync "$part" 2>/dev/null || sync
mv -fT "$part" "$1"; sync "$(dirname "$1")" 2>/dev/null || sync
"""
_STATE: Final = r'for each; do stat -c "%F %a %U:%G" "$each" 2>/dev/null || echo none; done'
_FOLDER: Final = r"""
set -eu
[ ! -L "$1" ] || { echo 'it is a link, and has to be a folder' >&2; exit 46; }
[ -d "$1" ] || mkdir -p "$1"
chmod "00$2" "$1" 2>/dev/null || { echo "it is not $(id -un)'s: give it to that user there" >&2; exit 47; }
[ -z "$3" ] || chown -h "$3" "$1"
"""
"""Five digits: with fewer chmod leaves a folder its setgid bit."""
_OWN: Final = r"""
set -eu
[ -f "$1" ] && [ ! -L "$1" ] || { echo 'it is no plain file' >&2; exit 46; }
chmod "00$2" "$1"; [ -z "$3" ] || chown -h "$3" "$1"
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a file is, and who may do what.

    Attributes:
        name: ``user:group``.
        mode: in octal digits.
    """

    name: str
    mode: str


ROOT: Final = Owner("root:root", "755")
SETTINGS: Final = Owner(f"root:{AGENT_USER}", "750")
SETTING: Final = Owner(f"root:{AGENT_USER}", "640")
STATE: Final = Owner(f"{AGENT_USER}:{AGENT_USER}", "750")
STATE_FILE: Final = Owner(f"{AGENT_USER}:{AGENT_USER}", "640")
SECRET: Final = Owner(f"{AGENT_USER}:{AGENT_USER}", "600")


class Hands:
    """A device to work on. ``target.prefix`` is the root of all that it is asked for."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    @property
    def target(self) -> SshTarget:
        """Which device."""
        return self.remote.target

    def path(self, name: str) -> PurePosixPath:
        """A path below the device's root."""
        return self.target.prefix / name

    async def ask(
        self, command: Sequence[str], *, user: str = "root", given: bytes = b"", timeout_s: float = 60.0
    ) -> Done:
        """Run a command as a user of the device; how it ended is for the caller to judge.

        Raises:
            DeviceError: it printed too much, did not end in time, or the connection was lost.
        """
        words = [*elevate(self.target, user), *command]
        return await self.remote.run(words, input=given, timeout_s=timeout_s, most_bytes=2 * _MOST_FILE_BYTES)

    async def must(
        self, what: str, command: Sequence[str], *, user: str = "root", given: bytes = b"", timeout_s: float = 60.0
    ) -> bytes:
        """The same, for a command that has to go well.

        Raises:
            DeviceError: as above, or it did not go well.
        """
        return self.good(what, await self.ask(command, user=user, given=given, timeout_s=timeout_s))

    def good(self, what: str, done: Done) -> bytes:
        """What a command printed that has to have gone well.

        Raises:
            DeviceError: it did not.
        """
        if done.status != 0:
            lines = done.err.strip().splitlines() or [b"it gave no reason"]
            said = plain(next((each for each in lines if each.startswith(b"ERROR:")), lines[-1]))
            raise DeviceError(
                f"{self.target}: {what} failed: {said.rstrip('.')}.",
                mend="Mend that on the device and run the same again.",
            )
        return done.out

    async def read(self, path: PurePosixPath, most: int = _MOST_FILE_BYTES, *, user: str = "root") -> bytes | None:
        """A file's bytes, or None when there is none.

        Raises:
            DeviceError: it cannot be read, or has more than ``most`` bytes.
        """
        done = await self.ask(["sh", "-c", _READ, "sh", str(path), str(most + 1)], user=user)
        if done.status == _GONE:
            return None
        if done.status != 0 or len(done.out) > most:
            raise DeviceError(f"{self.target}: {path} cannot be read.", mend="Look at that file on the device.")
        return done.out

    async def write(self, path: PurePosixPath, data: bytes, owner: Owner, *, user: str = "root") -> None:
        """Have a file hold these bytes, the old ones or the new at any moment; ``user`` does it.

        Raises:
            DeviceError: that did not go well; the file is then as it was.
        """
        digest = hashlib.sha256(data).hexdigest()
        command = ["sh", "-c", _WRITE, "sh", str(path), digest, owner.mode, self._whose(owner)]
        await self.must(f"writing {path}", command, user=user, given=data)

    async def folder(self, path: PurePosixPath, owner: Owner, *, user: str = "root") -> None:
        """Have a folder, with its rights; ``user`` makes it.

        Raises:
            DeviceError: that did not go well, or a link is there.
        """
        words = ["sh", "-c", _FOLDER, "sh", str(path), owner.mode, self._whose(owner)]
        await self.must(f"making {path}", words, user=user)

    async def own(self, path: PurePosixPath, owner: Owner) -> None:
        """Have a file that is there be of this owner, with these rights.

        Raises:
            DeviceError: that did not go well, or it is no plain file.
        """
        words = ["sh", "-c", _OWN, "sh", str(path), owner.mode, self._whose(owner)]
        await self.must(f"securing {path}", words)

    async def stands(self, paths: Sequence[PurePosixPath], owners: Sequence[Owner]) -> list[bool]:
        """Of each path, whether it is there with these rights.

        Raises:
            DeviceError: the connection was lost.
        """
        done = await self.ask(["sh", "-c", _STATE, "sh", *map(str, paths)])
        lines = done.out.decode("ascii", "replace").splitlines()
        return [
            len(lines) == len(paths)
            and line.rsplit(" ", 2)[1:] == [owner.mode, self._whose(owner) or line.split(" ")[-1]]
            for line, owner in zip(lines or [""] * len(paths), owners, strict=False)
        ]

    def _whose(self, owner: Owner) -> str:
        """Nobody in particular where no user of ours is made."""
        return "" if self.target.own_root else owner.name
