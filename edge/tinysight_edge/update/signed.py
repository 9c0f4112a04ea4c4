"""What a project signs about its bundle, and whether this machine can use it.

In: the target's ``custom`` field in the signed metadata.  Out: `Signed`, every length of it bounded. `lack` compares
what a bundle needs with what a `Machine` is; only `Machine.here` looks at one.
Canonical JSON, over which signatures are made, has no fractions: every number here is a whole one.
"""

import platform
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
from msgspec import Meta, Struct

from tinysight_contract import __version__
from tinysight_contract.errors import UpdateError
from tinysight_contract.manifest import Version
from tinysight_contract.scalars import Digest, Id, Time
from tinysight_contract.updates import Code

__all__ = ["EDGE_TPU", "Delta", "Machine", "Requires", "Signed", "lack", "parse_signed"]

EDGE_TPU: Final = "edgetpu"
MAX_WHOLE: Final = 2**53 - 1
"""The largest number that every reader of JSON keeps exactly."""

Whole = Annotated[int, Meta(ge=0, le=MAX_WHOLE)]
Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}(?![\s\S])")]
VersionOrAny = Annotated[str, Meta(pattern=r"^(\d{1,9}\.\d{1,9}\.\d{1,9}([-+][0-9A-Za-z.+-]{1,40})?)?(?![\s\S])")]
DeltaPath = Annotated[str, Meta(pattern=r"^deltas/[0-9a-f]{64}-[0-9a-f]{64}\.delta(?![\s\S])")]

_EDGE_TPU_USB: Final = {("1a6e", "089a"), ("18d1", "9302")}  # before and after its firmware was loaded
_SYNTAX: Final = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(-?)")


class Requires(Struct, frozen=True, kw_only=True):
    """What a bundle needs of a machine.

    Attributes:
        arch: names as ``platform.machine()`` gives them, such as ``aarch64``; empty is any.
        min_memory_mib: that the machine has in total.
        accelerator: ``edgetpu``; empty is none.
        min_tinysight: the oldest TinySight that runs it; empty is any.
    """

    arch: Annotated[list[Word], Meta(max_length=16)] = []
    min_memory_mib: Whole = 0
    accelerator: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{0,32}(?![\s\S])")] = ""
    min_tinysight: VersionOrAny = ""


class Delta(Struct, frozen=True, kw_only=True):
    """The way from one bundle to this one.

    Attributes:
        path: where it lies in the repository.
        size_bytes: of the delta file.
        sha256: of the delta file.
    """

    path: DeltaPath
    size_bytes: Whole
    sha256: Digest


class Signed(Struct, frozen=True, kw_only=True):
    """What a project says of its bundle. Fields that are not known here are left alone.

    Attributes:
        name: the bundle's name.
        version: the bundle's version, such as ``1.2.0``.
        release: rises with each release.
        released_at: when it was signed.
        requires: what it needs of a machine.
        deltas: by the digest of the bundle that they start from.
    """

    name: Id
    version: Annotated[Version, Meta(max_length=100)]
    release: Whole
    released_at: Time
    requires: Requires = Requires()
    deltas: Annotated[dict[Digest, Delta], Meta(max_length=64)] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What bundles may need.

    Attributes:
        arch: of the Python that runs here, as ``platform.machine()`` names it.
        memory_mib: in total.
        accelerators: that are attached.
        tinysight: the version that runs here.
    """

    arch: str
    memory_mib: int
    accelerators: frozenset[str] = frozenset()
    tinysight: str = __version__

    @classmethod
    def here(cls, root: Path = Path("/")) -> Self:
        """This machine. What cannot be found out counts as not there; ``root`` is where /proc, /sys and /dev lie."""
        arch = platform.machine()
        if arch == "aarch64" and struct.calcsize("P") == 4:
            arch = "armv7l"  # a 32-bit system under a 64-bit kernel
        found = {EDGE_TPU} if _has_edge_tpu(root) else set()
        return cls(arch=arch, memory_mib=_memory_mib(root), accelerators=frozenset(found))


def parse_signed(custom: Mapping[str, object] | None) -> Signed:
    """Read the ``custom`` field of a target.

    Raises:
        UpdateError: MALFORMED, it is missing or says something that cannot be.
    """
    try:
        return msgspec.convert(custom, Signed)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UpdateError(
            f"What is signed about this bundle cannot be read: {error}.",
            mend="Release it again with `tinysight release add`; if that was newer, update TinySight here.",
            code=Code.MALFORMED,
        ) from error


def lack(requires: Requires, machine: Machine) -> tuple[Code, str] | None:
    """Why a machine cannot use a bundle, for programs and for people, or None."""
    if requires.arch and machine.arch not in requires.arch:
        return Code.HARDWARE, f"it is made for {', '.join(requires.arch)}, this machine is {machine.arch}"
    if machine.memory_mib < requires.min_memory_mib:
        return Code.HARDWARE, f"it needs {requires.min_memory_mib} MiB of memory, this machine has {machine.memory_mib}"
    if requires.accelerator and requires.accelerator not in machine.accelerators:
        return Code.HARDWARE, f"it needs the accelerator {requires.accelerator}, which is not attached here"
    if requires.min_tinysight and _order(machine.tinysight) < _order(requires.min_tinysight):
        return Code.RUNTIME, f"it needs TinySight {requires.min_tinysight}, here is {machine.tinysight}"
    return None


def _order(version: str) -> tuple[int, int, int, bool]:
    """What versions sort by: 1.2.0-rc1 before 1.2.0; what is no version before all."""
    if (found := _SYNTAX.match(version)) is None:
        return (0, 0, 0, False)
    major, minor, patch, before = found.groups()
    return (int(major), int(minor), int(patch), not before)


def _memory_mib(root: Path) -> int:
    try:
        text = (root / "proc/meminfo").read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return 0
    found = re.search(r"^MemTotal:\s+(\d{1,15}) kB", text, re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def _has_edge_tpu(root: Path) -> bool:
    """Whether one is on the PCIe bus or on USB."""
    if (root / "dev/apex_0").exists():
        return True
    for vendor in (root / "sys/bus/usb/devices").glob("*/idVendor"):
        try:
            ids = (vendor.read_text("ascii").strip(), vendor.with_name("idProduct").read_text("ascii").strip())
        except (OSError, UnicodeDecodeError):
            continue  # it was pulled out just now
        if ids in _EDGE_TPU_USB:
            return True
    return False
