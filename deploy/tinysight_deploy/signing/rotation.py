"""Keys begin, are changed for others, and end; a kill at any moment leaves a repository that devices accept.

A key is replaced wherever it signs. The way of it, so that a reader believes what it sees at each step:

1. the new key's file, and then ``rotation.json`` beside the keys, which says what is to be done;
2. the new key signs what the old one signed as well: devices with the old root and with the new one believe it;
3. the next root, signed by the keys of both;
4. all that the old key signed, anew and by the new key alone; ``timestamp.json`` last;
5. ``rotation.json`` goes.

What was interrupted is finished by the next command that writes. Roots are never removed: each device goes from the one
that it was given to the newest, step by step.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from securesystemslib.signer import Key  # type: ignore[attr-defined]  # public, though not listed
from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]  # public, though not listed

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import fsync_folder, locked, read_capped, replace_file
from tinysight_deploy.signing.beginning import is_busy, refuse_exchanged
from tinysight_deploy.signing.keys import KeyFolder, name_of
from tinysight_deploy.signing.metadata import MAX_METADATA_BYTES, TOP, Chain, ends, publish, sign, signers_for

__all__ = ["Turn", "current_keys", "revoke", "rotate", "writing"]

JOURNAL: Final = "rotation.json"


class Turn(msgspec.Struct, frozen=True):
    """One replacement of keys.

    Attributes:
        keys: by the id of the old key, the old one and the new one, each with its id and its public half.
    """

    keys: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]]

    def former(self) -> list[Key]:
        """The old keys."""
        return [Key.from_dict(keyid, dict(public)) for (keyid, public), _ in self.keys.values()]

    def new(self) -> dict[str, Key]:
        """By the id of the old key, the new one."""
        return {old: Key.from_dict(keyid, dict(public)) for old, (_, (keyid, public)) in self.keys.items()}

    def names(self) -> dict[str, str]:
        """Of the old keys, and of those that took their places."""
        new = self.new()
        return {name_of(key): name_of(new[key.keyid]) for key in self.former()}


@contextmanager
def writing(repo: Path, keys: KeyFolder, *, now: datetime, busy: Exception | None = None) -> Iterator[Chain]:
    """Have the repository to oneself, in its present state; a change of keys that was interrupted is finished first.

    Raises:
        ConfigError: there is none, it is damaged, it is not that of these keys, or another command writes to it
            (then ``busy``, if that is given).
        OSError: it cannot be read or written.
    """
    if not repo.is_dir():
        Chain.read(repo / "metadata")  # says what is missing
    with locked(repo, busy or is_busy(repo)):
        chain = Chain.read(repo / "metadata")
        refuse_exchanged(repo, keys.folder, chain.roots[0])
        if (begun := _journal(keys)) is not None:
            _turn(repo, keys, chain, begun, now)
            chain = Chain.read(repo / "metadata")
        yield chain


def rotate(repo: Path, keys: KeyFolder, role: str, *, now: datetime) -> dict[str, str]:
    """Replace all keys of a role, wherever they sign; the names of old and new ones.

    Raises:
        ConfigError: there is no such role, or a key that must sign is not here.
        OSError: a file cannot be read or written.
    """
    begun = _journal(keys)
    with writing(repo, keys, now=now) as chain:
        role = "timestamp" if role == "online" else role
        if role not in chain.roles():
            raise ConfigError(f"There is no role {role!r}.", mend=f"Choose one of: {', '.join(chain.roles())}, online.")
        current = {key.keyid: key for key in chain.keys(role)}
        if begun is not None and any(key.keyid in current for key in begun.new().values()):
            return begun.names()  # it was this one, and has just been finished
        return _replace(repo, keys, chain, current, now)


def revoke(repo: Path, keys: KeyFolder, wanted: str, *, now: datetime) -> dict[str, str]:
    """Replace one key, wherever it signs; the names of old and new. Empty when it was revoked before.

    Args:
        repo: the repository.
        keys: the folder with the keys; the one that is revoked need not be there unless the root cannot do without.
        wanted: the id of the key, at least 6 digits of its beginning, or its name.
        now: the time.

    Raises:
        ConfigError: there never was such a key, or a key that must sign is not here.
        OSError: a file cannot be read or written.
    """
    begun = _journal(keys)
    with writing(repo, keys, now=now) as chain:
        current = current_keys(chain)
        if len(found := _matching(current.values(), wanted)) > 1:
            raise ConfigError(f"{wanted!r} begins the ids of several keys.", mend="Give more digits.")
        if found:
            return _replace(repo, keys, chain, {key.keyid: key for key in found}, now)
        if begun is not None and _matching(begun.former(), wanted):
            return begun.names()
        roots = [Metadata[Root].from_bytes(raw).signed for raw in chain.roots]
        if _matching([key for root in roots for key in root.keys.values()], wanted):
            return {}
        known = ", ".join(sorted(map(name_of, current.values())))
        raise ConfigError(f"No key is called {wanted!r}.", mend=f"Choose one of: {known}.")


def current_keys(chain: Chain) -> dict[str, Key]:
    """All keys that sign something, by id."""
    return {key.keyid: key for role in chain.roles() for key in chain.keys(role)}


def _replace(repo: Path, keys: KeyFolder, chain: Chain, old: Mapping[str, Key], now: datetime) -> dict[str, str]:
    """Make a new key for each old one and have it take its place."""
    _refuse_unable(chain, keys, old)
    new = {keyid: keys.make(name_of(key).rpartition("-")[0])[0] for keyid, key in old.items()}
    turn = Turn({keyid: (_plain(old[keyid]), _plain(key)) for keyid, key in new.items()})
    replace_file(keys.folder / JOURNAL, msgspec.json.encode(turn))
    _turn(repo, keys, chain, turn, now)
    return turn.names()


def _refuse_unable(chain: Chain, keys: KeyFolder, old: Mapping[str, Key]) -> None:
    """Say which keys are missing before any new one is made. The new keys sign in place of the old ones."""
    touched = {role for role in chain.roles() if {key.keyid for key in chain.keys(role)} & set(old)}
    if touched & set(TOP):
        signers_for(chain, "root", keys)
    if touched - set(TOP):
        touched.add("targets")
    if touched != {"root"}:
        for role in touched | {"snapshot", "timestamp"}:
            if not {key.keyid for key in chain.keys(role)} <= set(old):
                signers_for(chain, role, keys)


def _turn(repo: Path, keys: KeyFolder, chain: Chain, turn: Turn, now: datetime) -> None:
    """Go from the old keys to the new ones; from wherever an earlier call was interrupted."""
    folder, new = repo / "metadata", turn.new()
    ids = {key.keyid for key in new.values()}
    if any(key.keyid in new for role in TOP for key in chain.keys(role)):
        chain = _turn_root(folder, keys, chain, new, now)
    if (delegations := chain.targets.signed.delegations) is not None:
        for role in (delegations.roles or {}).values():
            for old, key in new.items():
                if old in role.keyids:
                    delegations.keys[key.keyid] = key
                    role.keyids = [key.keyid if each == old else each for each in role.keyids]
        for old in new:
            delegations.keys.pop(old, None)
    changed = {role for role in chain.roles() if role != "root" and any(key.keyid in ids for key in chain.keys(role))}
    if changed - set(TOP):
        changed.add("targets")
    if changed:
        publish(folder, chain, changed, keys, now=now)
    (keys.folder / JOURNAL).unlink()
    fsync_folder(keys.folder)


def _turn_root(folder: Path, keys: KeyFolder, chain: Chain, new: Mapping[str, Key], now: datetime) -> Chain:
    """Publish the next root; what it vouches for is signed so that both roots believe it before."""
    after = chain.copied()
    root = after.root.signed
    for old, key in new.items():
        if root.keys.pop(old, None) is not None:
            root.keys[key.keyid] = key
    for each in root.roles.values():
        each.keyids = [new[keyid].keyid if keyid in new else keyid for keyid in each.keyids]
    root.version += 1
    root.expires = ends(now, chain.policy.days.root)
    sign(after.root, [*signers_for(chain, "root", keys), *signers_for(after, "root", keys)])
    for role in ("targets", "snapshot", "timestamp"):
        if {key.keyid for key in chain.keys(role)} & set(new):
            metadata = after.of(role)
            for signer in signers_for(after, role, keys):
                metadata.sign(signer, append=True)
            name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
            replace_file(folder / name, metadata.to_bytes())
    replace_file(folder / f"{root.version}.root.json", after.root.to_bytes())
    return after


def _journal(keys: KeyFolder) -> Turn | None:
    """The change of keys that was interrupted, if one was.

    Raises:
        ConfigError: the journal cannot be understood.
    """
    path = keys.folder / JOURNAL
    try:
        return msgspec.json.decode(read_capped(path, MAX_METADATA_BYTES), type=Turn)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} cannot be understood: {error}.", mend="Take it from a backup.") from error


def _matching(keys: Iterable[Key], wanted: str) -> list[Key]:
    """Those with this name, or whose id begins so, each once."""
    long = len(wanted) >= 6
    return list({k.keyid: k for k in keys if name_of(k) == wanted or (long and k.keyid.startswith(wanted))}.values())


def _plain(key: Key) -> tuple[str, dict[str, Any]]:
    return key.keyid, key.to_dict()
