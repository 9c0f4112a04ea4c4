"""Releases: bundles that a project has signed, in a plain folder that any web server can serve.

::

    REPO/metadata/…                                            see `metadata`
    REPO/targets/PROJECT/SHA256.NAME-VERSION.bundle            a bundle under its digest
    REPO/deltas/SHA256-SHA256.delta                            from one bundle to another; named in what is signed

`Repository` reads without a lock and writes with one. Files come first and what names them last, so a kill leaves the
state before or the state after, and files that nobody names; the next command that writes removes those.
"""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError, UpdateError
from tinysight_contract.files import replace_file, sha256_of
from tinysight_contract.updates import Code, Release
from tinysight_deploy.repo.deltas import BASES, make_deltas
from tinysight_deploy.repo.releases import Listed, enter, listed, open_project, refuse_number, requires_of, tidy
from tinysight_deploy.repo.slices import Choice, Payload, choose, cut
from tinysight_deploy.signing.beginning import refuse_exchanged
from tinysight_deploy.signing.keys import KeyFolder, Passphrase
from tinysight_deploy.signing.metadata import Chain, publish
from tinysight_deploy.signing.rotation import writing
from tinysight_edge.update.signed import Requires, Signed

__all__ = ["Repository"]

READ_TRIES: Final = 5


