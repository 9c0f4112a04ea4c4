"""All that the store writes goes through here, so that a test can stop at every step of it.

In: what is to be written.  Out: files that are the old one or the new one. A power cut may undo whatever was not
synced: so new bytes are synced before they are named, and a folder after something in it was.
"""

import os
from pathlib import Path

from tinysight_contract.files import fsync_folder

__all__ = ["Disk"]


class Disk:
    """A file system, one step at a time. Every method raises OSError as the call that it makes does."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it, for all to read; it is there after a power cut."""
        missing = [each for each in (path, *path.parents) if not each.is_dir()]
        path.mkdir(parents=True, exist_ok=True)
        for each in missing:
            each.chmod(0o755)
            self.sync_folder(each.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file that nobody reads yet, for all to read; not synced.

        What is there is not opened but replaced: it may be somebody else's.
        """
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(handle, "wb") as out:  # noqa: PTH123 -- it is open already
            os.fchmod(handle, 0o644)  # whatever the umask is
            out.write(data)

    def append(self, path: Path, data: bytes) -> None:
        """Add to a file that nobody reads yet, or begin it, for all to read; not synced."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with open(handle, "ab") as out:  # noqa: PTH123 -- it is open already
            if not out.tell():
                os.fchmod(handle, 0o644)
            out.write(data)

    def sync(self, path: Path) -> None:
        """Have a file's bytes survive a power cut."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name at once, in place of what had it."""
        path.replace(to)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def sync_folder(self, path: Path) -> None:
        """Have the names in a folder survive a power cut."""
        fsync_folder(path)

    def free_bytes(self, path: Path) -> int:
        """What may still be written to the file system on which ``path`` lies."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def replace(self, path: Path, data: bytes) -> None:
        """Write a file so that whoever reads sees the old bytes or the new, after a power cut as well."""
        part = path.with_name(f".{path.name}.part")
        self.write(part, data)
        self.sync(part)
        self.rename(part, path)
        self.sync_folder(path.parent)
