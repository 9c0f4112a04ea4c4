"""Which checks there are, and how they run: each in its own child process, ended when its time is over.

In: `Options`.  Out: `Result`s, one after another, always in the same order.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import msgspec

from tinysight_contract.errors import ConfigError
from tinysight_edge.doctor.child import CHECKS
from tinysight_edge.doctor.result import Result, fail, skip
from tinysight_edge.doctor.subject import Options, Subject, subject_of

__all__ = ["examine", "names_of"]

TIMEOUT_S: Final = {"packages": 30.0, "runtime": 30.0, "disk": 30.0, "model": 60.0, "broker": 20.0, "fleet": 25.0}
ELSE_S: Final = 15.0
KILLED_S: Final = 1.0
ALONE: Final = ("disk", "model")  # they measure, so nothing else may run beside them
AT_ONCE: Final = 4
_MEND: Final = {
    "camera": "Check its network, cable and power; a driver that hangs needs the device switched off and on.",
    "broker": "Check the network and the broker.",
    "fleet": "Check the network and the server.",
    "disk": "Check the disk: `dmesg | tail`; a network folder may be away.",
}


def names_of(subject: Subject) -> list[str]:
    """All checks, in their order; each camera has its own, and only some devices have a fleet's server."""
    cameras = [f"camera {name}" for name in subject.cameras] or ["camera"]
    names = {"camera": cameras, "fleet": ["fleet"] if subject.fleet is not None else []}
    return [name for kind in CHECKS for name in names.get(kind, [kind])]


def examine(options: Options) -> Iterator[Result]:
    """Run all checks; without a configuration that can be read, those that need none."""
    begun_s = time.monotonic()
    try:
        subject = subject_of(options)
    except ConfigError as error:
        took_ms = round((time.monotonic() - begun_s) * 1e3, 1)
        yield msgspec.structs.replace(fail(error.what, error.mend), check="config", took_ms=took_ms)
        options = msgspec.structs.replace(options, config=None)
        subject = subject_of(options)
        names = [name for name in names_of(subject) if name != "config"]
    else:
        names = names_of(subject)
    alone = [name for name in names if name in ALONE]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda name: _run(name, options, subject), (each for each in names if each not in alone))
    for name in alone:
        yield _run(name, options, subject)


def _run(name: str, options: Options, subject: Subject) -> Result:
    """One check in its child."""
    begun_s = time.monotonic()
    kind, _, camera = name.partition(" ")
    if kind == "camera" and not camera:
        found = skip("No camera is named.", "Give --source or --config.")
    else:
        limit_s = TIMEOUT_S.get(kind, ELSE_S)
        if camera:
            config = subject.cameras[camera]
            limit_s += config.open_timeout + config.read_timeout + options.seconds
        found = _child(name, msgspec.json.encode(options), limit_s)
    return msgspec.structs.replace(found, check=name, took_ms=round((time.monotonic() - begun_s) * 1e3, 1))


def _child(name: str, options: bytes, limit_s: float) -> Result:
    command = [sys.executable, "-m", "tinysight_edge.doctor.child", name]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        answer, _ = child.communicate(options, timeout=limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=KILLED_S)  # what hangs in the kernel cannot be ended; it is left behind
        mend = _MEND.get(name.partition(" ")[0], "Run it again; if it hangs again, restart the machine.")
        return fail(f"It did not end within {limit_s:.0f} s.", mend)
    try:
        return msgspec.json.decode(answer, type=Result)
    except msgspec.MsgspecError:
        died = signal.Signals(-child.returncode).name if child.returncode < 0 else f"status {child.returncode}"
        mend = "Install it again: `pip install --force-reinstall 'tinysight[edge]'`."
        if died == "SIGILL":
            mend = "This build needs another processor; install a build for this one, or a 64-bit system."
        return fail(f"The check died with {died}.", mend)
