"""The folder of a search: who may write in it, what it was begun with, what its architectures cost.

In: a folder and what is to be searched.  Out: the same study again, or why it is another. A search that was killed, at
any moment, leaves a folder that can be gone on with.
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import optuna
from msgspec import Struct

from tinysight_contract import __version__
from tinysight_contract.errors import TrainError
from tinysight_contract.files import locked, replace_file
from tinysight_trainer.config import Config, to_toml
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.int8 import Cost
from tinysight_trainer.search import Space
from tinysight_trainer.train import SETTINGS

__all__ = ["NAME", "STARTS", "Held", "begin_trial", "count_start", "open_journal", "open_study", "taken"]

STUDY: Final = "study.json"
JOURNAL: Final = "journal.log"
NAME: Final = "tune"  # of the only study in the journal
STARTS: Final = "starts.json"
MAX_STARTS: Final = 3


class Held(Struct, kw_only=True):
    """``study.json``; all but the costs must stay as it began."""

    version: str = __version__
    digest: str
    fixed: dict[str, Any]
    space: dict[str, Any]
    costs: dict[str, Cost] = {}

    def save(self, out: Path) -> None:
        """Write it in one step.

        Raises:
            OSError: the disk is full.
        """
        replace_file(out / STUDY, msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n")


@contextmanager
def taken(out: Path) -> Iterator[None]:
    """Keep a second search out of the folder; the lock ends with the process, however it ends."""
    if out.exists() and (not out.is_dir() or (_used(out) and not (out / STUDY).is_file())):
        raise TrainError(f"{out} exists already and is no study.", mend="Name another --out.")
    out.mkdir(parents=True, exist_ok=True)
    busy = TrainError(f"Another search is at work in {out}.", mend="Wait for it, or name another --out.")
    with locked(out, busy):
        yield


def open_study(out: Path, data: Dataset, fixed: Mapping[str, Any], space: Space) -> Held:
    """What the folder says of its study; a new folder is told.

    Raises:
        TrainError: it was begun with other settings, another data set or another version, or is damaged.
    """
    spaces = {name: msgspec.to_builtins(entry) for name, entry in space.items()}
    wanted = Held(digest=data.digest, fixed=dict(fixed), space=spaces)
    path = out / STUDY
    if not path.is_file():
        wanted.save(out)
        return wanted
    try:
        held = msgspec.json.decode(path.read_bytes(), type=Held)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TrainError(f"{path} is damaged: {error}.", mend="Begin anew in another --out.") from error
    if held.version != __version__:
        raise TrainError(f"{out} was begun by TinySight {held.version}.", mend="Begin anew in another --out.")
    for name, what in (("digest", "another data set"), ("fixed", "other settings"), ("space", "another [search]")):
        before, now = (msgspec.json.encode(getattr(each, name), order="sorted") for each in (held, wanted))
        if before != now:
            raise TrainError(f"{out} began with {what}.", mend="Give the same, or begin in another --out.")
    return held


class _Taken:
    """For Optuna, which would leave a lock file behind when killed; the folder is locked already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def open_journal(out: Path) -> Any:  # noqa: ANN401 -- Optuna's storage
    """Optuna's storage in the folder, which must be taken.

    Raises:
        TrainError: it is damaged.
    """
    path = out / JOURNAL
    raw = path.read_bytes() if path.is_file() else b""
    if raw and not raw.endswith(b"\n"):
        # A power cut left a part of the last line; Optuna would write on behind it and never read it again.
        replace_file(path, raw[: raw.rfind(b"\n") + 1])
    try:
        backend = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=_Taken())
        return optuna.storages.JournalStorage(backend)
    except ValueError as error:
        raise TrainError(f"{path} is damaged: {error}.", mend="Begin anew in another --out.") from error


def begin_trial(folder: Path, config: Config) -> None:
    """Make a trial's folder, or take one that was begun with the very same settings.

    Raises:
        TrainError: it is of another trial.
    """
    settings = folder / SETTINGS
    known = settings.is_file() and settings.read_bytes() == to_toml(config)
    if folder.exists() and not known and _used(folder):
        raise TrainError(f"{folder} is of another trial.", mend="Move it away, or begin in another --out.")
    folder.mkdir(exist_ok=True)
    replace_file(settings, to_toml(config))


def count_start(folder: Path, epochs: int) -> None:
    """Count how often a trial was begun since its last epoch; one that takes the process down must not do so for ever.

    Raises:
        TrainError: it was too often.
    """
    path, begun = folder / STARTS, (epochs, 0)
    if path.is_file():
        with contextlib.suppress(msgspec.MsgspecError):
            begun = msgspec.json.decode(path.read_bytes(), type=tuple[int, int])
    starts = begun[1] + 1 if begun[0] == epochs else 1
    if starts > MAX_STARTS:
        raise TrainError(f"It was killed {MAX_STARTS} times without an epoch more.", mend="Free memory.")
    replace_file(path, msgspec.json.encode((epochs, starts)))


def _used(folder: Path) -> bool:
    """Whether anything is in it but what a kill left of a first file."""
    return any(not path.name.endswith(".part") for path in folder.iterdir())
