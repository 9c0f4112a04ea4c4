"""Checks of files: the configuration, the state folder's disk, and who may read and write what."""

import getpass
import grp
import os
import re
import shutil
import stat
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError, StoreError
from tinysight_edge.config.file import check_config
from tinysight_edge.doctor.result import Result, Verdict, fail, ok, skip, warn
from tinysight_edge.doctor.subject import Subject

__all__ = ["config", "disk", "rights"]

LEAST_FREE_MIB: Final = (50, 500)
WRITE_MIB: Final = 8
SYNCS: Final = 8
SLOW_SYNC_MS: Final = 250.0
NO_STATE: Final = "No state folder is named.", "Give --state or --config."
DEVICE: Final = re.compile(r"(?:/dev/video)?(\d{1,3})")


def config(subject: Subject) -> Result:
    """What `tinysight config check` says. A wrong one never comes here: without it there is nothing to check."""
    if subject.options.config is None:
        return skip("No configuration is named.", "Give --config agent.toml.")
    checked = check_config(Path(subject.options.config), environ=os.environ)
    about = f"{subject.options.config}: {len(subject.cameras)} cameras"
    if checked.findings:
        first, more = checked.findings[0], len(checked.findings) - 1
        also = f" ({more} more: `tinysight config check {subject.options.config}`)" if more else ""
        verdict = Verdict.FAIL if checked.errors else Verdict.WARN
        return Result(verdict=verdict, what=checked.say(first) + also, mend=first.mend)
    return ok(f"{about}, nothing to mend.", {"cameras": len(subject.cameras)})


def disk(subject: Subject) -> Result:
    """Room, and how long it takes until a small file is surely on the disk."""
    if subject.state is None:
        return skip(*NO_STATE)
    folder = _nearest(subject.state)
    free_mib = shutil.disk_usage(folder).free // 2**20
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
            speed, syncs_ms = _measure(Path(scratch))
    except OSError as error:
        if error.errno in {28, 122}:  # no space, no quota
            return fail(f"{folder} is full.", "Free some space: `du -xh --max-depth=2 / | sort -h | tail`.")
        return fail(
            f"{folder} cannot be written: {error.strerror}.", f"Run `sudo chown -R {getpass.getuser()} {folder}`."
        )
    sync_ms = statistics.median(syncs_ms)
    figures = {"free_mib": free_mib, "write_mib_s": round(speed, 1), "fsync_ms": round(sync_ms, 2)}
    about = f"{folder}: {free_mib} MiB free, writes {speed:.0f} MiB/s, syncs in {sync_ms:.1f} ms"
    low = "Free some space: `du -xh --max-depth=2 / | sort -h | tail`."
    if free_mib < LEAST_FREE_MIB[0]:
        return fail(f"{about}; too little for the outbox.", low, figures)
    if free_mib < LEAST_FREE_MIB[1]:
        return warn(f"{about}; little for snapshots and examples.", low, figures)
    if sync_ms > SLOW_SYNC_MS:
        mend = "Replace the card; a worn one gets slow before it breaks."
        return warn(f"{about}; that is slow.", mend, figures)
    return ok(f"{about}.", figures)


def _measure(folder: Path) -> tuple[float, list[float]]:
    """MiB a second of one large write with its sync, and the milliseconds of small ones."""
    block = os.urandom(2**20)
    begun_s = time.perf_counter()
    with (folder / "large").open("wb") as out:
        for _ in range(WRITE_MIB):
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    speed, syncs_ms = WRITE_MIB / (time.perf_counter() - begun_s), []
    with (folder / "small").open("wb") as out:
        for _ in range(SYNCS):
            begun_s = time.perf_counter()
            out.write(block[:4096])
            out.flush()
            os.fsync(out.fileno())
            syncs_ms.append((time.perf_counter() - begun_s) * 1e3)
    return speed, syncs_ms


def _nearest(folder: Path) -> Path:
    """The folder, or what it will be made in.

    Raises:
        StoreError: a folder on the way may not be entered.
    """
    folder = folder.absolute()
    for each in (folder, *folder.parents):
        try:
            each.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            shut = _shut(each)
            user = getpass.getuser()
            mend = f"Run `sudo chmod o+x {shut}`, or `sudo chown {user} {shut}` if it is to be {user}'s."
            raise StoreError(f"{user} may not enter {shut}.", mend=mend) from error
        return each
    return Path(folder.anchor)


def _shut(path: Path) -> Path:
    """The outermost folder above that may not be entered."""
    return next((each for each in reversed(path.parents) if not os.access(each, os.X_OK)), path.parent)


def rights(subject: Subject) -> Result:
    """Who may write the state folder, read the passwords, and open the cameras."""
    user = getpass.getuser()
    for part in subject.parts:
        try:
            subject.secret(part)
        except ConfigError as error:
            return fail(error.what, error.mend)
    for camera in subject.cameras.values():
        if (device := DEVICE.fullmatch(camera.source)) is None:
            continue
        path = Path(f"/dev/video{device[1]}")
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            group = grp.getgrgid(path.stat().st_gid).gr_name
            mend = f"Run `sudo usermod -aG {group} {user}` and log in again."
            return fail(f"{user} may not open {path}.", mend)
    if subject.state is None:
        return ok("Nothing that is named is closed to us.") if subject.cameras else skip(*NO_STATE)
    folder = _nearest(subject.state)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        mend = f"Run `sudo chown -R {user} {folder}`."
        return fail(f"{user} may not write {folder}.", mend)
    if folder == subject.state.absolute() and folder.stat().st_mode & stat.S_IWOTH:
        return warn(f"Everybody may write {folder}.", f"Run `chmod o-w {folder}`.")
    made = "" if folder == subject.state.absolute() else f" (will be made in {folder})"
    return ok(f"{user} may write {subject.state}{made}.")
