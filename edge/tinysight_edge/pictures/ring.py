"""A folder that never holds more than it may: what is oldest goes first.

In: entries of one or more files under a key such as ``gate/18f3-9c2a``.  Out: those files, each whole or not there, and
the keys that had to go. What lies there already is counted when the ring is opened, so a kill at any moment costs at
most the entry that was being written. Used by one thread; raises what the disk says and decides nothing about it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from tinysight_contract.files import replace_file

__all__ = ["Ring"]


class Ring:
    """A bounded folder of entries.

    Args:
        folder: made when it is opened.
        keep_bytes: no more than so much in all entries together.
    """

    def __init__(self, folder: Path, *, keep_bytes: int) -> None:
        self.folder, self.keep_bytes = folder, keep_bytes
        self._sizes: dict[str, dict[str, int]] = {}  # key → suffix → bytes; the oldest key first
        self._total = 0

    def open(self) -> None:
        """Count what is there by age, remove what a kill left half, and obey the bound.

        Raises:
            OSError: the folder cannot be made or read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, dict[str, int]] = {}
        newest: dict[str, int] = {}
        for root, _, names in os.walk(self.folder, onerror=_raise):
            for name in names:
                path = Path(root, name)
                if name.startswith("."):
                    if name.endswith(".part"):
                        path.unlink(missing_ok=True)
                    continue
                about = path.stat()
                stem, dot, suffix = name.partition(".")
                key = path.with_name(stem).relative_to(self.folder).as_posix()
                found.setdefault(key, {})[dot + suffix] = about.st_size
                newest[key] = max(newest.get(key, 0), about.st_mtime_ns)
        self._sizes = {key: found[key] for key in sorted(found, key=newest.__getitem__)}
        self._total = sum(sum(sizes.values()) for sizes in found.values())
        self._make_room(0)

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def total_bytes(self) -> int:
        """Of all entries."""
        return self._total

    @property
    def keys(self) -> list[str]:
        """Of all entries, the oldest first."""
        return list(self._sizes)

    def path(self, key: str, suffix: str) -> Path:
        """Of one file of an entry."""
        return self.folder / f"{key}{suffix}"

    def put(self, key: str, files: Mapping[str, bytes]) -> list[str]:
        """Write an entry, or those of its files that are given, as the newest; the keys that went for it.

        Args:
            key: path below the folder, without a dot in its last part.
            files: suffix, with its dot, → content.

        Raises:
            OSError: the disk is full or broken, or the entry is larger than the whole ring. Files of the entry that
                were written before stay.
        """
        size = sum(map(len, files.values()))
        if size > self.keep_bytes:
            raise OSError(f"an entry of {size} bytes is larger than the {self.keep_bytes} that may be kept")
        known = self._sizes.pop(key, {})
        self._sizes[key] = known  # the newest now, so that it is not what goes
        replaced = sum(known.get(suffix, 0) for suffix in files)
        try:
            gone = self._make_room(size - replaced, spare=key)
            for suffix, content in files.items():
                path = self.path(key, suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, content)
                self._total += len(content) - known.get(suffix, 0)
                known[suffix] = len(content)
        finally:
            if not known:
                del self._sizes[key]
        return gone

    def drop(self, key: str) -> None:
        """Remove an entry.

        Raises:
            OSError: the disk is read-only or broken. Files of the entry that were removed before are gone.
        """
        for suffix, size in list(self._sizes[key].items()):
            self.path(key, suffix).unlink(missing_ok=True)
            self._total -= size
            del self._sizes[key][suffix]
        del self._sizes[key]

    def probe(self, size: int) -> None:
        """See that so many bytes can be written, fewer where the bound is near; nothing stays.

        Raises:
            OSError: they cannot.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ".probe"
        try:
            replace_file(path, bytes(max(min(size, self.keep_bytes - self._total), 0)))
        finally:
            path.unlink(missing_ok=True)

    def _make_room(self, wanted: int, *, spare: str | None = None) -> list[str]:
        gone = []
        for key in list(self._sizes):
            if self._total + wanted <= self.keep_bytes:
                break
            if key != spare:
                self.drop(key)
                gone.append(key)
        return gone


def _raise(error: OSError) -> None:
    raise error
