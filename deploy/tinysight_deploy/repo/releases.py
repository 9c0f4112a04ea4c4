"""What a release is in the signed metadata, which may follow which, and which files nobody needs any more.

In: a `Chain`, a bundle.  Out: the chain changed, not yet signed; `repository` publishes it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from tuf.api.metadata import (  # type: ignore[attr-defined]  # public, though not listed
    DelegatedRole,
    Delegations,
    Metadata,
    TargetFile,
    Targets,
)

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError
from tinysight_contract.updates import Release
from tinysight_deploy.signing.keys import KeyFolder
from tinysight_deploy.signing.metadata import TOP, Chain, signers_for
from tinysight_edge.engines import has_edge_tpu_code
from tinysight_edge.update.signed import EDGE_TPU, Requires, Signed, parse_signed

__all__ = ["Listed", "enter", "listed", "open_project", "refuse_number", "requires_of", "tidy"]

HIGHEST_FIELD: Final = "x-tinysight-highest"
"""In a project's metadata: the highest release number of each name, so that a retired one is never given again."""

_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RESERVED: Final = (*TOP, "hobby", "online")
_BUNDLE_FILE: Final = re.compile(r"([0-9a-f]{64})\.[A-Za-z0-9][A-Za-z0-9._+-]*\.bundle")


@dataclass(frozen=True, slots=True)
class Listed:
    """A release, and what is signed about it."""

    release: Release
    signed: Signed

    @property
    def project(self) -> str:
        """Whose it is."""
        return self.release.target.partition("/")[0]

    @property
    def file(self) -> str:
        """Where its bundle lies in the repository."""
        return f"targets/{self.project}/{self.release.digest}.{self.release.target.partition('/')[2]}"


def listed(chain: Chain) -> list[Listed]:
    """All releases, by project and name, the newest of each first.

    Raises:
        UpdateError: what is signed about one cannot be read.
    """
    found = []
    for metadata in chain.projects.values():
        for path, target in metadata.signed.targets.items():
            signed = parse_signed(target.custom)
            release = Release(
                target=path,
                digest=target.hashes["sha256"],
                size_bytes=target.length,
                name=signed.name,
                version=signed.version,
                release=signed.release,
            )
            found.append(Listed(release, signed))
    return sorted(found, key=lambda each: (each.project, each.release.name, -each.release.release, each.release.target))


def refuse_number(chain: Chain, found: Iterable[Listed], release: Release) -> None:
    """Refuse what a device would refuse: a release that is not above all of its name, or other content of a version.

    Raises:
        ConfigError: it is refused.
    """
    for each in found:
        if each.release.target == release.target and each.release.digest != release.digest:
            raise ConfigError(
                f"{release.name} {release.version} is a release already, with other content.",
                mend="Convert again with a higher --version and --release, or retire that one first.",
            )
    given = [each.release.release for each in found if each.release.name == release.name]
    fields = [metadata.signed.unrecognized_fields for metadata in chain.projects.values()]
    given += [each.get(HIGHEST_FIELD, {}).get(release.name, -1) for each in fields]
    if given and release.release <= max(given):
        raise ConfigError(
            f"{release.name} {release.version} has release {release.release}, and {max(given)} was released already.",
            mend=f"Convert again with --release {max(given) + 1}, or give --release {max(given) + 1} here.",
        )


def requires_of(bundle: Bundle, asked: Requires) -> Requires:
    """What a bundle needs: what was asked for, and an Edge TPU when nothing else runs it."""
    variants = bundle.manifest.variants
    if not asked.accelerator and all(has_edge_tpu_code(bundle.read(variant.file)) for variant in variants):
        return msgspec.structs.replace(asked, accelerator=EDGE_TPU)
    return asked


def open_project(chain: Chain, project: str, keys: KeyFolder) -> set[str]:
    """Have a project to sign in, new if need be; the roles to publish. Every key that is needed is here then.

    Raises:
        ConfigError: it cannot be a project's name, or a key is not here.
        OSError: a key cannot be read or written.
    """
    if _ID.fullmatch(project) is None or project in _RESERVED:
        raise ConfigError(
            f"{project!r} cannot be a project's name.", mend="Give --project with a-z, 0-9 and -, such as shop-1."
        )
    changed = {project} if project in chain.projects else {project, "targets"}
    for role in {*changed, "snapshot", "timestamp"} - ({project} - set(chain.projects)):
        signers_for(chain, role, keys)
    if project not in chain.projects:
        targets = chain.targets.signed
        own = chain.keys("targets") if chain.policy.kind == "hobby" else keys.take_or_make(project)
        known, roles = (
            ({}, {}) if targets.delegations is None else (targets.delegations.keys, targets.delegations.roles)
        )
        opened = DelegatedRole(project, [key.keyid for key in own], 1, terminating=True, paths=[f"{project}/*"])
        targets.delegations = Delegations(
            {**known, **{key.keyid: key for key in own}}, {**(roles or {}), project: opened}
        )
        chain.projects[project] = Metadata(Targets())
        chain.projects[project].signed.version = 0  # the first that is published is 1
    return changed


def enter(chain: Chain, new: Listed) -> None:
    """Write a release into its project, in place of an earlier number of the same bundle."""
    project = chain.projects[new.project].signed
    target = TargetFile(new.release.size_bytes, {"sha256": new.release.digest}, new.release.target)
    target.unrecognized_fields["custom"] = msgspec.to_builtins(new.signed)
    project.targets[new.release.target] = target
    project.unrecognized_fields.setdefault(HIGHEST_FIELD, {})[new.release.name] = new.release.release


def tidy(repo: Path, found: Sequence[Listed]) -> None:
    """Remove what no release needs: bundles of retired ones that no difference starts from, and what a kill left.

    Raises:
        OSError: the folder is not writable.
    """
    digests = {each.release.digest for each in found} | {base for each in found for base in each.signed.deltas}
    deltas = {delta.path for each in found for delta in each.signed.deltas.values()}
    for path in (repo / "targets").glob("*/*"):
        name = _BUNDLE_FILE.fullmatch(path.name)
        if _is_part(path) or (name is not None and name[1] not in digests):
            path.unlink()
    for path in (repo / "deltas").glob("*"):
        if _is_part(path) or (path.suffix == ".delta" and f"deltas/{path.name}" not in deltas):
            path.unlink()
    for path in (repo / "metadata").glob(".*.part"):
        path.unlink()


def _is_part(path: Path) -> bool:
    """Whether it was being written when a command was interrupted."""
    return path.name.startswith(".") and path.suffix == ".part"
