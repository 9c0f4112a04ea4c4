"""The beginning: the first keys, and an empty repository that they have signed.

Also who may go on: the first root lies beside the keys as well, so that nobody who can write to the repository can
exchange what devices are given.
"""

from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # public, though not listed
from tuf.api.metadata import (  # type: ignore[attr-defined]  # public, though not listed
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import locked, read_capped, replace_file
from tinysight_deploy.signing.keys import KeyFolder, name_of
from tinysight_deploy.signing.metadata import (
    MAX_METADATA_BYTES,
    POLICY_FIELD,
    TOP,
    Chain,
    Days,
    Policy,
    ends,
    sign,
    signers_for,
)

__all__ = ["FLEET", "HOBBY", "begin", "is_busy", "refuse_exchanged"]

HOBBY: Final = Policy("hobby", Days(root=3650, targets=365, snapshot=365, timestamp=365))
FLEET: Final = Policy("fleet", Days(root=730, targets=365, snapshot=30, timestamp=7))
ANCHOR: Final = "root.json"
"""Beside the keys: the first root, so that nobody who can write to the repository can exchange it."""


def begin(repo: Path, keys: KeyFolder, policy: Policy, *, roots: int, threshold: int, now: datetime) -> None:
    """Make keys and an empty repository. What an interrupted call left is used.

    Raises:
        ConfigError: there is a repository already, or the keys are those of another one.
        OSError: a folder is not writable, or the disk is full.
    """
    folder, anchor = repo / "metadata", keys.folder / ANCHOR
    if anchor.exists() or (folder / "timestamp.json").exists():
        _finish_beginning(repo, anchor)
        return
    if keys.folder.resolve().is_relative_to(repo.resolve()):
        raise ConfigError(
            f"{keys.folder} lies in the repository, which is to be served.", mend="Give --keys outside of --repo."
        )
    if not 1 <= threshold <= roots <= 16:
        raise ConfigError(f"{threshold} of {roots} root keys cannot be.", mend="Give --roots 3 --threshold 2.")
    for each in (folder, repo / "targets", repo / "deltas"):
        each.mkdir(parents=True, exist_ok=True)
    with locked(repo, is_busy(repo)):
        root, targets, online = _first_keys(keys, policy, roots)
        days = policy.days
        owners = {"root": root, "targets": targets, "snapshot": online, "timestamp": online}
        chain = Chain(
            roots=(),
            root=Metadata(
                Root(
                    expires=ends(now, days.root),
                    keys={key.keyid: key for each in owners.values() for key in each},
                    roles={
                        role: Role([key.keyid for key in each], threshold if role == "root" else 1)
                        for role, each in owners.items()
                    },
                    unrecognized_fields={POLICY_FIELD: msgspec.to_builtins(policy)},
                )
            ),
            targets=Metadata(Targets(expires=ends(now, days.targets), delegations=Delegations({}, {}))),
            snapshot=Metadata(Snapshot(expires=ends(now, days.snapshot), meta={"targets.json": MetaFile()})),
            timestamp=Metadata(Timestamp(expires=ends(now, days.timestamp), snapshot_meta=MetaFile())),
            projects={},
        )
        for role in TOP:
            sign(chain.of(role), signers_for(chain, role, keys))
        for role in TOP:
            name = "timestamp.json" if role == "timestamp" else f"1.{role}.json"
            replace_file(folder / name, chain.of(role).to_bytes())
        keys.settle()
        replace_file(anchor, chain.root.to_bytes())


def refuse_exchanged(repo: Path, keys: Path, first: bytes) -> None:
    """Refuse a repository whose first root is not that beside the keys. Where none is beside them, all are believed.

    Raises:
        ConfigError: it is another one.
        OSError: that beside the keys cannot be read.
    """
    try:
        anchor = read_capped(keys / ANCHOR, MAX_METADATA_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return
    if anchor != first:
        raise ConfigError(
            f"{repo} is not the repository of the keys in {keys}: it has another first root.",
            mend="Give the --repo or --keys that match, or bring the repository back from a backup.",
        )


def is_busy(repo: Path) -> ConfigError:
    """What is said to the second command that would write."""
    return ConfigError(f"Another command is writing to {repo}.", mend="Wait until it has ended, and run this again.")


def _first_keys(keys: KeyFolder, policy: Policy, roots: int) -> tuple[list[SSlibKey], list[SSlibKey], list[SSlibKey]]:
    """Keys of the root, of targets, and of what is signed often."""
    if policy.kind == "hobby":
        only = keys.take_or_make("hobby")
        return only, only, only
    return keys.take_or_make("root", roots), keys.take_or_make("targets"), keys.take_or_make("online")


def _finish_beginning(repo: Path, anchor: Path) -> None:
    """After a call that was interrupted just before its end, write what it did not; else refuse."""
    if not (repo / "metadata" / "timestamp.json").exists():
        raise ConfigError(
            f"The keys in {anchor.parent} are those of a repository that is not in {repo}.",
            mend="Give its --repo, bring it back from its web server or a backup, or begin with other --keys.",
        )
    if anchor.exists():
        raise ConfigError(
            f"There is a repository in {repo} already.", mend="Use it, or give another --repo and --keys."
        )
    chain = Chain.read(repo / "metadata")
    if not any((anchor.parent / f"{name_of(key)}.pem").exists() for key in chain.keys("root")):
        raise ConfigError(
            f"There is a repository in {repo}, of other keys.", mend="Give another --repo, or its --keys."
        )
    replace_file(anchor, chain.roots[0])
