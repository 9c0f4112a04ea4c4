"""Whether a machine can become a device, and what to do where it cannot. Pure.

In: `Facts`, and what is to be installed.  Out: `Finding`s, the worst first.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from tinysight_deploy.provisioning.probe import Facts
from tinysight_deploy.wheels.wheelhouse import Wheelhouse

__all__ = ["Finding", "findings"]

_NEEDED_MIB: Final = 600
"""Disk: the wheels, the runtime that they become, and a second one beside it while it is exchanged."""
_RUNTIME_TIMES: Final = 5
"""How much larger than its wheels all that is: 4.2 was measured."""
_LEAST_MEMORY_MIB: Final = 350
_MOST_OFFSET_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        level: ``error`` when it cannot work like that.
        what: one sentence.
        mend: what to do, one sentence.
    """

    level: Literal["error", "warning"]
    what: str
    mend: str


def findings(facts: Facts, house: Wheelhouse | None, *, own_root: bool, installed: bool) -> list[Finding]:
    """What is wrong with a device, the worst first.

    Args:
        facts: what it says of itself.
        house: what is to be installed, if anything.
        own_root: whether it is a folder of a machine, where no user is made and nothing done as root.
        installed: whether that very wheelhouse is installed already.
    """
    found = [*_unfit(facts), *([] if house is None else _unfit_for(facts, house, installed=installed))]
    if not own_root and facts.root == "no":
        found.append(
            _error(f"{facts.user} may not become root there.", "Log in as root, or allow `sudo` without a password.")
        )
    found += _to_be_told(facts, own_root=own_root)
    return sorted(found, key=lambda each: each.level)


def _unfit(facts: Facts) -> list[Finding]:
    """What rules a machine out."""
    if facts.machine.startswith(("armv6", "armv5")):
        return [_error(f"There is no runtime for {facts.kernel}.", "Take a Raspberry Pi 2 or later.")]
    if facts.machine not in {"aarch64", "x86_64", "armv7l"}:
        return [_error(f"There is no runtime for {facts.machine}.", "Take a 64-bit ARM or x86 machine.")]
    if not facts.python:
        was = f"only Python {facts.python_version}" if facts.python_version else "no Python"
        mend = "Use Raspberry Pi OS 12, Debian 12, Ubuntu 24.04 or later"
        if facts.machine != "armv7l":
            mend += ", or install python3.11 beside it"
        return [_error(f"It has {was}, and 3.11 is needed.", f"{mend}.")]
    if not facts.libc.startswith("glibc"):
        return [
            _error("Its C library is not glibc, for which the wheels are made.", "Use a system of Debian's family.")
        ]
    if facts.machine == "armv7l" and not facts.python_version.startswith("3.11."):
        return [
            _error(
                f"There is no TensorFlow Lite for 32-bit ARM and Python {facts.python_version}.",
                "Use the 64-bit Raspberry Pi OS, or the 32-bit one of version 12.",
            )
        ]
    if not facts.venv:
        return [_error("Its Python cannot make environments.", "Install the package `python3-venv` there.")]
    return []


def _unfit_for(facts: Facts, house: Wheelhouse, *, installed: bool) -> list[Finding]:
    """What rules a wheelhouse out."""
    if facts.python and house.target != facts.target:
        return [
            _error(
                f"The wheelhouse is for {house.target}, and the device is {facts.target}.",
                f"Make one with `tinysight wheelhouse --target {facts.target}`.",
            )
        ]
    has = tuple(map(int, re.findall(r"\d+", facts.libc)[:2]))
    if has and has < tuple(map(int, house.glibc.split("."))):
        return [_error(f"The wheels need glibc {house.glibc}, and it has {facts.libc}.", "Use a later system there.")]
    needed = 50 if installed else max(_NEEDED_MIB, (house.size_bytes >> 20) * _RUNTIME_TIMES)
    if facts.disk_mib < needed:
        return [
            _error(
                f"{facts.disk_mib} MiB are free there, and {needed} are needed.", "Make room, or take a larger card."
            )
        ]
    return []


def _to_be_told(facts: Facts, *, own_root: bool) -> list[Finding]:
    """What works, and not well."""
    found = []
    if facts.memory_mib < _LEAST_MEMORY_MIB:
        found.append(_warning(f"It has {facts.memory_mib} MiB of memory.", "Run small models only, at a low rate."))
    if abs(facts.clock_off_s) > _MOST_OFFSET_S:
        found.append(
            _warning(
                f"Its clock is {abs(facts.clock_off_s):.0f} s {'ahead' if facts.clock_off_s > 0 else 'behind'}.",
                "Give it NTP or a battery: it believes no certificate that begins later.",
            )
        )
    elif facts.clock_synced is False:
        found.append(_warning("Its clock is not set by the network.", "Give it NTP: `timedatectl set-ntp true`."))
    if not facts.cameras and not facts.picamera:
        found.append(_warning("No camera was found.", "Plug one in, or name a network camera in agent.toml."))
    if not facts.systemd_runs and not own_root:
        found.append(_warning("systemd does not run there.", "Start the agent by other means after each boot."))
    elif 0 < facts.systemd < 252:
        found.append(_warning(f"systemd is {facts.systemd}; the unit was made for 252.", "Look at `systemctl status`."))
    return found


def _error(what: str, mend: str) -> Finding:
    return Finding("error", what, mend)


def _warning(what: str, mend: str) -> Finding:
    return Finding("warning", what, mend)