class Repository:
    """A repository's folder, and perhaps some of its keys. Making one touches nothing."""

    def __init__(
        self,
        folder: Path,
        keys: Path,
        *,
        passphrase: Passphrase | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.keys = KeyFolder(keys, passphrase)
        self._now = now

    def chain(self) -> Chain:
        """The present state of what is signed.

        Raises:
            ConfigError: there is no repository, or it is damaged.
            OSError: it cannot be read.
        """
        for _ in range(READ_TRIES - 1):
            try:
                return Chain.read(self.folder / "metadata")
            except ConfigError:
                time.sleep(0.05)  # somebody may be writing: what was read first was then of the state before
        return Chain.read(self.folder / "metadata")

    def releases(self) -> list[Listed]:
        """All that may be installed, the newest of each name first.

        Raises:
            ConfigError: there is no repository, or it is damaged.
            UpdateError: what is signed about a release cannot be read.
            OSError: it cannot be read.
        """
        return listed(self.chain())

    def find(self, bundle: Path | str) -> Release:
        """A release by its bundle's file, as ``NAME@VERSION``, or by its target path.

        Raises:
            ConfigError: there is none, or more than one.
            UpdateError: UNSIGNED, a file is none.
            OSError: the repository or the file cannot be read.
        """
        return self.look_up(bundle).release

    def look_up(self, bundle: Path | str) -> Listed:
        """As `find`, with what is signed about it."""
        releases, path = self.releases(), Path(bundle)
        if path.is_file():
            digest = sha256_of(path)
            found = [each for each in releases if each.release.digest == digest]
        else:
            names = [(each, f"{each.release.name}@{each.release.version}") for each in releases]
            found = [each for each, name in names if str(bundle) in {each.release.target, name}]
        if not found:
            near = ", ".join(each.release.target for each in releases[:5]) or "none yet"
            what = f"{bundle} is no release of {self.folder} (there: {near})."
            mend = "Sign it with `tinysight release add FILE`, or give FILE, NAME@VERSION or a target's path."
            if path.is_file():
                raise UpdateError(what, mend=mend, code=Code.UNSIGNED)
            raise ConfigError(what, mend=mend)
        if len(found) > 1:
            raise ConfigError(
                f"{bundle} is a release of several projects.",
                mend=f"Choose one of: {', '.join(each.release.target for each in found)}.",
            )
        return found[0]

    def root_bytes(self) -> bytes:
        """The first root: what a device is given once, and believes from then on.

        Raises:
            ConfigError: there is no repository, it is damaged, or it is not the one whose root lies beside the keys.
            OSError: it cannot be read.
        """
        first = self.chain().roots[0]
        refuse_exchanged(self.folder, self.keys.folder, first)
        return first

    def slice(self, release: Release, *, base: str | None, to: Path, root_version: int = 1) -> Payload:
        """Make a folder that is a repository by itself, with what one device needs for one release and no more.

        Args:
            release: from `find`.
            base: the digest of the bundle that the device runs, if it runs one.
            to: the folder to make.
            root_version: of the newest root that the device is known to have; older ones are left out.

        Raises:
            ConfigError: it is no release any more, or its file is missing.
            OSError: the folder cannot be written.
        """
        chain = self.chain()
        found = self._listed(chain, release)
        return cut(
            self.folder,
            chain,
            to,
            project=found.project,
            full=found.file,
            choice=self._choice(found, base),
            root_version=root_version,
        )

    def choice(self, release: Release, *, base: str | None) -> Choice:
        """Which file `slice` takes for a base. Bases with the same one may share a slice.

        Raises:
            ConfigError: it is no release any more.
            OSError: the repository cannot be read.
        """
        return self._choice(self._listed(self.chain(), release), base)

    def _choice(self, found: Listed, base: str | None) -> Choice:
        deltas = {start: delta.path for start, delta in found.signed.deltas.items()}
        return choose(self.folder, digest=found.release.digest, full=found.file, deltas=deltas, base=base)

    @staticmethod
    def _listed(chain: Chain, release: Release) -> Listed:
        found = next((each for each in listed(chain) if each.release == release), None)
        if found is None:
            raise ConfigError(
                f"{release.target} is no release any more.", mend="Choose one from `tinysight release list`."
            )
        return found

    def add(
        self,
        path: Path,
        *,
        project: str | None = None,
        requires: Requires | None = None,
        number: int | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> tuple[Listed, bool]:
        """Sign a bundle as a release of a project; and whether it was not one before.

        Args:
            path: the bundle.
            project: whose it is; by default the bundle's name.
            requires: what it needs of a device; when nothing, and it is a release already, what that needs.
            number: the release number instead of the bundle's own; with it an old bundle becomes the newest again.
            tell: told what is done, for people.

        Raises:
            BundleError: it is no bundle.
            ConfigError: its number is too low, its version is taken, or a key is not here.
            OSError: the disk is full or not writable.
        """
        bundle = Bundle.open(path)
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != bundle.digest:
            raise ConfigError(f"{path} is being written.", mend="Wait until that has ended, and run this again.")
        manifest = bundle.manifest
        release = Release(
            target=f"{project or manifest.name}/{manifest.name}-{manifest.version}.bundle",
            digest=bundle.digest,
            size_bytes=bundle.size_bytes,
            name=manifest.name,
            version=manifest.version,
            release=manifest.release if number is None else number,
        )
        now = self._now()
        signed = Signed(
            name=release.name,
            version=release.version,
            release=release.release,
            released_at=now.replace(microsecond=0),
            requires=requires_of(bundle, requires or Requires()),
        )
        with writing(self.folder, self.keys, now=now) as chain:
            releases = listed(chain)
            for each in releases:
                if each.release.target == release.target and each.release.digest == release.digest:
                    if number in {None, each.release.release}:
                        return each, False
                    if requires is None or requires == Requires():
                        signed = msgspec.structs.replace(signed, requires=each.signed.requires)
            new = Listed(release, signed)
            refuse_number(chain, releases, release)
            changed = open_project(chain, new.project, self.keys)
            tell("Copying")
            (self.folder / new.file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "deltas").mkdir(exist_ok=True)
            replace_file(self.folder / new.file, raw)
            bases = [(each.release, self.folder / each.file) for each in releases if each.release.name == release.name]
            others = [base for base in bases if base[0].digest != release.digest][:BASES]
            deltas = make_deltas(self.folder, raw, others, digest=release.digest, tell=tell)
            new = Listed(release, msgspec.structs.replace(signed, deltas=deltas))
            tell("Signing")
            enter(chain, new)
            publish(self.folder / "metadata", chain, changed, self.keys, now=now)
            self.keys.settle()
            tidy(self.folder, listed(chain))
        return new, True

    def retire(self, release: Release) -> bool:
        """Take a release out of what is signed; whether its file stays, since devices may start from it.

        Raises:
            ConfigError: a key is not here.
            OSError: the disk is full or not writable.
        """
        now = self._now()
        with writing(self.folder, self.keys, now=now) as chain:
            found = next((each for each in listed(chain) if each.release == release), None)
            if found is not None:
                del chain.projects[found.project].signed.targets[release.target]
                publish(self.folder / "metadata", chain, {found.project}, self.keys, now=now)
            tidy(self.folder, listed(chain))
            return found is not None and (self.folder / found.file).exists()

    def refresh(self) -> list[str]:
        """Sign snapshot and timestamp again, and what else has lived half of its life and whose key is here.

        Returns:
            The roles that were signed.

        Raises:
            ConfigError: the online key is not here.
            OSError: the disk is full or not writable.
        """
        now = self._now()
        with writing(self.folder, self.keys, now=now) as chain:
            return self._refresh(chain, now)

    def refresh_if_due(self) -> bool:
        """Refresh when less than half of the life of snapshot or timestamp is left and their key is here.

        Raises:
            ConfigError: there is no repository, it is damaged, or the key is here and cannot be used.
            OSError: the disk is full or not writable.
        """
        now, chain = self._now(), self.chain()
        roles = ("snapshot", "timestamp")
        if not any(_due(chain, role, now) for role in roles) or not all(self._has(chain, role) for role in roles):
            return False
        busy = ConfigError(f"Another command is writing to {self.folder}.", mend="Wait until it has ended.")
        try:
            with writing(self.folder, self.keys, now=now, busy=busy) as chain:
                self._refresh(chain, now)
        except ConfigError as error:
            if error is busy:
                return False
            raise
        return True

    def _refresh(self, chain: Chain, now: datetime) -> list[str]:
        due = [role for role in ("targets", *chain.projects) if _due(chain, role, now) and self._has(chain, role)]
        publish(self.folder / "metadata", chain, due, self.keys, now=now)
        tidy(self.folder, listed(chain))
        return [*due, "snapshot", "timestamp"]

    def _has(self, chain: Chain, role: str) -> bool:
        return sum(self.keys.has(key) for key in chain.keys(role)) >= chain.threshold(role)


def _due(chain: Chain, role: str, now: datetime) -> bool:
    """Whether less than half of its life is left."""
    return bool(chain.of(role).signed.expires - now < chain.lives(role) / 2)
